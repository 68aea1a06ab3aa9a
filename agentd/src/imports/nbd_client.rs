//! Exports as block devices of the server, for hypervisors that do not open them themselves (Xen).
//!
//! | file | what |
//! |---|---|
//! | `DIR/EXPORT` | a link to the device, `/dev/nbdN`, under a name that does not change when the device does |
//! | `DIR/.imports.json` | which device has which export; written before the device is connected |
//!
//! Only what is written there is ever disconnected, and only while it is still the same connection: other network block devices of the
//! server are not xvm's. Both files and connections end with the server's kernel, so DIR is below `/run`.

mod device;

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use xvm_model::spec::GrantDisk;
use xvm_model::{ConfigName, DomainName, Grant};

/// So long what was attached for a domain is kept though the domain is not here: it is about to come.
const COMING: Duration = Duration::from_secs(120);
/// How many free devices are tried: another program may take one at the same moment.
const TRIES: usize = 4;
/// The name of the record.
const RECORD: &str = ".imports.json";

/// Why an export is not a device here.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// It cannot be connected, or let go.
    #[error("cannot {doing} {export}: {why}")]
    Device {
        /// What was tried.
        doing: &'static str,
        /// Which export.
        export: Box<str>,
        /// What was seen.
        why: String,
    },
    /// It is served by TLS alone.
    #[error(
        "cannot attach the disks of {0}: they are served by TLS (imaged --tls), and this server imports exports without it only; a server whose hypervisor opens them itself (QEMU) can run it"
    )]
    Tls(ConfigName),
    /// The directory cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The record is damaged.
    #[error("cannot read {}: {why}; when no domain uses an import, remove it", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Who uses imports: a domain, and the stem of the exports of its lease; none when its lease is not known.
pub type User = (DomainName, Option<Box<str>>);

/// One import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Import {
    domain: DomainName,
    /// What the names of all exports of its lease begin with.
    stem: Box<str>,
    device: u32,
    /// The process that connected the device tells this connection from a later one; none while it is being connected.
    pid: Option<u32>,
    /// Bytes.
    size: u64,
}

impl Import {
    /// Whether its device is connected, and by us.
    fn is_ours(&self) -> bool {
        match device::connected(self.device) {
            None => false,
            Some(pid) => match self.pid {
                Some(own) => own == pid,
                // a crash came between the connection and its record
                None => device::size(self.device) == Some(self.size),
            },
        }
    }
}

/// What is imported, by the exports' names.
#[derive(Debug, Default)]
struct Known {
    imports: BTreeMap<Box<str>, Import>,
    /// When something was attached for a lease; one that was found at the start was attached then.
    attached: BTreeMap<Box<str>, Instant>,
}

impl Known {
    /// The exports of some imports.
    fn names(&self, which: impl Fn(&Import) -> bool) -> Vec<Box<str>> {
        self.imports.iter().filter(|(_, i)| which(i)).map(|(export, _)| export.clone()).collect()
    }
}

/// The imports of a server.
#[derive(Debug)]
pub struct Imports {
    dir: PathBuf,
    coming: Duration,
    /// Held while devices are connected, one after the other.
    known: Mutex<Known>,
}

impl Imports {
    /// Those in `dir`, which is made with the first import.
    pub fn open(dir: &Path) -> Result<Imports, NbdError> {
        let path = dir.join(RECORD);
        let imports: BTreeMap<Box<str>, Import> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| NbdError::Damaged { path: path.clone(), why: e.to_string() })?,
            Err(e) if e.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(wrong("read", &path)(e)),
        };
        let attached = imports.values().map(|i| (i.stem.clone(), Instant::now())).collect();
        let known = Mutex::new(Known { imports, attached });
        Ok(Imports { dir: dir.to_owned(), coming: COMING, known })
    }

    /// With another time for which what was attached waits for its domain.
    pub fn coming(self, coming: Duration) -> Imports {
        Imports { coming, ..self }
    }

    /// Makes devices of all exports of a lease; those that are devices already stay as they are. Nothing of it is left when one fails.
    /// It takes some 20 s an export at most.
    pub async fn attach(&self, grant: &Grant) -> Result<(), NbdError> {
        if grant.tls {
            // nbd-client would do that in a process of its own, and the disk would go with it
            return Err(NbdError::Tls(grant.config.clone()));
        }
        let mut known = self.known.lock().await;
        known.attached.insert(grant.stem(), Instant::now());
        for disk in &grant.disks {
            if let Err(error) = self.import(&mut known, grant, disk).await {
                let stem = grant.stem();
                let own = known.names(|i| i.stem == stem);
                if let Err(error) = self.drop_all(&mut known, own).await {
                    tracing::error!(%error, "an import is left");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Drops what none of `users` uses, but for what was attached a moment ago: its domain is about to come. The number of imports that
    /// were dropped.
    pub async fn tidy(&self, users: &[User]) -> Result<usize, NbdError> {
        let mut known = self.known.lock().await;
        known.attached.retain(|_, at| at.elapsed() < self.coming);
        let coming: BTreeSet<Box<str>> = known.attached.keys().cloned().collect();
        let used = |i: &Import| {
            let by = |(name, stem): &User| *name == i.domain && stem.as_ref().is_none_or(|s| *s == i.stem);
            coming.contains(&i.stem) || users.iter().any(by)
        };
        let unused = known.names(|i| !used(i));
        self.drop_all(&mut known, unused).await
    }

    /// [`Imports::tidy`], then attaches again what `grants` name and is not attached, or does not answer. A sentence of what was done.
    pub async fn update(&self, users: &[User], grants: &[Grant]) -> Result<String, NbdError> {
        let dropped = self.tidy(users).await?;
        let (mut mended, mut failed) = (0, None);
        let mut known = self.known.lock().await;
        for grant in grants {
            for disk in &grant.disks {
                // one whose lease is over cannot be mended, and must not keep the others from it
                match self.import(&mut known, grant, disk).await {
                    Ok(true) => mended += 1,
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        let count = known.imports.len();
        match failed {
            Some(error) => Err(error),
            None => Ok(format!("imports: {count} attached, {mended} of them again, {dropped} dropped")),
        }
    }

    /// Makes a device of one export; false when it is one that answers.
    async fn import(&self, known: &mut Known, grant: &Grant, disk: &GrantDisk) -> Result<bool, NbdError> {
        let failed = |why| NbdError::Device { doing: "attach", export: disk.export.clone(), why };
        std::fs::create_dir_all(&self.dir).map_err(wrong("make", &self.dir))?;
        let mut devices = Vec::new();
        if let Some(import) = known.imports.get(&disk.export) {
            if import.is_ours() {
                if device::answers(import.device).await {
                    self.link(&disk.export, import.device)?;
                    return Ok(false);
                }
                device::detach(import.device).await.map_err(failed)?;
            }
            // who has the device open goes on with it
            if device::connected(import.device).is_none() {
                devices.push(import.device);
            }
        }
        let taken: BTreeSet<u32> = known.imports.values().map(|i| i.device).collect();
        devices.extend(device::free().await.map_err(failed)?.into_iter().filter(|d| !taken.contains(d)));
        let mut why = "all free network block devices are about to be used".to_owned();
        for device in devices.into_iter().take(TRIES) {
            let domain = grant.config.domain();
            let import = Import { domain, stem: grant.stem(), device, pid: None, size: disk.size };
            known.imports.insert(disk.export.clone(), import);
            self.keep(known)?;
            why = match device::attach(device, &grant.host, grant.port, &disk.export).await {
                Ok(pid) => match device::size(device) {
                    Some(size) if size == disk.size => {
                        if let Some(import) = known.imports.get_mut(&disk.export) {
                            import.pid = Some(pid);
                        }
                        self.keep(known)?;
                        self.link(&disk.export, device)?;
                        return Ok(true);
                    }
                    size => {
                        device::detach(device).await.map_err(failed)?;
                        let size = size.unwrap_or_default();
                        return Err(failed(format!("it has {size} bytes, not {}", disk.size)));
                    }
                },
                Err(why) => why,
            };
            // whatever is connected there now is not ours
            if let Some(import) = known.imports.get_mut(&disk.export) {
                import.pid = Some(0);
            }
            self.keep(known)?;
            // it was not taken by another program: the next one would not do either
            if device::connected(device).is_none() {
                break;
            }
        }
        Err(failed(why))
    }

    /// Drops imports; all of them are tried, the error is the last one's.
    async fn drop_all(&self, known: &mut Known, chosen: Vec<Box<str>>) -> Result<usize, NbdError> {
        let (mut dropped, mut failed) = (0, None);
        for export in chosen {
            let Some(import) = known.imports.get(&export) else { continue };
            let link = self.dir.join(&*export);
            match std::fs::remove_file(&link) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(wrong("remove", &link)(e)),
                _ => {}
            }
            if import.is_ours()
                && let Err(why) = device::detach(import.device).await
            {
                failed = Some(NbdError::Device { doing: "detach", export, why });
                continue;
            }
            known.imports.remove(&export);
            self.keep(known)?;
            dropped += 1;
        }
        failed.map_or(Ok(dropped), Err)
    }

    /// Puts the link in its place, in place of one to another device.
    fn link(&self, export: &str, device: u32) -> Result<(), NbdError> {
        let (link, target) = (self.dir.join(export), PathBuf::from(device::path(device)));
        if std::fs::read_link(&link).is_ok_and(|there| there == target) {
            return Ok(());
        }
        let new = self.dir.join(".new");
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(wrong("remove", &new)(e)),
            _ => {}
        }
        symlink(target, &new).map_err(wrong("link", &new))?;
        std::fs::rename(&new, &link).map_err(wrong("name", &link))
    }

    fn keep(&self, known: &Known) -> Result<(), NbdError> {
        let path = self.dir.join(RECORD);
        let text =
            serde_json::to_string(&known.imports).map_err(|e| wrong("write", &path)(io::Error::other(e)))?;
        xvm_daemon::write_whole(&self.dir, RECORD, &text)
            .map_err(|e| wrong("write", &path)(io::Error::other(e.to_string())))
    }
}

fn wrong(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NbdError + use<> {
    let path = PathBuf::from(path);
    move |source| NbdError::Io { what, path, source }
}
