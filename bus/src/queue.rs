//! The bounded queue of raw messages between whoever reads the wire and the receiver.
//!
//! Bounded in messages and in bytes. When it is full the sockets' thread stops reading, so that libzmq's high-water mark drops;
//! when half of it is free again the receiver wakes that thread.

use crate::publisher::Frames;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
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

/// What both ends know.
#[derive(Default)]
struct State {
    /// Bytes that wait.
    bytes: AtomicUsize,
    /// The reader of the wire has stopped and wants to be woken.
    stalled: AtomicBool,
}

/// The wire's end.
pub(crate) struct Inlet {
    sender: mpsc::Sender<Raw>,
    state: Arc<State>,
}

/// The receiver's end.
pub(crate) struct Outlet {
    receiver: mpsc::Receiver<Raw>,
    state: Arc<State>,
    /// Wakes the reader of the wire.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A queue; `wake` is called when a full queue has room again, and when the receiver is dropped.
pub(crate) fn queue(wake: Box<dyn Fn() + Send + Sync>) -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::channel(COUNT);
    let state = Arc::<State>::default();
    (Inlet { sender, state: state.clone() }, Outlet { receiver, state, wake })
}

impl Inlet {
    /// Whether a message would be taken. When not, the other end wakes us once there is room.
    pub(crate) fn has_room(&self) -> bool {
        if self.room() {
            return true;
        }
        self.state.stalled.store(true, SeqCst);
        // room made between the check and the flag would wake nobody
        self.room()
    }

    fn room(&self) -> bool {
        self.state.bytes.load(SeqCst) < BYTES && self.sender.capacity() > 0
    }

    /// Puts a message in; false when it was dropped, because the queue is full or nobody receives any more.
    pub(crate) fn put(&self, raw: Raw) -> bool {
        if self.state.bytes.load(SeqCst) >= BYTES {
            return false;
        }
        let len = raw.frames.len();
        self.state.bytes.fetch_add(len, SeqCst);
        let taken = self.sender.try_send(raw).is_ok();
        if !taken {
            self.state.bytes.fetch_sub(len, SeqCst);
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
        let before = self.state.bytes.fetch_sub(raw.frames.len(), SeqCst);
        let low = before - raw.frames.len() < BYTES / 2 && self.receiver.len() < COUNT / 2;
        if low && self.state.stalled.swap(false, SeqCst) {
            (self.wake)();
        }
        Some(raw)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.receiver.close();
        (self.wake)();
    }
}
