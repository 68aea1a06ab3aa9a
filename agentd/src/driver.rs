//! The server agent's driver: one task owns the state; whatever may take time runs beside it and comes back as an input.
//!
//! ```text
//!            ┌────────────────────────── one task ──────────────────────────┐
//!  bus ─────▶│                                                              │──▶ bus
//!  news ────▶│  next input ──▶ Agent::step (pure) ──▶ effects               │
//!  ends ────▶│        ▲                                  │                  │
//!            └────────┼──────────────────────────────────┼──────────────────┘
//!                     └──── calls to the hypervisor ◀────┘  (spawned, never waited for)
//! ```
//!
//! A hypervisor that hangs stops nothing here: at most one sample, one question and one order a domain are under way, whatever
//! time they take, and heartbeats go on.
//!
//! | file | what |
//! |---|---|
//! | [`step`] | inputs and effects |
//! | [`agent`] | the pure state |
//! | [`kept`] | what is kept of help from life to life |
//! | [`records`] | what the hypervisor said, newest first |
//! | [`calls`] | the calls to the hypervisor |
//! | [`lender`] | imaged, which lends a second lease for a migration |
//! | [`boots`] | the files that domains boot from |

pub mod agent;
pub mod boots;
pub mod calls;
pub mod kept;
pub mod lender;
pub mod records;
pub mod step;

use crate::hypervisor::{HvEvent, Hypervisor};
use crate::imports::devices::{Imports, NbdError};
use crate::state::State;
use agent::{Agent, Identity};
use boots::Boots;
use calls::Calls;
use lender::Lender;
use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};
use step::{Effect, Input};
use tokio::sync::mpsc;
use xvm_bus::{Incoming, Publisher, Receiver};
use xvm_model::{Body, Receipts, Sender, ServerName, Topic};

/// The topics that the agent of a server hears: whole ones, and `watchdog.` of all.
pub fn subscriptions(name: &ServerName) -> Vec<String> {
    let own = [Topic::Control(name.clone()).to_string(), Topic::RollCall.to_string(), "watchdog.".to_owned()];
    own.into_iter().chain(lender::subscriptions(name)).collect()
}

/// Why a driver ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Whoever publishes is not an agent, so that it has no server.
    #[error("cannot run the agent as {0}: its sender must be agent/SERVER")]
    NotAnAgent(Sender),
    /// The settings are damaged.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// What was imported is not known.
    #[error(transparent)]
    Imports(#[from] NbdError),
    /// The bus has ended.
    #[error("cannot go on without the bus: its thread has ended")]
    BusEnded,
    /// A call to the hypervisor panicked: what it was doing is unknown, so everything begins anew.
    #[error("cannot go on after a call to the hypervisor broke: {0}")]
    Call(String),
}

/// Runs the agent of the server that `publisher` speaks for, until `shutdown`. Domains run on when it ends.
pub async fn run(
    state: State,
    hypervisor: Arc<dyn Hypervisor>,
    publisher: Publisher,
    mut receiver: Receiver,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DriverError> {
    let Sender::Agent(name) = publisher.sender().clone() else {
        return Err(DriverError::NotAnAgent(publisher.sender().clone()));
    };
    let clock = publisher.clock().clone();
    let me = Identity {
        name: name.clone(),
        boot: publisher.boot(),
        hypervisor: hypervisor.kind(),
        address: hypervisor.address().into(),
        imports: hypervisor.imports().is_some(),
    };
    let kept = state.kept()?;
    let mut agent = Agent::new(me, state.settings()?, kept, Receipts::new(publisher.boot()), clock.now());
    let mut events = hypervisor.events();
    let lender = Lender::new(&name, &publisher);
    let imports = hypervisor.imports().map(|dir| Imports::open(&dir)).transpose()?;
    let (mut calls, mut ends) = Calls::new(hypervisor, Boots::open(state.dir())?, imports, lender.clone());
    let control = Topic::Control(name);
    tokio::pin!(shutdown);

    let mut inputs = VecDeque::from([Input::Tick]);
    loop {
        while let Some(input) = inputs.pop_front() {
            for effect in agent.step(input, clock.now()) {
                match effect {
                    Effect::Publish(topic, body) => publisher.publish(topic, *body),
                    Effect::Save(settings) => {
                        let saved = state.save(&settings).map_err(|e| e.to_string());
                        inputs.push_back(Input::Saved(saved));
                    }
                    Effect::Keep(kept) => {
                        // it goes on from memory; the next life knows less
                        if let Err(error) = state.keep(&kept) {
                            tracing::error!(%error, "rounds of help are not kept");
                        }
                    }
                    call => calls.begin(call),
                }
            }
        }
        calls.reap().map_err(DriverError::Call)?;
        let wake = Duration::from_millis(agent.wake().since(clock.mono()));
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            Some(input) = ends.recv() => inputs.push_back(input),
            news = next(&mut events) => inputs.extend(news.map(Input::News)),
            incoming = receiver.recv() => match incoming {
                None => return Err(DriverError::BusEnded),
                Some(Incoming::Link(link)) => {
                    tracing::info!(?link, "bus");
                    inputs.push_back(Input::Link(link.is_up()));
                }
                Some(Incoming::Message { topic, envelope }) => match envelope.body {
                    Body::Configs(ref configs) => lender.heard(&envelope, configs),
                    Body::Reply(reply) => lender.deliver(&envelope.from, *reply),
                    Body::Command(command) if topic == control => inputs.push_back(Input::Command(command)),
                    Body::RollCall => inputs.push_back(Input::RollCall),
                    Body::Watchdog(say) => {
                        if let Sender::Agent(from) = envelope.from {
                            inputs.push_back(Input::Watchdog { from, say });
                        }
                    }
                    _ => {}
                },
                // agents hear no guests
                Some(Incoming::Flood(_) | Incoming::Forged(_)) => {}
            },
            // a call that panicked sends no end
            Some(result) = calls.panicked() => return Err(DriverError::Call(result)),
            () = tokio::time::sleep(wake) => inputs.push_back(Input::Tick),
        }
    }
}

/// The next news; never again anything from a hypervisor that tells none, or has ended.
async fn next(events: &mut Option<mpsc::Receiver<HvEvent>>) -> Option<HvEvent> {
    let news = match events {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    };
    if news.is_none() {
        *events = None;
    }
    news
}
