//! The files, a table for each kind of directory. Adding a file is adding one row.

pub mod cluster;
pub mod config;
pub mod domain;
pub mod guest;
pub mod round;
pub mod server;
pub mod test;
