//! An imaged that answers as the real one does, over the in-memory bus: configs without volumes, and silent on request.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use uuid::Uuid;
use xvm_bus::{Clock, Incoming, Net, Publisher};
use xvm_model::config::settings;
use xvm_model::images::{Removed, StoreRoom, log_part};
use xvm_model::lease::Phase;
use xvm_model::spec::{GrantDisk, export_name};
use xvm_model::*;

/// How long something that goes into an image takes.
const SET: Duration = Duration::from_millis(150);

#[derive(Clone)]
pub struct Peer {
    state: Arc<Mutex<State>>,
}

struct State {
    publisher: Publisher,
    configs: BTreeMap<ConfigName, ConfigRecord>,
    logs: HashMap<ConfigName, String>,
    removed: BTreeMap<ConfigName, ConfigRecord>,
    /// Orders are not heard.
    deaf: bool,
    /// Nothing is said and nothing is heard.
    dead: bool,
    /// MiB that are free.
    free: u64,
    /// All orders but questions, as they came.
    orders: Vec<(ConfigName, ConfigCommand)>,
    /// Answers by command, so that a repeated order is not carried out again.
    known: HashMap<Box<str>, Reply>,
}

pub fn name(text: &str) -> ConfigName {
    ConfigName::parse(text).unwrap()
}

impl Peer {
    pub fn new(net: &Net, clock: &Clock) -> Self {
        let kerby = ServerName::parse("kerby").unwrap();
        let subscriptions = vec!["control.images".to_owned(), "roll-call".to_owned()];
        let (publisher, mut receiver) =
            net.connect(Sender::Images(kerby), Boot(3), subscriptions, clock.clone());
        let state = State {
            publisher,
            configs: BTreeMap::new(),
            logs: HashMap::new(),
            removed: BTreeMap::new(),
            deaf: false,
            dead: false,
            free: 41 << 10,
            orders: vec![],
            known: HashMap::new(),
        };
        let peer = Peer { state: Arc::new(Mutex::new(state)) };
        let (it, mut beat) = (peer.clone(), tokio::time::interval(Duration::from_millis(300)));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = beat.tick() => it.lock().say_all(),
                    incoming = receiver.recv() => match incoming {
                        None => return,
                        Some(Incoming::Message { envelope, .. }) => match envelope.body {
                            Body::RollCall => it.lock().say_all(),
                            Body::Command(command) => it.hear(*command),
                            _ => {}
                        },
                        Some(Incoming::Link(_) | Incoming::Flood(_) | Incoming::Forged(_)) => {}
                    },
                }
            }
        });
        peer
    }

    /// A config that can be started.
    pub fn add(&self, text: &str) {
        let mut state = self.lock();
        let record = state.fresh(&name(text), ConfigState::Ready);
        state.configs.insert(name(text), record);
        state.say(&name(text));
    }

    /// Changes a record and tells of it.
    pub fn change(&self, text: &str, f: impl FnOnce(&mut ConfigRecord)) {
        let mut state = self.lock();
        f(state.configs.get_mut(&name(text)).unwrap());
        state.say(&name(text));
    }

    /// The job of a config ends.
    pub fn finish(&self, text: &str, state: ConfigState, result: Result<&str, Failure>) {
        let at = self.lock().publisher.clock().now().wall;
        self.change(text, |r| {
            let job = r.job.take().unwrap();
            let result = result.map(Into::into);
            r.last = Some(Box::new(Outcome { id: job.id, kind: job.kind, at, result }));
            (r.state, r.remaining) = (state, None);
        });
    }

    /// The log of a config grows.
    pub fn log(&self, text: &str, more: &str) {
        let length = {
            let mut state = self.lock();
            let log = state.logs.entry(name(text)).or_default();
            log.push_str(more);
            log.len() as u64
        };
        self.change(text, |r| r.log = length);
    }

    /// A server holds its lease.
    pub fn lease(&self, text: &str, on: &str, epoch: u64) {
        let server = ServerName::parse(on).unwrap();
        let export = export_name(&name(text), &server, epoch, "disk");
        let disks = vec![GrantDisk { target: "vda".into(), volume: "disk".into(), export, size: 2048 << 20 }];
        let grant = Grant {
            config: name(text),
            server,
            epoch,
            host: "10.0.0.9".into(),
            port: 10809,
            tls: false,
            disks,
        };
        let lease = Lease { grant, phase: Phase::Held, job: None, boot: Boot(1) };
        self.change(text, |r| (r.leases, r.state) = (vec![lease], ConfigState::Running));
    }

    pub fn deaf(&self, deaf: bool) {
        self.lock().deaf = deaf;
    }

    pub fn kill(&self) {
        self.lock().dead = true;
    }

    pub fn free(&self, mib: u64) {
        self.lock().free = mib;
    }

    pub fn orders(&self) -> Vec<(ConfigName, ConfigCommand)> {
        self.lock().orders.clone()
    }

    pub fn record(&self, text: &str) -> ConfigRecord {
        self.lock().configs[&name(text)].clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn hear(&self, command: Command) {
        let Order::Config { name, command: what } = command.order else { panic!("for an agent") };
        let mut state = self.lock();
        if state.deaf || state.dead {
            return;
        }
        let reply = match state.known.get(&command.id) {
            Some(reply) => reply.clone(),
            None => {
                let personal = matches!(&what, ConfigCommand::Set { key, .. } if &**key == "keys");
                let (answer, news) = match state.run(&name, what, &command.id) {
                    Ok((answer, change)) => (answer, change.map(|c| News::Config { change: Box::new(c) })),
                    Err(failure) => (Answer::Failed { failure }, None),
                };
                if personal && answer == Answer::Accepted {
                    let (it, text) = (self.clone(), name.to_string());
                    tokio::spawn(async move {
                        tokio::time::sleep(SET).await;
                        it.finish(&text, ConfigState::Ready, Ok("its image has the keys"));
                    });
                }
                Reply { id: command.id.clone(), answer, news }
            }
        };
        state.known.insert(command.id, reply.clone());
        state.publisher.publish(Topic::Reply(command.client), Body::Reply(Box::new(reply)));
    }
}

type Said = Result<(Answer, Option<ConfigChange>), Failure>;

impl State {
    fn fresh(&self, name: &ConfigName, state: ConfigState) -> ConfigRecord {
        let number = name.as_str().bytes().fold(7u128, |n, b| n * 31 + u128::from(b));
        ConfigRecord {
            name: name.clone(),
            config: Config { os: config::Os::parse("tiny").unwrap(), ..Config::new(Uuid::from_u128(number)) },
            state,
            job: None,
            remaining: None,
            last: None,
            leases: vec![],
            boot: None,
            guest_key: None,
            log: 0,
            wrong: None,
        }
    }

    fn say_all(&self) {
        if self.dead {
            return;
        }
        let said = Configs {
            interval_ms: 300,
            host: "10.0.0.9".into(),
            store: StoreRoom { kind: "dir".into(), total: 80 << 10, free: self.free },
            systems: vec!["tiny".into()],
            configs: self.configs.values().cloned().collect(),
            removed: self
                .removed
                .keys()
                .map(|n| Removed { name: n.clone(), until: Wall(1_795_377_612_120) })
                .collect(),
        };
        self.publisher.publish(Topic::Configs, Body::Configs(Box::new(said)));
    }

    fn say(&self, name: &ConfigName) {
        let change = self.is(name);
        self.publisher.publish(Topic::Config, Body::Config(Box::new(change)));
    }

    fn is(&self, name: &ConfigName) -> ConfigChange {
        match self.configs.get(name) {
            Some(record) => ConfigChange::Is { record: record.clone() },
            None => ConfigChange::Gone { name: name.clone() },
        }
    }

    fn job(&self, id: &str, kind: JobKind) -> Option<Box<Job>> {
        let (phase, since) = ("volumes".into(), self.publisher.clock().now().wall);
        Some(Box::new(Job { id: id.into(), kind, phase, percent: 5, to: None, since, note: None }))
    }

    fn run(&mut self, name: &ConfigName, command: ConfigCommand, id: &str) -> Said {
        let word = command.word();
        let done = |text: &str| Answer::Done { text: text.into() };
        if let ConfigCommand::Log { from } = command {
            let log = self.logs.get(name).map_or("", |l| l);
            assert!(log.is_char_boundary(from as usize), "asked inside of a character");
            return Ok((done(&log_part(&log.as_bytes()[from as usize..])), None));
        }
        self.orders.push((name.clone(), command.clone()));
        if let ConfigCommand::Create { settings, rights } = command {
            if self.configs.contains_key(name) {
                return Err(Failure::new(
                    Code::Exists,
                    format!("cannot create {name}: there is one already"),
                ));
            }
            let mut record = self.fresh(name, ConfigState::Creating);
            for (key, value) in &settings {
                settings::set(&mut record.config, key, value).map_err(Failure::invalid)?;
            }
            record.config.rights = rights;
            if record.config.disk > self.free {
                let why = format!(
                    "cannot create {name}: its disk needs {} MiB, and {} are free",
                    record.config.disk, self.free
                );
                return Err(Failure::new(Code::NoSpace, why));
            }
            (record.job, record.remaining) = (self.job(id, JobKind::Create), Some(9));
            self.configs.insert(name.clone(), record);
            return Ok((Answer::Accepted, Some(self.is(name))));
        }
        if let ConfigCommand::Restore = command {
            let none = || Failure::no_entry(format!("cannot restore {name}: none of that name was removed"));
            let record = self.removed.remove(name).ok_or_else(none)?;
            self.configs.insert(name.clone(), record);
            return Ok((done("restored"), Some(self.is(name))));
        }
        let job = match &command {
            ConfigCommand::Set { key, .. } if &**key == "keys" => self.job(id, JobKind::Set),
            ConfigCommand::Rebuild => self.job(id, JobKind::Rebuild),
            _ => None,
        };
        let free = self.fresh(name, ConfigState::Ready);
        let record = self
            .configs
            .get_mut(name)
            .ok_or_else(|| Failure::no_entry(format!("there is no config {name}")))?;
        let busy = |why: &str| Err(Failure::busy(format!("cannot {word} {name}: {why}")));
        if record.job.is_some() && !matches!(command, ConfigCommand::Cancel | ConfigCommand::Own { .. }) {
            return busy("a job runs");
        }
        match command {
            ConfigCommand::Remove if !record.leases.is_empty() => return busy("it runs"),
            ConfigCommand::Remove => {
                let record = self.configs.remove(name).unwrap();
                self.removed.insert(name.clone(), record);
            }
            ConfigCommand::Own { uid, gid, mode } => {
                let r = &mut record.config.rights;
                *r = config::Rights {
                    uid: uid.unwrap_or(r.uid),
                    gid: gid.unwrap_or(r.gid),
                    mode: mode.unwrap_or(r.mode),
                };
            }
            ConfigCommand::Set { key, .. } if &*key == "memory" && !record.leases.is_empty() => {
                return busy("memory is set while it does not run");
            }
            ConfigCommand::Set { key, value } => {
                settings::set(&mut record.config, &key, &value).map_err(Failure::invalid)?;
                record.job = job;
                if record.job.is_some() {
                    return Ok((Answer::Accepted, Some(self.is(name))));
                }
            }
            ConfigCommand::Clone { new, rights } => {
                let config = Config { rights, ..record.config.twin(Uuid::from_u128(77)) };
                let twin = ConfigRecord { name: new.clone(), config, ..free };
                self.configs.insert(new.clone(), twin);
                self.say(&new);
            }
            ConfigCommand::Rebuild => {
                (record.job, record.state) = (job, ConfigState::Creating);
                return Ok((Answer::Accepted, Some(self.is(name))));
            }
            ConfigCommand::Cancel => {
                let Some(job) = record.job.take() else { return busy("no job runs") };
                let at = self.publisher.clock().now().wall;
                let result = Err(Failure::busy("cancelled"));
                record.last = Some(Box::new(Outcome { id: job.id, kind: job.kind, at, result }));
                record.state = ConfigState::Failed;
            }
            ConfigCommand::Resize { to, .. } => record.config.disk = to,
            ConfigCommand::Start { .. } if record.state != ConfigState::Ready => {
                return busy("it is not ready");
            }
            other => return Err(Failure::new(Code::NotSupported, format!("cannot {}", other.word()))),
        }
        Ok((done(&format!("{word} {name}: done")), Some(self.is(name))))
    }
}
