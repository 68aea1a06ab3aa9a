//! Counters of one connection to the bus, for `metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a connection has done since its start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        /// The same as [`Counts`], written by the sockets' thread, publishers and the receiver at once.
        #[derive(Debug, Default)]
        pub(crate) struct Meter { $(pub(crate) $name: AtomicU64,)* }

        impl Meter {
            /// The values now.
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Messages that the receiver was given.
    received,
    /// Bytes of all messages that arrived, topics included.
    received_bytes,
    /// Messages that were dropped because they were not of the bus's form.
    malformed,
    /// Messages that were dropped because a guest said too much.
    flooded,
    /// Messages that were dropped because they came under a guest's name without its signature.
    forged,
    /// Messages that were dropped because they came a second time, or were of a sender's earlier life.
    doubled,
    /// Messages that were dropped because the receiver was too slow.
    overrun,
    /// Messages that were handed to the bus.
    sent,
    /// Messages that were not sent: the queue was full, there was no forwarder, or they were too long.
    unsent,
    /// Times that the link came up.
    links,
}

/// Counts one more.
pub(crate) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts `n` more.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}
