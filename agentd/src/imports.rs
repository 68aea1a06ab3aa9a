//! The files that a server boots domains from: fetched from imaged by their content. A stand-in: it takes what is there already.

use std::path::Path;
use xvm_model::spec::Boot;

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
