//! The mount as programs see it: a real mount over the in-memory bus. If these fail, ordinary tools cannot be trusted with the tree.

mod agent;
mod ctl;
mod events;
mod files;
mod kit;
mod life;
