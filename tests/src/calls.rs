//! Calls on the mount, measured. No call may take longer than [`BOUND`], whatever is dead, frozen or cut off.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

/// What the tree promises is 5 s; three more are the machine's own, when it is busy. A call that waits for two bounds is still caught.
pub const BOUND: Duration = Duration::from_secs(8);
/// A call that has not returned by now hangs.
const HANG: Duration = Duration::from_secs(15);

/// The record of all calls of one test. Clones are one record.
#[derive(Clone, Default)]
pub struct Calls {
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    /// How many there were.
    count: u64,
    /// The longest, and which it was.
    longest: (Duration, String),
}

impl Calls {
    /// Runs one call on a thread of its own, so that one that hangs ends the test and not its runner.
    #[track_caller]
    pub fn run<T: Send + 'static>(&self, what: &str, call: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let start = Instant::now();
        std::thread::spawn(move || drop(sender.send(call())));
        let result = match receiver.recv_timeout(HANG) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs: no answer in {HANG:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{what} panicked"),
        };
        self.add(what, start.elapsed());
        result
    }

    /// Records a call that ran elsewhere.
    pub fn add(&self, what: &str, took: Duration) {
        let mut record = self.lock();
        record.count += 1;
        if took > record.longest.0 {
            record.longest = (took, what.to_owned());
        }
    }

    /// How long the longest took, and which it was.
    pub fn longest(&self) -> (Duration, String) {
        self.lock().longest.clone()
    }

    /// Says the longest call; panics when it broke the promise.
    pub fn check(&self, test: &str) {
        let count = self.lock().count;
        let (took, what) = self.longest();
        crate::say(&format!("{test}: {count} calls, the longest {} ms: {what}", took.as_millis()));
        assert!(took <= BOUND, "{what} took {took:?}; the tree promises 5 s");
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // two fields that a panic leaves as they were
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
