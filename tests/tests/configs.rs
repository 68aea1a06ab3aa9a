//! Configs through the mounted tree, with real images, real exports and leases: simulated servers here, QEMU hosts in `qemu`.
//!
//! If one of these fails, a user cannot make, start, clone, change or remove a machine by file operations, or a disk may have two
//! writers.

#[path = "configs/kills.rs"]
mod kills;
#[path = "configs/life.rs"]
mod life;
#[path = "configs/once.rs"]
mod once;
#[path = "configs/stage.rs"]
mod stage;
