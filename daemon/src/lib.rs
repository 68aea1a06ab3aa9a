//! What xvm's daemons do alike.
//!
//! | file | what |
//! |---|---|
//! | [`dir`] | a daemon's own directory: held by one, numbers its lives, keeps files whole |
//! | [`start`] | its name, its log, the signals that end it |

pub mod dir;
pub mod start;

pub use dir::{Dir, StateError, write_whole};
pub use start::{ending, log, server_name};
