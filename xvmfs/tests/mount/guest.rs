//! `domains/NAME/guest/`: each row and verb through a real mount, with guests that answer over the in-memory bus.

mod noise;
mod peer;
mod rows;
mod runs;
mod top;

pub use peer::{Guest, liar};
