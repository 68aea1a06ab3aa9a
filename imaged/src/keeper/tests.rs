//! The keeper without a world: inputs in, effects out.

mod files;
mod orders;
mod rig;
mod starts;
mod storm;
