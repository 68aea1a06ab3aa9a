//! The bounded queue of raw messages between whoever reads the wire and the receiver.
//!
//! Bounded in messages and in bytes; what does not fit is dropped and counted. The sockets' thread goes on reading meanwhile: libzmq
//! takes a socket that nobody reads for a dead one, and what comes later is worth more than what waits.

use crate::publisher::Frames;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};
use tokio::{sync::mpsc, time::Instant};

/// Messages that wait at most.
const COUNT: usize = 16_384;
/// Bytes that wait at most; one message more may be taken while less than this waits.
const BYTES: usize = 32 << 20;

/// One message that waits.
#[derive(Debug)]
pub(crate) struct Raw {
    /// When the in-memory net delivers it; none: at once.
    pub(crate) due: Option<Instant>,
    /// It.
    pub(crate) frames: Frames,
}

/// The wire's end.
pub(crate) struct Inlet {
    sender: mpsc::Sender<Raw>,
    /// Bytes that wait.
    bytes: Arc<AtomicUsize>,
}

/// The receiver's end.
pub(crate) struct Outlet {
    receiver: mpsc::Receiver<Raw>,
    /// Bytes that wait.
    bytes: Arc<AtomicUsize>,
    /// Tells the reader of the wire that nobody listens any more.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A queue; `wake` is called when the receiver's end is dropped.
pub(crate) fn queue(wake: Box<dyn Fn() + Send + Sync>) -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::channel(COUNT);
    let bytes = Arc::<AtomicUsize>::default();
    (Inlet { sender, bytes: bytes.clone() }, Outlet { receiver, bytes, wake })
}

impl Inlet {
    /// Puts a message in; false when it was dropped, because the queue is full or nobody receives any more.
    pub(crate) fn put(&self, raw: Raw) -> bool {
        if self.bytes.load(SeqCst) >= BYTES {
            return false;
        }
        let len = raw.frames.len();
        self.bytes.fetch_add(len, SeqCst);
        let taken = self.sender.try_send(raw).is_ok();
        if !taken {
            self.bytes.fetch_sub(len, SeqCst);
        }
        taken
    }

    /// Whether the receiver is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Outlet {
    /// The next message; none when the wire's end is gone.
    pub(crate) async fn take(&mut self) -> Option<Raw> {
        let raw = self.receiver.recv().await?;
        self.bytes.fetch_sub(raw.frames.len(), SeqCst);
        Some(raw)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.receiver.close();
        (self.wake)();
    }
}
