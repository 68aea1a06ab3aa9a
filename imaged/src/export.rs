//! Volumes as network block exports: one `qemu-storage-daemon` for each config that is used, with a TCP port of its own.
//!
//! The daemons outlive this process: a guest's disk goes on while imaged is restarted. So nothing is remembered here that is not asked
//! again: [`Exports::set`] looks what a daemon exports now and changes that to what is wanted, whatever happened before.
//!
//! | file | what |
//! |---|---|
//! | `files` | names: the key of a daemon, its files in the run directory, its command line |
//! | `process` | a daemon as a process: found, watched and killed without a doubt about its number |
//! | `start` | a new daemon |
//! | `qmp` | talking to it |
//! | [`tls`] | the certificates with which it serves |
//! | `converge` | from what it exports to what is wanted: first removes, then adds |
//!
//! Invariants:
//! 1. **A removed export is gone when `set` returns `Ok`**: its clients are cut off and none of their writes is under way. A daemon that
//!    does not answer within [`FENCE`] is killed, and `Ok` waits for its end.
//! 2. **One daemon a key.** A daemon holds the lock `KEY.lock` (as its standard input) as long as any thread of it lives; a new one is
//!    started only by whoever got that lock.
//! 3. **No stranger is killed.** A process is a daemon of ours only when its command line has the socket of this key in this run directory;
//!    that is read after its pidfd was opened, and the signal goes through the pidfd.
//! 4. **With TLS nobody is let in but who is wanted**: a daemon begins with no list of servers, which lets in nobody; the list is set after
//!    what is not wanted was removed, and before something is added.

mod converge;
mod error;
mod files;
mod process;
mod qmp;
mod start;
pub mod tls;

pub use error::ExportError;
pub use files::{Place, Volume, Wanted};

use files::Key;
use process::Process;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// How long a daemon may take to tell what it exports and to remove what is not wanted, before it is killed.
pub const FENCE: Duration = Duration::from_secs(3);
/// How long a killed process may take to end before an error says that it does not.
pub const DYING: Duration = Duration::from_secs(3);
/// How long a new daemon may take until it answers, and one that runs to take a volume: nobody but a job waits for it, and a busy host
/// takes its time.
pub const ADDING: Duration = Duration::from_secs(30);
/// How many deaths are kept until somebody takes them.
const DEATHS: usize = 1024;

/// All daemons of one run directory.
#[derive(Debug)]
pub struct Exports {
    place: Arc<Place>,
    /// One a key that was used; `set`s of one key go through it one after the other.
    slots: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Slot>>>>,
    /// For the watchers.
    died: mpsc::Sender<String>,
    /// Until somebody takes it.
    deaths: Mutex<Option<mpsc::Receiver<String>>>,
}

/// What is known of a key between two calls.
#[derive(Debug, Default)]
struct Slot {
    watched: Option<Watched>,
}

/// A daemon that a task watches.
#[derive(Debug)]
struct Watched {
    pid: i32,
    /// Its end is our doing.
    ours: Arc<AtomicBool>,
    /// Ends with the daemon.
    task: tokio::task::JoinHandle<()>,
}

impl Exports {
    /// Over what runs already in `place`; starts and changes nothing.
    pub fn new(place: Place) -> Self {
        let (died, deaths) = mpsc::channel(DEATHS);
        Exports { place: Arc::new(place), slots: Mutex::default(), died, deaths: Mutex::new(Some(deaths)) }
    }

    /// Makes the daemon of `key` serve exactly `wanted`. First what is not wanted any more is removed, which cuts its clients off at once,
    /// then what lacks is added. The daemon is started when needed, and ended when nothing is wanted.
    ///
    /// `Ok` says that all of this is true. After an error whatever could be removed and added is; calling again goes on from there.
    /// It takes [`FENCE`] + [`DYING`] at most until the removed are gone or an error says that they are not.
    pub async fn set(&self, key: &str, wanted: &Wanted) -> Result<(), ExportError> {
        let key = Key::parse(key, &self.place)?;
        let slot = self.slot(&key);
        let mut held = slot.lock().await;
        if wanted.exports.is_empty() {
            self.stop(&key, &mut held).await?;
            drop(held);
            self.forget(&key, &slot);
            return Ok(());
        }
        let mut again = true;
        loop {
            match self.converge(&key, &mut held, wanted).await {
                Err(ExportError::Silent { why, .. }) if again => {
                    tracing::warn!("the export daemon of {key} is killed: {why}");
                    self.stop(&key, &mut held).await?;
                    again = false;
                }
                result => return result,
            }
        }
    }

    /// Ends the daemon of `key`, and with it all of its exports. `Ok` when none runs; to know that, each process of this machine is
    /// looked at, so ask [`Exports::running`] first when there are many keys.
    pub async fn end(&self, key: &str) -> Result<(), ExportError> {
        self.set(key, &Wanted::default()).await
    }

    /// Keys of the daemons that run, also those of an earlier life of imaged; sorted. Their deaths are told from now on.
    pub async fn running(&self) -> Vec<String> {
        let keys = process::all(&self.place).await;
        for key in &keys {
            let slot = self.slot(key);
            // whoever holds it is about to watch it
            if let Ok(mut held) = slot.try_lock()
                && let Ok(Some(found)) = process::find(&self.place, key).await
            {
                self.watch(key, &mut held, &found);
            }
        }
        keys.iter().map(ToString::to_string).collect()
    }

    /// The names of what the daemon of `key` exports now, sorted; none when no daemon runs.
    pub async fn exported(&self, key: &str) -> Result<Vec<String>, ExportError> {
        let key = Key::parse(key, &self.place)?;
        let slot = self.slot(&key);
        let mut held = slot.lock().await;
        match process::find(&self.place, &key).await? {
            Some(found) => {
                self.watch(&key, &mut held, &found);
                converge::exported(&self.place, &key).await
            }
            None => Ok(Vec::new()),
        }
    }

    /// Keys of daemons that ended without being told to, so that `set` is called again. There is one receiver: the first call gets it,
    /// others one that has ended.
    pub fn deaths(&self) -> mpsc::Receiver<String> {
        let mut kept = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    async fn converge(&self, key: &Key, slot: &mut Slot, wanted: &Wanted) -> Result<(), ExportError> {
        let mut found = process::find(&self.place, key).await?;
        if found.as_ref().is_some_and(|p| !p.listens(&self.place, wanted.port, wanted.servers.is_some())) {
            self.stop(key, slot).await?;
            found = None;
        }
        let found = match found {
            Some(found) => found,
            None => {
                wanted.check(key)?;
                start::start(&self.place, key, wanted.port, wanted.servers.is_some()).await?
            }
        };
        self.watch(key, slot, &found);
        converge::converge(&self.place, key, wanted).await
    }

    /// Kills the daemon, if there is one, and waits for its end. There is nothing to be saved: what its clients flushed is on disk.
    async fn stop(&self, key: &Key, slot: &mut Slot) -> Result<(), ExportError> {
        if let Some(found) = process::find(&self.place, key).await? {
            if let Some(watched) = &slot.watched {
                watched.ours.store(true, Ordering::Release);
            }
            found.end(key).await?;
        }
        slot.watched = None;
        start::sweep(&self.place, key)
    }

    fn watch(&self, key: &Key, slot: &mut Slot, found: &Process) {
        if slot.watched.as_ref().is_some_and(|w| w.pid == found.pid() && !w.task.is_finished()) {
            return;
        }
        let Ok(mut end) = found.watch() else { return }; // it has ended already: the next call sees that
        let (ours, died, key) = (Arc::new(AtomicBool::new(false)), self.died.clone(), key.to_string());
        let told = ours.clone();
        let task = tokio::spawn(async move {
            end.wait().await;
            if !told.load(Ordering::Acquire) {
                tracing::warn!("the export daemon of {key} has ended by itself");
                let _nobody_listens = died.send(key).await;
            }
        });
        slot.watched = Some(Watched { pid: found.pid(), ours, task });
    }

    fn slot(&self, key: &Key) -> Arc<tokio::sync::Mutex<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().clone()
    }

    /// Drops the slot of a key that has no daemon, unless somebody waits for it.
    fn forget(&self, key: &Key, ours: &Arc<tokio::sync::Mutex<Slot>>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(ours) == 2 {
            slots.remove(key);
        }
    }
}
