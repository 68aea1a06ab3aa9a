//! Definitions that people edit. A file that is wrong is told with line and reason, and takes no working config away; one that changes
//! what cannot change now waits until it can.

use super::Keeper;
use super::entry::Entry;
use super::kept::Image;
use super::settings::needs_work;
use super::step::{Task, Ticket};
use xvm_model::config::settings::{SETTINGS, When};
use xvm_model::{Answer, Code, Config, ConfigName, Failure, JobKind, Outcome};

impl Keeper {
    /// The file of a config is this now.
    pub(super) fn file(&mut self, name: ConfigName, read: Option<Result<Box<Config>, String>>) {
        // a restored one has its definition in the work's end
        if self.restoring.values().any(|(n, _)| *n == name) {
            return;
        }
        match (read, self.configs.get(&name).map(|e| e.config.clone())) {
            (None, None) => {}
            (None, Some(None)) => {
                self.configs.remove(&name);
                self.dirty = true;
                self.tell(&name);
            }
            (None, Some(Some(config))) => {
                if self.configs.get(&name).is_some_and(|e| e.removing) {
                    return;
                }
                self.wrong(
                    &name,
                    format!(
                        "its file was removed, and is written again; `rmdir configs/{name}` removes a config"
                    ),
                );
                self.write(&name, &config, config.clone(), None);
            }
            (Some(Err(why)), known) => {
                if known.is_none() {
                    self.configs.insert(name.clone(), Entry::default());
                    self.dirty = true;
                }
                self.wrong(&name, why);
            }
            (Some(Ok(config)), None) => self.appeared(&name, *config, true),
            // known from an earlier life, or only wrong files so far
            (Some(Ok(config)), Some(None)) => self.appeared(&name, *config, false),
            (Some(Ok(config)), Some(Some(_))) => self.edited(&name, *config),
        }
    }

    fn wrong(&mut self, name: &ConfigName, why: String) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        if entry.wrong.as_deref() != Some(&why) {
            tracing::warn!(%name, why, "its file is not used");
            entry.wrong = Some(why.into());
            self.tell(name);
        }
    }

    /// A definition of a config that had none: dropped there by somebody, or read at the start.
    fn appeared(&mut self, name: &ConfigName, config: Config, new: bool) {
        let entry = self.configs.entry(name.clone()).or_default();
        (entry.config, entry.wrong) = (Some(config.clone()), None);
        if new || !entry.kept {
            if let Err(failure) = self.check_os("create", name, &config) {
                return self.wrong(name, failure.text);
            }
            // its identity, which the file may not hold, must not change with the next reading
            self.write(name, &config, config.clone(), None);
            let id = format!("file.{}.{name}", self.site.boot.0);
            self.begin(name, JobKind::Create, &id, Task::Make { config: Box::new(config) }, None);
        } else if entry.image == Image::None && entry.last.is_none() {
            let text =
                format!("cannot create {name}: imaged ended in the middle; `echo rebuild > ctl` begins anew");
            let result = Err(Failure::new(Code::Io, text));
            let at = self.now.wall;
            entry.last = Some(Box::new(Outcome { id: "restart".into(), kind: JobKind::Create, at, result }));
        }
        self.tell(name);
    }

    fn edited(&mut self, name: &ConfigName, new: Config) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(old) = entry.config.clone() else { return };
        entry.pending = None;
        if new == old || entry.changing.as_deref() == Some(&new) {
            if entry.wrong.take().is_some() {
                self.tell(name);
            }
            return;
        }
        if new.uuid != old.uuid {
            return self.wrong(name, format!("uuid: it is {} and stays so", old.uuid));
        }
        if new.disk < old.disk {
            return self.wrong(name, format!("disk: it has {} MiB, and only gets larger", old.disk));
        }
        if let Err(failure) = self.check_os("change", name, &new) {
            return self.wrong(name, failure.text);
        }
        let Some(entry) = self.configs.get_mut(name) else { return };
        let differs: Vec<_> = SETTINGS.iter().filter(|row| (row.show)(&new) != (row.show)(&old)).collect();
        let later = differs.iter().find(|row| row.when != When::Always);
        if let Some(row) = later
            && (!entry.leases.held.is_empty() || entry.work.is_some() || !entry.copies.is_empty())
        {
            entry.pending = Some(Box::new(new));
            return self.wrong(name, format!("{}: waits until it does not run and no job goes on", row.key));
        }
        self.take(name, old, new);
    }

    /// A definition that may count now.
    fn take(&mut self, name: &ConfigName, old: Config, new: Config) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        entry.wrong = None;
        if matches!(entry.image, Image::Ready { .. }) && needs_work(&old, &new) {
            let id = format!("file.{}.{name}.{}", self.site.boot.0, self.count);
            let task = Task::Change { before: Box::new(old), after: Box::new(new) };
            return self.begin(name, JobKind::Set, &id, task, None);
        }
        entry.config = Some(new);
        self.tell(name);
    }

    /// What waited until nothing goes on.
    pub(super) fn apply_pending(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        if !entry.leases.held.is_empty() || entry.work.is_some() {
            return;
        }
        if let Some(new) = entry.pending.take() {
            self.edited(name, *new);
        }
    }

    /// The file of a config was written, or could not be.
    pub(super) fn written(
        &mut self,
        name: &ConfigName,
        before: Config,
        answer: Option<(Ticket, Box<str>)>,
        result: Result<(), String>,
    ) {
        match result {
            Ok(()) => {
                self.tell(name);
                if let Some((ticket, text)) = answer {
                    self.done(&ticket, name, text);
                }
            }
            Err(why) => {
                let Some(entry) = self.configs.get_mut(name) else { return };
                if answer.is_some() {
                    entry.config = Some(before);
                }
                self.wrong(name, format!("it cannot be written: {why}"));
                if let Some((ticket, _)) = answer {
                    let failure = Failure::new(
                        Code::Io,
                        format!("cannot set {name}: its file cannot be written: {why}"),
                    );
                    self.answer(&ticket, name, Answer::Failed { failure });
                }
            }
        }
    }
}
