//! The works: builds, copies, changes of volumes, each in a task of its own that can be ended at every moment and leaves nothing then.

use crate::image::{self, BuildError, Paths, Personal, Site, Stage};
use crate::keeper::step::{Input, Made, Task, Undone};
use crate::store::{Store, StoreError, Volume};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xvm_model::config::text;
use xvm_model::{Code, Config, ConfigName, Failure};

/// How often a work's progress and the length of its log are told.
const LOOK: Duration = Duration::from_millis(250);

/// What works share.
struct Shop {
    store: Arc<dyn Store>,
    paths: Paths,
    site: Site,
    /// Logs, `NAME.log`.
    logs: PathBuf,
    /// Definitions of removed configs.
    removed: PathBuf,
    /// Definitions of configs.
    configs: PathBuf,
    ends: mpsc::Sender<Input>,
}

/// The works that go on.
pub(super) struct Works {
    shop: Arc<Shop>,
    tasks: JoinSet<Box<str>>,
    cancels: HashMap<Box<str>, CancellationToken>,
}

impl Works {
    pub(super) fn new(
        store: Arc<dyn Store>,
        paths: Paths,
        site: Site,
        state: &Path,
        configs: PathBuf,
        ends: mpsc::Sender<Input>,
    ) -> Self {
        let (logs, removed) = (state.join("log"), state.join("removed"));
        let shop = Shop { store, paths, site, logs, removed, configs, ends };
        Works { shop: Arc::new(shop), tasks: JoinSet::new(), cancels: HashMap::new() }
    }

    /// Begins one; it comes back as [`Input::Worked`].
    pub(super) fn begin(&mut self, build: Box<str>, name: ConfigName, task: Task) {
        while let Some(ended) = self.tasks.try_join_next() {
            // one that panicked told nobody: its config shows a job until imaged is started anew
            match ended {
                Ok(build) => drop(self.cancels.remove(&build)),
                Err(error) => tracing::error!(%error, "a work broke"),
            }
        }
        let (shop, cancel) = (self.shop.clone(), CancellationToken::new());
        self.cancels.insert(build.clone(), cancel.clone());
        self.tasks.spawn(async move {
            let log = shop.logs.join(format!("{name}.log"));
            let result = shop.run(&build, &name, task, &cancel).await;
            if let Err(error) = &result {
                tracing::warn!(%name, ?error, "a work ended");
            }
            let end = Input::Worked { build: build.clone(), result, log: length(&log) };
            drop(shop.ends.send(end).await);
            build
        });
    }

    /// Ends one.
    pub(super) fn stop(&mut self, build: &str) {
        if let Some(cancel) = self.cancels.get(build) {
            cancel.cancel();
        }
    }

    /// Ends all, and waits until nothing of them is left.
    pub(super) async fn stop_all(&mut self) {
        self.cancels.values().for_each(CancellationToken::cancel);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Where the log of a config is.
    pub(super) fn log_of(&self, name: &ConfigName) -> PathBuf {
        self.shop.logs.join(format!("{name}.log"))
    }
}

fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |m| m.len())
}

impl Shop {
    async fn run(
        &self,
        build: &str,
        name: &ConfigName,
        task: Task,
        cancel: &CancellationToken,
    ) -> Result<Made, Undone> {
        match task {
            Task::Make { config } => self.make(build, name, &config, cancel).await,
            Task::Copy { from, config } => self.copy(build, name, &from, &config, cancel).await,
            Task::Change { before, after } => self.change(name, &before, &after, cancel).await,
            Task::Remove => self.remove(name).await,
            Task::Restore => self.restore(name).await,
            Task::Purge => self.purge(name).await,
        }
    }

    /// Tells how far it is until it ends; what it gives is what the work gives.
    async fn watched<T>(
        &self,
        build: &str,
        log: &Path,
        mut stages: watch::Receiver<Stage>,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(work);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                end = &mut work => return end,
                _ = look.tick() => {}
                Ok(()) = stages.changed() => {}
            }
            let Stage { phase, percent, remaining } = *stages.borrow_and_update();
            let phase = if phase.is_empty() { "begin" } else { phase };
            let stage = Input::Stage {
                build: build.into(),
                phase: phase.into(),
                percent,
                remaining,
                log: length(log),
            };
            // a full queue means that there is more to do than telling this
            drop(self.ends.try_send(stage));
        }
    }

    async fn make(
        &self,
        build: &str,
        name: &ConfigName,
        config: &Config,
        cancel: &CancellationToken,
    ) -> Result<Made, Undone> {
        let log = self.new_log(name)?;
        let (progress, stages) = watch::channel(Stage::default());
        let work = async {
            let disk = self.store.create(name, Volume::Disk, config.disk << 20).await?;
            let swap = match config.swap {
                0 => None,
                mib => Some(self.store.create(name, Volume::Swap, mib << 20).await?),
            };
            let order = image::Order { build, name, config, disk: &disk, swap: swap.as_deref(), log: &log };
            let boot = image::build(&self.paths, &self.site, order, progress, cancel.clone()).await?;
            self.finish(name, config.swap > 0).await?;
            Ok(Made { boot, config: None })
        };
        let result: Result<Made, Trouble> = self.watched(build, &log, stages, work).await;
        self.settled(name, result, cancel).await
    }

    async fn copy(
        &self,
        build: &str,
        name: &ConfigName,
        from: &ConfigName,
        config: &Config,
        cancel: &CancellationToken,
    ) -> Result<Made, Undone> {
        let log = self.new_log(name)?;
        let (progress, stages) = watch::channel(Stage { phase: "volumes", percent: 10, remaining: None });
        let work = async {
            let disk = self.store.copy(from, name, Volume::Disk).await?;
            if config.swap > 0 {
                let swap = self.store.create(name, Volume::Swap, config.swap << 20).await?;
                image::make_swap(&self.paths, &swap).await?;
            }
            progress.send_replace(Stage { phase: "customise", percent: 60, remaining: None });
            let (site, what) = (&self.site, Personal::Clone);
            image::personalise(&self.paths, site, name, config, &disk, what, cancel.clone()).await?;
            if cancel.is_cancelled() {
                return Err(Trouble::Cancelled);
            }
            self.finish(name, config.swap > 0).await?;
            Ok(Made::default())
        };
        let result = self.watched(build, &log, stages, work).await;
        self.settled(name, result, cancel).await
    }

    /// The volumes get their real names.
    async fn finish(&self, name: &ConfigName, swap: bool) -> Result<(), Trouble> {
        self.store.commit(name).await?;
        if !swap {
            // of the image before
            self.store.drop_volume(name, Volume::Swap).await?;
        }
        Ok(())
    }

    /// After a work that did not succeed nothing of it is left.
    async fn settled(
        &self,
        name: &ConfigName,
        result: Result<Made, Trouble>,
        cancel: &CancellationToken,
    ) -> Result<Made, Undone> {
        let trouble = match result {
            Ok(made) => return Ok(made),
            Err(trouble) => trouble,
        };
        if let Err(error) = self.store.discard(name).await {
            tracing::error!(%name, %error, "volumes that were being made cannot be removed");
        }
        Err(if cancel.is_cancelled() { Undone::Cancelled } else { trouble.undone() })
    }

    async fn change(
        &self,
        name: &ConfigName,
        before: &Config,
        after: &Config,
        cancel: &CancellationToken,
    ) -> Result<Made, Undone> {
        let work = async {
            if after.disk > before.disk {
                self.store.grow(name, Volume::Disk, after.disk << 20).await?;
                image::grow(&self.paths, &self.store.path(name, Volume::Disk), cancel.clone()).await?;
            }
            if after.swap != before.swap {
                // swap holds nothing while it does not run: a new one in place of the old
                self.store.drop_volume(name, Volume::Swap).await?;
                if after.swap > 0 {
                    let swap = self.store.create(name, Volume::Swap, after.swap << 20).await?;
                    image::make_swap(&self.paths, &swap).await?;
                    self.store.commit(name).await?;
                }
            }
            if (&after.address, &after.keys) != (&before.address, &before.keys) {
                let (disk, what) = (self.store.path(name, Volume::Disk), Personal::Settings);
                image::personalise(&self.paths, &self.site, name, after, &disk, what, cancel.clone()).await?;
            }
            Ok::<(), Trouble>(())
        };
        match work.await {
            Ok(()) => Ok(Made::default()),
            Err(trouble) => {
                drop(self.store.discard(name).await);
                Err(trouble.undone())
            }
        }
    }

    async fn remove(&self, name: &ConfigName) -> Result<Made, Undone> {
        let file = format!("{name}.toml");
        let has_volumes =
            self.store.size(name, Volume::Disk).await.map_err(|e| Trouble::from(e).undone())?.is_some();
        if has_volumes {
            self.store.remove(name).await.map_err(|e| Trouble::from(e).undone())?;
        }
        std::fs::create_dir_all(&self.removed)
            .and_then(|()| rename(&self.configs.join(&file), &self.removed.join(&file)))
            .map_err(|e| Trouble::Io(format!("its file cannot be moved: {e}")).undone())?;
        Ok(Made::default())
    }

    async fn restore(&self, name: &ConfigName) -> Result<Made, Undone> {
        let file = format!("{name}.toml");
        let lost = |why: String| Trouble::Io(format!("its definition is lost: {why}")).undone();
        let text = std::fs::read_to_string(self.removed.join(&file)).map_err(|e| lost(e.to_string()))?;
        let config =
            text::read(&text, &Config::new(Uuid::nil()), Uuid::new_v4()).map_err(|w| lost(w.to_string()))?;
        match self.store.restore(name).await {
            // it had none: it was removed before its image was made
            Ok(()) | Err(StoreError::Missing { .. }) => {}
            Err(e) => return Err(Trouble::from(e).undone()),
        }
        rename(&self.removed.join(&file), &self.configs.join(&file))
            .map_err(|e| Trouble::Io(format!("its file cannot be moved: {e}")).undone())?;
        Ok(Made { boot: None, config: Some(Box::new(config)) })
    }

    async fn purge(&self, name: &ConfigName) -> Result<Made, Undone> {
        self.store.purge(name).await.map_err(|e| Trouble::from(e).undone())?;
        match std::fs::remove_file(self.removed.join(format!("{name}.toml"))) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Trouble::Io(e.to_string()).undone()),
            _ => Ok(Made::default()),
        }
    }

    /// An empty log in place of the last build's.
    fn new_log(&self, name: &ConfigName) -> Result<PathBuf, Undone> {
        let log = self.logs.join(format!("{name}.log"));
        std::fs::create_dir_all(&self.logs)
            .and_then(|()| std::fs::File::create(&log))
            .map_err(|e| Trouble::Io(format!("its log cannot be written: {e}")).undone())?;
        Ok(log)
    }
}

/// Renames, also into another file system.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => {
            std::fs::copy(from, to)?;
            std::fs::remove_file(from)
        }
        // one whose file was removed by hand
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !from.exists() && to.parent().is_some() => {
            Ok(())
        }
        result => result,
    }
}

/// Why a work does not go on.
enum Trouble {
    Cancelled,
    Store(StoreError),
    Build(BuildError),
    Io(String),
}

impl From<StoreError> for Trouble {
    fn from(e: StoreError) -> Self {
        Trouble::Store(e)
    }
}

impl From<BuildError> for Trouble {
    fn from(e: BuildError) -> Self {
        Trouble::Build(e)
    }
}

impl Trouble {
    fn undone(self) -> Undone {
        let (code, text) = match self {
            Trouble::Cancelled | Trouble::Build(BuildError::Cancelled) => return Undone::Cancelled,
            Trouble::Store(e @ StoreError::NoSpace { .. }) => (Code::NoSpace, e.to_string()),
            Trouble::Build(e @ BuildError::NoSpace(_)) => (Code::NoSpace, e.to_string()),
            Trouble::Build(e @ BuildError::UnknownOs { .. }) => (Code::Invalid, e.to_string()),
            Trouble::Store(e) => (Code::Io, e.to_string()),
            Trouble::Build(e) => (Code::Io, e.to_string()),
            Trouble::Io(text) => (Code::Io, text),
        };
        Undone::Failed(Failure::new(code, text))
    }
}
