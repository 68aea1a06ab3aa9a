//! One build: its directory, its log, its stages.

use super::{
    BootFiles, BuildError, Order, Paths, Site, Stage,
    cage::Cage,
    estimate::Estimate,
    tool::{Tool, Trouble},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// The most that one build adds to its log, in bytes.
const LOG_MAX: u64 = 16 << 20;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(500);

/// Where the output of tools goes. A log that cannot be written ends no build.
pub struct Log {
    file: File,
    left: AtomicU64,
}

impl Log {
    fn open(path: &Path) -> io::Result<Log> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Log { file, left: AtomicU64::new(LOG_MAX) })
    }

    /// Adds bytes.
    pub fn write(&self, bytes: &[u8]) {
        let size = bytes.len() as u64;
        let fits =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size));
        if fits.is_ok() {
            (&self.file).write_all(bytes).ok();
        }
    }

    /// Adds a line.
    pub fn line(&self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }
}

/// A directory that is removed when this is dropped.
pub struct WorkDir(pub PathBuf);

impl WorkDir {
    /// Makes a new one; its parents too.
    pub fn make(parent: &Path, id: &str) -> io::Result<WorkDir> {
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(io::Error::other(format!("{id:?} cannot be the id of a build")));
        }
        fs::create_dir_all(parent)?;
        let path = fs::canonicalize(parent)?.join(id);
        fs::create_dir(&path)?;
        Ok(WorkDir(path))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // the last processes of a killed tool may write for another moment
        for _ in 0..20 {
            match fs::remove_dir_all(&self.0) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
                Ok(()) => return,
            }
        }
        tracing::warn!("cannot remove {}: it stays until the next start", self.0.display());
    }
}

/// A build that goes on.
pub struct Job<'a> {
    /// Where things are.
    pub paths: &'a Paths,
    /// What the site wants.
    pub site: &'a Site,
    /// What is asked for.
    pub order: Order<'a>,
    cage: Cage,
    log: Arc<Log>,
    progress: watch::Sender<Stage>,
    estimate: Mutex<Estimate>,
    dir: WorkDir,
}

impl<'a> Job<'a> {
    /// Makes its directory and opens its log.
    pub fn begin(
        paths: &'a Paths,
        site: &'a Site,
        order: Order<'a>,
        progress: watch::Sender<Stage>,
        cancel: CancellationToken,
    ) -> Result<Job<'a>, BuildError> {
        let stage = |path: &Path, e: io::Error| error("volumes", Trouble::of(path, &e));
        for dir in [&paths.cache, &paths.boot] {
            fs::create_dir_all(dir).map_err(|e| stage(dir, e))?;
        }
        let log = Arc::new(Log::open(order.log).map_err(|e| stage(order.log, e))?);
        let dir = WorkDir::make(&paths.work, order.build).map_err(|e| stage(&paths.work, e))?;
        let cage = Cage { dir: dir.0.clone(), log: Some(log.clone()), cancel };
        let estimate = Mutex::new(Estimate::of(&paths.cache, order.config.os.as_str()));
        Ok(Job { paths, site, order, cage, log, progress, estimate, dir })
    }

    /// Its directory: whatever is in it goes with the build.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Where the system is put together.
    pub fn root(&self) -> PathBuf {
        self.dir.0.join("root")
    }

    /// How its tools are run.
    pub fn cage(&self) -> &Cage {
        &self.cage
    }

    /// Runs a tool.
    pub async fn run(&self, tool: Tool) -> Result<String, Trouble> {
        self.cage.run(tool).await
    }

    /// Adds a line to the log.
    pub fn say(&self, text: &str) {
        self.log.line(text);
    }

    /// It is of a kind whose builds take another time.
    pub fn kind(&self, kind: &str) {
        self.estimate().is(&self.paths.cache, kind);
    }

    fn estimate(&self) -> std::sync::MutexGuard<'_, Estimate> {
        self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, phase: &'static str, elapsed: Duration) {
        let stage = self.estimate().at(phase, elapsed);
        self.progress.send_if_modified(|old| std::mem::replace(old, stage) != stage);
    }

    /// The first stage of every builder: its swap, if it has one.
    pub async fn volumes(&self) -> Result<(), BuildError> {
        let swap = async {
            match self.order.swap {
                Some(swap) => super::ext4::swap(self.cage(), swap).await,
                None => Ok(()),
            }
        };
        self.stage("volumes", swap).await
    }

    /// One stage of [`super::PHASES`], from its begin to its end.
    pub async fn stage<T>(
        &self,
        phase: &'static str,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, BuildError> {
        let begin = Instant::now();
        self.log.line(&format!("== {phase}"));
        self.tell(phase, Duration::ZERO);
        // who watches sees each stage, and may cancel in it, also when it is over in no time
        tokio::task::yield_now().await;
        if self.cage.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let mut tick = tokio::time::interval(TICK);
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.tell(phase, begin.elapsed()),
                done = &mut work => break done,
            }
        };
        self.estimate().took(phase, begin.elapsed());
        done.map_err(|e| error(phase, e))
    }

    /// Ends it: the log says how, and how long it took is remembered.
    pub async fn end(
        self,
        done: Result<Option<BootFiles>, BuildError>,
    ) -> Result<Option<BootFiles>, BuildError> {
        match &done {
            Ok(_) => {
                if let Err(e) = self.estimate().keep(&self.paths.cache) {
                    self.log.line(&format!("cannot remember how long it took: {e}"));
                }
                let phase = self.progress.borrow().phase;
                self.progress.send_replace(Stage { phase, percent: 100, remaining: Some(0) });
                self.log.line("== done");
            }
            Err(e) => self.log.line(&format!("== {e}")),
        }
        // many small files
        tokio::task::spawn_blocking(move || drop(self.dir)).await.ok();
        done
    }
}

/// What a stage says of a step that did not work.
pub fn error(stage: &'static str, trouble: Trouble) -> BuildError {
    match trouble {
        Trouble::Cancelled => BuildError::Cancelled,
        Trouble::NoSpace(what) => BuildError::NoSpace(format!("{stage}: {what}")),
        Trouble::Failed(why) => BuildError::Failed { stage, why },
    }
}
