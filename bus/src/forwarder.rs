//! The forwarder: joins all publishers and subscribers, so that nothing else needs a fixed address.
//!
//! ```text
//! publishers ==> XSUB (port)  --relay-->  XPUB (port + 1) ==> subscribers
//!                    <------subscriptions------
//! ```
//! Guests may have a second pair of sockets, through which nothing passes but what is theirs (`gate`).
//!
//! It keeps nothing: killed and started anew, it is the same to everyone. A thread owns its sockets; see `relay`.

mod bind;
mod flags;
mod gate;
mod meter;
mod relay;

pub use bind::BindError;
pub use flags::{Flags, command};

use crate::{
    Endpoint,
    wake::{self, Waker},
};
use meter::Meter;
use relay::Relay;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};
use xvm_model::{Counters, ServerName};

/// What a forwarder needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes two free ports, see [`Forwarder::endpoint`].
    pub listen: Endpoint,
    /// Where guests reach it, if they have sockets of their own: through them nothing passes but what is theirs.
    pub guests: Option<Endpoint>,
    /// Its name, in the topic `forwarder.NAME`.
    pub name: ServerName,
    /// Whether others than this machine may reach it, though nothing is protected yet.
    pub insecure: bool,
}

impl Config {
    /// For tests: two free ports of the loopback, and the name `main`.
    pub fn local() -> Self {
        Config {
            listen: Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 },
            guests: None,
            name: ServerName::parse("main").expect("a valid name"),
            insecure: false,
        }
    }
}

/// A forwarder that runs; it ends when this is dropped, its ipc files with it.
pub struct Forwarder {
    endpoint: Endpoint,
    guests: Option<Endpoint>,
    meter: Arc<Meter>,
    waker: Waker,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Listens, and starts the thread.
    pub fn start(config: Config) -> Result<Self, BindError> {
        let context = zmq::Context::new();
        let (bound, guests_bound) = bind::bind_all(&context, &config)?;
        let failed = |e: std::io::Error| BindError::new(&config.listen, e);
        let (waker, sleeper) = wake::pair().map_err(failed)?;
        let (meter, stop) = (Arc::<Meter>::default(), Arc::<AtomicBool>::default());
        let (endpoint, guests) = (bound.endpoint.clone(), guests_bound.as_ref().map(|g| g.endpoint.clone()));
        let relay =
            Relay::new(bound, guests_bound, config.name.clone(), meter.clone(), stop.clone(), sleeper);
        let thread = std::thread::Builder::new().name("xvm-relay".into()).spawn(move || relay.run());
        Ok(Forwarder { endpoint, guests, meter, waker, stop, thread: Some(thread.map_err(failed)?) })
    }

    /// Where it listens: what publishers and subscribers are told.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where guests reach it.
    pub fn guests(&self) -> Option<&Endpoint> {
        self.guests.as_ref()
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.meter.read()
    }

    /// Whether it still works; it ends by itself only when libzmq fails.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // a panic there was printed there
            thread.join().ok();
        }
    }
}

/// Runs a forwarder until `shutdown` is done; says where it listens, and that the bus is not protected.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let forwarder = Forwarder::start(config)?;
    tracing::info!("the forwarder listens at {}", forwarder.endpoint());
    tracing::warn!("the bus is not protected: whoever reaches this address can control all domains");
    if let Some(guests) = forwarder.guests() {
        tracing::info!("guests reach the forwarder at {guests}, and nothing else through it");
    }
    if let Err(e) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("cannot tell systemd that the forwarder is ready: {e}");
    }
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {
                anyhow::ensure!(forwarder.is_running(), "the forwarder's thread ended by itself; the log says why");
            }
        }
    }
    tokio::task::spawn_blocking(move || drop(forwarder)).await?;
    Ok(())
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Forwarder({})", self.endpoint)
    }
}
