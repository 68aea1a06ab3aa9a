//! The connection to real forwarders.

use crate::{Clock, Endpoint, Link, Publisher, Receiver, counts::Meter, queue::queue, sockets::Thread, wake};
use std::sync::Arc;
use tokio::sync::watch;
use xvm_model::{Boot, Sender};

/// How to join the bus.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// Where the forwarders are; several at once are allowed, and doubles are dropped.
    pub forwarders: Vec<Endpoint>,
    /// Who we are.
    pub sender: Sender,
    /// Our life, greater than that of the life before.
    pub boot: Boot,
    /// What to hear: whole topics (`control.ferby`) or prefixes (`heartbeat.`).
    pub subscriptions: Vec<String>,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Why the bus could not be joined. A forwarder that is not there is no reason: it is waited for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was given.
    #[error("cannot join the bus: no forwarder was named; at least one is needed")]
    NoForwarder,
    /// libzmq refused.
    #[error("cannot join the bus at {endpoint}: {why}")]
    Socket {
        /// Where.
        endpoint: String,
        /// What libzmq says.
        why: String,
    },
}

/// Joins the bus; returns at once, the link comes up when a forwarder is heard.
pub fn connect(config: BusConfig) -> Result<(Publisher, Receiver), ConnectError> {
    let endpoint = config.forwarders.first().ok_or(ConnectError::NoForwarder)?.to_string();
    let failed = |e: std::io::Error| ConnectError::Socket { endpoint: endpoint.clone(), why: e.to_string() };
    let meter = Arc::<Meter>::default();
    let (link, watched) = watch::channel(Link::Down(format!("no forwarder at {endpoint}: not heard yet")));
    let (waker, sleeper) = wake::pair().map_err(failed)?;
    let at_end = waker.clone();
    let (inlet, outlet) = queue(Box::new(move || at_end.wake()));
    let (thread, wire) = Thread::new(&config, inlet, link, meter.clone(), (waker, sleeper))?;
    std::thread::Builder::new().name("xvm-bus".into()).spawn(move || thread.run()).map_err(failed)?;
    let own = (config.sender, config.boot);
    let publisher =
        Publisher::new(own.clone(), config.clock.clone(), meter.clone(), watched.clone(), Box::new(wire));
    let receiver = Receiver::new(outlet, watched, &config.subscriptions, own, config.clock, meter);
    Ok((publisher, receiver))
}
