//! Wakes those who wait for an open file: held reads, and poll(2).

use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Called once when there is something to read; calls the kernel, so it is called outside of all locks.
pub type Waker = Box<dyn FnOnce() + Send>;

/// One open file's bell.
#[derive(Default)]
pub struct Bell {
    held: Notify,
    /// The kernel keeps one poll handle for each open file; the last waker speaks for all who poll it.
    poller: Mutex<Option<Waker>>,
}

impl Bell {
    /// Wakes all held reads and the one who polls.
    pub fn ring(&self) {
        self.held.notify_waiters();
        let poller = self.poller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(wake) = poller {
            wake();
        }
    }

    /// Keeps a waker for the next ring. The caller asks again afterwards whether there is something to read.
    pub fn arm(&self, waker: Waker) {
        // the old one is dropped outside of the lock
        let old = self.poller.lock().unwrap_or_else(PoisonError::into_inner).replace(waker);
        drop(old);
    }

    /// Waits for `ready` to give something; it is asked at once and after each ring.
    pub async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        loop {
            let rung = self.held.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if let Some(value) = ready() {
                return value;
            }
            rung.await;
        }
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bell")
    }
}
