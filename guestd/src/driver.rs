//! guestd's driver: one task that feeds the [`Agent`] and carries out what follows. Nothing in it waits for a test or a sample.

use crate::agent::{Agent, Effect, Input, Settings};
use crate::load::Load;
use crate::machine::Machine;
use crate::run::run as run_test;
use crate::top::Sampler;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use xvm_bus::{BusConfig, Clock, Endpoint, Incoming, Publisher, Receiver, SecretKey};
use xvm_daemon::{Dir, StateError};
use xvm_model::guest::Loading;
use xvm_model::guest::queue::End;
use xvm_model::{Body, Boot, DomainName, Sender, Top, Topic};

/// Where the kernel tells.
const PROC: &str = "/proc";
/// How long a test that is killed at the end of guestd may take to end.
const LAST: Duration = Duration::from_secs(2);

/// How guestd runs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name, heartbeat, tests.
    pub settings: Settings,
    /// Where forwarders are.
    pub forwarders: Vec<Endpoint>,
    /// The directory that counts its lives.
    pub state: PathBuf,
    /// The longest that a test may take.
    pub limit: Duration,
    /// With which it signs what it says; none: it does not sign.
    pub secret: Option<SecretKey>,
}

/// What the guest `name` hears.
pub fn subscriptions(name: &DomainName) -> Vec<String> {
    vec![Topic::GuestControl(name.clone()).to_string(), Topic::RollCall.to_string()]
}

/// Joins the bus and tells how the guest is until `shutdown`. `ready` is called when orders are taken.
pub async fn run(plan: Plan, ready: impl FnOnce(), shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (name, clock) = (plan.settings.name.clone(), Clock::system());
    let (_held, boot) = life(&plan.state, &clock)?;
    let (publisher, receiver) = xvm_bus::connect(BusConfig {
        forwarders: plan.forwarders.clone(),
        sender: Sender::Guest(name.clone()),
        boot,
        subscriptions: subscriptions(&name),
        clock,
    })?;
    let publisher = match plan.secret {
        Some(secret) => publisher.signing(secret),
        None => publisher,
    };
    serve(plan.settings, plan.limit, publisher, receiver, ready, shutdown).await
}

/// The number of this life. A guest that cannot write goes by its clock: that is right as long as the clock is not set back.
fn life(state: &Path, clock: &Clock) -> Result<(Option<Dir>, Boot), StateError> {
    let wall = clock.now().wall;
    let counted = Dir::open(state, "guestd").and_then(|dir| dir.boot(wall).map(|boot| (Some(dir), boot)));
    match counted {
        Err(error @ StateError::Io(..)) => {
            tracing::warn!(%error, "lives are counted by the clock");
            Ok((None, Boot(wall.0)))
        }
        counted => counted,
    }
}

/// The same over a bus that is joined already.
pub async fn serve(
    settings: Settings,
    limit: Duration,
    publisher: Publisher,
    mut receiver: Receiver,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let clock = publisher.clock().clone();
    let mut driver = Driver::new(settings.clone(), limit, publisher);
    let mut agent = Agent::new(settings, driver.publisher.boot(), clock.now());
    ready();
    tokio::pin!(shutdown);
    let mut input = Input::Tick;
    loop {
        for effect in agent.step(input, clock.now()) {
            driver.carry_out(effect);
        }
        let wake = Duration::from_millis(agent.wake().since(clock.mono()));
        input = tokio::select! {
            biased;
            () = &mut shutdown => {
                driver.end().await;
                return Ok(());
            }
            end = ended(&mut driver.test) => {
                driver.test = None;
                Input::Ended(end)
            }
            (sampler, top) = looked(&mut driver.looking) => {
                driver.looking = None;
                driver.sampler = sampler;
                Input::Looked(top.map(Box::new))
            }
            incoming = receiver.recv() => match incoming {
                None => anyhow::bail!("cannot go on without the bus: its thread has ended"),
                Some(Incoming::Link(link)) => {
                    tracing::info!(?link, "bus");
                    if link.is_up() { Input::Linked } else { Input::Tick }
                }
                Some(Incoming::Message { envelope, .. }) => match envelope.body {
                    Body::Command(command) => Input::Command(command),
                    Body::RollCall => Input::Joined,
                    _ => Input::Tick,
                },
                // a guest hears no guests
                Some(Incoming::Flood(_) | Incoming::Forged(_)) => Input::Tick,
            },
            () = tokio::time::sleep(wake) => Input::Tick,
        };
    }
}

/// A test that runs.
type Test = Pin<Box<dyn Future<Output = End> + Send>>;
/// A look at the processes: who looked, and what was seen when that is told.
type Look = JoinHandle<(Sampler, Option<Top>)>;

struct Driver {
    settings: Settings,
    limit: Duration,
    publisher: Publisher,
    machine: Machine,
    /// Ends the test that runs.
    kill: Arc<Notify>,
    test: Option<Test>,
    /// Goes on until this is dropped, or by its own end.
    load: Option<Load>,
    /// Elsewhere while it looks.
    sampler: Sampler,
    looking: Option<Look>,
}

async fn ended(test: &mut Option<Test>) -> End {
    match test {
        Some(test) => test.await,
        None => std::future::pending().await,
    }
}

async fn looked(look: &mut Option<Look>) -> (Sampler, Option<Top>) {
    match look {
        // one that failed is begun anew
        Some(look) => look.await.unwrap_or_else(|_| (sampler(), None)),
        None => std::future::pending().await,
    }
}

fn sampler() -> Sampler {
    Sampler::new(PROC, "/etc/passwd")
}

impl Driver {
    fn new(settings: Settings, limit: Duration, publisher: Publisher) -> Self {
        Driver {
            settings,
            limit,
            publisher,
            machine: Machine::new(Path::new(PROC)),
            kill: Arc::default(),
            test: None,
            load: None,
            sampler: sampler(),
            looking: None,
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Publish(topic, body) => self.publisher.publish(topic, *body),
            Effect::Beat(loading) => self.beat(loading),
            Effect::Begin(program) => {
                // a notice that came too late for the last one is not for this one
                self.kill = Arc::default();
                let (kill, limit) = (self.kill.clone(), self.limit);
                self.test = Some(Box::pin(async move { run_test(&program, limit, &kill).await }));
            }
            Effect::Kill => self.kill.notify_one(),
            Effect::Load(load) => {
                self.load = None;
                self.load = load.map(|(share, ms)| Load::begin(share, Duration::from_millis(ms)));
            }
            Effect::Look { tell } => {
                // with ten thousand processes it takes a while
                let (mut eye, at) =
                    (std::mem::replace(&mut self.sampler, sampler()), self.publisher.clock().now().wall);
                self.looking = Some(spawn_blocking(move || {
                    let top = eye.sample(at);
                    (eye, tell.then_some(top))
                }));
            }
        }
    }

    /// Ends what runs.
    async fn end(&mut self) {
        self.load = None;
        self.kill.notify_one();
        // a test that does not end is left to the kernel
        drop(tokio::time::timeout(LAST, async { self.test.take()?.await.status.ok() }).await);
    }

    fn beat(&mut self, loading: Option<Loading>) {
        let mut beat = self.machine.beat();
        beat.interval_ms = self.settings.interval_ms;
        beat.tests = self.settings.allowed.names();
        beat.loading = loading;
        self.publisher.publish(Topic::Guest(self.settings.name.clone()), Body::Guest(Box::new(beat)));
    }
}
