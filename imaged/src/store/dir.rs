//! A directory of sparse files: `DIR/volumes/CONFIG/{disk,swap}`, build areas `DIR/volumes/CONFIG.new`, removed ones in
//! `DIR/removed/CONFIG`, and those on their way out `DIR/removed/CONFIG.gone`. A config's name holds no dot, so no build area has the name of a config.

use super::{Listing, Store, StoreError, Volume, sparse};
use async_trait::async_trait;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use xvm_model::{ConfigName, images::StoreRoom};

/// See the file's head.
#[derive(Debug, Clone)]
pub struct DirStore {
    dir: PathBuf,
}

impl DirStore {
    /// Makes the directories that are missing.
    pub fn open(dir: &Path) -> Result<DirStore, StoreError> {
        let store = DirStore { dir: dir.to_owned() };
        for part in [store.volumes(), store.taken()] {
            fs::create_dir_all(&part)
                .map_err(|e| StoreError::of(format!("open the store in {}", dir.display()), dir, &e))?;
        }
        // what was on its way out when a process was killed
        for name in names(&store.taken(), ".gone").unwrap_or_default() {
            fs::remove_dir_all(store.taken().join(format!("{name}.gone"))).ok();
        }
        Ok(store)
    }

    fn volumes(&self) -> PathBuf {
        self.dir.join("volumes")
    }

    fn taken(&self) -> PathBuf {
        self.dir.join("removed")
    }

    fn whole(&self, config: &ConfigName) -> PathBuf {
        self.volumes().join(config.as_str())
    }

    fn area(&self, config: &ConfigName) -> PathBuf {
        self.volumes().join(format!("{config}.new"))
    }

    fn gone(&self, config: &ConfigName) -> PathBuf {
        self.taken().join(config.as_str())
    }

    /// Removes a removed config's volumes. They lose their name first: half of them must never be found as a whole.
    fn forget(&self, config: &ConfigName) -> io::Result<()> {
        let out = self.taken().join(format!("{config}.gone"));
        absent_ok(fs::remove_dir_all(&out))?;
        absent_ok(fs::rename(self.gone(config), &out))?;
        absent_ok(fs::remove_dir_all(&out))
    }

    /// Runs file operations where they may block.
    async fn run<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&DirStore) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let place = self.dir.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done.map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => StoreError::Missing { doing, what: "such volume".into() },
                io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                    StoreError::Exists { doing, what: "a config with volumes of that name".into() }
                }
                _ => StoreError::of(doing, &place, &e),
            }),
            Err(e) => Err(StoreError::Failed { doing, why: e.to_string() }),
        }
    }

    /// A free place for a volume in the build area. One that a failed try left is removed again by [`Store::discard`].
    fn place(&self, config: &ConfigName, volume: Volume) -> io::Result<PathBuf> {
        fs::create_dir_all(self.area(config))?;
        let path = self.area(config).join(volume.word());
        absent_ok(fs::remove_file(&path))?;
        Ok(path)
    }
}

/// Whatever was to be removed is not there: as good.
fn absent_ok(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// What a directory names survives a power failure after this.
fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// The entries of a directory that are named as configs, with `suffix` after it.
fn names(dir: &Path, suffix: &str) -> io::Result<Vec<ConfigName>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?.file_name();
        let name = entry.to_str().and_then(|n| n.strip_suffix(suffix)).map(ConfigName::parse);
        if let Some(Ok(name)) = name {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

#[async_trait]
impl Store for DirStore {
    fn kind(&self) -> &'static str {
        "dir"
    }

    async fn room(&self) -> Result<StoreRoom, StoreError> {
        self.run(format!("ask for the room in {}", self.dir.display()), |s| {
            let fs = rustix::fs::statvfs(&s.dir)?;
            let mib = |blocks: u64| blocks.saturating_mul(fs.f_frsize) >> 20;
            Ok(StoreRoom { kind: "dir".into(), total: mib(fs.f_blocks), free: mib(fs.f_bavail) })
        })
        .await
    }

    async fn create(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<PathBuf, StoreError> {
        let name = config.clone();
        self.run(format!("make the {volume} of {config}"), move |s| {
            let path = s.place(&name, volume)?;
            sparse::create(&path)?.set_len(bytes)?;
            Ok(path)
        })
        .await
    }

    async fn copy(&self, from: &ConfigName, to: &ConfigName, volume: Volume) -> Result<PathBuf, StoreError> {
        let (source, name) = (self.path(from, volume), to.clone());
        self.run(format!("copy the {volume} of {from} for {to}"), move |s| {
            let path = s.place(&name, volume)?;
            // a full disk leaves nothing: half a copy goes at once
            sparse::copy(&source, &path).inspect_err(|_| {
                fs::remove_file(&path).and_then(|()| fs::remove_dir(s.area(&name))).ok();
            })?;
            Ok(path)
        })
        .await
    }

    async fn commit(&self, config: &ConfigName) -> Result<(), StoreError> {
        let name = config.clone();
        self.run(format!("put the new volumes of {config} in their place"), move |s| {
            let (area, whole) = (s.area(&name), s.whole(&name));
            let made = Volume::ALL.iter().filter(|v| area.join(v.word()).exists());
            for volume in made.clone() {
                sync(&area.join(volume.word()))?;
            }
            sync(&area)?;
            if whole.exists() {
                // the swap first: its content does not matter if the power fails between the two
                for volume in made.rev() {
                    fs::rename(area.join(volume.word()), whole.join(volume.word()))?;
                }
                sync(&whole)?;
                fs::remove_dir_all(&area)?;
            } else {
                fs::rename(&area, &whole)?;
            }
            sync(&s.volumes())
        })
        .await
    }

    async fn discard(&self, config: &ConfigName) -> Result<(), StoreError> {
        let name = config.clone();
        self.run(format!("remove what was made of {config}"), move |s| {
            absent_ok(fs::remove_dir_all(s.area(&name)))
        })
        .await
    }

    fn path(&self, config: &ConfigName, volume: Volume) -> PathBuf {
        self.whole(config).join(volume.word())
    }

    async fn size(&self, config: &ConfigName, volume: Volume) -> Result<Option<u64>, StoreError> {
        let path = self.path(config, volume);
        self.run(format!("look at the {volume} of {config}"), move |_| match fs::metadata(path) {
            Ok(m) => Ok(Some(m.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }

    async fn grow(&self, config: &ConfigName, volume: Volume, bytes: u64) -> Result<(), StoreError> {
        let path = self.path(config, volume);
        self.run(format!("make the {volume} of {config} larger"), move |_| {
            let file = fs::File::options().write(true).open(path)?;
            if file.metadata()?.len() < bytes {
                file.set_len(bytes)?;
                file.sync_all()?;
            }
            Ok(())
        })
        .await
    }

    async fn drop_volume(&self, config: &ConfigName, volume: Volume) -> Result<(), StoreError> {
        let path = self.path(config, volume);
        self.run(format!("remove the {volume} of {config}"), move |_| absent_ok(fs::remove_file(path))).await
    }

    async fn remove(&self, config: &ConfigName) -> Result<(), StoreError> {
        let name = config.clone();
        self.run(format!("remove the volumes of {config}"), move |s| {
            if !s.whole(&name).exists() {
                return Err(io::ErrorKind::NotFound.into());
            }
            s.forget(&name)?;
            fs::rename(s.whole(&name), s.gone(&name))?;
            sync(&s.volumes()).and(sync(&s.taken()))
        })
        .await
    }

    async fn restore(&self, config: &ConfigName) -> Result<(), StoreError> {
        let name = config.clone();
        self.run(format!("restore the volumes of {config}"), move |s| {
            if s.whole(&name).exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(s.gone(&name), s.whole(&name))?;
            sync(&s.volumes()).and(sync(&s.taken()))
        })
        .await
    }

    async fn purge(&self, config: &ConfigName) -> Result<(), StoreError> {
        let name = config.clone();
        self.run(format!("remove the volumes of {config} for good"), move |s| s.forget(&name)).await
    }

    async fn list(&self) -> Result<Listing, StoreError> {
        self.run(format!("list the store in {}", self.dir.display()), |s| {
            let mut volumes = Vec::new();
            for name in names(&s.volumes(), "")? {
                for volume in Volume::ALL {
                    match fs::metadata(s.path(&name, *volume)) {
                        Ok(m) => volumes.push((name.clone(), *volume, m.len())),
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                        Err(e) => return Err(e),
                    }
                }
            }
            Ok(Listing { volumes, building: names(&s.volumes(), ".new")?, removed: names(&s.taken(), "")? })
        })
        .await
    }
}
