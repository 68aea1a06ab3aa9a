//! imaged's driver: one task owns the state; whatever may take time runs beside it and comes back as an input.
//!
//! ```text
//!            ┌────────────────────────── one task ──────────────────────────┐
//!  bus ─────▶│                                                              │──▶ bus
//!  files ───▶│  next input ──▶ Keeper::step (pure) ──▶ effects              │──▶ imaged.json, then what follows from it
//!  ends ────▶│        ▲                                  │                  │
//!            └────────┼──────────────────────────────────┼──────────────────┘
//!                     └── works, exports, orders ◀───────┘  (spawned, never waited for)
//! ```
//!
//! Nothing that follows from a lease is done before the lease is on disk. When it cannot be kept (a full disk) the effects wait, and
//! it is tried again each second; heartbeats go on.

mod begin;
mod boot_files;
mod exporter;
mod works;

use crate::config::Config as Flags;
use crate::export::{Volume as ExportVolume, Wanted};
use crate::files::{Change, Files};
use crate::keeper::Keeper;
use crate::keeper::kept::Kept;
use crate::keeper::step::{Effect, FileNews, HELD_MS, Input, Tag};
use crate::store::{Store, Volume};
use anyhow::Context as _;
use boot_files::{BOOT_KEY, BootFiles};
use exporter::Exporter;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use works::Works;
use xvm_bus::{BusConfig, Client, Clock, Incoming, Publisher, Receiver};
use xvm_daemon::Dir;
use xvm_model::images::{LOG_PART, log_part};
use xvm_model::{Answer, Body, ClientName, Code, ConfigName, Failure, Reply, Sender, ServerName, Topic};

/// How long a destination may take to get ready for a migration: it fetches a kernel.
const PATIENT: Duration = Duration::from_secs(45);
/// Ends that wait to be taken.
const ENDS: usize = 256;
/// How often the store's room is looked at.
const ROOM: Duration = Duration::from_secs(10);
/// What cannot be kept on disk is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// The file of what is kept.
const KEPT: &str = "imaged.json";

/// Under which names imaged orders, and gets answers.
fn clients(name: &ServerName) -> anyhow::Result<[ClientName; 2]> {
    let of =
        |front: &str| ClientName::parse(&format!("{front}.{name}")).context("cannot use the server's name");
    Ok([of("images")?, of("images-patient")?])
}

/// What imaged hears.
pub fn subscriptions(name: &ServerName) -> anyhow::Result<Vec<String>> {
    let mut all = vec!["heartbeat.".to_owned(), "domain.".into(), Topic::RollCall.to_string()];
    all.extend([Topic::ControlImages.to_string(), Topic::Configs.to_string()]);
    all.extend(clients(name)?.iter().map(|c| Topic::Reply(c.clone()).to_string()));
    Ok(all)
}

/// Joins the bus and keeps the configs until `shutdown`. `ready` is called when orders are taken.
pub async fn run(
    flags: Flags,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (name, clock) = (flags.server()?, Clock::system());
    let dir = Dir::open(&flags.state, "imaged")?;
    let boot = dir.boot(clock.now().wall)?;
    let (publisher, receiver) = xvm_bus::connect(BusConfig {
        forwarders: flags.forwarder.clone(),
        sender: Sender::Images(name.clone()),
        boot,
        subscriptions: subscriptions(&name)?,
        clock,
    })?;
    serve(flags, dir, publisher, receiver, ready, shutdown).await
}

/// The same over a bus that is joined already.
pub async fn serve(
    flags: Flags,
    dir: Dir,
    publisher: Publisher,
    receiver: Receiver,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let Sender::Images(name) = publisher.sender().clone() else {
        anyhow::bail!("cannot run imaged as {}: its sender must be images/SERVER", publisher.sender());
    };
    let mut driver = Driver::begin(&flags, dir, name, publisher).await?;
    ready();
    driver.serve(receiver, shutdown).await
}

/// The shell around a keeper.
struct Driver {
    keeper: Keeper,
    dir: Dir,
    files: Files,
    store: Arc<dyn Store>,
    exporter: Exporter,
    works: Works,
    publisher: Publisher,
    clients: [Client; 2],
    boot_files: BootFiles,
    /// Orders, exports and readings that go on.
    tasks: JoinSet<()>,
    ends: mpsc::Sender<Input>,
    ended: mpsc::Receiver<Input>,
    inputs: VecDeque<Input>,
    /// What could not be kept, and the effects that wait for it.
    held: Option<(Kept, VecDeque<Effect>)>,
}

impl Driver {
    async fn serve(
        &mut self,
        mut receiver: Receiver,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let clock = self.publisher.clock().clone();
        let mut notices = self.files.watch().context("cannot watch the directory of configs")?;
        let mut deaths = self.exporter.deaths();
        let mut room = tokio::time::interval(ROOM);
        room.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        self.rescan();
        tokio::pin!(shutdown);
        loop {
            while let Some(input) = self.inputs.pop_front() {
                for effect in self.keeper.step(input, clock.now()) {
                    self.carry_out(effect);
                }
            }
            self.boot_files.export(self.keeper.boot_files(), &mut self.exporter, &mut self.tasks);
            while self.tasks.try_join_next().is_some() {}
            let wake = Duration::from_millis(self.keeper.wake().since(clock.mono()));
            tokio::select! {
                biased;
                () = &mut shutdown => {
                    self.works.stop_all().await;
                    return Ok(());
                }
                Some(input) = self.ended.recv() => self.inputs.push_back(input),
                Some(()) = notices.recv() => self.rescan(),
                Some(key) = deaths.recv() => self.died(&key),
                _ = again.tick(), if self.held.is_some() => self.keep_again(),
                _ = room.tick() => self.look_at_room(),
                incoming = receiver.recv() => match incoming {
                    None => anyhow::bail!("cannot go on without the bus: its thread has ended"),
                    Some(Incoming::Link(link)) => {
                        tracing::info!(?link, "bus");
                        self.inputs.push_back(Input::Link(link.is_up()));
                    }
                    Some(Incoming::Message { topic, envelope }) => self.hear(&topic, envelope)?,
                    // imaged hears no guests
                    Some(Incoming::Flood(_) | Incoming::Forged(_)) => {}
                },
                () = tokio::time::sleep(wake) => self.inputs.push_back(Input::Tick),
            }
        }
    }

    fn hear(&mut self, topic: &Topic, envelope: xvm_model::Envelope) -> anyhow::Result<()> {
        match &envelope.body {
            Body::Command(command) if *topic == Topic::ControlImages => {
                self.inputs.push_back(Input::Command(command.clone()));
            }
            Body::RollCall => self.inputs.push_back(Input::RollCall),
            Body::Configs(_) if envelope.from != *self.publisher.sender() => {
                tracing::error!("{} keeps configs too: there must be one imaged in a cluster", envelope.from);
            }
            Body::Reply(reply) => {
                // its news are known before its answer counts
                let reply = (**reply).clone();
                for effect in self.keeper.step(Input::Heard(Box::new(envelope)), self.publisher.clock().now())
                {
                    self.carry_out(effect);
                }
                self.clients.iter().for_each(|c| c.deliver(reply.clone()));
            }
            Body::Heartbeat(_) | Body::Domain(_) => self.inputs.push_back(Input::Heard(Box::new(envelope))),
            _ => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) {
        if let Effect::Publish(topic, body) = effect {
            return self.publisher.publish(topic, *body);
        }
        if let Some((kept, waiting)) = &mut self.held {
            match effect {
                Effect::Keep(newer) => *kept = *newer,
                other => waiting.push_back(other),
            }
            return;
        }
        match effect {
            Effect::Keep(kept) => self.keep(*kept),
            Effect::Write { name, config, before, answer } => {
                let result = self.files.write(&name, &config).map_err(|e| e.to_string());
                self.inputs.push_front(Input::Written { name, before, answer, result });
            }
            Effect::Work { build, name, task } => self.works.begin(build, name, task),
            Effect::Stop { build } => self.works.stop(&build),
            Effect::Export { name, wish, port, names, servers } => {
                self.export(name, wish, (port, servers), names);
            }
            Effect::Log { ticket, name, from } => self.log(ticket, &name, from),
            Effect::Order { name, tag, to, boot, heard, order } => {
                let patient = matches!(tag, Tag::Prepare(_));
                let client = self.clients[usize::from(patient)].clone();
                let ends = self.ends.clone();
                // taking a disk away never waits
                let bound = if tag == Tag::Fence { Duration::ZERO } else { Duration::from_millis(HELD_MS) };
                let there = self.boot_files.there(bound);
                self.tasks.spawn(async move {
                    there.await;
                    let result = client.order(to, boot, heard, *order).await;
                    drop(ends.send(Input::Answered { name, tag, result }).await);
                });
            }
            Effect::Publish(..) => {}
        }
    }

    fn keep(&mut self, kept: Kept) {
        let text = serde_json::to_string(&kept).expect("names, numbers and texts are JSON");
        if let Err(error) = self.dir.write(KEPT, &text) {
            tracing::error!(%error, "nothing goes on until this can be kept");
            self.held = Some((kept, VecDeque::new()));
        }
    }

    fn keep_again(&mut self) {
        let Some((kept, waiting)) = self.held.take() else { return };
        self.keep(kept);
        match &mut self.held {
            Some((_, still)) => *still = waiting,
            None => waiting.into_iter().for_each(|effect| self.carry_out(effect)),
        }
    }

    fn rescan(&mut self) {
        let files = self.changed_files();
        if !files.is_empty() {
            self.inputs.push_back(Input::Files(files));
        }
    }

    /// What changed in the directory of configs since it was read last; new defaults are an input already.
    fn changed_files(&mut self) -> Vec<FileNews> {
        let changes = self.files.read().unwrap_or_else(|error| {
            tracing::error!(%error, "the directory of configs cannot be read");
            Vec::new()
        });
        let mut files = Vec::new();
        for change in changes {
            match change {
                Change::Config(name, read) => files.push((name, read)),
                Change::Defaults(config) => self.inputs.push_back(Input::Defaults(config)),
            }
        }
        files
    }

    fn died(&mut self, key: &str) {
        tracing::warn!(key, "a process that exports has died");
        if key == BOOT_KEY {
            self.boot_files.died();
        } else if let Ok(name) = ConfigName::parse(key) {
            self.inputs.push_back(Input::Died(name));
        }
    }

    fn look_at_room(&mut self) {
        let (store, ends) = (self.store.clone(), self.ends.clone());
        self.tasks.spawn(async move {
            match store.room().await {
                Ok(room) => drop(ends.send(Input::Room(room)).await),
                Err(error) => tracing::error!(%error, "the store's room is not known"),
            }
        });
    }

    fn export(
        &mut self,
        name: ConfigName,
        wish: u64,
        (port, servers): (u16, Option<Vec<ServerName>>),
        names: Vec<(Box<str>, Box<str>)>,
    ) {
        let volumes = Volume::ALL.iter().map(|v| ExportVolume {
            node: v.word().into(),
            path: self.store.path(&name, *v),
            writable: true,
        });
        let exports = names.into_iter().map(|(export, volume)| (export.into(), volume.into())).collect();
        let servers = servers.map(|all| all.iter().map(ServerName::to_string).collect());
        let wanted = Wanted { port, volumes: volumes.collect(), exports, servers };
        let (set, ends) = (self.exporter.set(name.as_str(), wanted), self.ends.clone());
        self.tasks.spawn(async move {
            let result = set.await.map_err(|e| e.to_string());
            drop(ends.send(Input::Exported { name, wish, result }).await);
        });
    }

    /// Kernels are exported as long as an image needs them.
    /// A part of a log, from a byte on.
    fn log(&mut self, ticket: crate::keeper::step::Ticket, name: &ConfigName, from: u64) {
        let answer = match part(&self.works.log_of(name), from) {
            Ok(text) => Answer::Done { text: text.into() },
            Err(e) => {
                let failure = Failure::new(Code::Io, format!("cannot read the log of {name}: {e}"));
                Answer::Failed { failure }
            }
        };
        let reply = Reply { id: ticket.id, answer, news: None };
        self.publisher.publish(Topic::Reply(ticket.client), Body::Reply(Box::new(reply)));
    }
}

fn part(path: &std::path::Path, from: u64) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_PART as u64).read_to_end(&mut bytes)?;
    Ok(log_part(&bytes))
}
