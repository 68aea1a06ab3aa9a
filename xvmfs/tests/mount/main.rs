//! The mount as programs see it: a real mount over the in-memory bus. If these fail, ordinary tools cannot be trusted with the tree.

// a test's own surprise is its failure
#![allow(clippy::unwrap_used)]

mod agent;
mod ctl;
mod events;
mod files;
mod guest;
mod help;
mod images;
mod kit;
mod life;
mod trouble;
