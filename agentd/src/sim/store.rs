//! What outlives the process: `sim.json` in the state directory, written whole at each change.
//!
//! The domains of a simulated hypervisor run on while its process is away, as QEMU's do while libvirtd is: what is kept here is what
//! runs. A lock on the directory keeps two processes from running the same domains.

use super::{demand::Demand, spec::DomainSpec};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};
use uuid::Uuid;
use xvm_model::{DomainName, DomainSettings, DomainState, Ratio};

/// The form of `sim.json`.
const VERSION: u32 = 1;

/// A guest that was told to work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// The share of each vCPU that it wants.
    pub share: Ratio,
    /// Until when, in milliseconds since 1970.
    pub until: u64,
}

/// A domain that may or may not be another's by now: only the other knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The migration.
    pub session: Uuid,
    /// The other hypervisor itself: whoever else answers at its address knows nothing.
    pub host: Uuid,
    /// Where it is asked, `host:port`.
    pub address: String,
}

/// One domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its identity.
    pub uuid: Uuid,
    /// How many virtual CPUs.
    pub vcpus: u16,
    /// Its memory in KiB.
    pub memory: u64,
    /// What its guest wants.
    pub demand: Demand,
    /// What makes its wandering its own.
    pub key: u64,
    /// Bytes of memory that the running guest changes in a second.
    pub dirty: u64,
    /// Milliseconds after its start in which it wants all of its vCPUs.
    pub boot_ms: u64,
    /// Milliseconds that the guest takes to power off.
    pub shutdown_ms: u64,
    /// Running, paused, shutoff or crashed; with a `handover` the state before, to go back to.
    pub state: DomainState,
    /// Why it is in that state.
    pub reason: Option<String>,
    /// What users set.
    pub settings: DomainSettings,
    /// When it booted, in milliseconds since 1970.
    pub booted: u64,
    /// Work that it was told to do.
    pub busy: Option<Busy>,
    /// When the guest powers off, in milliseconds since 1970.
    pub off_at: Option<u64>,
    /// A migration that passed the point of return and is not known to have ended.
    pub handover: Option<Handover>,
    /// It is forgotten when it is off.
    #[serde(default)]
    pub transient: bool,
}

impl Record {
    /// The domain that a flag named, which boots now (`wall`, milliseconds since 1970).
    pub fn new(spec: &DomainSpec, seed: u64, wall: u64) -> Self {
        Record {
            uuid: Uuid::new_v4(),
            vcpus: spec.vcpus,
            memory: spec.memory,
            demand: spec.demand.clone(),
            key: super::demand::key(seed, spec.name.as_str()),
            dirty: spec.dirty,
            boot_ms: spec.boot_ms,
            shutdown_ms: spec.shutdown_ms,
            state: spec.state,
            reason: None,
            settings: DomainSettings::default(),
            booted: wall,
            busy: None,
            off_at: None,
            handover: None,
            transient: false,
        }
    }

    /// KiB that it takes of the server.
    pub fn taken(&self) -> u64 {
        if self.state.is_active() { self.memory } else { 0 }
    }

    /// What is true for others: it stands while nobody knows whose it is.
    pub fn shown(&self) -> (DomainState, Option<String>) {
        match &self.handover {
            Some(h) => (DomainState::Paused, Some(format!("asking {}", h.address))),
            None => (self.state, self.reason.clone()),
        }
    }
}

/// All that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The form of this file.
    version: u32,
    /// This hypervisor, told apart from others that may listen at its address later.
    pub host: Uuid,
    /// The port where it listened last; none before the first start.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its domains.
    pub domains: BTreeMap<DomainName, Record>,
    /// The migrations that brought a domain here and whose source has not said that it knows.
    pub taken: BTreeMap<Uuid, DomainName>,
}

impl Kept {
    /// A hypervisor without domains.
    pub fn new() -> Self {
        let host = Uuid::new_v4();
        Kept { version: VERSION, host, port: None, domains: BTreeMap::new(), taken: BTreeMap::new() }
    }
}

impl Kept {
    /// What other hypervisors rely on: which domains are here, and how migrations ended.
    fn promises(&self) -> impl PartialEq + '_ {
        let here: Vec<_> = self.domains.iter().map(|(n, r)| (n, r.uuid, &r.handover)).collect();
        (self.host, &self.taken, here)
    }

    /// Whether the change from `before` must outlive a loss of power.
    pub fn must_last(&self, before: &Kept) -> bool {
        let open = |k: &Kept| k.domains.values().any(|r| r.handover.is_some());
        open(self) || open(before) || self.promises() != before.promises()
    }
}

impl Default for Kept {
    fn default() -> Self {
        Kept::new()
    }
}

/// Reads what a state directory holds; `None` when nothing is kept there yet.
pub fn kept(dir: &Path) -> Result<Option<Kept>, String> {
    let path = dir.join("sim.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("sim.json: {e}")),
    };
    let kept: Kept = serde_json::from_slice(&text).map_err(|e| format!("sim.json: {e}"))?;
    if kept.version != VERSION {
        return Err(format!("sim.json has version {}; this program knows {VERSION}", kept.version));
    }
    Ok(Some(kept))
}

/// Removes what a process that was killed while it wrote has left.
fn sweep(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".sim") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The place where it is kept.
#[derive(Debug)]
pub struct Store {
    /// The directory; none keeps nothing.
    dir: Option<PathBuf>,
    /// Locked as long as it is open.
    lock: Option<File>,
}

impl Store {
    /// Makes the directory when there is none, locks it, and reads what it holds.
    pub fn open(dir: Option<&Path>) -> Result<(Store, Option<Kept>), String> {
        let Some(dir) = dir else { return Ok((Store { dir: None, lock: None }, None)) };
        std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(dir.join("lock"))
            .map_err(|e| format!("lock: {e}"))?;
        lock.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => "another process uses it".into(),
            std::fs::TryLockError::Error(e) => format!("lock: {e}"),
        })?;
        let kept = kept(dir)?;
        sweep(dir).map_err(|e| e.to_string())?;
        Ok((Store { dir: Some(dir.into()), lock: Some(lock) }, kept))
    }

    /// Writes all: a new file in the old one's place, so that a killed process leaves one of them whole.
    ///
    /// With `durable` it is on disk when this returns, also when the power fails then. That takes tens of milliseconds on some disks,
    /// and is needed only for what others rely on: a lost `pause` does no harm, because no domain survives the loss of power.
    pub fn write(&self, kept: &Kept, durable: bool) -> std::io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let mut file = tempfile::NamedTempFile::with_prefix_in(".sim", dir)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        if durable {
            file.as_file().sync_all()?;
        }
        file.persist(dir.join("sim.json"))?;
        if !durable {
            return Ok(());
        }
        // From here on a restart finds the new state, so this must not fail any more: whoever heard of a failure would go on with
        // the old one.
        if let Err(e) = File::open(dir).and_then(|d| d.sync_all()) {
            tracing::warn!("cannot sync {}: {e}", dir.display());
        }
        Ok(())
    }

    /// Lets another process use the directory.
    pub fn close(&mut self) {
        self.lock = None;
        self.dir = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_only_one_writes() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut store, none) = Store::open(Some(dir.path())).expect("open");
        assert_eq!(none, None);
        let mut kept = Kept::new();
        let spec = DomainSpec::parse("small-1,vcpus=2").expect("spec");
        kept.domains.insert(spec.name.clone(), Record::new(&spec, 1, 5));
        kept.taken.insert(Uuid::new_v4(), spec.name);
        store.write(&kept, true).expect("written");
        assert!(Store::open(Some(dir.path())).expect_err("locked").contains("another process"));
        store.close();
        std::fs::write(dir.path().join(".simX"), "half").expect("written");
        assert_eq!(Store::open(Some(dir.path())).expect("open").1, Some(kept));
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).expect("dir").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names.len(), 2, "no other file is left: {names:?}");
    }

    #[test]
    fn what_is_broken_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        for text in ["", "{", "{\"version\":1}"] {
            std::fs::write(dir.path().join("sim.json"), text).expect("written");
            assert!(Store::open(Some(dir.path())).expect_err(text).starts_with("sim.json: "));
        }
    }
}
