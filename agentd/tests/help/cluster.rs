//! What the tests of help ask of a cluster.

pub use crate::rig::{Cluster, server};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use xvm_model::round::{End, Round};
use xvm_model::server::{Balance, BalanceMode};
use xvm_model::{
    DomainCommand, DomainName, Failure, Job, Order, Outcome, Reply, ServerCommand, ServerSettings, Wall,
};

/// Names of servers, as many as a test needs.
pub const SERVERS: [&str; 5] = ["ferby", "gerby", "hedy", "ivy", "jerry"];

/// A folder of its own, in memory where there is such a place: what is kept is synced to disk, which takes longer than all else here.
fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("scratch folder")
}

impl Cluster {
    /// The first `servers` of [`SERVERS`], all in their first life.
    pub async fn new(seed: u64, servers: usize) -> Cluster {
        let dirs = SERVERS[..servers].iter().map(|s| (*s, scratch())).collect();
        let topics = ["heartbeat.", "domain.", "reply.test", "rounds."];
        let cluster = Cluster::begin(seed, Wall(1_000_000_000), &topics, dirs).await;
        cluster.until("heard", 5, |c| c.view.lock().expect("whole").server_count() == servers).await;
        cluster
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
