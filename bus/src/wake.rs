//! Wakes a thread that waits in `zmq::poll`: a pair of Unix sockets, since libzmq's own sockets must stay on one thread and a plain
//! descriptor may be written from any.

use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// The ends that wake. Clones wake the same thread.
#[derive(Clone)]
pub(crate) struct Waker {
    stream: Arc<UnixStream>,
    /// A byte is on its way: another one would say nothing new.
    called: Arc<AtomicBool>,
}

/// The end that is woken.
pub(crate) struct Sleeper {
    stream: UnixStream,
    called: Arc<AtomicBool>,
}

/// Both ends.
pub(crate) fn pair() -> std::io::Result<(Waker, Sleeper)> {
    let (a, b) = UnixStream::pair()?;
    a.set_nonblocking(true)?;
    b.set_nonblocking(true)?;
    let called = Arc::<AtomicBool>::default();
    Ok((Waker { stream: Arc::new(a), called: called.clone() }, Sleeper { stream: b, called }))
}

impl Waker {
    /// Wakes the thread; never waits.
    pub(crate) fn wake(&self) {
        if !self.called.swap(true, SeqCst) {
            // fails when the thread has ended: then nobody needs to wake
            (&*self.stream).write_all(&[0]).ok();
        }
    }
}

impl Sleeper {
    /// What the thread polls for reading.
    pub(crate) fn item(&self) -> zmq::PollItem<'_> {
        zmq::PollItem::from_fd(self.stream.as_raw_fd(), zmq::POLLIN)
    }

    /// Call this before looking at what one was woken for: whatever comes later wakes again.
    pub(crate) fn clear(&self) {
        let mut bytes = [0; 16];
        while matches!((&self.stream).read(&mut bytes), Ok(n) if n == bytes.len()) {}
        self.called.store(false, SeqCst);
    }
}
