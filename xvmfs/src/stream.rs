//! Open `events` files.

use xvm_model::Event;

/// The length of the first line of every stream, `TIME listening` with its end.
pub const HEAD_LEN: usize = 35;

/// All open streams of a mount.
#[derive(Debug, Default)]
pub struct Streams {}

impl Streams {
    /// Gives each event to the streams that hear it.
    pub fn tell(&self, _events: &[Event]) {}
}
