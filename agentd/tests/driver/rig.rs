//! Several agents on the in-memory bus, and one who listens and orders: what the driver's tests have in common. Each adds what it asks
//! of them.

use crate::world::World;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::task::JoinHandle;
use xvm_agentd::{driver, state::State};
use xvm_bus::{Client, Clock, Incoming, Net};
use xvm_model::round::Round;
use xvm_model::{
    Answer, Body, Boot, ClientName, Failure, Order, Reply, Sender, ServerName, Topic, View, Wall,
};

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

pub struct Cluster {
    pub net: Net,
    pub clock: Clock,
    pub world: World,
    /// What each agent keeps on disk.
    pub dirs: BTreeMap<&'static str, tempfile::TempDir>,
    agents: BTreeMap<&'static str, Task>,
    pub boots: u64,
    pub view: Arc<Mutex<View>>,
    /// All rounds that were told, as they were told last.
    #[allow(dead_code)] // not each test looks at them
    pub rounds: Arc<Mutex<BTreeMap<Box<str>, Round>>>,
    client: Client,
    listener: Task,
}

impl Cluster {
    /// Agents with these folders, all in their first life, at `wall`; whoever listens hears `topics`.
    pub async fn begin(
        seed: u64,
        wall: Wall,
        topics: &[&str],
        dirs: BTreeMap<&'static str, tempfile::TempDir>,
    ) -> Cluster {
        let (net, world, clock) = (Net::new(seed), World::new(seed), Clock::at(wall));
        let name = ClientName::parse("test").expect("valid");
        let topics = topics.iter().map(|t| (*t).to_owned()).collect();
        let (publisher, mut receiver) =
            net.connect(Sender::Client(name.clone()), Boot(1), topics, clock.clone());
        let client = Client::new(publisher.clone(), name);
        let view = Arc::new(Mutex::new(View::default()));
        let rounds = Arc::new(Mutex::new(BTreeMap::new()));
        let (heard, told, deliver, ticks) = (view.clone(), rounds.clone(), client.clone(), clock.clone());
        let listener = Task(tokio::spawn(async move {
            while let Some(incoming) = receiver.recv().await {
                match incoming {
                    Incoming::Flood(_) | Incoming::Forged(_) => {}
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
        let names: Vec<&'static str> = dirs.keys().copied().collect();
        let (agents, boots) = (BTreeMap::new(), 10);
        let mut cluster = Cluster { net, clock, world, dirs, agents, boots, view, rounds, client, listener };
        for name in names {
            cluster.start(name).await;
        }
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

    /// Whoever was started and not killed runs, and so does the listener.
    pub fn alive(&self) -> bool {
        self.agents.values().chain([&self.listener]).all(|task| !task.0.is_finished())
    }

    #[allow(dead_code)] // not each test kills one for good
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
}
