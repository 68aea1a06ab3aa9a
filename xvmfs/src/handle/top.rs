//! An open `top` of a guest: a file that grows by snapshots.
//!
//! ```text
//!   offset base        before           latest          next
//!            | snapshot  | snapshot       |
//!                                         ^ the first read here ends the file (cat, cp);
//!                                           a further one gives the next snapshot, when it has come (tail -f)
//! ```
//! Nothing is asked before the first read, which waits for a snapshot that is fresh. What was read is forgotten two snapshots later.

use crate::cluster::Cluster;
use crate::handle::Bell;
use crate::row::Place;
use crate::tables::guest;
use crate::tops::{Said, Watch};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use xvm_model::{Code, DomainName, Failure, Wall};

/// How long the first read may take.
const BOUND: Duration = Duration::from_secs(5);
/// How long the task behind poll(2) waits before it looks whether the file is still open.
const LOOK: Duration = Duration::from_secs(1);

/// One open `top`.
#[derive(Debug)]
pub struct Top {
    name: DomainName,
    /// From the first read on: what the guest said before it, and the watch that makes it be asked.
    watch: OnceLock<(Said, Arc<Watch>)>,
    /// A plain mutex: held for copying text.
    shown: Mutex<Shown>,
    /// Rings when there is more, for poll(2).
    pub bell: Bell,
    /// Whether a task waits on behalf of poll(2).
    watched: AtomicBool,
}

/// What the reader has been shown.
#[derive(Debug, Default)]
struct Shown {
    /// Where `text` begins in the file.
    base: u64,
    /// The last snapshot and the one before it.
    text: String,
    /// Where the last one begins in `text`.
    last: usize,
    /// The number of the last one, and when it was heard.
    number: u64,
    heard: Option<Wall>,
    /// All before this offset was read once.
    read: u64,
    /// Whether a read has found the end of the last one.
    ended: bool,
}

impl Shown {
    fn end(&self) -> u64 {
        self.base + self.text.len() as u64
    }

    /// Whether its reader has seen all that there is.
    fn is_read(&self) -> bool {
        self.heard.is_some() && self.read == self.end()
    }

    /// One more snapshot, whose reader has seen those before it.
    fn push(&mut self, number: u64, heard: Wall, text: &str) {
        self.text.drain(..self.last);
        self.base += self.last as u64;
        self.last = self.text.len();
        if self.heard.is_some() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        (self.number, self.heard, self.ended) = (number, Some(heard), false);
    }

    /// What is there at `offset`, `size` bytes at most; none before the first snapshot. `newer` adds one when it has come.
    fn read(&mut self, offset: u64, size: usize, newer: impl FnOnce(&mut Self)) -> Option<Vec<u8>> {
        if self.heard.is_none() || offset == self.end() && self.ended {
            newer(self);
        }
        self.heard?;
        let skip = offset.checked_sub(self.base).and_then(|n| usize::try_from(n).ok());
        let rest = skip.and_then(|n| self.text.as_bytes().get(n..)).unwrap_or_default();
        let part = rest[..rest.len().min(size)].to_vec();
        if offset == self.end() {
            (self.ended, self.read) = (true, self.end());
        }
        if !part.is_empty() {
            self.read = self.read.max(offset + part.len() as u64);
        }
        Some(part)
    }
}

impl Top {
    /// Nothing is asked before the first read.
    pub fn new(name: DomainName) -> Self {
        let (watch, shown, bell) = (OnceLock::new(), Mutex::default(), Bell::default());
        Top { name, watch, shown, bell, watched: AtomicBool::new(false) }
    }

    /// Has the guest asked from now on, until the file is closed.
    pub fn begin(&self, cluster: &Arc<Cluster>, rt: &tokio::runtime::Handle) {
        self.watch.get_or_init(|| Watch::over(cluster, rt, &self.name));
    }

    /// What is there at `offset`; none before the first snapshot.
    pub fn read(&self, offset: u64, size: usize) -> Option<Vec<u8>> {
        self.lock().read(offset, size, |shown| self.grow(shown))
    }

    /// Waits for the first snapshot, 5 s at most (ETIMEDOUT); EHOSTDOWN at once when the guest is not heard, or what it refuses with.
    /// A failure stands in the file `error` too.
    pub async fn hold(&self, cluster: &Arc<Cluster>, offset: u64, size: usize) -> Result<Vec<u8>, Failure> {
        let what = format!("read the processes of {}", self.name);
        let result = match cluster.heard_guest(&self.name, &what) {
            Ok(_) => {
                tokio::time::timeout(BOUND, self.fetch(cluster, offset, size)).await.unwrap_or_else(|_| {
                    let why = format!("cannot {what}: its guestd sent none within {} s", BOUND.as_secs());
                    Err(Failure::new(Code::TimedOut, why))
                })
            }
            Err(failure) => Err(failure),
        };
        result.map_err(|failure| cluster.refuse(&Place::Guest(self.name.clone()), failure))
    }

    async fn fetch(&self, cluster: &Arc<Cluster>, offset: u64, size: usize) -> Result<Vec<u8>, Failure> {
        // what was refused before this read says nothing of it; what it asks itself may be refused at once
        let known = self.watch.get().map(|(_, watch)| watch.said().refused);
        let rt = tokio::runtime::Handle::current();
        let (said, watch) = self.watch.get_or_init(|| Watch::over(cluster, &rt, &self.name));
        let before = known.unwrap_or(said.refused);
        let refusal = |said: Said| said.refusal.filter(|_| said.refused > before).map(Err);
        let ready = || self.read(offset, size).map(Ok).or_else(|| refusal(watch.said()));
        watch.bell.until(ready).await
    }

    /// Whether there is something that was never read.
    pub fn is_readable(&self) -> bool {
        let mut shown = self.lock();
        if shown.heard.is_none() || shown.is_read() {
            self.grow(&mut shown);
        }
        shown.read < shown.end()
    }

    /// Has the bell rung once when there is something to read; ends soon after the file was closed.
    pub fn watch(top: &Arc<Self>, cluster: &Arc<Cluster>, rt: &tokio::runtime::Handle) {
        top.begin(cluster, rt);
        if top.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let top = top.clone();
        rt.spawn(async move {
            let Some((_, watch)) = top.watch.get() else { return };
            let ready = || top.is_readable().then_some(());
            while tokio::time::timeout(LOOK, watch.bell.until(ready)).await.is_err() {
                if Arc::strong_count(&top) == 1 {
                    return;
                }
            }
            top.watched.store(false, Ordering::Relaxed);
            top.bell.ring();
        });
    }

    /// The length of what was shown, for who has seen all of it with what has come since; 0 before the first read.
    pub fn size(&self) -> u64 {
        let mut shown = self.lock();
        if shown.is_read() {
            self.grow(&mut shown);
        }
        shown.end()
    }

    /// When the last snapshot that was shown was heard.
    pub fn heard(&self) -> Option<Wall> {
        self.lock().heard
    }

    /// Adds the latest snapshot, when it is newer.
    fn grow(&self, shown: &mut Shown) {
        let Some((before, watch)) = self.watch.get() else { return };
        let said = watch.said();
        if let Some((top, at)) = said.latest
            && said.number > shown.number.max(before.number)
        {
            shown.push(said.number, at, &guest::top(&top, at));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        // the statements that change it cannot panic
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_snapshot_ends_once_and_then_the_next_one_follows() {
        let mut s = Shown::default();
        assert_eq!(s.read(0, 9, |_| ()), None);
        assert_eq!(s.read(0, 9, |s| s.push(1, Wall(1), "one\n")), Some(b"one\n".to_vec()));
        let next = |s: &mut Shown| s.push(2, Wall(2), "two\n");
        assert_eq!(s.read(4, 9, next), Some(vec![]), "the end, whatever has come");
        assert_eq!(s.read(4, 9, |_| ()), Some(vec![]), "nothing has come");
        assert_eq!(s.read(4, 3, next), Some(b"\ntw".to_vec()));
        assert_eq!(s.read(0, 9, next), Some(b"one\n\ntwo\n".to_vec()), "bash reads a block and seeks back");
        assert_eq!(s.read(99, 9, next), Some(vec![]));
    }

    proptest! {
        /// Whoever reads on at the end gets each snapshot that is shown whole, with one end of file after it, and memory is bounded.
        #[test]
        fn a_follower_gets_whole_snapshots(sizes in prop::collection::vec((1usize..9, any::<bool>()), 1..200)) {
            let (mut s, mut number, mut all, mut ends) = (Shown::default(), 0, Vec::new(), 0);
            for (size, looks) in sizes {
                let mut push = |s: &mut Shown| {
                    number += 1;
                    s.push(number, Wall(number), &format!("{number}\n"));
                };
                if looks && s.is_read() {
                    push(&mut s); // fstat(2)
                }
                let part = s.read(all.len() as u64, size, push).expect("there is one");
                ends += u64::from(part.is_empty());
                all.extend(part);
                prop_assert!(s.text.len() < 20 && s.end() >= all.len() as u64);
            }
            let want: Vec<String> = (1..=number).map(|n| format!("{n}\n")).collect();
            let want = want.join("\n");
            prop_assert!(want.as_bytes().starts_with(&all), "{:?}", String::from_utf8_lossy(&all));
            prop_assert!(ends <= number);
        }
    }
}
