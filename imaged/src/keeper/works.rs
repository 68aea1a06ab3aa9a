//! Builds, copies, changes of volumes: what takes time and touches disks. Each is a job of its config.

use super::Keeper;
use super::commands::{absent, fresh};
use super::entry::{Step, Work};
use super::kept::{Image, KeptRemoved};
use super::step::{Effect, Made, Task, Ticket, Undone};
use xvm_model::config::Rights;
use xvm_model::images::Removed;
use xvm_model::{Answer, Code, ConfigName, Failure, Job, JobKind, Outcome, Wall};

impl Keeper {
    /// Begins a work as a job with the id of its order.
    pub(super) fn begin(
        &mut self,
        name: &ConfigName,
        kind: JobKind,
        id: &str,
        task: Task,
        answer: Option<Ticket>,
    ) {
        let build = self.build_id();
        let since = self.now.wall;
        let Some(entry) = self.configs.get_mut(name) else { return };
        let job = Job { id: id.into(), kind, phase: "begin".into(), percent: 0, to: None, since, note: None };
        let step = Step::Working { build: build.clone(), cancelled: false };
        entry.work = Some(Work { job, remaining: None, step, answer });
        entry.removing = task == Task::Remove;
        entry.changing = match &task {
            Task::Change { after, .. } => Some(after.clone()),
            _ => None,
        };
        self.dirty = true;
        self.out.push(Effect::Work { build, name: name.clone(), task });
        self.tell(name);
    }

    /// No two works of any life share one.
    fn build_id(&mut self) -> Box<str> {
        self.count += 1;
        format!("{}-{}", self.site.boot.0, self.count).into()
    }

    pub(super) fn copy(
        &mut self,
        ticket: &Ticket,
        name: &ConfigName,
        new: &ConfigName,
        rights: Rights,
    ) -> Result<(), Failure> {
        let (entry, config) = self.stopped("clone", name)?;
        let Image::Ready { .. } = entry.image else {
            return Err(Failure::busy(format!(
                "cannot clone {name}: it has no image; `echo rebuild > ctl` makes one"
            )));
        };
        let mut config = config.twin(fresh(&ticket.id));
        config.rights = rights;
        self.vacant("make the clone", new)?;
        self.check_room("make the clone", new, config.disk + config.swap)?;
        self.add(new, config.clone());
        if let Some(origin) = self.configs.get_mut(name) {
            origin.copies.push(new.clone());
        }
        let task = Task::Copy { from: name.clone(), config: Box::new(config) };
        self.begin(new, JobKind::Clone, &ticket.id, task, None);
        self.answer(ticket, new, Answer::Accepted);
        Ok(())
    }

    pub(super) fn rebuild(&mut self, ticket: &Ticket, name: &ConfigName) -> Result<(), Failure> {
        let (_, config) = self.stopped("rebuild", name)?;
        let config = Box::new(config.clone());
        self.check_os("rebuild", name, &config)?;
        self.begin(name, JobKind::Rebuild, &ticket.id, Task::Make { config }, None);
        self.answer(ticket, name, Answer::Accepted);
        Ok(())
    }

    pub(super) fn remove(&mut self, ticket: &Ticket, name: &ConfigName) -> Result<(), Failure> {
        // one whose file never read well has nothing to keep
        if let Some(entry) = self.configs.get(name)
            && entry.config.is_some()
        {
            self.stopped("remove", name)?;
        } else if !self.configs.contains_key(name) {
            return Err(absent("remove", name));
        }
        self.send(ticket, Answer::Working, None);
        self.begin(name, JobKind::Set, &ticket.id, Task::Remove, Some(ticket.clone()));
        Ok(())
    }

    pub(super) fn restore(&mut self, ticket: &Ticket, name: &ConfigName) -> Result<(), Failure> {
        if !self.removed.contains_key(name) {
            let known: Vec<&str> = self.removed.keys().take(20).map(ConfigName::as_str).collect();
            let known =
                if known.is_empty() { "nothing can be".into() } else { format!("{} can", known.join(", ")) };
            return Err(Failure::no_entry(format!(
                "cannot restore {name}: it was not removed within a day; {known}"
            )));
        }
        self.vacant("restore", name)?;
        if self.restoring.values().any(|(n, _)| n == name) {
            return Err(Failure::busy(format!("cannot restore {name}: it is being restored")));
        }
        let build = self.build_id();
        self.restoring.insert(build.clone(), (name.clone(), ticket.clone()));
        self.send(ticket, Answer::Working, None);
        self.out.push(Effect::Work { build, name: name.clone(), task: Task::Restore });
        Ok(())
    }

    fn by_build(&self, build: &str) -> Option<ConfigName> {
        let is = |w: &Work| matches!(&w.step, Step::Working { build: b, .. } if **b == *build);
        self.configs.iter().find(|(_, e)| e.work.as_ref().is_some_and(is)).map(|(name, _)| name.clone())
    }

    pub(super) fn staged(
        &mut self,
        build: &str,
        phase: Box<str>,
        percent: u8,
        remaining: Option<u32>,
        log: u64,
    ) {
        let now = self.now.mono;
        let Some(name) = self.by_build(build) else { return };
        let Some(entry) = self.configs.get_mut(&name) else { return };
        entry.log = log;
        let mut new = false;
        if let Some(work) = &mut entry.work {
            new = work.job.phase != phase;
            (work.job.phase, work.job.percent, work.remaining) = (phase, percent.min(100), remaining);
        }
        if new || entry.may_tell(now) {
            self.tell(&name);
        }
    }

    pub(super) fn worked(&mut self, build: &str, result: Result<Made, Undone>, log: u64) {
        if let Some((name, ticket)) = self.restoring.remove(build) {
            return self.restored(&name, &ticket, result);
        }
        let Some(name) = self.by_build(build) else { return };
        let Some(entry) = self.configs.get_mut(&name) else { return };
        entry.log = log;
        let Some(work) = entry.work.take() else { return };
        self.dirty = true;
        // a clone boots from what its model boots from
        let mut model = None;
        for origin in self.configs.values_mut() {
            if origin.copies.contains(&name) {
                model = Some(origin.image.clone());
            }
            origin.copies.retain(|copy| *copy != name);
        }
        match (work.job.kind, result) {
            (JobKind::Create | JobKind::Rebuild | JobKind::Clone, Ok(made)) => {
                if let Some(entry) = self.configs.get_mut(&name) {
                    entry.image = model.unwrap_or(Image::Ready { boot: made.boot });
                }
                self.end(&name, work, Ok(format!("{name} is ready").into()));
                self.apply_pending(&name);
            }
            (_, Ok(_)) if self.configs.get(&name).is_some_and(|e| e.removing) => self.gone(&name, work),
            (_, Ok(_)) => self.changed(&name, work),
            (kind, Err(undone)) => {
                let word = kind.word();
                let again = match kind {
                    JobKind::Create | JobKind::Rebuild | JobKind::Clone => {
                        "; `echo rebuild > ctl` begins anew"
                    }
                    _ => "",
                };
                let failure = match undone {
                    Undone::Cancelled => Failure::busy(format!("cannot {word} {name}: cancelled{again}")),
                    Undone::Failed(f) => {
                        Failure::new(f.code, format!("cannot {word} {name}: {}{again}", f.text))
                    }
                };
                if let Some(entry) = self.configs.get_mut(&name) {
                    entry.changing = None;
                    entry.removing = false;
                }
                self.end(&name, work, Err(failure));
            }
        }
    }

    /// A work on volumes has ended well: now the definition says so too.
    fn changed(&mut self, name: &ConfigName, work: Work) {
        let after = self.configs.get_mut(name).and_then(|e| e.changing.take());
        if let Some(after) = after {
            self.replace(name, *after, None);
        }
        let kind = work.job.kind;
        let text = match (kind, self.config(name)) {
            (JobKind::Resize, Some(c)) => {
                format!("{name} has a disk of {} MiB and {} of swap", c.disk, c.swap)
            }
            _ => format!("the image of {name} is as its settings say"),
        };
        self.end(name, work, Ok(text.into()));
        self.apply_pending(name);
    }

    fn gone(&mut self, name: &ConfigName, work: Work) {
        if let Some(entry) = self.configs.remove(name)
            && entry.config.is_some()
        {
            let until = Wall(self.now.wall.0.saturating_add(self.site.keep_ms));
            let removed = Removed { name: name.clone(), until };
            self.removed.insert(name.clone(), KeptRemoved { removed, config: entry.kept() });
        }
        self.tell(name);
        if let Some(ticket) = &work.answer {
            self.done(
                ticket,
                name,
                format!("{name} is removed; `echo restore {name} > ctl` brings it back within a day"),
            );
        }
        // mounts learn from this what can be restored
        self.beat = self.now.mono;
    }

    fn restored(&mut self, name: &ConfigName, ticket: &Ticket, result: Result<Made, Undone>) {
        match (result, self.removed.get(name).cloned()) {
            (Ok(Made { config: Some(config), .. }), Some(kept)) => {
                self.removed.remove(name);
                let entry = super::Entry { config: Some(*config), ..super::Entry::of(kept.config) };
                self.configs.insert(name.clone(), entry);
                self.dirty = true;
                self.beat = self.now.mono;
                self.tell(name);
                self.done(ticket, name, format!("{name} is back"));
            }
            (Err(Undone::Failed(failure)), _) => {
                let failure = Failure::new(failure.code, format!("cannot restore {name}: {}", failure.text));
                self.answer(ticket, name, Answer::Failed { failure });
            }
            _ => {
                let failure =
                    Failure::new(Code::Io, format!("cannot restore {name}: its definition is lost"));
                self.answer(ticket, name, Answer::Failed { failure });
            }
        }
    }

    /// A job has ended: kept, told, answered.
    pub(super) fn end(&mut self, name: &ConfigName, work: Work, result: Result<Box<str>, Failure>) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        let outcome = Outcome { id: work.job.id, kind: work.job.kind, at: self.now.wall, result };
        entry.work = None;
        entry.last = Some(Box::new(outcome.clone()));
        self.dirty = true;
        self.tell(name);
        if let Some(ticket) = &work.answer {
            let answer = match outcome.result {
                Ok(text) => Answer::Done { text },
                Err(failure) => Answer::Failed { failure },
            };
            self.answer(ticket, name, answer);
        }
    }

    /// Takes away for good what nobody wanted back within a day.
    pub(super) fn purge(&mut self) {
        let wall = self.now.wall;
        let over: Vec<ConfigName> = self
            .removed
            .values()
            .filter(|r| r.removed.until <= wall)
            .map(|r| r.removed.name.clone())
            .collect();
        for name in over {
            if self.restoring.values().any(|(n, _)| *n == name) {
                continue;
            }
            self.removed.remove(&name);
            self.dirty = true;
            let build = self.build_id();
            self.out.push(Effect::Work { build, name, task: Task::Purge });
        }
    }
}
