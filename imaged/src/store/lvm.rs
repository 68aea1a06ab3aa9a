//! A volume group of LVM: `CONFIG-disk` and `CONFIG-swap`, those being made `CONFIG-disk.new`, removed ones `removed.CONFIG-disk`. A
//! config's name holds no dot, so none of these is another config's. All have the tag `xvm`; others of the group are left alone.
//!
//! In a thin pool a copy is a snapshot, made in a moment; without one it is as long as its volume. A volume that takes another's place
//! does so by two renames; [`Store::list`] ends what a crash left between them.

mod names;

use super::{Listing, Store, StoreError, Volume};
use async_trait::async_trait;
use names::{Lv, Role, lv_name, parse_lvs};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;
use xvm_model::{ConfigName, images::StoreRoom};

/// How long a command on metadata may take; LVM waits for its own lock.
const LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to write a whole volume.
const LONG: Duration = Duration::from_secs(3600);

const TAG: &str = "xvm";

/// See the file's head.
#[derive(Debug, Clone)]
pub struct LvmStore {
    group: String,
    pool: Option<String>,
}

impl LvmStore {
    /// `GROUP` or `GROUP/POOL`. The group is looked at by the first use.
    pub fn open(place: &str) -> Result<LvmStore, StoreError> {
        let (group, pool) = place.split_once('/').map_or((place, None), |(g, p)| (g, Some(p)));
        let good = |w: &str| {
            !w.is_empty()
                && !w.starts_with(['-', '.'])
                && w.chars().all(|c| c.is_ascii_alphanumeric() || "+_.-".contains(c))
        };
        if !good(group) || !pool.is_none_or(good) {
            let why = "it must be GROUP or GROUP/POOL".into();
            return Err(StoreError::Failed { doing: format!("open the volume group {place:?}"), why });
        }
        Ok(LvmStore { group: group.into(), pool: pool.map(Into::into) })
    }

    fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.group)
    }

    fn device(&self, role: Role, config: &ConfigName, volume: Volume) -> PathBuf {
        Path::new("/dev").join(&self.group).join(lv_name(role, config, volume))
    }

    /// Runs a command; its standard output.
    async fn run(
        &self,
        doing: &str,
        limit: Duration,
        program: &str,
        args: &[&str],
    ) -> Result<String, StoreError> {
        let failed = |why: String| StoreError::Failed { doing: doing.into(), why };
        let mut command = Command::new(program);
        command.args(args).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
        let out = tokio::time::timeout(limit, command.output())
            .await
            .map_err(|_| failed(format!("{program} did not end within {} s", limit.as_secs())))?
            .map_err(|e| failed(format!("cannot run {program}: {e}")))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&out.stderr);
        if ["insufficient free", "not enough free", "No space left", "free extents"]
            .iter()
            .any(|w| text.contains(w))
        {
            return Err(StoreError::NoSpace { doing: doing.into(), place: self.group.clone() });
        }
        let why = text.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.starts_with("Run `"));
        Err(failed(format!("{program}: {}", why.unwrap_or(&out.status.to_string()))))
    }

    async fn all(&self, doing: &str) -> Result<Vec<Lv>, StoreError> {
        let select = format!("lv_tags=\"{TAG}\"");
        let args = [
            "--noheadings",
            "--nosuffix",
            "--units",
            "b",
            "-o",
            "lv_name,lv_size",
            "-S",
            &select,
            &self.group,
        ];
        Ok(parse_lvs(&self.run(doing, LIMIT, "lvs", &args).await?))
    }

    /// Those of one config.
    async fn of(&self, doing: &str, config: &ConfigName, role: Role) -> Result<Vec<Lv>, StoreError> {
        let mut all = self.all(doing).await?;
        all.retain(|lv| lv.config == *config && lv.role == role);
        Ok(all)
    }

    async fn lvremove(&self, doing: &str, lv: &Lv) -> Result<(), StoreError> {
        let name = self.full(&lv_name(lv.role, &lv.config, lv.volume));
        self.run(doing, LIMIT, "lvremove", &["--yes", "--quiet", &name]).await.map(drop)
    }

    async fn lvrename(&self, doing: &str, lv: &Lv, role: Role) -> Result<(), StoreError> {
        let (from, to) = (lv_name(lv.role, &lv.config, lv.volume), lv_name(role, &lv.config, lv.volume));
        self.run(doing, LIMIT, "lvrename", &["--quiet", &self.group, &from, &to]).await.map(drop)
    }

    async fn drop_all(&self, doing: &str, config: &ConfigName, role: Role) -> Result<(), StoreError> {
        for lv in self.of(doing, config, role).await? {
            self.lvremove(doing, &lv).await?;
        }
        Ok(())
    }

    /// An empty logical volume in the build area. Its content is not that of a former one only in a thin pool.
    async fn make(
        &self,
        doing: &str,
        config: &ConfigName,
        volume: Volume,
        bytes: u64,
    ) -> Result<PathBuf, StoreError> {
        for lv in self.of(doing, config, Role::New).await?.iter().filter(|lv| lv.volume == volume) {
            self.lvremove(doing, lv).await?;
        }
        let (name, size) = (lv_name(Role::New, config, volume), format!("{bytes}b"));
        let common = ["--yes", "--quiet", "--wipesignatures", "y", "--addtag", TAG, "--name", &name];
        let place: Vec<&str> = match &self.pool {
            Some(pool) => vec!["--virtualsize", &size, "--thinpool", pool, &self.group],
            None => vec!["--size", &size, &self.group],
        };
        self.run(doing, LIMIT, "lvcreate", &[&common[..], &place].concat()).await?;
        Ok(self.device(Role::New, config, volume))
    }

    /// Ends what a crash left between two renames, and what has no disk to belong to.
    async fn heal(&self, doing: &str) -> Result<Vec<Lv>, StoreError> {
        let all = self.all(doing).await?;
        let is = |lv: &Lv, role, volume| lv.role == role && lv.volume == volume;
        let has = |c: &ConfigName, role, volume| all.iter().any(|lv| lv.config == *c && is(lv, role, volume));
        let mut healed = false;
        for lv in all.iter().filter(|lv| lv.role == Role::Old) {
            healed = true;
            if has(&lv.config, Role::Whole, lv.volume) {
                self.lvremove(doing, lv).await?;
            } else {
                self.lvrename(doing, lv, Role::Whole).await?;
            }
        }
        if healed { self.all(doing).await } else { Ok(all) }
    }
}

#[async_trait]
impl Store for LvmStore {
    fn kind(&self) -> &'static str {
        "lvm"
    }

    async fn room(&self) -> Result<StoreRoom, StoreError> {
        let doing = format!("ask for the room in {}", self.group);
        let common = ["--noheadings", "--nosuffix", "--units", "m", "-o"];
        let (program, columns, what) = match &self.pool {
            Some(pool) => ("lvs", "lv_size,data_percent", self.full(pool)),
            None => ("vgs", "vg_size,vg_free", self.group.clone()),
        };
        let text = self.run(&doing, LIMIT, program, &[&common[..], &[columns, &what]].concat()).await?;
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let [total, second] = numbers[..] else {
            return Err(StoreError::Failed { doing, why: format!("{program} says {:?}", text.trim()) });
        };
        let free = if self.pool.is_some() { total * (1.0 - second / 100.0) } else { second };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // MiB, not negative; saturates
        let mib = |n: f64| n.max(0.0) as u64;
        Ok(StoreRoom { kind: "lvm".into(), total: mib(total), free: mib(free) })
    }

    async fn create(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<PathBuf, StoreError> {
        let doing = format!("make the {volume} of {config}");
        let device = self.make(&doing, config, volume, bytes).await?;
        if self.pool.is_none() {
            // what a former user of these blocks wrote is not the next one's to read
            let path = device.to_string_lossy();
            self.run(&doing, LONG, "blkdiscard", &["--zeroout", &path]).await?;
        }
        Ok(device)
    }

    async fn copy(&self, from: &ConfigName, to: &ConfigName, volume: Volume) -> Result<PathBuf, StoreError> {
        let doing = format!("copy the {volume} of {from} for {to}");
        let Some(source) =
            self.of(&doing, from, Role::Whole).await?.into_iter().find(|lv| lv.volume == volume)
        else {
            return Err(StoreError::Missing { doing, what: format!("{volume} of {from}") });
        };
        if self.pool.is_none() {
            let device = self.make(&doing, to, volume, source.bytes).await?;
            let ends = (self.path(from, volume), &device);
            let (input, output) = (format!("if={}", ends.0.display()), format!("of={}", ends.1.display()));
            self.run(&doing, LONG, "dd", &[&input, &output, "bs=4M", "conv=fsync", "status=none"]).await?;
            return Ok(device);
        }
        for lv in self.of(&doing, to, Role::New).await?.iter().filter(|lv| lv.volume == volume) {
            self.lvremove(&doing, lv).await?;
        }
        let (name, origin) = (lv_name(Role::New, to, volume), self.full(&lv_name(Role::Whole, from, volume)));
        let args = [
            "--yes",
            "--quiet",
            "--snapshot",
            "--setactivationskip",
            "n",
            "--addtag",
            TAG,
            "--name",
            &name,
            &origin,
        ];
        self.run(&doing, LIMIT, "lvcreate", &args).await?;
        Ok(self.device(Role::New, to, volume))
    }

    async fn commit(&self, config: &ConfigName) -> Result<(), StoreError> {
        let doing = format!("put the new volumes of {config} in their place");
        let mut made = self.of(&doing, config, Role::New).await?;
        // the disk last: who has a disk is whole
        made.sort_by_key(|lv| std::cmp::Reverse(lv.volume));
        let there = self.of(&doing, config, Role::Whole).await?;
        for lv in made {
            let device = self.device(Role::New, config, lv.volume);
            let synced = tokio::task::spawn_blocking(move || std::fs::File::open(device)?.sync_all()).await;
            let failed = |why: String| StoreError::Failed { doing: doing.clone(), why };
            synced.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
            let old = there.iter().find(|old| old.volume == lv.volume);
            if let Some(old) = old {
                self.lvrename(&doing, old, Role::Old).await?;
            }
            self.lvrename(&doing, &lv, Role::Whole).await?;
            if let Some(old) = old {
                self.lvremove(&doing, &Lv { role: Role::Old, ..old.clone() }).await?;
            }
        }
        Ok(())
    }

    async fn discard(&self, config: &ConfigName) -> Result<(), StoreError> {
        self.drop_all(&format!("remove what was made of {config}"), config, Role::New).await
    }

    fn path(&self, config: &ConfigName, volume: Volume) -> PathBuf {
        self.device(Role::Whole, config, volume)
    }

    async fn size(&self, config: &ConfigName, volume: Volume) -> Result<Option<u64>, StoreError> {
        let all = self.of(&format!("look at the {volume} of {config}"), config, Role::Whole).await?;
        Ok(all.iter().find(|lv| lv.volume == volume).map(|lv| lv.bytes))
    }

    async fn grow(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<(), StoreError> {
        let doing = format!("make the {volume} of {config} larger");
        match self.size(config, volume).await? {
            None => Err(StoreError::Missing { doing, what: "such volume".into() }),
            Some(has) if has >= bytes => Ok(()),
            Some(_) => {
                let (size, name) = (format!("{bytes}b"), self.full(&lv_name(Role::Whole, config, volume)));
                self.run(&doing, LIMIT, "lvextend", &["--quiet", "--size", &size, &name]).await.map(drop)
            }
        }
    }

    async fn drop_volume(&self, config: &ConfigName, volume: Volume) -> Result<(), StoreError> {
        let doing = format!("remove the {volume} of {config}");
        for lv in self.of(&doing, config, Role::Whole).await?.iter().filter(|lv| lv.volume == volume) {
            self.lvremove(&doing, lv).await?;
        }
        Ok(())
    }

    async fn remove(&self, config: &ConfigName) -> Result<(), StoreError> {
        let doing = format!("remove the volumes of {config}");
        let mut whole = self.of(&doing, config, Role::Whole).await?;
        if whole.is_empty() {
            return Err(StoreError::Missing { doing, what: "such volume".into() });
        }
        self.drop_all(&doing, config, Role::Removed).await?;
        whole.sort_by_key(|lv| lv.volume);
        for lv in whole {
            self.lvrename(&doing, &lv, Role::Removed).await?;
        }
        Ok(())
    }

    async fn restore(&self, config: &ConfigName) -> Result<(), StoreError> {
        let doing = format!("restore the volumes of {config}");
        if !self.of(&doing, config, Role::Whole).await?.is_empty() {
            return Err(StoreError::Exists { doing, what: "a config with volumes of that name".into() });
        }
        let mut removed = self.of(&doing, config, Role::Removed).await?;
        if removed.is_empty() {
            return Err(StoreError::Missing { doing, what: "such volume".into() });
        }
        removed.sort_by_key(|lv| std::cmp::Reverse(lv.volume));
        for lv in removed {
            self.lvrename(&doing, &lv, Role::Whole).await?;
        }
        Ok(())
    }

    async fn purge(&self, config: &ConfigName) -> Result<(), StoreError> {
        self.drop_all(&format!("remove the volumes of {config} for good"), config, Role::Removed).await
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        let all = self.heal(&format!("list the volume group {}", self.group)).await?;
        let names = |role| {
            let mut names: Vec<ConfigName> =
                all.iter().filter(|lv| lv.role == role).map(|lv| lv.config.clone()).collect();
            names.sort();
            names.dedup();
            names
        };
        let whole = all.iter().filter(|lv| lv.role == Role::Whole);
        let mut volumes: Vec<_> = whole.map(|lv| (lv.config.clone(), lv.volume, lv.bytes)).collect();
        volumes.sort();
        Ok(Listing { volumes, building: names(Role::New), removed: names(Role::Removed) })
    }
}
