//! What is imported, as it is written down, and the links.

use super::{NbdError, kernel};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;
use xvm_model::DomainName;

/// The name of the record.
const RECORD: &str = ".imports.json";

/// One import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Import {
    pub domain: DomainName,
    /// What the names of all exports of its lease begin with.
    pub stem: Box<str>,
    pub device: u32,
    /// Where it is exported.
    pub host: Box<str>,
    pub port: u16,
}

/// What is imported into a directory, by the exports' names.
#[derive(Debug)]
pub(super) struct Record {
    dir: PathBuf,
    imports: BTreeMap<Box<str>, Import>,
    /// When something was attached for a lease; one that was found at the start was attached then.
    pub attached: BTreeMap<Box<str>, Instant>,
}

impl Record {
    pub fn open(dir: &Path) -> Result<Record, NbdError> {
        let path = dir.join(RECORD);
        let imports: BTreeMap<Box<str>, Import> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| NbdError::Damaged { path: path.clone(), why: e.to_string() })?,
            Err(e) if e.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(wrong("read", &path)(e)),
        };
        let attached = imports.values().map(|i| (i.stem.clone(), Instant::now())).collect();
        Ok(Record { dir: dir.to_owned(), imports, attached })
    }

    pub fn imports(&self) -> &BTreeMap<Box<str>, Import> {
        &self.imports
    }

    /// The exports of some imports.
    pub fn names(&self, which: impl Fn(&Import) -> bool) -> Vec<Box<str>> {
        self.imports.iter().filter(|(_, i)| which(i)).map(|(export, _)| export.clone()).collect()
    }

    /// An import whose device is connected to it, and by us.
    pub fn live(&self, export: &str) -> Option<&Import> {
        self.imports.get(export).filter(|import| kernel::is(import.device, export))
    }

    /// Writes an import down, in place of what there was of it.
    pub fn put(&mut self, export: &str, import: Import) -> Result<(), NbdError> {
        std::fs::create_dir_all(&self.dir).map_err(wrong("make", &self.dir))?;
        self.imports.insert(export.into(), import);
        self.keep()
    }

    pub fn remove(&mut self, export: &str) -> Result<(), NbdError> {
        self.imports.remove(export);
        self.keep()
    }

    fn keep(&self) -> Result<(), NbdError> {
        let path = self.dir.join(RECORD);
        let text =
            serde_json::to_string(&self.imports).map_err(|e| wrong("write", &path)(io::Error::other(e)))?;
        xvm_daemon::write_whole(&self.dir, RECORD, &text)
            .map_err(|e| wrong("write", &path)(io::Error::other(e.to_string())))
    }

    /// Puts an export's link in its place, in place of one to another device.
    pub fn link(&self, export: &str, device: u32) -> Result<(), NbdError> {
        let (link, target) = (self.dir.join(export), PathBuf::from(kernel::path(device)));
        if std::fs::read_link(&link).is_ok_and(|there| there == target) {
            return Ok(());
        }
        let new = self.dir.join(".new");
        gone(&new)?;
        symlink(target, &new).map_err(wrong("link", &new))?;
        std::fs::rename(&new, &link).map_err(wrong("name", &link))
    }

    /// Removes an export's link, if it is there.
    pub fn unlink(&self, export: &str) -> Result<(), NbdError> {
        gone(&self.dir.join(export))
    }
}

fn gone(path: &Path) -> Result<(), NbdError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(wrong("remove", path)(e)),
        _ => Ok(()),
    }
}

fn wrong(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NbdError + use<> {
    let path = PathBuf::from(path);
    move |source| NbdError::Io { what, path, source }
}
