//! The files that a server boots domains from: fetched from imaged by their content. A stand-in: it takes what is there already.

use std::path::Path;
use xvm_model::spec::{Blob, Boot};

/// Why files could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file is not there.
    #[error("cannot fetch {0}: nothing fetches yet")]
    Missing(String),
}

/// Fetches what `boot` names into `dir`, each file under its blob's name; what is there already stays.
pub async fn fetch(dir: &Path, boot: &Boot) -> Result<(), ImportError> {
    for blob in boot.blobs() {
        let name = blob.name();
        if !dir.join(&name).exists() {
            return Err(ImportError::Missing(name));
        }
    }
    Ok(())
}

/// Whether a file is in the cache.
pub fn here(dir: &Path, blob: &Blob) -> bool {
    dir.join(blob.name()).exists()
}

/// Drops what is not in `keep`.
pub fn sweep(dir: &Path, keep: &[Blob]) -> Result<(), ImportError> {
    let keep: Vec<String> = keep.iter().map(Blob::name).collect();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("boot.") && !keep.contains(&name) {
            std::fs::remove_file(entry.path()).map_err(|_| ImportError::Missing(name))?;
        }
    }
    Ok(())
}
