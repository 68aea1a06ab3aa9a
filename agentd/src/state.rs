//! What an agent keeps on disk: its settings and the number of its last life, in a directory of its own (see [`xvm_daemon`]).
//!
//! | file | what |
//! |---|---|
//! | `settings.toml` | what users set of the server |
//! | `help.json` | rounds of help, who was given away, the server's own job |
//! | `kernels`, `kernels.json` | what domains boot from, see [`crate::driver::boots`] |

use crate::driver::kept::Kept;
use std::path::Path;
use xvm_daemon::Dir;
pub use xvm_daemon::StateError;
use xvm_model::{Boot, ServerSettings, Wall};

/// A state directory that is ours until this is dropped.
#[derive(Debug)]
pub struct State(Dir);

impl State {
    /// Takes the directory; makes it when it is not there.
    pub fn open(dir: &Path) -> Result<State, StateError> {
        Dir::open(dir, "agentd").map(State)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// The number of the life that begins now.
    pub fn boot(&self, wall: Wall) -> Result<Boot, StateError> {
        self.0.boot(wall)
    }

    /// The settings; the defaults when none are kept.
    pub fn settings(&self) -> Result<ServerSettings, StateError> {
        let Some(text) = self.0.read("settings.toml")? else { return Ok(ServerSettings::default()) };
        parse(&text).map_err(|why| self.0.damaged("settings.toml", why))
    }

    /// Keeps the settings.
    pub fn save(&self, settings: &ServerSettings) -> Result<(), StateError> {
        let text = toml::to_string(settings).map_err(|e| self.0.damaged("settings.toml", e.to_string()))?;
        self.0.write("settings.toml", &text)
    }

    /// What is kept of help; none in the first life.
    pub fn kept(&self) -> Result<Option<Kept>, StateError> {
        let Some(text) = self.0.read("help.json")? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| self.0.damaged("help.json", e.to_string()))
    }

    /// Keeps it.
    pub fn keep(&self, kept: &Kept) -> Result<(), StateError> {
        let text = serde_json::to_string(kept).map_err(|e| self.0.damaged("help.json", e.to_string()))?;
        self.0.write("help.json", &text)
    }
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
    fn settings_come_back() {
        let dir = tempfile::tempdir().expect("scratch folder");
        let state = State::open(dir.path()).expect("free");
        assert_eq!(state.settings().expect("none kept"), ServerSettings::default());
        let settings = ServerSettings { heartbeat_ms: 500, accepting: false, ..ServerSettings::default() };
        state.save(&settings).expect("written");
        assert_eq!(state.settings().expect("kept"), settings);
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
    }
}
