//! Where volumes are kept: a table of stores behind one trait.
//!
//! | file | what |
//! |---|---|
//! | `dir` | a directory of sparse files, the default |
//! | `lvm` | a volume group of LVM |
//! | `sparse` | copies of sparse files that share their blocks, or copy only what is there |
//!
//! Volumes are made in a config's build area, which has another name than the config, and get their real names by [`Store::commit`] when
//! they are whole. So nothing that is half made is ever found under its real name, whenever a process is killed.

pub mod dir;
pub mod lvm;
mod sparse;

use async_trait::async_trait;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use xvm_model::{ConfigName, images::StoreRoom};

/// A volume of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Volume {
    /// Its file systems; the guest's first disk.
    Disk,
    /// Its swap; the guest's second disk.
    Swap,
}

impl Volume {
    /// All of them, in the order of the guest's disks.
    pub const ALL: &'static [Volume] = &[Volume::Disk, Volume::Swap];

    /// The word that files, grants and messages use.
    pub fn word(self) -> &'static str {
        match self {
            Volume::Disk => "disk",
            Volume::Swap => "swap",
        }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a store could not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is full.
    #[error("cannot {doing}: no room is left in {place}")]
    NoSpace {
        /// What was tried, with names.
        doing: String,
        /// The directory or volume group.
        place: String,
    },
    /// There is no such volume, or no such config.
    #[error("cannot {doing}: there is no {what}")]
    Missing {
        /// What was tried.
        doing: String,
        /// What was looked for.
        what: String,
    },
    /// The name is in use.
    #[error("cannot {doing}: there is {what} already")]
    Exists {
        /// What was tried.
        doing: String,
        /// What is in the way.
        what: String,
    },
    /// Anything else.
    #[error("cannot {doing}: {why}")]
    Failed {
        /// What was tried.
        doing: String,
        /// The last meaningful line of who failed.
        why: String,
    },
}

impl StoreError {
    /// Of an operation on files in `place`.
    fn of(doing: impl Into<String>, place: &Path, e: &io::Error) -> StoreError {
        let doing = doing.into();
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::NoSpace { doing, place: place.display().to_string() }
            }
            _ => StoreError::Failed { doing, why: e.to_string() },
        }
    }
}

/// Everything that a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Whole volumes with their bytes, by config and volume.
    pub volumes: Vec<(ConfigName, Volume, u64)>,
    /// Configs with a build area: what builds are at work on, or killed ones left.
    pub building: Vec<ConfigName>,
    /// Removed configs that can be restored.
    pub removed: Vec<ConfigName>,
}

/// A place for volumes. All calls are bounded in time but for copies, which take as long as their bytes.
#[async_trait]
pub trait Store: Send + Sync {
    /// Its word in the table.
    fn kind(&self) -> &'static str;

    /// How much there is, and how much is free.
    async fn room(&self) -> Result<StoreRoom, StoreError>;

    /// A new empty volume of so many bytes in the config's build area, in place of one that is there. The path is that of a file or a
    /// block device; it reads as zeros.
    async fn create(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<PathBuf, StoreError>;

    /// A copy of `from`'s whole volume in the build area of `to`. `from` must not be in use.
    async fn copy(&self, from: &ConfigName, to: &ConfigName, volume: Volume) -> Result<PathBuf, StoreError>;

    /// Gives the volumes of the build area their real names, for good (they survive a power failure), in place of those that have
    /// them. The build area is gone after it.
    async fn commit(&self, config: &ConfigName) -> Result<(), StoreError>;

    /// Removes the build area; no error if there is none.
    async fn discard(&self, config: &ConfigName) -> Result<(), StoreError>;

    /// Where a whole volume is (or would be).
    fn path(&self, config: &ConfigName, volume: Volume) -> PathBuf;

    /// Bytes of a whole volume; none when there is none.
    async fn size(&self, config: &ConfigName, volume: Volume) -> Result<Option<u64>, StoreError>;

    /// Makes a whole volume larger; never smaller (no error, it stays as it is).
    async fn grow(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<(), StoreError>;

    /// Removes one whole volume for good; no error if there is none.
    async fn drop_volume(&self, config: &ConfigName, volume: Volume) -> Result<(), StoreError>;

    /// Takes all volumes of a config away so that they can be restored. An earlier removed config of that name is purged.
    async fn remove(&self, config: &ConfigName) -> Result<(), StoreError>;

    /// Brings a removed config's volumes back.
    async fn restore(&self, config: &ConfigName) -> Result<(), StoreError>;

    /// Removes a removed config's volumes for good; no error if there are none.
    async fn purge(&self, config: &ConfigName) -> Result<(), StoreError>;

    /// What there is.
    async fn list(&self) -> Result<Listing, StoreError>;
}

/// One row of the table.
pub struct Kind {
    /// The word before the colon of `--store WORD:WHERE`.
    pub word: &'static str,
    /// One line: what it is, and what WHERE is.
    pub about: &'static str,
    /// Opens it.
    pub open: fn(&str) -> Result<Arc<dyn Store>, StoreError>,
}

/// All kinds of stores.
pub const STORES: &[Kind] = &[
    Kind {
        word: "dir",
        about: "sparse files in the directory WHERE; copies share their blocks where its file system can",
        open: |place| Ok(Arc::new(dir::DirStore::open(Path::new(place))?)),
    },
    Kind {
        word: "lvm",
        about: "logical volumes in the volume group WHERE, or in its thin pool with WHERE as GROUP/POOL",
        open: |place| Ok(Arc::new(lvm::LvmStore::open(place)?)),
    },
];

/// Opens the store `WORD:WHERE`. The error names the kinds.
pub fn open(text: &str) -> Result<Arc<dyn Store>, StoreError> {
    let failed = |why: String| StoreError::Failed { doing: format!("open the store {text:?}"), why };
    let (word, place) =
        text.split_once(':').ok_or_else(|| failed("it is not in the form KIND:WHERE".into()))?;
    let row = STORES.iter().find(|k| k.word == word).ok_or_else(|| {
        let words: Vec<&str> = STORES.iter().map(|k| k.word).collect();
        failed(format!("kinds of stores are {}", words.join(", ")))
    })?;
    (row.open)(place)
}
