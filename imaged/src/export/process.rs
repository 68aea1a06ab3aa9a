//! A daemon as a process: found, watched and killed without a doubt about its number.
//!
//! `/proc` is read on a thread of its own, with a bound: the command line of a process whose memory is locked cannot be read.

use super::{DYING, ExportError, Key, Place};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    fs::{File, TryLockError},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::io::{Interest, unix::AsyncFd};

/// How long `/proc` may take.
const LOOKING: Duration = Duration::from_secs(3);

/// A process that was a daemon of ours when it was looked at; the descriptor stays its own, whoever gets its number.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    fd: Arc<OwnedFd>,
    arguments: Vec<String>,
}

/// The end of a process.
#[derive(Debug)]
pub(super) struct End(AsyncFd<Arc<OwnedFd>>);

impl End {
    /// Returns when no thread of it lives.
    pub(super) async fn wait(&mut self) {
        let _ready = self.0.readable().await;
    }
}

impl Process {
    /// The process `pid`, when it is ours and `is` says so of its arguments.
    pub(super) fn open(pid: i32, is: impl Fn(&[String]) -> bool) -> Option<Process> {
        let number = Pid::from_raw((pid > 0).then_some(pid)?)?;
        let fd = Arc::new(pidfd_open(number, PidfdFlags::empty()).ok()?);
        // read after the descriptor was opened: a number that has got another owner since then does not pass
        let mine = std::fs::metadata("/proc/self").ok()?.uid();
        if std::fs::metadata(format!("/proc/{pid}")).ok()?.uid() != mine {
            return None;
        }
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments: Vec<String> =
            line.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        is(&arguments).then_some(Process { pid, fd, arguments })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it was told to listen there, in that way.
    pub(super) fn listens(&self, place: &Place, port: u16, tls: bool) -> bool {
        self.arguments.contains(&place.listen_option(port, tls))
    }

    #[expect(
        deprecated,
        reason = "the successor is unsafe; an Arc<OwnedFd> keeps its descriptor open and the same, all that it asks for"
    )]
    pub(super) fn watch(&self) -> io::Result<End> {
        AsyncFd::with_interest(self.fd.clone(), Interest::READABLE).map(End)
    }

    /// Kills it, and waits until it has ended, [`DYING`] at most.
    pub(super) async fn end(&self, key: &Key) -> Result<(), ExportError> {
        let lives = || ExportError::Lives { key: key.to_string(), pid: self.pid };
        let mut end = self.watch().map_err(|_| lives())?;
        match pidfd_send_signal(&*self.fd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(_) => return Err(lives()),
        }
        tokio::time::timeout(DYING, end.wait()).await.map_err(|_| lives())
    }
}

/// The daemon of `key`. None only when no process looks like it and its lock is free, so that nothing of it lives. When its pid file is
/// wrong or none runs, each process is looked at (some milliseconds): who empties the run directory takes the lock away from a daemon
/// that lives.
pub(super) async fn find(place: &Arc<Place>, key: &Key) -> Result<Option<Process>, ExportError> {
    let (p, k) = (place.clone(), key.clone());
    let look = move || {
        let options = p.socket_options(&k);
        let is = |arguments: &[String]| options.iter().any(|o| arguments.contains(o));
        let until = Instant::now() + DYING;
        loop {
            let hint = std::fs::read_to_string(p.file(&k, "pid")).ok().and_then(|t| t.trim().parse().ok());
            let found = hint.and_then(|pid| Process::open(pid, is));
            let found = found.or_else(|| numbers().find_map(|pid| Process::open(pid, is)));
            // what ends at this moment has lost its command line and not yet its lock, what begins has not got its own yet
            if found.is_some() || !locked(&p, &k)? {
                return Ok(found);
            }
            if Instant::now() > until {
                return Err(ExportError::Stray { key: k.to_string(), lock: p.file(&k, "lock") });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let bound = DYING + LOOKING;
    match tokio::time::timeout(bound, tokio::task::spawn_blocking(look)).await {
        Ok(Ok(found)) => found,
        _ => Err(ExportError::Stray { key: key.to_string(), lock: place.file(key, "lock") }),
    }
}

/// Keys of all daemons of this run directory, sorted; none when `/proc` cannot be read in time.
pub(super) async fn all(place: &Arc<Place>) -> Vec<Key> {
    let place = place.clone();
    let look = move || {
        let mut keys: Vec<Key> = numbers()
            .filter_map(|pid| Process::open(pid, |a| a.iter().any(|a| Key::of_option(a, &place).is_some())))
            .filter_map(|p| p.arguments.iter().find_map(|a| Key::of_option(a, &place)))
            .collect();
        keys.sort();
        keys.dedup();
        keys
    };
    match tokio::time::timeout(LOOKING, tokio::task::spawn_blocking(look)).await {
        Ok(Ok(keys)) => keys,
        _ => Vec::new(),
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// Whether anybody holds the lock of `key`.
fn locked(place: &Place, key: &Key) -> Result<bool, ExportError> {
    let path = place.file(key, "lock");
    let io = |source| ExportError::Io { what: "look at", path: path.clone(), source };
    match File::open(&path) {
        // shared: two that look do not see each other
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(io(e)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io(e)),
    }
}
