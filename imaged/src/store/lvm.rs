//! A volume group of LVM, or a thin pool in one. What is in it and not ours is left alone: ours have the tag `xvm` and names as in
//! `names`.
//!
//! | file | what |
//! |---|---|
//! | `names` | what logical volumes are called |
//! | `tools` | LVM's tools and their reports |
//! | `blocks` | zeros and copies |
//! | `heal` | what a crash left |
//!
//! In a thin pool a copy is a snapshot, made in a moment, and new blocks read as zeros. Without one a volume is made zero first, for
//! what a former user of its blocks wrote is not the next one's to read, and a copy takes as long as its bytes.
//!
//! LVM changes one volume at a time. So who has a disk is whole or removed, whatever swap there is: the disk is the last that gets the
//! real name, and the first that loses it. [`Store::list`], which imaged begins with, ends what a crash left half done.

mod blocks;
mod heal;
mod names;
mod tools;

use super::{Listing, Store, StoreError, Volume};
use async_trait::async_trait;
use names::{Role, fits, lv_name};
use std::path::{Path, PathBuf};
use tools::{Lv, TAG, Tools, dirty_tag};
use xvm_model::{ConfigName, images::StoreRoom};

/// A pool that is fuller takes no new volumes: what writes to those that there are needs the rest.
const FULL: f64 = 0.97;

/// See the file's head.
#[derive(Debug, Clone)]
pub struct LvmStore {
    tools: Tools,
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
        Ok(LvmStore { tools: Tools { group: group.into() }, pool: pool.map(Into::into) })
    }

    fn device(&self, role: Role, config: &ConfigName, volume: Volume) -> PathBuf {
        Path::new("/dev").join(&self.tools.group).join(lv_name(role, config, volume))
    }

    async fn one(
        &self,
        doing: &str,
        config: &ConfigName,
        role: Role,
        volume: Volume,
    ) -> Result<Option<Lv>, StoreError> {
        Ok(self.tools.contents(doing).await?.find(config, role, volume).cloned())
    }

    async fn drop_all(&self, doing: &str, config: &ConfigName, role: Role) -> Result<(), StoreError> {
        let contents = self.tools.contents(doing).await?;
        for lv in contents.of(config, role) {
            self.tools.remove(doing, lv).await?;
        }
        Ok(())
    }

    /// Makes one in the build area; `place` are the words that say how large, where and of what.
    async fn make(
        &self,
        doing: &str,
        config: &ConfigName,
        volume: Volume,
        place: &[&str],
    ) -> Result<PathBuf, StoreError> {
        fits(&self.tools.group, config).map_err(|why| StoreError::Failed { doing: doing.into(), why })?;
        let contents = self.tools.contents(doing).await?;
        if let Some(lv) = contents.find(config, Role::New, volume) {
            self.tools.remove(doing, lv).await?;
        }
        // a name that somebody else uses would be in the way only when all the work is done
        for role in [Role::Whole, Role::New, Role::Old, Role::Removed] {
            let name = lv_name(role, config, volume);
            if contents.others.iter().any(|other| other.name == name) {
                let what = format!("a logical volume {} that is not xvm's", self.tools.full(&name));
                return Err(StoreError::Exists { doing: doing.into(), what });
            }
        }
        if let Some(pool) = &self.pool
            && self.tools.pool(doing, &contents, pool)?.full > FULL
        {
            return Err(StoreError::NoSpace {
                doing: doing.into(),
                place: format!("the thin pool {}", self.tools.full(pool)),
            });
        }
        let name = lv_name(Role::New, config, volume);
        let common = ["--yes", "--quiet", "--addtag", TAG, "--name", &name];
        self.tools.run(doing, "lvcreate", &[&common[..], place].concat()).await?;
        Ok(self.device(Role::New, config, volume))
    }

    async fn make_empty(
        &self,
        doing: &str,
        config: &ConfigName,
        volume: Volume,
        bytes: u64,
    ) -> Result<PathBuf, StoreError> {
        let (size, group) = (format!("{bytes}b"), &self.tools.group);
        match &self.pool {
            Some(pool) => {
                let place = ["--type", "thin", "--virtualsize", &size, "--thinpool", pool, group];
                self.make(doing, config, volume, &place).await
            }
            // what was there before is dealt with by who asked
            None => {
                let place =
                    ["--type", "linear", "--zero", "n", "--wipesignatures", "n", "--size", &size, group];
                self.make(doing, config, volume, &place).await
            }
        }
    }

    fn place(&self) -> &Path {
        Path::new(&self.tools.group)
    }
}

fn missing(doing: String, what: impl Into<String>) -> StoreError {
    StoreError::Missing { doing, what: what.into() }
}

#[async_trait]
impl Store for LvmStore {
    fn kind(&self) -> &'static str {
        "lvm"
    }

    async fn room(&self) -> Result<StoreRoom, StoreError> {
        let doing = format!("ask for the room in {}", self.tools.group);
        let (total, free) = match &self.pool {
            None => self.tools.group_room(&doing).await?,
            Some(pool) => {
                let contents = self.tools.contents(&doing).await?;
                let pool = self.tools.pool(&doing, &contents, pool)?;
                #[allow(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss
                )]
                // a share of it, 0 to 1
                let free = (pool.bytes as f64 * (1.0 - pool.used)) as u64;
                (pool.bytes, free)
            }
        };
        Ok(StoreRoom { kind: "lvm".into(), total: total >> 20, free: free >> 20 })
    }

    async fn create(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<PathBuf, StoreError> {
        let doing = format!("make the {volume} of {config}");
        let device = self.make_empty(&doing, config, volume, bytes).await?;
        if self.pool.is_none() {
            // all of it: the last extent may be larger than what was asked for
            blocks::zero(device.clone(), 0, None)
                .await
                .map_err(|e| StoreError::of(doing, self.place(), &e))?;
        }
        Ok(device)
    }

    async fn copy(&self, from: &ConfigName, to: &ConfigName, volume: Volume) -> Result<PathBuf, StoreError> {
        let doing = format!("copy the {volume} of {from} for {to}");
        let source = self.one(&doing, from, Role::Whole, volume).await?;
        let source = source.ok_or_else(|| missing(doing.clone(), format!("{volume} of {from}")))?;
        if self.pool.is_some() && source.pool == self.pool {
            let origin = self.tools.full(&source.name());
            let place = ["--snapshot", "--setactivationskip", "n", &origin];
            return self.make(&doing, to, volume, &place).await;
        }
        let device = self.make_empty(&doing, to, volume, source.bytes).await?;
        let copied = blocks::copy(self.path(from, volume), device.clone(), source.bytes).await;
        if let Err(e) = copied {
            // half a copy goes at once, as in a directory
            self.discard(to).await.ok();
            return Err(StoreError::of(doing, self.place(), &e));
        }
        Ok(device)
    }

    async fn commit(&self, config: &ConfigName) -> Result<(), StoreError> {
        let doing = format!("put the new volumes of {config} in their place");
        let contents = self.tools.contents(&doing).await?;
        if contents.of(config, Role::New).next().is_none() {
            return Err(missing(doing, "such volume"));
        }
        for lv in contents.of(config, Role::Old) {
            self.tools.remove(&doing, lv).await?;
        }
        for lv in contents.of(config, Role::New).rev() {
            let device = self.device(Role::New, config, lv.volume);
            let synced = tokio::task::spawn_blocking(move || std::fs::File::open(device)?.sync_all());
            let synced = synced.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
            synced.map_err(|e| StoreError::of(doing.as_str(), self.place(), &e))?;
            let old = contents.find(config, Role::Whole, lv.volume);
            if let Some(old) = old {
                self.tools.turn(&doing, old, Role::Old).await?;
            }
            self.tools.turn(&doing, lv, Role::Whole).await?;
            if let Some(old) = old {
                // the new one has its place: what is left of the old one is no failure, and goes by the next time
                if let Err(error) = self.tools.remove(&doing, &Lv { role: Role::Old, ..old.clone() }).await {
                    tracing::warn!(%config, %error, "a volume that was replaced is left");
                }
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
        let doing = format!("look at the {volume} of {config}");
        Ok(self.one(&doing, config, Role::Whole, volume).await?.map(|lv| lv.bytes))
    }

    async fn grow(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<(), StoreError> {
        let doing = format!("make the {volume} of {config} larger");
        let lv = self.one(&doing, config, Role::Whole, volume).await?;
        let lv = lv.ok_or_else(|| missing(doing.clone(), "such volume"))?;
        self.clean(&doing, &lv).await?;
        if lv.bytes >= bytes {
            return Ok(());
        }
        let dirty = lv.pool.is_none();
        if dirty {
            self.tools.change(&doing, &lv, "--addtag", &dirty_tag(lv.bytes)).await?;
        }
        let (size, name) = (format!("{bytes}b"), self.tools.full(&lv.name()));
        let grown = self.tools.run(&doing, "lvextend", &["--yes", "--quiet", "--size", &size, &name]).await;
        if dirty && let Some(lv) = self.one(&doing, config, Role::Whole, volume).await? {
            self.clean(&doing, &lv).await?;
        }
        grown.map(drop)
    }

    async fn drop_volume(&self, config: &ConfigName, volume: Volume) -> Result<(), StoreError> {
        let doing = format!("remove the {volume} of {config}");
        match self.one(&doing, config, Role::Whole, volume).await? {
            Some(lv) => self.tools.remove(&doing, &lv).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, config: &ConfigName) -> Result<(), StoreError> {
        let doing = format!("remove the volumes of {config}");
        let contents = self.tools.contents(&doing).await?;
        if contents.of(config, Role::Whole).next().is_none() {
            return Err(missing(doing, "such volume"));
        }
        for lv in contents.of(config, Role::Removed) {
            self.tools.remove(&doing, lv).await?;
        }
        for lv in contents.of(config, Role::Whole) {
            self.tools.turn(&doing, lv, Role::Removed).await?;
        }
        Ok(())
    }

    async fn restore(&self, config: &ConfigName) -> Result<(), StoreError> {
        let doing = format!("restore the volumes of {config}");
        let contents = self.tools.contents(&doing).await?;
        if contents.of(config, Role::Whole).next().is_some() {
            return Err(StoreError::Exists { doing, what: "a config with volumes of that name".into() });
        }
        if contents.of(config, Role::Removed).next().is_none() {
            return Err(missing(doing, "such volume"));
        }
        for lv in contents.of(config, Role::Removed).rev() {
            self.tools.turn(&doing, lv, Role::Whole).await?;
        }
        Ok(())
    }

    async fn purge(&self, config: &ConfigName) -> Result<(), StoreError> {
        self.drop_all(&format!("remove the volumes of {config} for good"), config, Role::Removed).await
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        let all = self.heal(&format!("list the volume group {}", self.tools.group)).await?;
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
