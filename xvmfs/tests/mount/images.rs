//! `configs/`: each row and verb through a real mount, with an imaged that answers over the in-memory bus.

mod peer;
mod rights;
mod rows;
mod verbs;

pub use peer::Peer;
