//! A daemon's own directory.
//!
//! | file | what |
//! |---|---|
//! | `lock` | held while the daemon lives: one directory, one daemon |
//! | `boot` | the number of the last life: the next is greater, also when the clock was set back |
//! | others | the daemon's; written whole, never half |

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use xvm_model::{Boot, Wall};

/// How long the directory of another daemon is waited for, which may be about to end.
const ENDING: Duration = Duration::from_secs(1);

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another daemon uses it.
    #[error("cannot use the state directory {0}: another {1} uses it; give each its own by --state DIR")]
    Taken(PathBuf, &'static str),
    /// It cannot be read or written.
    #[error("cannot {0} {1}: {2}")]
    Io(&'static str, PathBuf, std::io::Error),
    /// A file does not hold what it should.
    #[error("cannot use {0}: {1}; correct the file, or remove it to begin with the defaults")]
    Damaged(PathBuf, String),
}

/// A state directory that is ours until this is dropped.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    /// Held, never read.
    _lock: File,
}

impl Dir {
    /// Takes the directory for `program`; makes it when it is not there. Waits a second for another daemon that has it.
    pub fn open(path: &Path, program: &'static str) -> Result<Dir, StateError> {
        std::fs::create_dir_all(path).map_err(|e| StateError::Io("make", path.into(), e))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| StateError::Io("open", lock_path.clone(), e))?;
        // one that was killed just now holds it until it has ended
        let until = Instant::now() + ENDING;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Dir { path: path.into(), _lock: lock }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Err(StateError::Taken(path.into(), program)),
                Err(TryLockError::Error(e)) => return Err(StateError::Io("lock", lock_path, e)),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the life that begins now: the clock's, or one more than the last.
    pub fn boot(&self, wall: Wall) -> Result<Boot, StateError> {
        let last = match self.read("boot")? {
            None => 0,
            Some(text) => text
                .trim()
                .parse::<u64>()
                .map_err(|e| self.damaged("boot", format!("{:?} is not a number: {e}", text.trim())))?,
        };
        let boot = wall.0.max(last.saturating_add(1));
        self.write("boot", &format!("{boot}\n"))?;
        Ok(Boot(boot))
    }

    /// A file's text; none when it is not there.
    pub fn read(&self, name: &str) -> Result<Option<String>, StateError> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StateError::Io("read", path, e)),
        }
    }

    /// Keeps a file: after a crash there is the old or the new, never a part.
    pub fn write(&self, name: &str, text: &str) -> Result<(), StateError> {
        write_whole(&self.path, name, text).map_err(|e| StateError::Io("write", self.path.join(name), e))
    }

    /// That a file does not hold what it should.
    pub fn damaged(&self, name: &str, why: String) -> StateError {
        StateError::Damaged(self.path.join(name), why)
    }
}

/// Writes a file of any directory whole: under another name, on the disk, then in place of the old one.
pub fn write_whole(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(dir.join(name)).map_err(|e| e.error)?;
    // the name is on the disk when its directory is
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_count_up_also_when_the_clock_was_set_back() {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let dir = Dir::open(scratch.path(), "x").expect("free");
        assert_eq!(dir.boot(Wall(9)).expect("boot"), Boot(9));
        assert_eq!(dir.boot(Wall(5)).expect("clock set back"), Boot(10));
        std::fs::write(scratch.path().join("boot"), "x").expect("written");
        assert!(dir.boot(Wall(1)).expect_err("damaged").to_string().contains("\"x\" is not a number"));
    }

    #[test]
    fn a_directory_has_one_daemon() {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let first = Dir::open(scratch.path(), "agentd").expect("free");
        let taken = Dir::open(scratch.path(), "agentd").expect_err("taken");
        assert!(taken.to_string().contains("another agentd uses it"));
        drop(first);
        drop(Dir::open(scratch.path(), "agentd").expect("free again"));
    }

    #[test]
    fn a_file_is_whole_and_leaves_no_other() {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let dir = Dir::open(scratch.path(), "x").expect("free");
        assert_eq!(dir.read("a").expect("readable"), None);
        dir.write("a", "one").expect("written");
        dir.write("a", "two").expect("written");
        assert_eq!(dir.read("a").expect("readable").as_deref(), Some("two"));
        assert_eq!(std::fs::read_dir(scratch.path()).expect("a folder").count(), 2, "it and the lock");
    }
}
