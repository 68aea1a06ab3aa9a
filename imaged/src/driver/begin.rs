//! A start: what a crash left is swept, what is kept is compared with what is there.

use super::exporter::Exporter;
use super::works::Works;
use super::{BOOT_KEY, BootFiles, Driver, ENDS, KEPT, clients};
use crate::config::Config as Flags;
use crate::export::Exports;
use crate::files::Files;
use crate::image;
use crate::keeper::kept::{Image, Kept, KeptRemoved};
use crate::keeper::step::Input;
use crate::keeper::{KEEP_MS, Keeper};
use crate::store::{self, Store, Volume};
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use xvm_bus::{Client, Publisher};
use xvm_daemon::Dir;
use xvm_model::images::Removed;
use xvm_model::{Code, Config, ConfigName, Failure, JobKind, Outcome, Receipts, ServerName, Wall};

impl Driver {
    pub(super) async fn begin(
        flags: &Flags,
        dir: Dir,
        name: ServerName,
        publisher: Publisher,
    ) -> anyhow::Result<Driver> {
        let (paths, site) = (flags.paths(), flags.site(&dir)?);
        let mut place = flags.place()?;
        // the processes that export are known by this path: it must be the same in each life, however it is written
        place.run = std::fs::canonicalize(dir.path()).context("cannot find the state directory")?.join("run");
        let swept = {
            let paths = paths.clone();
            tokio::task::spawn_blocking(move || image::sweep(&paths))
                .await?
                .context("cannot sweep what was left")?
        };
        if swept.processes > 0 || !swept.files.is_empty() {
            tracing::warn!(
                processes = swept.processes,
                files = swept.files.len(),
                "swept what an earlier life left"
            );
        }
        let store = store::open(&flags.store())?;
        let files = Files::open(&flags.configs())
            .with_context(|| format!("cannot use {}", flags.configs().display()))?;
        let mut kept: Kept = match dir.read(KEPT)? {
            None => Kept::default(),
            Some(text) => serde_json::from_str(&text).map_err(|e| dir.damaged(KEPT, e.to_string()))?,
        };
        let now = publisher.clock().now();
        reconcile(&*store, &mut kept, now.wall).await?;

        let exports = Exports::new(place);
        end_strays(&exports, &kept).await;
        let [quick, patient] = clients(&name)?;
        let clients = [
            Client::new(publisher.clone(), quick),
            Client::with_bound(publisher.clone(), patient, super::PATIENT),
        ];
        let boot = publisher.boot();
        let keeper_site = flags.keeper(name, boot, image::systems(&paths, &site), site.guestd.clone())?;
        let boot_port = keeper_site.boot_port;
        let defaults = Config::new(uuid::Uuid::nil());
        let known: Vec<ConfigName> = kept.configs.keys().cloned().collect();
        let keeper = Keeper::new(keeper_site, defaults, kept, Receipts::new(boot), now);
        // before the first build: files of one that goes on are not named yet
        if let Err(error) = image::keep_only(&paths.boot, &keeper.boot_files()) {
            tracing::warn!(%error, "kernels that no image needs are not removed");
        }
        let (ends, ended) = mpsc::channel(ENDS);
        let works = Works::new(store.clone(), paths.clone(), site, dir.path(), flags.configs(), ends.clone());
        let mut driver = Driver {
            keeper,
            dir,
            files,
            store,
            exporter: Exporter::new(exports),
            works,
            publisher,
            clients,
            boot_files: BootFiles::new(paths.boot, boot_port),
            tasks: JoinSet::new(),
            ends,
            ended,
            inputs: VecDeque::new(),
            held: None,
        };
        let mut files = driver.changed_files();
        // those that are kept and have no file
        let told: BTreeSet<ConfigName> = files.iter().map(|(name, _)| name.clone()).collect();
        files.extend(known.into_iter().filter(|name| !told.contains(name)).map(|name| (name, None)));
        // also before the defaults: the first input makes it speak
        driver.inputs.push_front(Input::Files(files));
        Ok(driver)
    }
}

/// Makes what is kept agree with the volumes that there are: a crash may have come between the two.
async fn reconcile(store: &dyn Store, kept: &mut Kept, wall: Wall) -> anyhow::Result<()> {
    let listing = store.list().await.context("cannot look into the store")?;
    for name in &listing.building {
        store.discard(name).await.with_context(|| format!("cannot sweep the volumes of {name}"))?;
    }
    let disks: BTreeMap<&ConfigName, u64> =
        listing.volumes.iter().filter(|v| v.1 == Volume::Disk).map(|v| (&v.0, v.2)).collect();
    for (name, config) in &mut kept.configs {
        if matches!(config.image, Image::Ready { .. }) && !disks.contains_key(name) {
            let text = format!(
                "cannot use {name}: its disk is gone from the store; `echo rebuild > ctl` makes a new one"
            );
            tracing::error!("{text}");
            config.image = Image::None;
            let result = Err(Failure::new(Code::Io, text));
            config.last =
                Some(Box::new(Outcome { id: "restart".into(), kind: JobKind::Create, at: wall, result }));
        }
    }
    for name in listing.removed {
        let until = Wall(wall.0.saturating_add(KEEP_MS));
        kept.removed.entry(name.clone()).or_insert_with(|| {
            let config = kept.configs.get(&name).cloned().unwrap_or_default();
            KeptRemoved { removed: Removed { name, until }, config }
        });
    }
    Ok(())
}

/// Processes that export for a config that is not known, or whose leases are all over, are ended.
async fn end_strays(exports: &Exports, kept: &Kept) {
    let used: BTreeSet<&str> = kept
        .configs
        .iter()
        .filter(|(_, c)| !c.leases.held.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    for key in exports.running().await {
        if key != BOOT_KEY
            && !used.contains(key.as_str())
            && let Err(error) = exports.end(&key).await
        {
            tracing::error!(key, %error, "a process that exports cannot be ended");
        }
    }
}
