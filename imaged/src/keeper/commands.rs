//! Orders: each is carried out at most once, checked, and answered.

use super::entry::{Entry, Step};
use super::step::{Effect, Task, Ticket};
use super::{CONFIGS_MAX, Keeper};
use uuid::Uuid;
use xvm_model::config::settings::{self};
use xvm_model::config::{Config, Rights};
use xvm_model::images::Resizable;
use xvm_model::receipts::Admit;
use xvm_model::{
    Answer, Body, Command, ConfigCommand, ConfigName, Domain, Failure, JobKind, News, Order, Reply, Topic,
};

impl Keeper {
    pub(super) fn command(&mut self, command: Command) {
        let ticket = Ticket { id: command.id.clone(), client: command.client.clone() };
        let Order::Config { name, command: what } = &command.order else { return };
        if let ConfigCommand::Log { from } = what {
            return self.log(ticket, name, *from);
        }
        match self.receipts.admit(&command, self.now.wall, self.now.mono) {
            Admit::Run => {
                let (name, what) = (name.clone(), what.clone());
                if let Err(failure) = self.run(&ticket, &name, what) {
                    self.answer(&ticket, &name, Answer::Failed { failure });
                }
            }
            Admit::Known(None) => self.send(&ticket, Answer::Working, None),
            Admit::Known(Some(reply)) => {
                let change = Box::new(self.change(name));
                self.send(&ticket, reply.answer, Some(News::Config { change }));
            }
            Admit::Refuse(failure) => self.send(&ticket, Answer::Failed { failure }, None),
        }
    }

    /// The last answer to an order: it is remembered for the order's copies, and brings what is true now.
    pub(super) fn answer(&mut self, ticket: &Ticket, name: &ConfigName, answer: Answer) {
        let reply = Reply { id: ticket.id.clone(), answer: answer.clone(), news: None };
        self.receipts.answered(&ticket.id, reply);
        let change = Box::new(self.change(name));
        self.send(ticket, answer, Some(News::Config { change }));
    }

    pub(super) fn done(&mut self, ticket: &Ticket, name: &ConfigName, text: impl Into<Box<str>>) {
        self.answer(ticket, name, Answer::Done { text: text.into() });
    }

    pub(super) fn send(&mut self, ticket: &Ticket, answer: Answer, news: Option<News>) {
        let reply = Reply { id: ticket.id.clone(), answer, news };
        self.publish(Topic::Reply(ticket.client.clone()), Body::Reply(Box::new(reply)));
    }

    fn log(&mut self, ticket: Ticket, name: &ConfigName, from: u64) {
        if self.configs.contains_key(name) {
            self.out.push(Effect::Log { ticket, name: name.clone(), from });
        } else {
            self.send(&ticket, Answer::Failed { failure: absent("read the log of", name) }, None);
        }
    }

    fn run(&mut self, ticket: &Ticket, name: &ConfigName, command: ConfigCommand) -> Result<(), Failure> {
        let word = command.word();
        match command {
            ConfigCommand::Create { settings, rights } => self.create(ticket, name, &settings, rights),
            ConfigCommand::Restore => self.restore(ticket, name),
            ConfigCommand::Start { on } if self.is_early(on.as_ref()) => {
                self.send(ticket, Answer::Working, None);
                self.early.push((ticket.clone(), name.clone(), on));
                Ok(())
            }
            ConfigCommand::Start { on } => self.start(Some(ticket), name, on),
            ConfigCommand::Lend { from, to, job } => self.lend(ticket, name, &from, &to, &job),
            ConfigCommand::Clone { new, rights } => self.copy(ticket, name, &new, rights),
            ConfigCommand::Resize { what, to } => {
                let key = match what {
                    Resizable::Disk => "disk",
                    Resizable::Swap => "swap",
                    Resizable::Memory => "memory",
                    Resizable::Vcpus => "vcpus",
                };
                self.set(ticket, name, word, key, &to.to_string())
            }
            ConfigCommand::Set { key, value } => self.set(ticket, name, word, &key, &value),
            ConfigCommand::Own { uid, gid, mode } => self.own(ticket, name, (uid, gid, mode)),
            ConfigCommand::Cancel => self.cancel(ticket, name),
            ConfigCommand::Rebuild => self.rebuild(ticket, name),
            ConfigCommand::Remove => self.remove(ticket, name),
            ConfigCommand::Log { .. } => Ok(()),
        }
    }

    /// The entry of a config that nothing goes on with, for a command that needs that; with its definition.
    pub(super) fn idle(&self, word: &str, name: &ConfigName) -> Result<(&Entry, &Config), Failure> {
        let entry = self.configs.get(name).ok_or_else(|| absent(word, name))?;
        if let Some(work) = &entry.work {
            let (kind, phase, percent) = (work.job.kind, &work.job.phase, work.job.percent);
            return Err(Failure::busy(format!(
                "cannot {word} {name}: its {kind} goes on ({phase}, {percent} %); wait for it (cat wait) or `echo cancel > ctl`"
            )));
        }
        if let Some(copy) = entry.copies.first() {
            return Err(Failure::busy(format!("cannot {word} {name}: {copy} is being made of it")));
        }
        let Some(config) = &entry.config else {
            let why = entry.wrong.as_deref().unwrap_or("its file does not read");
            return Err(Failure::busy(format!("cannot {word} {name}: {why}")));
        };
        Ok((entry, config))
    }

    /// The same of one that does not run either.
    pub(super) fn stopped(&self, word: &str, name: &ConfigName) -> Result<(&Entry, &Config), Failure> {
        let (entry, config) = self.idle(word, name)?;
        match entry.leases.holder() {
            None => Ok((entry, config)),
            Some(holder) => Err(Failure::busy(format!(
                "cannot {word} {name}: {holder} runs it; shut it down first (echo shutdown > domains/{name}/ctl)"
            ))),
        }
    }

    /// The name of a config that is to be.
    pub(super) fn vacant(&self, word: &str, name: &ConfigName) -> Result<(), Failure> {
        if self.configs.contains_key(name) {
            let why = format!("cannot {word} {name}: there is a config of that name");
            return Err(Failure::new(xvm_model::Code::Exists, why));
        }
        let domain = name.domain();
        // one that was made from a config and is off is about to be forgotten
        let is_one = |d: &Domain| d.state.is_active() || d.settings.grant.is_none();
        if let Some(there) = self.view.domain(domain.as_str(), self.now.mono).filter(|d| is_one(&d.domain)) {
            return Err(Failure::new(
                xvm_model::Code::Exists,
                format!(
                    "cannot {word} {name}: {} has a domain of that name, which no config defines",
                    there.server
                ),
            ));
        }
        if self.configs.len() >= CONFIGS_MAX {
            return Err(Failure::new(
                xvm_model::Code::NoSpace,
                format!("cannot {word} {name}: there are {CONFIGS_MAX} configs, which is the most"),
            ));
        }
        Ok(())
    }

    fn create(
        &mut self,
        ticket: &Ticket,
        name: &ConfigName,
        settings: &[(Box<str>, Box<str>)],
        rights: Rights,
    ) -> Result<(), Failure> {
        self.vacant("create", name)?;
        let mut config = Config { rights, ..self.defaults.twin(fresh(&ticket.id)) };
        for (key, value) in settings {
            settings::set(&mut config, key, value)
                .map_err(|why| Failure::invalid(format!("cannot create {name}: {why}")))?;
        }
        self.check_os("create", name, &config)?;
        self.check_room("create", name, config.disk + config.swap)?;
        self.add(name, config.clone());
        self.begin(name, JobKind::Create, &ticket.id, Task::Make { config: Box::new(config) }, None);
        self.answer(ticket, name, Answer::Accepted);
        Ok(())
    }

    /// A new config: its file is written, nothing is made yet.
    pub(super) fn add(&mut self, name: &ConfigName, config: Config) {
        let entry = Entry { config: Some(config.clone()), ..Entry::default() };
        self.configs.insert(name.clone(), entry);
        self.dirty = true;
        self.write(name, &config, config.clone(), None);
    }

    pub(super) fn write(
        &mut self,
        name: &ConfigName,
        config: &Config,
        before: Config,
        answer: Option<(Ticket, Box<str>)>,
    ) {
        let (config, before) = (Box::new(config.clone()), Box::new(before));
        self.out.push(Effect::Write { name: name.clone(), config, before, answer });
    }

    pub(super) fn check_os(&self, word: &str, name: &ConfigName, config: &Config) -> Result<(), Failure> {
        let systems = &self.site.systems;
        if systems.iter().any(|s| **s == *config.os.as_str()) {
            return Ok(());
        }
        let known: Vec<&str> = systems.iter().map(|s| &**s).collect();
        let why = format!(
            "cannot {word} {name}: os {} is not known here; it may be {}",
            config.os,
            known.join(", ")
        );
        Err(Failure::invalid(why))
    }

    /// Whether the store may hold `mib` more. Files are sparse, so this only refuses what can never fit.
    pub(super) fn check_room(&self, word: &str, name: &ConfigName, mib: u64) -> Result<(), Failure> {
        let room = &self.room;
        if room.total > 0 && mib > room.total {
            let why =
                format!("cannot {word} {name}: it needs {mib} MiB, and the store has {} in all", room.total);
            return Err(Failure::new(xvm_model::Code::NoSpace, why));
        }
        Ok(())
    }

    fn cancel(&mut self, ticket: &Ticket, name: &ConfigName) -> Result<(), Failure> {
        let entry = self.configs.get_mut(name).ok_or_else(|| absent("cancel", name))?;
        let Some(work) = &mut entry.work else {
            return Err(Failure::busy(format!("cannot cancel {name}: no job runs")));
        };
        let kind = work.job.kind;
        match &mut work.step {
            Step::Working { build, cancelled }
                if matches!(kind, JobKind::Create | JobKind::Rebuild | JobKind::Clone) =>
            {
                *cancelled = true;
                let build = build.clone();
                self.out.push(Effect::Stop { build });
                self.done(ticket, name, format!("the {kind} of {name} is being cancelled"));
                Ok(())
            }
            _ => Err(Failure::busy(format!(
                "cannot cancel the {kind} of {name}: it ends by itself within seconds; only what makes an image can be cancelled"
            ))),
        }
    }
}

/// An identity from an order's id, which is unique: the same order always makes the same.
pub(super) fn fresh(id: &str) -> Uuid {
    Uuid::from_u128(hashed(id))
}

/// 128 bits of SHA-256 with the marks of a random UUID.
fn hashed(id: &str) -> u128 {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(format!("xvm config {id}"));
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(*uuid::Builder::from_random_bytes(bytes).into_uuid().as_bytes())
}

pub(super) fn absent(word: &str, name: &ConfigName) -> Failure {
    Failure::no_entry(format!("cannot {word} {name}: there is no such config"))
}
