//! Schedules on disk: `DIR/NAME.json`, written whole.

use super::{Entry, SCHEDULES_MAX};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xvm_model::schedule::play::Play;
use xvm_model::{TestName, Wall};

/// The directory; none: nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    dir: Option<PathBuf>,
}

/// One file.
#[derive(Serialize, Deserialize)]
struct Kept {
    schedule: Arc<str>,
    #[serde(default)]
    play: Option<Arc<Play>>,
    #[serde(default)]
    changed: u64,
}

impl Disk {
    /// Makes the directory when it is not there. The error is a sentence.
    pub fn open(dir: &Path) -> Result<Disk, String> {
        std::fs::create_dir_all(dir)
            .map_err(|e| format!("cannot make {} for schedules of tests: {e}", dir.display()))?;
        Ok(Disk { dir: Some(dir.into()) })
    }

    /// All that can be read; what was being carried out is interrupted. A file that cannot be read stays, and is named in the log.
    pub fn load(&self) -> Vec<Entry> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        let named = files.filter_map(|path| {
            let name = TestName::parse(path.file_name()?.to_str()?.strip_suffix(".json")?).ok()?;
            Some((path, name))
        });
        let mut all = Vec::new();
        for (path, name) in named.take(SCHEDULES_MAX) {
            match read(&path) {
                Ok(kept) => {
                    let mut play = kept.play;
                    if let Some(play) = play.as_mut().filter(|p| p.is_running()) {
                        Arc::make_mut(play).interrupt();
                    }
                    all.push(Entry { name, text: kept.schedule, play, changed: Wall(kept.changed) });
                }
                Err(why) => tracing::warn!("cannot use {}: {why}", path.display()),
            }
        }
        all
    }

    /// Keeps one.
    pub fn save(&self, entry: &Entry) -> Result<(), String> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let kept = Kept { schedule: entry.text.clone(), play: entry.play.clone(), changed: entry.changed.0 };
        let text = serde_json::to_string(&kept).map_err(|e| e.to_string())?;
        xvm_daemon::write_whole(dir, &format!("{}.json", entry.name), &text)
            .map_err(|e| format!("cannot write to {}: {e}", dir.display()))
    }

    /// Forgets one.
    pub fn remove(&self, name: &TestName) -> Result<(), String> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join(format!("{name}.json"));
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {e}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Kept, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}
