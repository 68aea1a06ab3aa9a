//! The directory of the configs' files: read whole, watched, and written without hearing ourselves.
//!
//! Whatever inotify says, the directory is read anew and compared with what was read before: so a lost or doubled notice does no
//! harm, and editors may write as they like.

use inotify::{Inotify, WatchMask};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use uuid::Uuid;
use xvm_model::config::text;
use xvm_model::{Config, ConfigName};

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The directory, and what was read last.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    known: BTreeMap<ConfigName, String>,
    /// Files whose names are none, told once.
    strange: BTreeSet<String>,
    defaults: (String, Config),
}

/// What changed in the directory.
#[derive(Debug)]
pub enum Change {
    /// A config's file: what it holds, or what is wrong with it; none when it is gone.
    Config(ConfigName, Option<Result<Box<Config>, String>>),
    /// What new configs have.
    Defaults(Box<Config>),
}

impl Files {
    /// The directory, made when it is not there; nothing is read yet.
    pub fn open(dir: &Path) -> io::Result<Files> {
        std::fs::create_dir_all(dir)?;
        let defaults = (String::new(), Config::new(Uuid::nil()));
        Ok(Files { dir: dir.into(), known: BTreeMap::new(), strange: BTreeSet::new(), defaults })
    }

    /// Tells the receiver whenever something may have changed, from now on.
    pub fn watch(&self) -> io::Result<mpsc::Receiver<()>> {
        let mut inotify = Inotify::init()?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ONLYDIR;
        inotify.watches().add(&self.dir, mask)?;
        let (told, changes) = mpsc::channel(1);
        // it lives as long as the process: a read of inotify cannot be ended
        std::thread::Builder::new().name("configs".into()).spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match inotify.read_events_blocking(&mut buffer) {
                    Ok(_) if told.is_closed() => return,
                    // a notice that waits already stands for this one too
                    Ok(_) => drop(told.try_send(())),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::error!(%error, "the directory of configs is not watched any more");
                        return;
                    }
                }
            }
        })?;
        Ok(changes)
    }

    /// What is other than at the last reading.
    pub fn read(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut seen = BTreeSet::new();
        let mut texts = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let Some(stem) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".toml"))
            else {
                continue;
            };
            // editors keep their own files beside
            if stem.starts_with('.') {
                continue;
            }
            if stem == "defaults" {
                self.read_defaults(&path, &mut changes);
                continue;
            }
            match ConfigName::parse(stem) {
                Ok(name) => texts.push((name, read_text(&path))),
                Err(error) => {
                    if self.strange.insert(stem.to_owned()) {
                        tracing::warn!("{} is not used: {error}", path.display());
                    }
                }
            }
        }
        for (name, text) in texts {
            seen.insert(name.clone());
            let (kept, read) = match text {
                Ok(text) => {
                    let read = text::read(&text, &self.defaults.1, Uuid::new_v4()).map(Box::new);
                    (text, read.map_err(|wrong| wrong.to_string()))
                }
                Err(why) => (format!("\0{why}"), Err(why)),
            };
            if self.known.get(&name) != Some(&kept) {
                self.known.insert(name.clone(), kept);
                changes.push(Change::Config(name, Some(read)));
            }
        }
        let gone: Vec<ConfigName> = self.known.keys().filter(|n| !seen.contains(*n)).cloned().collect();
        for name in gone {
            self.known.remove(&name);
            changes.push(Change::Config(name, None));
        }
        Ok(changes)
    }

    fn read_defaults(&mut self, path: &Path, changes: &mut Vec<Change>) {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(why) => return tracing::error!("{} is not used: {why}", path.display()),
        };
        if text == self.defaults.0 {
            return;
        }
        match text::read(&text, &Config::new(Uuid::nil()), Uuid::nil()) {
            Ok(config) => {
                changes.push(Change::Defaults(Box::new(config.clone())));
                self.defaults = (text, config);
            }
            Err(wrong) => {
                tracing::error!("{} is not used, {wrong}", path.display());
                self.defaults.0 = text;
            }
        }
    }

    /// Writes a config's file whole; it is not heard as a change.
    pub fn write(&mut self, name: &ConfigName, config: &Config) -> io::Result<()> {
        let text = config.to_text();
        xvm_daemon::write_whole(&self.dir, &format!("{name}.toml"), &text)?;
        self.known.insert(name.clone(), text);
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > FILE_MAX {
        return Err(format!("it has {length} bytes; at most {FILE_MAX} are read"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| format!("byte {} is not UTF-8", e.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|c| match c {
                Change::Config(name, None) => format!("-{name}"),
                Change::Config(name, Some(Ok(c))) => format!("{name} {}", c.memory),
                Change::Config(name, Some(Err(why))) => format!("{name}! {why}"),
                Change::Defaults(c) => format!("defaults {}", c.memory),
            })
            .collect()
    }

    #[tokio::test]
    async fn edits_are_noticed_once_and_our_own_are_not() {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let mut files = Files::open(scratch.path()).expect("made");
        let mut notices = files.watch().expect("inotify");
        let path = |name: &str| scratch.path().join(name);
        std::fs::write(path("a.toml"), "memory = 300\n").expect("written");
        notices.recv().await.expect("noticed");
        assert_eq!(names(&files.read().expect("read")), ["a 300"]);
        assert!(files.read().expect("read").is_empty());
        files.write(&ConfigName::parse("b").expect("a name"), &Config::new(Uuid::nil())).expect("written");
        assert!(files.read().expect("read").is_empty());
        std::fs::write(path("a.toml"), "memory = 300\ndisk = 1\n").expect("written");
        std::fs::write(path("bad name.toml"), "").expect("written");
        std::fs::write(path(".a.toml.swp"), "").expect("written");
        std::fs::write(path("c.toml"), [0xff]).expect("written");
        let mut told = names(&files.read().expect("read"));
        told.sort();
        assert!(told[0].starts_with("a! line 2: disk: \"1\" is not") && told.len() == 2, "{told:?}");
        assert_eq!(told[1], "c! byte 0 is not UTF-8");
        std::fs::remove_file(path("a.toml")).expect("removed");
        assert_eq!(names(&files.read().expect("read")), ["-a"]);
        std::fs::write(path("defaults.toml"), "memory = 64\n").expect("written");
        assert_eq!(names(&files.read().expect("read")), ["defaults 64"]);
    }
}
