//! Changes to an image that exists: the identity of a clone, another address or other keys, a larger disk. All take seconds at most, and
//! the image must not be in use.

use super::{
    BuildError, Paths, Site, builder,
    cage::Cage,
    edit, ext4,
    job::{WorkDir, error},
    partition,
    tool::Trouble,
};
use std::path::Path;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xvm_model::{ConfigName, config::Config};

/// Which changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personal {
    /// It is a copy: it loses what only its model may have (machine id, host keys, UUIDs), and gets its own name, address and keys.
    Clone,
    /// It stays who it is, and gets its name, address and keys as its config has them now.
    Settings,
}

/// A short stay in an image, with a directory of its own.
pub struct Visit {
    /// How its tools are run.
    pub cage: Cage,
    // dropped after the tools have ended
    _dir: WorkDir,
}

impl Visit {
    /// Makes its directory.
    pub fn begin(paths: &Paths, cancel: CancellationToken) -> Result<Visit, BuildError> {
        let dir = WorkDir::make(&paths.work, &format!("visit-{}", Uuid::new_v4()))
            .map_err(|e| error("customise", Trouble::of(&paths.work, &e)))?;
        Ok(Visit { cage: Cage { dir: dir.0.clone(), log: None, cancel }, _dir: dir })
    }
}

/// Writes name, address and keys into an image. One without an ext4 file system stays as it is.
pub async fn personalise(
    paths: &Paths,
    site: &Site,
    name: &ConfigName,
    config: &Config,
    disk: &Path,
    what: Personal,
    cancel: CancellationToken,
) -> Result<(), BuildError> {
    let visit = Visit::begin(paths, cancel)?;
    let done = async {
        let cage = &visit.cage;
        let Some(builder) = builder(config) else { return Ok(()) };
        let Some(image) = partition::root(disk).map_err(|e| Trouble::of(disk, &e))? else { return Ok(()) };
        ext4::settle(cage, &image).await?;
        let mut edits = if what == Personal::Clone { builder.forget() } else { Vec::new() };
        edits.extend(builder.identity(site, name, config));
        edit::in_image(cage, &image, &edits).await?;
        // the boot loader of a system in a partition may look for the old UUID
        if what == Personal::Clone && image.offset == 0 {
            ext4::rename(cage, &image).await?;
        }
        ext4::settle(cage, &image).await
    };
    done.await.map_err(|e| error("customise", e))
}

/// Makes the file system as large as its disk, where an ext4 is on the whole of it; others grow when they boot.
pub async fn grow(paths: &Paths, disk: &Path, cancel: CancellationToken) -> Result<(), BuildError> {
    let visit = Visit::begin(paths, cancel)?;
    let image = ext4::Fs { disk: disk.to_owned(), offset: 0 };
    let done = async {
        match image.is_ext4() {
            Ok(true) => ext4::fill(&visit.cage, &image).await,
            Ok(false) => Ok(()),
            Err(e) => Err(Trouble::of(disk, &e)),
        }
    };
    done.await.map_err(|e| error("volumes", e))
}
