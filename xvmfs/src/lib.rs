//! xvm's file system: the cluster as files.
//!
//! | file | what |
//! |---|---|
//! | [`row`], [`tables`] | the files, one row each: name, mode, one line about it, functions |
//! | [`inode`] | inode numbers, computed |
//! | [`rights`] | whose a directory is, as `chown` and `chmod` on a config say |
//! | [`tree`] | lookup, listing, attributes, open: the tree without FUSE |
//! | [`cluster`] | what the mount knows, and the task that feeds it from the bus |
//! | [`schedules`] | schedules of tests: this mount's own, and the task that carries them out |
//! | [`orders`] | from a line in a file to the answer of the daemon that carries it out |
//! | [`stream`] | open `events` files |
//! | [`tops`] | guests whose processes are read, and how they are asked |
//! | [`handle`] | open files without FUSE |
//! | [`fuse`] | the adapter between the kernel and the tree |
//! | [`mount`], [`background`] | the mount point; going to the background |
//! | [`config`], [`run`] | flags; a mount from its beginning to its end |
//! | [`json`], [`metrics`], [`refusals`] | the files `json`, `metrics`, `error` |

pub mod background;
pub mod cluster;
pub mod config;
pub mod fuse;
pub mod handle;
pub mod inode;
pub mod json;
pub mod metrics;
pub mod mount;
pub mod orders;
pub mod refusals;
pub mod rights;
pub mod row;
pub mod run;
pub mod schedules;
pub mod stream;
pub mod tables;
pub mod tops;
pub mod tree;
pub mod trouble;
