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
use xvm_model::DomainName;
use xvm_model::spec::{Blob, Boot};

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
            // nothing is fetched for anybody else meanwhile: who begins to fetch waits for the lock
            let needed: Vec<Blob> = boots.values().flat_map(Boot::blobs).cloned().collect();
            let count = self.count();
            imports::sweep(&self.dir, &needed).map_err(|e| e.to_string())?;
            (boots.clone(), count.saturating_sub(self.count()))
        };
        let (mut files, mut fetched) = (BTreeSet::new(), BTreeSet::new());
        for (name, boot) in &wanted {
            let lacking: Vec<&Blob> = boot.blobs().filter(|blob| !imports::here(&self.dir, blob)).collect();
            if !lacking.is_empty() {
                imports::fetch(&self.dir, boot).await.map_err(|e| format!("what {name} boots from: {e}"))?;
                fetched.extend(lacking.into_iter().map(Blob::name));
            }
            files.extend(boot.blobs().map(Blob::name));
        }
        let (files, fetched) = (files.len(), fetched.len());
        Ok(format!("files to boot from: {files} needed, {fetched} fetched, {dropped} dropped"))
    }

    /// How many files there are.
    fn count(&self) -> usize {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with("boot.")).count()
    }

    fn keep(&self, boots: &BTreeMap<DomainName, Boot>) -> Result<(), String> {
        let text = serde_json::to_string(boots).map_err(|e| e.to_string())?;
        xvm_daemon::write_whole(&self.state, "kernels.json", &text).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: (&str, &str) =
        ("kernel one\n", "5bb4ec9ff0bc7728a4b2e10339e336fb96b1ccb9fcac2e621fd292bd72cbd0c3");
    const TWO: (&str, &str) =
        ("kernel two\n", "655347b83542cdd7ed51fb83fe409a3a6582817138ae22b8b4fae2f828bcca90");

    /// Its kernel is offered where nobody listens.
    fn boot((text, sum): (&str, &str)) -> Boot {
        let kernel = Blob { sha256: sum.into(), size: text.len() as u64 };
        Boot { host: "127.0.0.1".into(), port: 1, kernel, initrd: None, cmdline: "".into() }
    }

    fn put(boots: &Boots, kernel: (&str, &str)) -> PathBuf {
        let path = boots.dir().join(boot(kernel).kernel.name());
        std::fs::write(&path, kernel.0).expect("scratch folder");
        path
    }

    #[tokio::test]
    async fn what_nobody_needs_is_dropped_and_what_somebody_needs_is_not() {
        let state = tempfile::tempdir().expect("scratch folder");
        let (a, b) = (DomainName::parse("a").expect("valid"), DomainName::parse("b").expect("valid"));
        let boots = Boots::open(state.path()).expect("opens");
        let (one, two) = (put(&boots, ONE), put(&boots, TWO));
        let other = boots.dir().join("notes");
        std::fs::write(&other, "x").expect("scratch folder");
        boots.fetch(&a, &boot(ONE)).await.expect("it is there");
        // a is about to come, though it is not here yet; nobody was ever told of the other
        let said = boots.update(&[]).await.expect("swept");
        assert_eq!(said, "files to boot from: 1 needed, 0 fetched, 1 dropped");
        assert!(one.exists() && !two.exists() && other.exists());

        // a later life knows what the domains here boot from
        let boots = Boots::open(state.path()).expect("opens");
        assert_eq!(
            boots.update(std::slice::from_ref(&a)).await.expect("swept"),
            "files to boot from: 1 needed, 0 fetched, 0 dropped"
        );
        std::fs::remove_file(&one).expect("there");
        let wrong = boots.update(&[a.clone(), b]).await.expect_err("nobody offers it");
        assert!(wrong.starts_with("what a boots from: "), "{wrong}");
        put(&boots, ONE);
        assert_eq!(
            boots.update(&[]).await.expect("swept"),
            "files to boot from: 0 needed, 0 fetched, 1 dropped"
        );
        boots.fetch(&a, &boot(ONE)).await.expect_err("nobody offers it");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let state = tempfile::tempdir().expect("scratch folder");
        std::fs::write(state.path().join("kernels.json"), "{").expect("scratch folder");
        let wrong = Boots::open(state.path()).expect_err("damaged").to_string();
        assert!(wrong.contains("kernels.json"), "{wrong}");
    }
}
