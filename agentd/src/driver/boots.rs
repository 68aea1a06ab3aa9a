//! The files that domains here boot from: fetched when a domain is made or about to come, and kept by content.
//!
//! | file | what |
//! |---|---|
//! | `STATE/kernels/boot.SHA256` | a kernel or an initial RAM file system |
//! | `STATE/kernels.json` | what each domain boots from, so that it can be fetched again; written whole, never half |
//!
//! Files are dropped by [`Boots::update`] alone: whoever fetched one shortly before has not lost it.

use crate::imports::{self, ImportError};
use crate::state::StateError;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use xvm_model::{DomainName, spec::Boot};

/// So long a domain for which something was fetched counts as one that is here: it is about to come.
const COMING: Duration = Duration::from_secs(600);

/// What is known of the files.
#[derive(Debug)]
pub struct Boots {
    state: PathBuf,
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    boots: BTreeMap<DomainName, Boot>,
    /// When something was fetched for a domain.
    fetched: BTreeMap<DomainName, Instant>,
}

impl Boots {
    /// The files of the agent whose state directory is `state`.
    pub fn open(state: &Path) -> Result<Boots, StateError> {
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |e| StateError::Io("use", path, e)
        };
        let state = std::fs::canonicalize(state).map_err(wrong(state))?;
        let dir = state.join("kernels");
        std::fs::create_dir_all(&dir).map_err(wrong(&dir))?;
        // a hypervisor that does not run as root reads them
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&dir, open).map_err(wrong(&dir))?;
        let path = state.join("kernels.json");
        let boots = match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|e| StateError::Damaged(path, e.to_string()))?
            }
            Err(e) if e.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(StateError::Io("read", path, e)),
        };
        Ok(Boots { state, dir, known: Mutex::new(Known { boots, fetched: BTreeMap::new() }) })
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fetches what a domain boots from, and remembers it.
    pub async fn fetch(&self, name: &DomainName, boot: &Boot) -> Result<(), String> {
        {
            let mut known = self.known.lock().await;
            known.fetched.insert(name.clone(), Instant::now());
            if known.boots.insert(name.clone(), boot.clone()).as_ref() != Some(boot) {
                self.keep(&known.boots)?;
            }
        }
        imports::fetch(&self.dir, boot).await.map_err(|e: ImportError| e.to_string())
    }

    /// Drops the files that none of the domains `here` boots from, and fetches what lacks. A sentence of what was done, or of what could
    /// not be.
    pub async fn update(&self, here: &[DomainName]) -> Result<String, String> {
        let (wanted, dropped) = {
            let mut known = self.known.lock().await;
            known.fetched.retain(|_, at| at.elapsed() < COMING);
            let Known { boots, fetched } = &mut *known;
            let before = boots.len();
            boots.retain(|name, _| here.contains(name) || fetched.contains_key(name));
            if boots.len() != before {
                self.keep(boots)?;
            }
            let needed: BTreeSet<String> =
                boots.values().flat_map(Boot::blobs).map(xvm_model::spec::Blob::name).collect();
            // nothing is fetched for anybody else meanwhile: who begins to fetch waits for the lock
            (boots.clone(), self.sweep(&needed).map_err(|e| format!("{}: {e}", self.dir.display()))?)
        };
        let mut fetched = BTreeSet::new();
        for (name, boot) in &wanted {
            let lacking: Vec<String> = boot
                .blobs()
                .map(xvm_model::spec::Blob::name)
                .filter(|file| !self.dir.join(file).exists())
                .collect();
            if !lacking.is_empty() {
                imports::fetch(&self.dir, boot).await.map_err(|e| format!("what {name} boots from: {e}"))?;
                fetched.extend(lacking);
            }
        }
        let files: BTreeSet<String> =
            wanted.values().flat_map(Boot::blobs).map(xvm_model::spec::Blob::name).collect();
        Ok(format!(
            "{} files to boot from are here, {} fetched, {dropped} dropped",
            files.len(),
            fetched.len()
        ))
    }

    /// Removes what is not `needed`; gives how many.
    fn sweep(&self, needed: &BTreeSet<String>) -> std::io::Result<usize> {
        let mut dropped = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // what is being fetched has another name until it is whole
            let whole = name.strip_prefix("boot.").is_some_and(|sum| sum.len() == 64);
            if whole && !needed.contains(&name) {
                std::fs::remove_file(entry.path())?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    fn keep(&self, boots: &BTreeMap<DomainName, Boot>) -> Result<(), String> {
        let text = serde_json::to_string(boots).map_err(|e| e.to_string())?;
        xvm_state::write_whole(&self.state, "kernels.json", &text).map_err(|e| e.to_string())
    }
}
