//! The guests of all simulated domains of a cluster, in one process: for trying and testing. They answer through the same messages as
//! real ones, and only reckon: a test takes as long as the CPU time that the domain gets, and what a guest wants of its CPUs is told to
//! the server that simulates the domain. So what balancing brings can be measured without a machine.
//!
//! | file | what |
//! |---|---|
//! | here | which domains there are |
//! | `guest` | one guest |
//! | `work` | how far a test is |
//! | `demand` | telling what it wants |
//! | `wishes` | what all want, until servers have measured what they get |

mod demand;
mod guest;
mod wishes;
mod work;

use crate::agent::Settings;
use crate::allowed::Allowed;
use guest::Guest;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wishes::Wishes;
use xvm_bus::{BusConfig, Client, Clock, Endpoint, Incoming, Publisher, Receiver};
use xvm_model::{Body, Boot, ClientName, DomainName, HypervisorKind, Mono, Ratio, Sender, Topic, View};

/// How often it is looked which domains there are.
const LOOK: Duration = Duration::from_millis(250);
/// Guests of one process.
const GUESTS_MAX: usize = 256;

/// Who they are.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where forwarders are.
    pub forwarders: Vec<Endpoint>,
    /// Between two heartbeats of a guest, in milliseconds.
    pub interval_ms: u32,
}

/// Tasks of one guest; dropped they end.
struct Tasks {
    _tasks: JoinSet<()>,
}

/// The guests of all simulated domains, until `shutdown`.
pub async fn run(plan: Plan, ready: impl FnOnce(), shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let clock = Clock::system();
    let boot = Boot(clock.now().wall.0);
    let name = ClientName::parse(&format!("guests-{}", std::process::id()))?;
    let (publisher, receiver) = xvm_bus::connect(BusConfig {
        forwarders: plan.forwarders.clone(),
        sender: Sender::Client(name.clone()),
        boot,
        subscriptions: vec!["heartbeat.".into(), "domain.".into(), Topic::Reply(name.clone()).to_string()],
        clock: clock.clone(),
    })?;
    let client = Client::new(publisher.clone(), name);
    let (told, view) = watch::channel(Arc::new(View::default()));
    let hears = hear(receiver, told, client.clone(), publisher);
    ready();
    tokio::pin!(shutdown, hears);
    let mut guests: BTreeMap<DomainName, Tasks> = BTreeMap::new();
    let wishes = Wishes::default();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            () = &mut hears => anyhow::bail!("cannot go on without the bus: its thread has ended"),
            _ = look.tick() => {}
        }
        let there = domains(&view.borrow(), clock.mono());
        guests.retain(|name, _| {
            let stays = there.contains(name);
            if !stays {
                wishes.forget(name);
            }
            stays
        });
        for name in there {
            if !guests.contains_key(&name) && guests.len() < GUESTS_MAX {
                let tasks = begin(&plan, &name, &view, &client, &wishes)?;
                guests.insert(name, tasks);
            }
        }
    }
}

/// Feeds the view and the client.
async fn hear(mut receiver: Receiver, told: watch::Sender<Arc<View>>, client: Client, publisher: Publisher) {
    while let Some(incoming) = receiver.recv().await {
        let now = client.clock().now();
        match incoming {
            Incoming::Link(link) => {
                if link.is_up() {
                    publisher.publish(Topic::RollCall, Body::RollCall);
                }
                told.send_modify(|view| drop(Arc::make_mut(view).link(link.is_up(), "", now)));
            }
            Incoming::Message { envelope, .. } => {
                let reply = match &envelope.body {
                    Body::Reply(reply) => Some((**reply).clone()),
                    _ => None,
                };
                told.send_modify(|view| drop(Arc::make_mut(view).apply(envelope, now)));
                if let Some(reply) = reply {
                    client.deliver(reply);
                }
            }
            Incoming::Flood(_) | Incoming::Forged(_) => {}
        }
    }
}

/// The simulated domains that are active somewhere.
fn domains(view: &View, now: Mono) -> Vec<DomainName> {
    let simulated = |name: &&DomainName| {
        view.domain(name.as_str(), now).is_some_and(|d| {
            let server = view.server(d.server.as_str());
            d.domain.state.is_active() && server.is_some_and(|s| s.beat.hypervisor == HypervisorKind::Sim)
        })
    };
    view.domain_names().filter(simulated).cloned().collect()
}

fn begin(
    plan: &Plan,
    name: &DomainName,
    view: &watch::Receiver<Arc<View>>,
    client: &Client,
    wishes: &Wishes,
) -> anyhow::Result<Tasks> {
    let clock = Clock::system();
    let (publisher, receiver) = xvm_bus::connect(BusConfig {
        forwarders: plan.forwarders.clone(),
        sender: Sender::Guest(name.clone()),
        boot: Boot(clock.now().wall.0),
        subscriptions: crate::driver::subscriptions(name),
        clock,
    })?;
    let allowed = Allowed::new("guestd".into(), false);
    let settings = Settings { name: name.clone(), interval_ms: plan.interval_ms, allowed };
    let (wanted, told) = watch::channel(Ratio::ZERO);
    let mut tasks = JoinSet::new();
    tasks.spawn(demand::tell(name.clone(), client.clone(), view.clone(), told));
    tasks.spawn(Guest::new(settings, publisher, view.clone(), wanted, wishes.clone()).live(receiver));
    Ok(Tasks { _tasks: tasks })
}
