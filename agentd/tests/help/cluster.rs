//! Several agents on the in-memory bus, and one who listens and orders.

use crate::world::World;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant, time::sleep};
use xvm_agentd::{driver, state::State};
use xvm_bus::{Client, Clock, Incoming, Net};
use xvm_model::round::{End, Round};
use xvm_model::server::{Balance, BalanceMode};
use xvm_model::{
    Answer, Body, Boot, ClientName, DomainCommand, DomainName, Failure, Job, Order, Outcome, Reply, Sender,
    ServerCommand, ServerName, ServerSettings, Topic, View, Wall,
};

/// Names of servers, as many as a test needs.
pub const SERVERS: [&str; 5] = ["ferby", "gerby", "hedy", "ivy", "jerry"];

pub fn server(name: &str) -> ServerName {
    ServerName::parse(name).expect("valid")
}

/// A running task; dropping it is `kill -9`.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A folder of its own, in memory where there is such a place: what is kept is synced to disk, which takes longer than all else here.
fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("scratch folder")
}

pub struct Cluster {
    pub net: Net,
    pub clock: Clock,
    pub world: World,
    /// What each agent keeps on disk.
    dirs: BTreeMap<&'static str, tempfile::TempDir>,
    agents: BTreeMap<&'static str, Task>,
    boots: u64,
    view: Arc<Mutex<View>>,
    /// All rounds that were told, as they were told last.
    rounds: Arc<Mutex<BTreeMap<Box<str>, Round>>>,
    client: Client,
    _listener: Task,
}

impl Cluster {
    /// The first `servers` of [`SERVERS`], all in their first life.
    pub async fn new(seed: u64, servers: usize) -> Cluster {
        let (net, world, clock) = (Net::new(seed), World::new(seed), Clock::at(Wall(1_000_000_000)));
        let name = ClientName::parse("test").expect("valid");
        let topics = ["heartbeat.", "domain.", "reply.test", "rounds."].map(str::to_owned).to_vec();
        let (publisher, mut receiver) =
            net.connect(Sender::Client(name.clone()), Boot(1), topics, clock.clone());
        let client = Client::new(publisher.clone(), name);
        let view = Arc::new(Mutex::new(View::default()));
        let rounds = Arc::new(Mutex::new(BTreeMap::new()));
        let (heard, told, deliver, ticks) = (view.clone(), rounds.clone(), client.clone(), clock.clone());
        let listener = Task(tokio::spawn(async move {
            while let Some(incoming) = receiver.recv().await {
                match incoming {
                    Incoming::Link(link) => {
                        drop(heard.lock().expect("whole").link(link.is_up(), "", ticks.now()));
                        publisher.publish(Topic::RollCall, Body::RollCall);
                    }
                    Incoming::Message { envelope, .. } => {
                        let reply = match &envelope.body {
                            Body::Reply(reply) => Some((**reply).clone()),
                            Body::Rounds(all) => {
                                let rows = all.rounds.iter().map(|r| (r.id.clone(), r.clone()));
                                told.lock().expect("whole").extend(rows);
                                None
                            }
                            _ => None,
                        };
                        drop(heard.lock().expect("whole").apply(envelope, ticks.now()));
                        if let Some(reply) = reply {
                            deliver.deliver(reply);
                        }
                    }
                }
            }
        }));
        let names = &SERVERS[..servers];
        let dirs = names.iter().map(|s| (*s, scratch())).collect();
        let agents = BTreeMap::new();
        let (boots, _listener) = (10, listener);
        let mut cluster = Cluster { net, clock, world, dirs, agents, boots, view, rounds, client, _listener };
        for name in names {
            cluster.start(name).await;
        }
        cluster.until("heard", 5, |c| c.view.lock().expect("whole").server_count() == servers).await;
        cluster
    }

    /// Starts an agent, or kills it and starts it anew.
    pub async fn start(&mut self, name: &'static str) {
        self.kill(name).await;
        self.boots += 1;
        let topics = driver::subscriptions(&server(name));
        let sender = Sender::Agent(server(name));
        let (publisher, receiver) = self.net.connect(sender, Boot(self.boots), topics, self.clock.clone());
        let state = State::open(self.dirs[name].path()).expect("free");
        let hypervisor = self.world.server(name);
        let agent = tokio::spawn(async move {
            let never = std::future::pending();
            driver::run(state, hypervisor, publisher, receiver, never).await.expect("goes on");
        });
        self.agents.insert(name, Task(agent));
    }

    pub async fn kill(&mut self, name: &'static str) {
        if let Some(mut old) = self.agents.remove(name) {
            old.0.abort();
            drop((&mut old.0).await);
        }
    }

    /// All agents are killed, then started anew.
    pub async fn restart(&mut self) {
        let names: Vec<&'static str> = self.dirs.keys().copied().collect();
        for name in &names {
            self.kill(name).await;
        }
        for name in names {
            self.start(name).await;
        }
    }

    pub fn alive(&self) -> bool {
        self.agents.values().all(|a| !a.0.is_finished())
    }

    pub fn runs(&self, name: &str) -> bool {
        self.agents.contains_key(name)
    }

    pub async fn order(&self, to: &str, order: Order) -> Result<Reply, Failure> {
        let known = {
            let view = self.view.lock().expect("whole");
            view.server(to).map(|s| (s.stamp.boot, (s.at, s.heard.mono)))
        };
        let Some((boot, heard)) = known else { return Err(Failure::no_entry("not heard yet")) };
        let reply = self.client.order(&server(to), boot, heard, order).await?;
        match reply.answer {
            Answer::Failed { failure } => Err(failure),
            _ => Ok(reply),
        }
    }

    pub async fn tell(&self, to: &str, command: ServerCommand) -> Result<Reply, Failure> {
        self.order(to, Order::Server { command }).await
    }

    /// Tells it until it is done.
    pub async fn insist(&self, to: &str, command: ServerCommand) {
        for _ in 0..20 {
            if self.tell(to, command.clone()).await.is_ok() {
                return;
            }
            sleep(Duration::from_secs(2)).await;
        }
        panic!("{to} does not obey {command:?}");
    }

    pub async fn domain(&self, name: &DomainName, command: DomainCommand) -> Result<Reply, Failure> {
        let order = Order::Domain { name: name.clone(), command };
        self.order(&self.world.at(name), order).await
    }

    /// Tells one server about balancing.
    pub async fn balance(&self, to: &str, mode: BalanceMode) {
        let balance = Balance { mode, at: self.clock.now().wall };
        self.insist(to, ServerCommand::Balance { balance }).await;
    }

    pub fn settings(&self, name: &str) -> ServerSettings {
        self.view.lock().expect("whole").server(name).expect("heard").beat.settings
    }

    /// The job of a server as a whole, and how its last one ended.
    pub fn job(&self, name: &str) -> (Option<Job>, Option<Outcome>) {
        let view = self.view.lock().expect("whole");
        let beat = &view.server(name).expect("heard").beat;
        (beat.job.as_deref().cloned(), beat.last.as_deref().cloned())
    }

    pub fn points(&self, name: &str) -> u16 {
        self.view.lock().expect("whole").server(name).expect("heard").beat.points
    }

    pub fn domain_jobs(&self) -> usize {
        let (view, now) = (self.view.lock().expect("whole"), self.clock.mono());
        view.domain_names()
            .filter(|n| view.domain(n.as_str(), now).is_some_and(|d| d.domain.job.is_some()))
            .count()
    }

    pub fn rounds(&self) -> Vec<Round> {
        self.rounds.lock().expect("whole").values().cloned().collect()
    }

    /// How many rounds ended so.
    pub fn ended(&self, end: End) -> usize {
        self.rounds().iter().filter(|r| r.outcome.as_ref().is_some_and(|o| o.end == end)).count()
    }

    /// Nobody who listens knows any round, as after a new mount.
    pub fn forget(&self) {
        self.rounds.lock().expect("whole").clear();
    }

    /// How many domains run on each server.
    pub fn counts(&self) -> Vec<usize> {
        self.dirs.keys().map(|s| self.world.count(s)).collect()
    }

    /// What must hold at every moment.
    pub fn check(&self) {
        let broken = self.world.broken();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        assert!(self.alive(), "an agent has ended");
    }

    pub async fn run(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
        self.check();
    }

    pub async fn until(&self, what: &str, seconds: u64, mut condition: impl FnMut(&Cluster) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !condition(self) {
            self.check();
            if Instant::now() >= end {
                let jobs: Vec<_> = self.dirs.keys().map(|s| (s, self.job(s))).collect();
                let rounds: Vec<String> =
                    self.rounds().iter().map(|r| format!("{}\n{}", r.id, r.outcome())).collect();
                panic!(
                    "not {what} after {seconds} s\n counts {:?}\n jobs {jobs:?}\n moves {:#?}\n rounds {}",
                    self.counts(),
                    self.world.moves(),
                    rounds.join("\n")
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
