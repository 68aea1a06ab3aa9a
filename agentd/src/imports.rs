//! What a server needs to have itself before a domain of imaged's can start: kernels and initial RAM file systems, kept by their content.
//! (QEMU opens disks from imaged by itself; for hypervisors that do not, see [`devices`].)
//!
//! | file in the cache | what |
//! |---|---|
//! | `boot.SHA256` | a file whose content was checked when it came |
//! | `.fetch-*` | one that is coming; locked by whoever fetches it, else left over by a crash |
//!
//! Invariant: a name `boot.SHA256` appears only over content with that hash that is on the disk.

pub mod devices;
mod negotiate;

use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs::{File, Permissions},
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::NamedTempFile;
use xvm_model::Grant;
use xvm_model::spec::{Blob, Boot};

/// How long [`fetch`] may take for both files.
pub const FETCH: Duration = Duration::from_secs(60);

/// What the names of files that are coming begin with.
const COMING: &str = ".fetch-";
/// Exports are read in whole sectors.
const SECTOR: u64 = 512;
/// How much of a program's complaint an error shows, in characters.
const COMPLAINT: usize = 300;

/// Why a file to boot from is not here.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is described wrongly.
    #[error("cannot fetch a file to boot from: {0}")]
    Described(String),
    /// imaged's export could not be read.
    #[error("cannot fetch {uri}: {why}")]
    Source {
        /// Where it should be.
        uri: String,
        /// What was seen.
        why: String,
    },
    /// What came is not what was asked for.
    #[error("cannot fetch {uri}: its content has the SHA-256 {found}, not {}", wanted.sha256)]
    Content {
        /// Where it is.
        uri: String,
        /// What it should be.
        wanted: Blob,
        /// What it is.
        found: String,
    },
    /// It did not come in time.
    #[error("cannot fetch the files to boot from {host} port {port}: they did not come within {} s", within.as_secs_f32())]
    Late {
        /// imaged's host.
        host: String,
        /// Its port.
        port: u16,
        /// The bound.
        within: Duration,
    },
    /// The cache cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Gets what `boot` names into `dir` (made when it is not there), each file as [`Blob::name`]; what is there is not fetched again. It takes
/// [`FETCH`] at most. Dropping the future ends the fetch and leaves nothing.
pub async fn fetch(dir: &Path, boot: &Boot) -> Result<(), ImportError> {
    fetch_within(dir, boot, FETCH).await
}

/// [`fetch`] with another bound.
pub async fn fetch_within(dir: &Path, boot: &Boot, within: Duration) -> Result<(), ImportError> {
    let both = async {
        for blob in boot.blobs() {
            blob.check().map_err(ImportError::Described)?;
            if !here(dir, blob) {
                fetch_one(dir, boot, blob).await?;
            }
        }
        Ok(())
    };
    match tokio::time::timeout(within, both).await {
        Ok(result) => result,
        Err(_) => Err(ImportError::Late { host: boot.host.to_string(), port: boot.port, within }),
    }
}

/// Whether all exports of a lease are there, within some seconds; the error says which is not, and why.
pub async fn answer(grant: &Grant) -> Result<(), String> {
    for disk in &grant.disks {
        negotiate::answers(&grant.host, grant.port, &disk.export).await?;
    }
    Ok(())
}

/// Whether a file is in the cache; its content was checked when it came.
pub fn here(dir: &Path, blob: &Blob) -> bool {
    std::fs::metadata(dir.join(blob.name())).is_ok_and(|m| m.is_file() && m.len() == blob.size)
}

/// Drops what is not in `keep`, and what fetches that were killed have left. Fetches that go on are not disturbed. Other files stay.
pub fn sweep(dir: &Path, keep: &[Blob]) -> Result<(), ImportError> {
    let keep: HashSet<String> = keep.iter().map(Blob::name).collect();
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io("read", dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(io("read", dir))?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let unused = name.starts_with("boot.") && !keep.contains(&name);
        let left = name.starts_with(COMING) && File::open(&path).is_ok_and(|f| f.try_lock().is_ok());
        if unused || left {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("remove", &path)(e)),
                _ => {}
            }
        }
    }
    Ok(())
}

async fn fetch_one(dir: &Path, boot: &Boot, blob: &Blob) -> Result<(), ImportError> {
    let sectors = blob.size.next_multiple_of(SECTOR);
    let coming = coming(dir, sectors)?;
    let uri = boot.uri(blob);
    copy(boot, blob, sectors, coming.path())
        .await
        .map_err(|why| ImportError::Source { uri: uri.clone(), why })?;
    let (dir, blob) = (dir.to_owned(), blob.clone());
    let arrived = tokio::task::spawn_blocking(move || arrive(&dir, &blob, coming, uri));
    arrived.await.expect("it does not panic, and is not aborted")
}

/// A locked file of `size` bytes.
fn coming(dir: &Path, size: u64) -> Result<NamedTempFile, ImportError> {
    std::fs::create_dir_all(dir).map_err(io("make", dir))?;
    loop {
        let file = tempfile::Builder::new().prefix(COMING).tempfile_in(dir).map_err(io("write in", dir))?;
        // a sweep may have taken it for a left one before it was locked: another, then
        if file.as_file().try_lock().is_ok() && file.path().exists() {
            file.as_file().set_len(size).map_err(io("write", file.path()))?;
            return Ok(file);
        }
    }
}

/// Copies an export into a file that is there, no more than `sectors` bytes of it, whatever its size.
async fn copy(boot: &Boot, blob: &Blob, sectors: u64, to: &Path) -> Result<(), String> {
    let from = format!(
        "driver=raw,size={sectors},file.driver=nbd,file.server.type=inet,file.server.host={},file.server.port={},\
         file.export={}",
        escaped(&boot.host),
        boot.port,
        blob.name()
    );
    // dies with the thread that polls this, so also when the process is killed
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-img", "convert", "-n", "--image-opts", &from]);
    command.args(["--target-image-opts"]).arg(target(to)?);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let out = command.output().await.map_err(|e| format!("setpriv qemu-img: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let said: String = said.trim().replace('\n', "; ").chars().take(COMPLAINT).collect();
    Err(if said.is_empty() { format!("qemu-img ended with {}", out.status) } else { said })
}

fn target(path: &Path) -> Result<String, String> {
    let path = path.to_str().ok_or("the cache's path is not UTF-8")?;
    Ok(format!("driver=raw,file.driver=file,file.filename={}", escaped(path)))
}

/// In QEMU's options a comma within a value is written twice.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

/// Checks what came and gives it its name.
fn arrive(dir: &Path, blob: &Blob, coming: NamedTempFile, uri: String) -> Result<(), ImportError> {
    let path = coming.path().to_owned();
    let file = coming.as_file();
    file.set_len(blob.size).map_err(io("truncate", &path))?;
    let found = sha256(file).map_err(io("read", &path))?;
    if found != *blob.sha256 {
        return Err(ImportError::Content { uri, wanted: blob.clone(), found });
    }
    // the hypervisor's user reads it; who may enter the directory decides the rest
    file.set_permissions(Permissions::from_mode(0o644)).map_err(io("open to others", &path))?;
    file.sync_all().map_err(io("write", &path))?;
    let name = dir.join(blob.name());
    coming.persist(&name).map_err(|e| io("name", &name)(e.error))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(io("write", dir))
}

fn sha256(mut file: &File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImportError + use<> {
    let path = PathBuf::from(path);
    move |source| ImportError::Io { what, path, source }
}
