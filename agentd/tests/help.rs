//! If one of these fails, an overloaded server gets no help, or help does harm.
//!
//! Three to five agents on the in-memory bus, with all of its faults, over hypervisors that share their CPUs fairly, whose migrations
//! take time, fail, lie, and outlive their agent. Time is paused, so each seed runs the same way each time. Moves are counted and judged
//! by the hypervisors, whatever agents say.

#[path = "help/cluster.rs"]
mod cluster;
#[path = "help/errand.rs"]
mod errand;
#[path = "help/guards.rs"]
mod guards;
#[path = "driver/rig.rs"]
mod rig;
#[path = "help/settings.rs"]
mod settings;
#[path = "help/storm.rs"]
mod storm;
#[path = "help/story.rs"]
mod story;
#[path = "driver/world.rs"]
mod world;
