//! What a forwarder counts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};
use xvm_model::Counters;

/// What the forwarder has done; written by its thread, read by any.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) subscriptions: AtomicU64,
    start: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            start: Instant::now(),
        }
    }
}

impl Meter {
    pub(super) fn read(&self) -> Counters {
        Counters {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            subscriptions: self.subscriptions.load(Relaxed),
            uptime: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            protected: false,
        }
    }
}
