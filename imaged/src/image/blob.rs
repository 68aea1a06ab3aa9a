//! Files to boot from, kept by content: a thousand systems with one kernel have it once.

use super::{sweep::TEMPORARY, tool::Trouble};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use xvm_model::spec::{BLOB_MAX, Blob};

/// Copies a file among the files to boot from.
pub fn keep(boot: &Path, file: &Path) -> Result<Blob, Trouble> {
    copy(boot, File::open(file).map_err(|e| Trouble::of(file, &e))?).map_err(|e| Trouble::of(boot, &e))
}

/// The same of bytes.
pub fn keep_bytes(boot: &Path, bytes: &[u8]) -> Result<Blob, Trouble> {
    copy(boot, bytes).map_err(|e| Trouble::of(boot, &e))
}

/// Removes the files to boot from that no system of `used` needs. Not while a build goes on: its files are not named yet.
pub fn keep_only(boot: &Path, used: &[Blob]) -> io::Result<usize> {
    let used: HashSet<String> = used.iter().map(Blob::name).collect();
    let mut removed = 0;
    for entry in fs::read_dir(boot)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("boot.") && !used.contains(&name) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn copy(boot: &Path, mut from: impl Read) -> io::Result<Blob> {
    let mut to = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(boot)?;
    let (mut sum, mut size, mut part) = (Sha256::new(), 0u64, vec![0; 256 << 10]);
    loop {
        let n = from.read(&mut part)?;
        if n == 0 {
            break;
        }
        sum.update(&part[..n]);
        to.write_all(&part[..n])?;
        size += n as u64;
        if size > BLOB_MAX {
            return Err(io::Error::other(format!("more than {BLOB_MAX} bytes are no file to boot from")));
        }
    }
    let sha256: String = sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let blob = Blob { sha256: sha256.into(), size };
    let path = boot.join(blob.name());
    // one of that name has these bytes: it was complete before it got the name
    if !path.exists() {
        to.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        to.as_file().sync_all()?;
        to.persist(path).map_err(|e| e.error)?;
    }
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_kept_once() {
        let dir = tempfile::tempdir().expect("dir");
        let a = keep_bytes(dir.path(), b"kernel").expect("kept");
        let b = keep_bytes(dir.path(), b"kernel").expect("kept");
        assert_eq!((&a, a.size), (&b, 6));
        a.check().expect("a name for the bus");
        assert_eq!(fs::read(dir.path().join(a.name())).expect("there"), b"kernel");
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
        keep_bytes(dir.path(), b"old kernel").expect("kept");
        assert_eq!(keep_only(dir.path(), std::slice::from_ref(&a)).expect("removed"), 1);
        assert!(dir.path().join(a.name()).exists());
    }
}
