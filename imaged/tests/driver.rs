//! imaged's driver on the in-memory bus, with the real store, builder and exports, and an agent that says what it is told to.
//!
//! If this fails, something follows from a lease that is not on disk: a crash then may give the disk to a second server.

use clap::Parser as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xvm_bus::{Client, Clock, Incoming, Net, Publisher};
use xvm_daemon::Dir;
use xvm_imaged::{config::Config, driver};
use xvm_model::outbox::Addressee;
use xvm_model::{
    Answer, Body, Boot, ClientName, ConfigCommand, ConfigName, ConfigRecord, Failure, Heartbeat,
    HypervisorKind, Mono, Order, Ratio, Reply, Sender, ServerMemory, ServerName, ServerSettings, Topic, Wall,
};

/// What was heard of imaged.
#[derive(Default)]
struct Heard {
    beats: u64,
    at: Option<(Boot, Wall, Mono)>,
    record: Option<ConfigRecord>,
    /// Orders to the agent.
    orders: Vec<Order>,
}

struct Rig {
    heard: Arc<Mutex<Heard>>,
    client: Client,
    /// The agent speaks as long as this lives.
    _agent: Publisher,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|t| t.abort());
        for entry in std::fs::read_dir(self.dir.path().join("run")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "pid")
                && let Some(pid) = std::fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok())
            {
                // an error means that it has ended
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

fn name(text: &str) -> ServerName {
    ServerName::parse(text).expect("a name")
}

impl Rig {
    async fn begin() -> Rig {
        let (net, clock) = (Net::new(1), Clock::system());
        let dir = tempfile::tempdir().expect("a scratch folder");
        std::fs::create_dir(dir.path().join("configs")).expect("a folder");
        let defaults = "os = \"tiny\"\ndisk = 32\nswap = 0\nmemory = 64\naddress = \"none\"\n";
        std::fs::write(dir.path().join("configs/defaults.toml"), defaults).expect("written");
        let state = dir.path().to_string_lossy().into_owned();
        let first = 31_000 + std::process::id() % 500 * 10;
        let ports = format!("{}-{}", first + 1, first + 9);
        let args = ["imaged", "--name", "kerby", "--state", &state, "--heartbeat", "0.1", "--ports", &ports];
        let port = first.to_string();
        let flags = Config::try_parse_from(args.into_iter().chain(["--boot-port", &port])).expect("flags");
        let topics = driver::subscriptions(&name("kerby")).expect("topics");
        let (publisher, receiver) =
            net.connect(Sender::Images(name("kerby")), Boot(1), topics, clock.clone());
        let state = Dir::open(dir.path(), "imaged").expect("free");
        let imaged = tokio::spawn(async move {
            let ended = driver::serve(flags, state, publisher, receiver, || {}, std::future::pending()).await;
            panic!("imaged ended: {ended:?}");
        });
        let (agent, mut orders) =
            net.connect(Sender::Agent(name("ferby")), Boot(1), vec!["control.ferby".into()], clock.clone());
        let client_name = ClientName::parse("test").expect("a name");
        let topics = vec!["configs".into(), "config".into(), "reply.test".into()];
        let (publisher, mut receiver) =
            net.connect(Sender::Client(client_name.clone()), Boot(1), topics, clock.clone());
        let (heard, client) = (Arc::new(Mutex::new(Heard::default())), Client::new(publisher, client_name));
        let (told, deliver) = (heard.clone(), client.clone());
        let listener = tokio::spawn(async move {
            while let Some(incoming) = receiver.recv().await {
                let Incoming::Message { envelope, .. } = incoming else { continue };
                let mut told = told.lock().expect("whole");
                match envelope.body {
                    Body::Configs(all) => {
                        told.beats += 1;
                        told.at = Some((envelope.boot, envelope.at, clock.mono()));
                        told.record = all.configs.into_iter().next();
                    }
                    Body::Reply(reply) => deliver.deliver(*reply),
                    _ => {}
                }
            }
        });
        let (told, says) = (heard.clone(), agent.clone());
        let obeys = tokio::spawn(async move {
            while let Some(incoming) = orders.recv().await {
                let Incoming::Message { envelope, .. } = incoming else { continue };
                let Body::Command(command) = envelope.body else { continue };
                told.lock().expect("whole").orders.push(command.order.clone());
                let reply = Reply { id: command.id, answer: Answer::Accepted, news: None };
                says.publish(Topic::Reply(command.client), Body::Reply(Box::new(reply)));
            }
        });
        let says = agent.clone();
        let beats = tokio::spawn(async move {
            loop {
                says.publish(Topic::Heartbeat(name("ferby")), Body::Heartbeat(Box::new(beat())));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Rig { heard, client, _agent: agent, tasks: vec![imaged, listener, obeys, beats], dir }
    }

    async fn until<T>(&self, what: &str, mut is: impl FnMut(&Heard) -> Option<T>) -> T {
        let look = async {
            loop {
                if let Some(found) = is(&self.heard.lock().expect("whole")) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), look)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn order(&self, command: ConfigCommand) -> Result<Reply, Failure> {
        let (boot, at, mono) = self.until("imaged", |h| h.at).await;
        let order = Order::Config { name: ConfigName::parse("small-6").expect("a name"), command };
        self.client.order(Addressee::Images(name("kerby")), boot, (at, mono), order).await
    }
}

fn beat() -> Heartbeat {
    Heartbeat {
        settings: ServerSettings { heartbeat_ms: 100, ..ServerSettings::default() },
        points: 0,
        hypervisor: HypervisorKind::Sim,
        cpu: None,
        address: "x:1".into(),
        stale: None,
        cpus: vec![Ratio::ZERO],
        memory: ServerMemory { total: 1 << 20, free: 1 << 20 },
        domains: Vec::new(),
        job: None,
        last: None,
        departed: Vec::new(),
    }
}

/// A file that cannot be written stands for a full disk.
fn full(dir: &Path, full: bool) {
    let kept = dir.join("imaged.json");
    if full {
        std::fs::remove_file(&kept).expect("it was kept");
        std::fs::create_dir(&kept).expect("a folder in its place");
    } else {
        std::fs::remove_dir(&kept).expect("the folder");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_from_a_lease_that_cannot_be_kept() {
    let rig = Rig::begin().await;
    let create = ConfigCommand::Create { settings: Box::default(), rights: Default::default() };
    rig.order(create).await.expect("accepted");
    rig.until("an image", |h| h.record.as_ref()?.last.as_ref()?.result.is_ok().then_some(())).await;
    full(rig.dir.path(), true);
    let start = ConfigCommand::Start { on: Some(name("ferby")) };
    rig.order(start).await.expect("accepted");
    let beats = rig.until("a lease", |h| (!h.record.as_ref()?.leases.is_empty()).then_some(h.beats)).await;
    rig.until("thirty heartbeats more", |h| (h.beats > beats + 30).then_some(())).await;
    assert!(rig.heard.lock().expect("whole").orders.is_empty(), "no agent is told");
    let running = std::fs::read_dir(rig.dir.path().join("run")).into_iter().flatten().flatten();
    let exports: Vec<_> =
        running.filter(|e| e.file_name().to_string_lossy().starts_with("small-6.")).collect();
    assert!(exports.is_empty(), "nothing is exported: {exports:?}");
    full(rig.dir.path(), false);
    let order = rig.until("the order to the agent", |h| h.orders.first().cloned()).await;
    assert!(matches!(order, Order::Domain { command: xvm_model::DomainCommand::Create { .. }, .. }));
    let kept = std::fs::read_to_string(rig.dir.path().join("imaged.json")).expect("kept again");
    assert!(kept.contains("small-6.ferby.1"));
    assert!(rig.dir.path().join("run/small-6.pid").exists(), "exported");
}
