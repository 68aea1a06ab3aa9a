//! The mount point: what may be there before, and that nothing is there afterwards.

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a directory may take to answer; a mount whose server hangs never does.
const ANSWER: Duration = Duration::from_secs(3);

/// Why a directory cannot be the mount point, or could not be unmounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {why}", path.display())]
pub struct MountError {
    what: &'static str,
    path: PathBuf,
    why: String,
}

impl MountError {
    /// `cannot WHAT PATH: WHY`
    pub fn new(what: &'static str, path: &Path, why: impl Into<String>) -> Self {
        MountError { what, path: path.to_owned(), why: why.into() }
    }
}

/// Checks the mount point, removes what a killed xvmfs left there, and gives its absolute path.
pub fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let refuse = |why: String| MountError::new("mount at", path, why);
    for _ in 0..16 {
        match look(path) {
            None => {
                return Err(refuse(format!(
                    "it does not answer within {} s, a hung mount seems to be there; umount -l {} removes it",
                    ANSWER.as_secs(),
                    path.display()
                )));
            }
            Some(Err(e)) if is_dead(&e) => {
                tracing::warn!("{} holds a mount whose server has died; it is removed", path.display());
                detach(&absolute(path))
                    .map_err(|e| refuse(format!("the dead mount there cannot be removed: {e}")))?;
            }
            Some(Err(e)) if e.kind() == io::ErrorKind::NotFound => {
                return Err(refuse("there is no such directory; make it first (mkdir)".into()));
            }
            Some(Err(e)) => return Err(refuse(e.to_string())),
            Some(Ok(found)) if !found.is_dir() => return Err(refuse("it is not a directory".into())),
            Some(Ok(_)) => {
                let path = path.canonicalize().map_err(|e| refuse(e.to_string()))?;
                if is_mounted(&path) {
                    return Err(refuse(format!(
                        "an xvmfs is mounted there already; umount {} ends it",
                        path.display()
                    )));
                }
                return Ok(path);
            }
        }
    }
    Err(refuse("too many dead mounts are there".into()))
}

/// Whether this is how a mount answers whose server has died; ECONNABORTED is for a call that was under way meanwhile.
fn is_dead(e: &io::Error) -> bool {
    [Errno::ENOTCONN, Errno::ECONNABORTED].iter().any(|dead| e.raw_os_error() == Some(*dead as i32))
}

/// stat(2) and statfs(2) in a thread of its own, which may stay behind with a hung mount. The kernel answers stat(2) of a dead mount
/// from its memory for a second; statfs(2) always asks the server.
fn look(path: &Path) -> Option<io::Result<std::fs::Metadata>> {
    let (send, receive) = std::sync::mpsc::channel();
    let path = path.to_owned();
    // nobody listens any more when it comes too late
    std::thread::spawn(move || {
        let found = std::fs::metadata(&path).and_then(|found| {
            nix::sys::statvfs::statvfs(&path)?;
            Ok(found)
        });
        drop(send.send(found));
    });
    receive.recv_timeout(ANSWER).ok()
}

/// Without asking the last directory itself, which may be dead.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path,
    }
}

/// Whether an xvmfs is mounted at this absolute path.
pub fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // the table writes these four as octal numbers
    let name = path.display().to_string().replace('\\', "\\134").replace(' ', "\\040");
    let name = name.replace('\t', "\\011").replace('\n', "\\012");
    let mut last = None;
    for line in table.lines() {
        let mut words = line.split(' ');
        if words.nth(1) == Some(&name) {
            last = words.next();
        }
    }
    last == Some("fuse.xvmfs")
}

/// Unmounts; a mount that is busy (a shell stands in it) disappears for all who come later.
pub fn unmount(path: &Path) -> Result<(), MountError> {
    let result = match umount2(path, MntFlags::empty()) {
        Err(Errno::EBUSY) => umount2(path, MntFlags::MNT_DETACH),
        other => other,
    };
    match result {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(_) => fusermount(path),
    }
    .map_err(|why| MountError::new("unmount", path, why))
}

fn detach(path: &Path) -> Result<(), String> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        Err(_) => fusermount(path),
    }
}

/// The way of those who are not root.
fn fusermount(path: &Path) -> Result<(), String> {
    match Command::new("fusermount3").args(["-u", "-q", "-z", "--"]).arg(path).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(e) => Err(format!("fusermount3: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_mount_point_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let e = prepare(&file).unwrap_err().to_string();
        assert!(e.starts_with("cannot mount at /") && e.ends_with("it is not a directory"), "{e}");
        let e = prepare(&dir.path().join("none")).unwrap_err().to_string();
        assert!(e.contains("no such directory"), "{e}");
        assert_eq!(prepare(dir.path()).unwrap(), dir.path().canonicalize().unwrap());
        assert!(!is_mounted(dir.path()));
        unmount(dir.path()).unwrap();
    }
}
