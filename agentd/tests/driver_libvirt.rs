//! If this fails, agents and libvirt do not fit where a domain is made from a config: it is made, moved and shut down by the agents of two
//! hosts of `tests/lab`, on a disk of a real storage daemon, with one in imaged's place who lends.

#[path = "common/spec.rs"]
mod common;
#[path = "common/guest.rs"]
mod guest;
#[path = "../../tests/lab/lab.rs"]
mod lab;
#[path = "common/lender.rs"]
mod lender;
#[path = "common/storage.rs"]
mod storage;

use common::grant;
use guest::guest;
use lab::Lab;
use lender::{Lender, Manners};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use storage::Storage;
use tokio::task::JoinHandle;
use xvm_agentd::{
    driver,
    hypervisor::Hypervisor,
    libvirt::{Libvirt, LibvirtConfig},
    state::State,
};
use xvm_bus::{Client, Clock, Incoming, Net};
use xvm_model::lease::Phase;
use xvm_model::{
    Answer, Body, Boot, ClientName, DomainChange, DomainCommand, DomainName, DomainState, Failure, Lease,
    Leases, Order, Outcome, Sender, ServerName, Topic, View,
};

const LONG: Duration = Duration::from_secs(120);

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).expect("valid")
}

/// The agent of a host of the lab; what its guest boots from is in its cache.
fn agent(lab: &Lab, net: &Net, clock: &Clock, host: &'static str, dir: &Path) -> (Task, String) {
    let mut config = LibvirtConfig::new(&lab.uri(host));
    config.migrate_uri = Some(lab.reach(host));
    (config.bridge, config.kvm) = (Some("br0".into()), Some(false));
    let hypervisor: Arc<dyn Hypervisor> = Libvirt::open(config);
    let address = hypervisor.address();
    let state = State::open(dir).expect("free");
    let topics = driver::subscriptions(&server(host));
    let (publisher, receiver) = net.connect(Sender::Agent(server(host)), Boot(1), topics, clock.clone());
    let run = async move {
        let never = std::future::pending();
        driver::run(state, hypervisor, publisher, receiver, never).await.expect("goes on");
    };
    (Task(tokio::spawn(run)), address)
}

/// One who listens and orders.
struct Watcher {
    view: Arc<Mutex<View>>,
    /// Outcomes of jobs as they were told.
    told: Arc<Mutex<Vec<Outcome>>>,
    client: Client,
    clock: Clock,
    _listener: Task,
}

impl Watcher {
    fn new(net: &Net, clock: &Clock) -> Watcher {
        let name = ClientName::parse("test").expect("valid");
        let topics = ["heartbeat.", "domain.", "reply.test"].map(str::to_owned).to_vec();
        let (publisher, mut receiver) =
            net.connect(Sender::Client(name.clone()), Boot(1), topics, clock.clone());
        publisher.publish(Topic::RollCall, Body::RollCall);
        let client = Client::new(publisher, name);
        let (view, told) = (Arc::<Mutex<View>>::default(), Arc::<Mutex<Vec<Outcome>>>::default());
        let (heard, ends, deliver, ticks) = (view.clone(), told.clone(), client.clone(), clock.clone());
        let listener = tokio::spawn(async move {
            while let Some(incoming) = receiver.recv().await {
                let Incoming::Message { envelope, .. } = incoming else { continue };
                let body = envelope.body.clone();
                drop(heard.lock().expect("whole").apply(envelope, ticks.now()));
                match body {
                    Body::Reply(reply) => deliver.deliver(*reply),
                    Body::Domain(change) => {
                        let last = match *change {
                            DomainChange::Is { domain } => domain.last,
                            DomainChange::Departed { departed } => departed.domain.last,
                            DomainChange::Gone { .. } => None,
                        };
                        let mut ends = ends.lock().expect("whole");
                        if let Some(last) = last.filter(|l| !ends.contains(l)) {
                            ends.push(*last);
                        }
                    }
                    _ => {}
                }
            }
        });
        Watcher { view, told, client, clock: clock.clone(), _listener: Task(listener) }
    }

    async fn tell(&self, at: &str, name: &DomainName, command: DomainCommand) -> Result<Answer, Failure> {
        self.until("its agent is heard", |w| w.view.lock().expect("whole").server(at).is_some()).await;
        let (boot, heard) = {
            let view = self.view.lock().expect("whole");
            let s = view.server(at).expect("heard");
            (s.stamp.boot, (s.at, s.heard.mono))
        };
        let order = Order::Domain { name: name.clone(), command };
        self.client.order(&server(at), boot, heard, order).await.map(|reply| reply.answer)
    }

    /// Where it is, what it is, and by which lease.
    fn shown(&self, name: &DomainName) -> Option<(String, DomainState, u64)> {
        let d = self.view.lock().expect("whole").domain(name.as_str(), self.clock.mono())?;
        let epoch = d.domain.settings.grant.as_ref().map_or(0, |g| g.epoch);
        d.domain.job.is_none().then(|| (d.server.to_string(), d.domain.state, epoch))
    }

    async fn until(&self, what: &str, condition: impl Fn(&Watcher) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            let told = self.told.lock().expect("whole").clone();
            assert!(start.elapsed() < LONG, "never: {what}; told {told:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_make_move_and_shut_down_what_imaged_says() {
    let lab = match Lab::up(2) {
        Ok(lab) => lab,
        Err(why) => {
            eprintln!("SKIP agents_make_move_and_shut_down_what_imaged_says: {why}");
            return;
        }
    };
    let storage = Arc::new(Storage::start(&lab));
    let host: Box<str> = lab.address("store").into();
    let first = grantee(&storage, &host)("small-1", "ferby", 1);
    let dirs = ["ferby", "gerby"].map(|h| lab.dir().join(h));
    let kernels = dirs[0].join("kernels");
    std::fs::create_dir_all(&kernels).expect("scratch folder");
    let spec = guest(&lab, &kernels, first.clone());
    std::fs::create_dir_all(&dirs[1]).expect("scratch folder");
    std::os::unix::fs::symlink(&kernels, dirs[1].join("kernels")).expect("scratch folder");

    let (net, clock, name) = (Net::new(1), Clock::system(), spec.name.clone());
    let (_ferby, _) = agent(&lab, &net, &clock, "ferby", &dirs[0]);
    let (_gerby, address) = agent(&lab, &net, &clock, "gerby", &dirs[1]);
    let held = vec![Lease { grant: first.clone(), phase: Phase::Held, job: None, boot: Boot(0) }];
    let leases = Leases { epoch: 1, held, since: None };
    let imaged = Lender::new(&net, &clock, 1, leases, Box::new(grantee(&storage, &host)));
    imaged.behaves(Manners::default());
    let watcher = Watcher::new(&net, &clock);

    let create = DomainCommand::Create { spec: Box::new(spec) };
    assert_eq!(watcher.tell("ferby", &name, create.clone()).await, Ok(Answer::Accepted));
    let at = |server: &str, epoch| Some((server.to_owned(), DomainState::Running, epoch));
    watcher.until("it runs on ferby", |w| w.shown(&name) == at("ferby", 1)).await;
    let again = watcher.tell("ferby", &name, create).await.expect_err("it is there");
    assert_eq!(again.code, xvm_model::Code::Exists);
    watcher.until("it writes", |_| storage.tick().is_some_and(|t| t > 2)).await;

    let migrate =
        DomainCommand::Migrate { to: Some(server("gerby")), address: address.into(), paused: false };
    assert_eq!(watcher.tell("ferby", &name, migrate).await, Ok(Answer::Accepted));
    watcher.until("it runs on gerby by its second lease", |w| w.shown(&name) == at("gerby", 2)).await;
    storage.revoke(&first.stem());
    let before = storage.tick();
    watcher.until("it writes on", |_| storage.tick() > before.map(|t| t + 5)).await;
    assert_eq!(imaged.held().len(), 2);

    assert_eq!(watcher.tell("gerby", &name, DomainCommand::Shutdown).await, Ok(Answer::Accepted));
    let gone = |w: &Watcher| w.view.lock().expect("whole").domain(name.as_str(), w.clock.mono()).is_none();
    watcher.until("it is off, and forgotten", gone).await;
    let told = watcher.told.lock().expect("whole").clone();
    let texts: Vec<String> = told.iter().map(|o| format!("{} {:?}", o.kind, o.result)).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts[0].starts_with("start Ok(\"small-1 is running"), "{texts:?}");
    assert!(texts[1].starts_with("migrate Ok(\"small-1 runs on gerby"), "{texts:?}");
    assert_eq!(texts[2], "shutdown Ok(\"small-1 is shut off\")");
}

/// Leases of the storage's disk; each is exported as it is made.
fn grantee(
    storage: &Arc<Storage>,
    host: &str,
) -> impl Fn(&str, &str, u64) -> xvm_model::Grant + Send + Sync + use<> {
    let (storage, host): (_, Box<str>) = (storage.clone(), host.into());
    move |name, server, epoch| {
        let made = grant(name, server, epoch);
        storage.export(&made.stem());
        xvm_model::Grant { host: host.clone(), port: storage::PORT, ..made }
    }
}
