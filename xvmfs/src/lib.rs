//! xvm's file system: the cluster as files.
//!
//! | file | what |
//! |---|---|
//! | [`row`], [`tables`] | the files, one row each: name, mode, one line about it, functions |
//! | [`inode`] | inode numbers, computed |
//! | [`tree`] | lookup, listing, attributes, open: the tree without FUSE |
//! | [`cluster`] | what the mount knows, and the task that feeds it from the bus |
//! | [`orders`] | from a line in a file to the answer of the daemon that carries it out |
//! | [`stream`] | open `events` files |
//! | [`json`], [`metrics`], [`refusals`] | the files `json`, `metrics`, `error` |

pub mod cluster;
pub mod inode;
pub mod json;
pub mod metrics;
pub mod orders;
pub mod refusals;
pub mod row;
pub mod stream;
pub mod tables;
pub mod tree;
