//! What an agent keeps on disk: its settings and the number of its last life, in a directory of its own.
//!
//! | file | what |
//! |---|---|
//! | `lock` | held while the agent lives: one directory, one agent |
//! | `settings.toml` | what users set of the server; written whole, never half |
//! | `help.json` | rounds of help, who was given away, the server's own job; written whole, never half |
//! | `kernels`, `kernels.json` | what domains boot from, see [`crate::driver::boots`] |
//! | `boot` | the number of the last life: the next is greater, also when the clock was set back |

use crate::driver::kept::Kept;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};
use xvm_model::{Boot, ServerSettings, Wall};

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent uses it.
    #[error("cannot use the state directory {0}: another agentd uses it; give each its own by --state DIR")]
    Taken(PathBuf),
    /// It cannot be read or written.
    #[error("cannot {0} {1}: {2}")]
    Io(&'static str, PathBuf, std::io::Error),
    /// A file does not hold what it should.
    #[error("cannot use {0}: {1}; correct the file, or remove it to begin with the defaults")]
    Damaged(PathBuf, String),
}

/// A state directory that is ours until this is dropped.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    /// Held, never read.
    _lock: File,
}

impl State {
    /// Takes the directory; makes it when it is not there.
    pub fn open(dir: &Path) -> Result<State, StateError> {
        std::fs::create_dir_all(dir).map_err(|e| StateError::Io("make", dir.into(), e))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| StateError::Io("open", path.clone(), e))?;
        match lock.try_lock() {
            Ok(()) => Ok(State { dir: dir.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::Taken(dir.into())),
            Err(TryLockError::Error(e)) => Err(StateError::Io("lock", path, e)),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number of the life that begins now: the clock's, or one more than the last.
    pub fn boot(&self, wall: Wall) -> Result<Boot, StateError> {
        let path = self.dir.join("boot");
        let last = match read(&path)? {
            None => 0,
            Some(text) => text.trim().parse::<u64>().map_err(|e| {
                StateError::Damaged(path.clone(), format!("{:?} is not a number: {e}", text.trim()))
            })?,
        };
        let boot = wall.0.max(last.saturating_add(1));
        write(&self.dir, "boot", &format!("{boot}\n"))?;
        Ok(Boot(boot))
    }

    /// The settings; the defaults when none are kept.
    pub fn settings(&self) -> Result<ServerSettings, StateError> {
        let path = self.dir.join("settings.toml");
        let Some(text) = read(&path)? else { return Ok(ServerSettings::default()) };
        parse(&text).map_err(|why| StateError::Damaged(path, why))
    }

    /// Keeps the settings: after a crash there are the old or the new, never a part.
    pub fn save(&self, settings: &ServerSettings) -> Result<(), StateError> {
        let path = self.dir.join("settings.toml");
        let text = toml::to_string(settings)
            .map_err(|e| StateError::Io("write", path, std::io::Error::new(ErrorKind::InvalidData, e)))?;
        write(&self.dir, "settings.toml", &text)
    }
}

impl State {
    /// What is kept of help; none in the first life.
    pub fn kept(&self) -> Result<Option<Kept>, StateError> {
        let path = self.dir.join("help.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| StateError::Damaged(path, e.to_string()))
    }

    /// Keeps it: after a crash there is the old or the new, never a part.
    pub fn keep(&self, kept: &Kept) -> Result<(), StateError> {
        let text = serde_json::to_string(kept).map_err(|e| {
            StateError::Io(
                "write",
                self.dir.join("help.json"),
                std::io::Error::new(ErrorKind::InvalidData, e),
            )
        })?;
        write(&self.dir, "help.json", &text)
    }
}

fn read(path: &Path) -> Result<Option<String>, StateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StateError::Io("read", path.into(), e)),
    }
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) -> Result<(), StateError> {
    let path = dir.join(name);
    let failed = |e: std::io::Error| StateError::Io("write", path.clone(), e);
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Reads settings; the error names the line, and what is allowed. A key that nobody knows is an error too: it is a typing mistake, and
/// whoever made it believes that it is in force.
fn parse(text: &str) -> Result<ServerSettings, String> {
    let settings: ServerSettings = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line}: {}", e.message())
    })?;
    let known = toml::Table::try_from(settings).map_err(|e| e.to_string())?;
    let table: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
    unknown(&table, &known)?;
    crate::driver::agent::check_settings(&settings)?;
    Ok(settings)
}

fn unknown(table: &toml::Table, known: &toml::Table) -> Result<(), String> {
    for (key, value) in table {
        match (value, known.get(key)) {
            (_, None) => {
                let keys: Vec<&str> = known.keys().map(String::as_str).collect();
                return Err(format!("unknown key {key:?}; keys are {}", keys.join(", ")));
            }
            (toml::Value::Table(inner), Some(toml::Value::Table(known))) => unknown(inner, known)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_and_lives_count_up() {
        let dir = tempfile::tempdir().expect("scratch folder");
        let state = State::open(dir.path()).expect("free");
        assert_eq!(state.settings().expect("none kept"), ServerSettings::default());
        let settings = ServerSettings { heartbeat_ms: 500, accepting: false, ..ServerSettings::default() };
        state.save(&settings).expect("written");
        assert_eq!(state.settings().expect("kept"), settings);
        assert_eq!(state.boot(Wall(9)).expect("boot"), Boot(9));
        assert_eq!(state.boot(Wall(5)).expect("clock set back"), Boot(10));
    }

    #[test]
    fn a_directory_has_one_agent() {
        let dir = tempfile::tempdir().expect("scratch folder");
        let first = State::open(dir.path()).expect("free");
        assert!(matches!(State::open(dir.path()), Err(StateError::Taken(_))));
        drop(first);
        State::open(dir.path()).expect("free again");
    }

    #[test]
    fn a_damaged_file_is_named_with_line_and_reason() {
        let dir = tempfile::tempdir().expect("scratch folder");
        let state = State::open(dir.path()).expect("free");
        let error = |text: &str| {
            std::fs::write(dir.path().join("settings.toml"), text).expect("written");
            state.settings().expect_err(text).to_string()
        };
        assert!(error("heartbeat_ms = 500\naccepting = maybe\n").contains("settings.toml: line 2: "));
        assert!(error("heartbeat_ms = 5\n").contains("heartbeat_ms is 5; 100 to 60000 are allowed"));
        assert!(error("hartbeat_ms = 500\n").contains("unknown key \"hartbeat_ms\"; keys are accepting, "));
        assert!(error("policy = \"none\"\n").contains("line 1: "));
        std::fs::write(dir.path().join("boot"), "x").expect("written");
        assert!(state.boot(Wall(1)).expect_err("damaged").to_string().contains("\"x\" is not a number"));
    }
}
