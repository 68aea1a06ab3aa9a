//! Agents that answer as real ones do, over the in-memory bus: enough of a cluster for the mount's tests, and silent on request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use uuid::Uuid;
use xvm_bus::{Clock, Incoming, Net, Publisher};
use xvm_model::lifecycle::check;
use xvm_model::message::Rounds;
use xvm_model::round::Round;
use xvm_model::{
    Answer, Body, Boot, Came, Command, Domain, DomainCommand, DomainMemory, DomainName, DomainState, Failure,
    Heartbeat, HypervisorKind, Job, JobKind, News, Order, Outcome, Ratio, Reply, Sender, ServerCommand,
    ServerMemory, ServerName, ServerSettings, Topic, Watchdog,
};

/// All servers of the test.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
}

struct State {
    servers: BTreeMap<ServerName, Place>,
    /// No agent hears orders.
    deaf: bool,
    /// Agents that say nothing and hear nothing.
    dead: BTreeSet<ServerName>,
    /// How long a migration takes.
    migration: Duration,
    /// How many orders were carried out.
    done: usize,
}

struct Place {
    settings: ServerSettings,
    points: u16,
    job: Option<Job>,
    last: Option<Outcome>,
    rounds: Vec<Round>,
    domains: BTreeMap<DomainName, Domain>,
    publisher: Publisher,
    /// Answers by command, so that a repeated order is not carried out again.
    known: HashMap<Box<str>, Reply>,
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

impl World {
    /// Each server with its domains; all run.
    pub fn new(net: &Net, clock: &Clock, servers: &[(&str, &[&str])]) -> Self {
        let state = State {
            servers: BTreeMap::new(),
            deaf: false,
            dead: BTreeSet::new(),
            migration: Duration::from_millis(300),
            done: 0,
        };
        let world = World { state: Arc::new(Mutex::new(state)) };
        for (name, domains) in servers {
            let name = server(name);
            let subscriptions = vec![format!("control.{name}"), "roll-call".to_owned()];
            let (publisher, mut receiver) =
                net.connect(Sender::Agent(name.clone()), Boot(1), subscriptions, clock.clone());
            let domains = domains.iter().map(|d| domain(d)).map(|d| (d.name.clone(), d)).collect();
            let settings = ServerSettings { heartbeat_ms: 500, ..ServerSettings::default() };
            let place = Place {
                settings,
                points: 0,
                job: None,
                last: None,
                rounds: vec![],
                domains,
                publisher,
                known: HashMap::new(),
            };
            world.lock().servers.insert(name.clone(), place);
            let (world, mut beat) = (world.clone(), tokio::time::interval(Duration::from_millis(500)));
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        _ = beat.tick() => world.beat(&name),
                        incoming = receiver.recv() => match incoming {
                            None => return,
                            Some(Incoming::Message { envelope, .. }) => match envelope.body {
                                Body::RollCall => {
                                    world.beat(&name);
                                    world.tell_rounds(&name);
                                }
                                Body::Command(command) => world.hear(&name, *command),
                                _ => {}
                            },
                            Some(Incoming::Link(_) | Incoming::Flood(_) | Incoming::Forged(_)) => {}
                        },
                    }
                }
            });
        }
        world
    }

    /// From now on no order is heard, or again.
    pub fn deaf(&self, deaf: bool) {
        self.lock().deaf = deaf;
    }

    /// The agent of a server stops for good.
    pub fn kill(&self, name: &str) {
        self.lock().dead.insert(server(name));
    }

    /// A server says that it runs a domain that another one runs as well.
    pub fn claims(&self, name: &str, also: &str) {
        {
            let mut state = self.lock();
            let place = state.servers.get_mut(&server(name)).unwrap();
            place.domains.insert(DomainName::parse(also).unwrap(), domain(also));
        }
        self.beat(&server(name));
    }

    /// A server's agent keeps these rounds of help, and says so as often as wanted.
    pub fn rounds(&self, name: &str, rounds: &[Round], times: usize) {
        let name = server(name);
        self.lock().servers.get_mut(&name).unwrap().rounds = rounds.to_vec();
        (0..times).for_each(|_| self.tell_rounds(&name));
    }

    /// A server's own job ends.
    pub fn end_job(&self, name: &str, sentence: &str) {
        {
            let mut state = self.lock();
            let place = state.servers.get_mut(&server(name)).unwrap();
            let (job, at) = (place.job.take().unwrap(), place.publisher.clock().now().wall);
            let result = Ok(sentence.into());
            place.last = Some(Outcome { id: job.id, kind: job.kind, at, result });
        }
        self.beat(&server(name));
    }

    /// How long migrations take from now on.
    pub fn migration(&self, takes: Duration) {
        self.lock().migration = takes;
    }

    /// How many orders were carried out.
    pub fn done(&self) -> usize {
        self.lock().done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn beat(&self, name: &ServerName) {
        let state = self.lock();
        if state.dead.contains(name) {
            return;
        }
        let place = &state.servers[name];
        place.publisher.publish(Topic::Heartbeat(name.clone()), Body::Heartbeat(Box::new(place.heartbeat())));
    }

    fn tell_rounds(&self, name: &ServerName) {
        let state = self.lock();
        if state.dead.contains(name) {
            return;
        }
        let place = &state.servers[name];
        let rounds = Rounds { rounds: place.rounds.clone() };
        place.publisher.publish(Topic::Rounds(name.clone()), Body::Rounds(Box::new(rounds)));
    }

    fn hear(&self, name: &ServerName, command: Command) {
        let mut state = self.lock();
        let state = &mut *state;
        if state.deaf || state.dead.contains(name) {
            return;
        }
        let (client, id) = (command.client.clone(), command.id.clone());
        let place = state.servers.get_mut(name).unwrap();
        let reply = match place.known.get(&id) {
            Some(reply) => reply.clone(),
            None => {
                state.done += 1;
                let (answer, news) = match command.order {
                    Order::Server { command } => place.server_order(command, &id),
                    Order::Domain { name: domain, command } => {
                        if let (Ok(()), DomainCommand::Migrate { to: Some(to), .. }) =
                            (place.allowed(&domain, &command), &command)
                        {
                            self.migrate(name.clone(), domain.clone(), to.clone(), state.migration);
                        }
                        place.domain_order(&domain, command, &id)
                    }
                    Order::Config { .. } | Order::Guest { .. } => {
                        panic!("an agent has no configs and no guests")
                    }
                };
                place.known.insert(id.clone(), Reply { id: id.clone(), answer, news });
                place.known[&id].clone()
            }
        };
        place.publisher.publish(Topic::Reply(client), Body::Reply(Box::new(reply)));
    }

    fn migrate(&self, from: ServerName, name: DomainName, to: ServerName, takes: Duration) {
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            {
                let mut state = world.lock();
                let source = state.servers.get_mut(&from).unwrap();
                let Some(id) = source.domains[&name].job.as_ref().map(|j| j.id.clone()) else { return };
                let mut domain = source.domains.remove(&name).unwrap();
                domain.job = None;
                let at = source.publisher.clock().now().wall;
                let result = Ok(format!("{name} runs on {to}").into());
                domain.last = Some(Box::new(Outcome { id, kind: JobKind::Migrate, at, result }));
                let (why, from) = ("ordered by\nsomebody".into(), from.clone());
                domain.settings.came = Some(Box::new(Came { from, at, round: None, why, helped: None }));
                state.servers.get_mut(&to).unwrap().domains.insert(name, domain);
            }
            world.beat(&to);
            world.beat(&from);
        });
    }
}

impl Place {
    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            settings: self.settings,
            points: self.points,
            hypervisor: HypervisorKind::Sim,
            cpu: None,
            address: "memory".into(),
            stale: None,
            cpus: vec![Ratio::new(0.25); 4],
            memory: ServerMemory { total: 16 << 20, free: 8 << 20 },
            domains: self.domains.values().cloned().collect(),
            job: self.job.clone().map(Box::new),
            last: self.last.clone().map(Box::new),
            departed: Vec::new(),
        }
    }

    fn allowed(&self, name: &DomainName, command: &DomainCommand) -> Result<(), Failure> {
        match self.domains.get(name) {
            Some(d) => check(name.as_str(), command, d.state, d.job.as_deref()),
            None => Err(Failure::no_entry(format!("there is no domain {name}"))),
        }
    }

    fn domain_order(
        &mut self,
        name: &DomainName,
        command: DomainCommand,
        id: &str,
    ) -> (Answer, Option<News>) {
        if let Err(failure) = self.allowed(name, &command) {
            return (Answer::Failed { failure }, None);
        }
        let at = self.publisher.clock().now().wall;
        let d = self.domains.get_mut(name).unwrap();
        let mut job = false;
        match command {
            DomainCommand::Pause => d.state = DomainState::Paused,
            DomainCommand::Unpause => d.state = DomainState::Running,
            DomainCommand::Destroy => d.state = DomainState::Shutoff,
            DomainCommand::Priority { value } => d.settings.priority = value,
            DomainCommand::Pin { value } => d.settings.pin = value,
            DomainCommand::With { value } => d.settings.with = value,
            DomainCommand::Apart { value } => d.settings.apart = value,
            DomainCommand::Cancel => {
                let was = d.job.take().unwrap();
                let result = Err(Failure::busy("cancelled"));
                d.last = Some(Box::new(Outcome { id: was.id, kind: was.kind, at, result }));
            }
            DomainCommand::Migrate { to, .. } => {
                job = true;
                d.job = Some(Box::new(Job {
                    id: id.into(),
                    kind: JobKind::Migrate,
                    phase: "copy".into(),
                    percent: 10,
                    to,
                    since: at,
                    note: None,
                }));
            }
            _ => {}
        }
        let text = format!("{name} is {}", d.state).into();
        let change = Box::new(xvm_model::DomainChange::Is { domain: d.clone() });
        let answer = if job { Answer::Accepted } else { Answer::Done { text } };
        (answer, Some(News::Domain { change }))
    }

    fn server_order(&mut self, command: ServerCommand, id: &str) -> (Answer, Option<News>) {
        match command {
            ServerCommand::Accept { on } => self.settings.accepting = on,
            ServerCommand::Heartbeat { ms } => self.settings.heartbeat_ms = ms,
            ServerCommand::Policy { name } => self.settings.policy = name,
            ServerCommand::Even { on } => self.settings.even = on,
            ServerCommand::Balance { balance } => {
                if balance.wins(&self.settings.balance) {
                    self.settings.balance = balance;
                }
            }
            ServerCommand::Evacuate | ServerCommand::Restore => {
                let (phase, since) = ("ask".into(), self.publisher.clock().now().wall);
                let (kind, note) = (JobKind::Evacuate, Some("nobody offers".into()));
                self.job = Some(Job { id: id.into(), kind, phase, percent: 40, to: None, since, note });
                let heartbeat = Box::new(self.heartbeat());
                return (Answer::Accepted, Some(News::Server { heartbeat }));
            }
            ServerCommand::Cancel => self.job = None,
            ServerCommand::UpdateImports => {}
            ServerCommand::Watchdog { points, threshold, limit, unit } => {
                let w = &mut self.settings.watchdog;
                let Watchdog { threshold: t, limit: l, unit: u } = *w;
                *w = Watchdog {
                    threshold: threshold.unwrap_or(t),
                    limit: limit.unwrap_or(l),
                    unit: unit.unwrap_or(u),
                };
                self.points = points.unwrap_or(self.points);
            }
        }
        let heartbeat = Box::new(self.heartbeat());
        (Answer::Done { text: "set".into() }, Some(News::Server { heartbeat }))
    }
}

fn domain(name: &str) -> Domain {
    let name = DomainName::parse(name).unwrap();
    let number = name.as_str().bytes().fold(7u128, |n, b| n * 31 + u128::from(b));
    let mut d = Domain::new(name, Uuid::from_u128(number));
    d.state = DomainState::Running;
    d.memory = DomainMemory { max: 1 << 18, current: 1 << 18, resident: None };
    d
}
