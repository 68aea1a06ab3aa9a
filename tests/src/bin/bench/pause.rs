//! An order through the tree (`echo pause > domains/small-1/ctl`) against the same order on the bare bus.

use crate::{
    Effort,
    cluster::{Cluster, SOON, readable},
    stats::{compare, each, wait_for},
    table::{Line, Table, micros, times},
};
use anyhow::{Context, anyhow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Runtime;
use xvm_bus::{BusConfig, Client, Clock, Endpoint, Incoming, Receiver};
use xvm_model::{
    Answer, Body, Boot, ClientName, DomainCommand, DomainName, Mono, Order, Sender, ServerName, Wall,
};

/// Orders of one batch, half of them `pause`, half `unpause`.
const BATCH: usize = 50;

/// The agent's life and clock, as its last message showed them.
type Heard = Arc<Mutex<Option<(Boot, Wall, Mono)>>>;

/// Measures.
pub fn rows(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let _ferby = cluster.agent("ferby", &["small-1".into()])?;
    let mount = cluster.mount()?;
    let ctl = mount.path.join("domains/small-1/ctl");
    readable(&ctl)?;
    let bus = Bare::join(&cluster.endpoint)?;

    let mut tree_pauses = false;
    let mut bare_pauses = false;
    let c = compare(
        effort.pairs,
        || {
            each(BATCH, || {
                tree_pauses = !tree_pauses;
                let word: &[u8] = if tree_pauses { b"pause\n" } else { b"unpause\n" };
                std::fs::write(&ctl, word).with_context(|| format!("cannot write {}", ctl.display()))
            })
        },
        || {
            each(BATCH, || {
                bare_pauses = !bare_pauses;
                bus.order(if bare_pauses { DomainCommand::Pause } else { DomainCommand::Unpause })
            })
        },
    )?;
    table.row(Line {
        what: "pause through the tree : on the bare bus",
        ours: micros(c.ours),
        beside: micros(c.theirs),
        ratio: times(c.ratio),
        goal: "",
    });
    Ok(())
}

/// A client of the bus without a tree.
struct Bare {
    runtime: Runtime,
    client: Client,
    heard: Heard,
    server: ServerName,
    domain: DomainName,
}

impl Bare {
    /// Joins, and waits for the agent's heartbeat.
    fn join(endpoint: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (name, server) = (ClientName::parse("bench")?, ServerName::parse("ferby")?);
        let clock = Clock::system();
        let (publisher, receiver) = xvm_bus::connect(BusConfig {
            forwarders: vec![Endpoint::parse(endpoint)?],
            sender: Sender::Client(name.clone()),
            boot: Boot(clock.now().wall.0),
            subscriptions: vec!["heartbeat.ferby".into(), "reply.bench".into()],
            clock: clock.clone(),
        })?;
        let (client, heard) = (Client::new(publisher, name), Heard::default());
        runtime.spawn(hear(receiver, client.clone(), heard.clone(), clock));
        wait_for("a heartbeat of ferby", SOON, || *lock(&heard))?;
        Ok(Bare { runtime, client, heard, server, domain: DomainName::parse("small-1")? })
    }

    /// One order and its answer.
    fn order(&self, command: DomainCommand) -> anyhow::Result<()> {
        let (boot, wall, mono) = lock(&self.heard).context("ferby was not heard")?;
        let order = Order::Domain { name: self.domain.clone(), command };
        let answer = self.client.order(&self.server, boot, (wall, mono), order);
        let reply = self.runtime.block_on(answer).map_err(|f| anyhow!("{}: {}", f.code, f.text))?;
        match reply.answer {
            Answer::Failed { failure } => Err(anyhow!("{}: {}", failure.code, failure.text)),
            _ => Ok(()),
        }
    }
}

/// Takes what comes: heartbeats show the agent's life and clock, replies go to who waits.
async fn hear(mut receiver: Receiver, client: Client, heard: Heard, clock: Clock) {
    while let Some(incoming) = receiver.recv().await {
        let Incoming::Message { envelope, .. } = incoming else { continue };
        match envelope.body {
            Body::Heartbeat(_) => *lock(&heard) = Some((envelope.boot, envelope.at, clock.mono())),
            Body::Reply(reply) => client.deliver(*reply),
            _ => {}
        }
    }
}

fn lock(heard: &Heard) -> MutexGuard<'_, Option<(Boot, Wall, Mono)>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
