//! Exports as block devices of the server, for hypervisors that do not open them themselves (Xen).
//!
//! | file | what |
//! |---|---|
//! | `DIR/EXPORT` | a link to the device, `/dev/nbdN`, under a name that does not change when the device does |
//! | `DIR/.imports.json` | which device has which export; written before the device is connected |
//!
//! A connected device says itself to which export, and that xvm has connected it: only such ones are ever touched, other network block
//! devices of the server are not xvm's. Files and connections end with the server's kernel, so DIR is below `/run`.
//!
//! A device that loses its connection keeps its requests: whoever uses it waits, and goes on when [`Imports::watch`] has connected it
//! again. So a guest outlives whoever serves its disk, as QEMU's guests do.

mod kernel;
mod netlink;
mod record;
mod watch;

pub use watch::Waiting;

use super::negotiate;
use kernel::Connected;
use record::{Import, Record};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify};
use xvm_model::spec::GrantDisk;
use xvm_model::{ConfigName, DomainName, Grant};

/// So long what was attached for a domain is kept though the domain is not here: it is about to come.
const COMING: Duration = Duration::from_secs(120);
/// A request that is not answered for so long is asked again over another connection.
const REQUEST: Duration = Duration::from_secs(30);
/// How many free devices are tried: another program may take one at the same moment.
const TRIES: usize = 4;

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

/// The imports of a server.
#[derive(Debug)]
pub struct Imports {
    coming: Duration,
    request: Duration,
    /// Held while devices are connected, one after the other.
    record: Mutex<Record>,
    /// Something was attached.
    news: Notify,
}

impl Imports {
    /// Those in `dir`, which is made with the first import.
    pub fn open(dir: &Path) -> Result<Imports, NbdError> {
        let record = Mutex::new(Record::open(dir)?);
        Ok(Imports { coming: COMING, request: REQUEST, record, news: Notify::new() })
    }

    /// With another time for which what was attached waits for its domain.
    pub fn coming(self, coming: Duration) -> Imports {
        Imports { coming, ..self }
    }

    /// With another time after which a request is asked again, in whole seconds, at least one; for devices that are connected from now on.
    pub fn request(self, request: Duration) -> Imports {
        Imports { request, ..self }
    }

    /// Makes devices of all exports of a lease; those that are devices already stay as they are. Nothing of it is left when one fails.
    /// It takes some 5 s an export at most, when the kernel's module is loaded.
    pub async fn attach(&self, grant: &Grant) -> Result<(), NbdError> {
        if grant.tls {
            // the kernel speaks no TLS: a process would have to do it, and the disk would go with it
            return Err(NbdError::Tls(grant.config.clone()));
        }
        let mut record = self.record.lock().await;
        let stem = grant.stem();
        let before = record.names(|i| i.stem == stem);
        record.attached.insert(stem.clone(), Instant::now());
        for disk in &grant.disks {
            if let Err(error) = self.import(&mut record, grant, disk).await {
                let mut half = record.names(|i| i.stem == stem);
                half.retain(|export| !before.contains(export));
                if let Err(error) = drop_all(&mut record, half).await {
                    tracing::error!(%error, "an import is left");
                }
                return Err(error);
            }
        }
        self.news.notify_one();
        Ok(())
    }

    /// Drops what is attached for no one of `users`, who are all that there are, and not for a domain that is about to come. How many.
    pub async fn tidy(&self, users: &[User]) -> Result<usize, NbdError> {
        let mut record = self.record.lock().await;
        // one that was seen is not about to come any more
        let seen = |stem: &str| users.iter().any(|(_, s)| s.as_deref() == Some(stem));
        record.attached.retain(|stem, at| at.elapsed() < self.coming && !seen(stem));
        let coming: BTreeSet<Box<str>> = record.attached.keys().cloned().collect();
        let used = |i: &Import| {
            let by = |(name, stem): &User| *name == i.domain && stem.as_ref().is_none_or(|s| *s == i.stem);
            coming.contains(&i.stem) || users.iter().any(by)
        };
        let unused = record.names(|i| !used(i));
        drop_all(&mut record, unused).await
    }

    /// [`Imports::tidy`], then attaches what `grants` name and is not attached, and connects again what has lost its connection. A
    /// sentence of what was done.
    pub async fn update(&self, users: &[User], grants: &[Grant]) -> Result<String, NbdError> {
        let dropped = self.tidy(users).await?;
        let (mut anew, mut failed) = (0, None);
        let mut record = self.record.lock().await;
        for grant in grants {
            for disk in &grant.disks {
                // one whose lease is over cannot be mended, and must not keep the others from it
                match self.import(&mut record, grant, disk).await {
                    Ok(true) => anew += 1,
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        let count = record.imports().len();
        match failed {
            Some(error) => Err(error),
            None => Ok(format!("imports: {count} attached, {anew} of them anew, {dropped} dropped")),
        }
    }

    /// Makes a device of one export; false when it is one already, which has its connection then.
    async fn import(&self, record: &mut Record, grant: &Grant, disk: &GrantDisk) -> Result<bool, NbdError> {
        let export = &disk.export;
        let failed = |why| NbdError::Device { doing: "attach", export: export.clone(), why };
        let opened = negotiate::open(&grant.host, grant.port, export).await.map_err(failed)?;
        if opened.size != disk.size {
            return Err(failed(format!("it has {} bytes, not {}", opened.size, disk.size)));
        }
        let import = |device| Import {
            domain: grant.config.domain(),
            stem: grant.stem(),
            device,
            host: grant.host.clone(),
            port: grant.port,
        };
        if let Some(device) = record.live(export).map(|i| i.device) {
            // who has it open goes on with it
            kernel::reconnect(device, export, &opened).await.map_err(failed)?;
            record.put(export, import(device))?;
            record.link(export, device)?;
            return Ok(false);
        }
        let free = kernel::free().await.map_err(failed)?;
        // a domain that looks for its disk by the device's own name finds it again
        let before = record.imports().get(export).map(|i| i.device).filter(|d| free.contains(d));
        let taken: BTreeSet<u32> = record.imports().values().map(|i| i.device).collect();
        let others = free.into_iter().filter(|d| !taken.contains(d));
        for device in before.into_iter().chain(others).take(TRIES) {
            record.put(export, import(device))?;
            match kernel::connect(device, export, &opened, self.request).await.map_err(failed)? {
                Connected::Done => {
                    record.link(export, device)?;
                    return Ok(true);
                }
                Connected::Taken => {}
            }
        }
        Err(failed("all free network block devices are about to be used".into()))
    }
}

/// Drops imports; all of them are tried, the error is the last one's.
async fn drop_all(record: &mut Record, chosen: Vec<Box<str>>) -> Result<usize, NbdError> {
    let (mut dropped, mut failed) = (0, None);
    for export in chosen {
        record.unlink(&export)?;
        if let Some(device) = record.live(&export).map(|i| i.device)
            && let Err(why) = kernel::disconnect(device).await
        {
            failed = Some(NbdError::Device { doing: "detach", export, why });
            continue;
        }
        record.remove(&export)?;
        dropped += 1;
    }
    failed.map_or(Ok(dropped), Err)
}
