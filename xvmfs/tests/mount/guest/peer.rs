//! A guestd that answers as the real one does, over the in-memory bus: its tests end when they are told to, and it is silent on request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use xvm_bus::{Clock, Incoming, Net, Publisher, SecretKey};
use xvm_model::guest::queue::{End, Queue};
use xvm_model::guest::{GuestMemory, Loading, Process};
use xvm_model::*;

/// Between two heartbeats, and between two snapshots of processes. Both together stay below what is read of a guest.
const BEAT: Duration = Duration::from_millis(250);
const TOP: Duration = Duration::from_millis(150);

#[derive(Clone)]
pub struct Guest {
    state: Arc<Mutex<State>>,
}

struct State {
    name: DomainName,
    publisher: Publisher,
    beat: GuestBeat,
    queue: Queue,
    known: Receipts,
    /// Orders are not heard.
    deaf: bool,
    /// Nothing is said and nothing is heard.
    dead: bool,
    /// Whether it sends its processes when it is asked.
    blind: bool,
    /// Its processes are sent until then.
    watched: Option<Instant>,
    /// Snapshots that were sent.
    snapshots: u32,
    /// All orders, as they came.
    orders: Vec<GuestCommand>,
}

impl Guest {
    pub fn new(net: &Net, clock: &Clock, name: &str) -> Self {
        let name = DomainName::parse(name).unwrap();
        let subscriptions = vec![format!("guest-control.{name}"), "roll-call".to_owned()];
        let (publisher, mut receiver) =
            net.connect(Sender::Guest(name.clone()), Boot(9), subscriptions, clock.clone());
        let beat = GuestBeat {
            // some heartbeats may come late
            interval_ms: 1000,
            version: "0.1.0".into(),
            uptime: 77,
            cpus: 2,
            load: Ratio::new(0.31),
            steal: Ratio::new(0.02),
            average: [105, 50, 7],
            pressure: None,
            memory: GuestMemory { total: 262_144, available: 131_072, swap: 4096, swap_free: 4000 },
            tests: vec!["fibonacci".into(), "image".into()],
            loading: None,
        };
        let state = State {
            name,
            publisher,
            beat,
            queue: Queue::default(),
            known: Receipts::new(Boot(9)),
            deaf: false,
            dead: false,
            blind: false,
            watched: None,
            snapshots: 0,
            orders: vec![],
        };
        let guest = Guest { state: Arc::new(Mutex::new(state)) };
        let it = guest.clone();
        tokio::spawn(async move {
            let (mut beat, mut top) = (tokio::time::interval(BEAT), tokio::time::interval(TOP));
            loop {
                tokio::select! {
                    _ = beat.tick() => it.lock().beat(),
                    _ = top.tick() => it.lock().top(),
                    incoming = receiver.recv() => match incoming {
                        None => return,
                        Some(Incoming::Message { envelope, .. }) => match envelope.body {
                            Body::RollCall => it.lock().beat(),
                            Body::Command(command) => it.lock().hear(*command),
                            _ => {}
                        },
                        Some(Incoming::Link(_) | Incoming::Flood(_) | Incoming::Forged(_)) => {}
                    },
                }
            }
        });
        guest
    }

    /// Changes what it says of itself, and says it.
    pub fn change(&self, f: impl FnOnce(&mut GuestBeat)) {
        let mut state = self.lock();
        f(&mut state.beat);
        state.beat();
    }

    /// The test that runs ends, and the next one begins.
    pub fn finish(&self, status: Result<i32, Box<str>>, output: &str) {
        let mut state = self.lock();
        state.queue.ended(End { wall_ms: 1234, cpu_ms: 1200, status, output: output.into() });
        let now = state.publisher.clock().now().wall;
        state.queue.begin(now);
        state.say_runs();
    }

    pub fn deaf(&self, deaf: bool) {
        self.lock().deaf = deaf;
    }

    pub fn blind(&self, blind: bool) {
        self.lock().blind = blind;
    }

    pub fn dead(&self, dead: bool) {
        self.lock().dead = dead;
    }

    pub fn orders(&self) -> Vec<GuestCommand> {
        self.lock().orders.clone()
    }

    /// How often it was asked for its processes.
    pub fn asked(&self) -> usize {
        self.orders().iter().filter(|o| matches!(o, GuestCommand::Top { .. })).count()
    }

    /// Whether it sends its processes.
    pub fn is_watched(&self) -> bool {
        self.lock().is_watched()
    }

    /// From now on it signs what it says.
    pub fn sign(&self, secret: SecretKey) {
        let mut state = self.lock();
        state.publisher = state.publisher.clone().signing(secret);
    }

    /// Says something, whatever it is.
    pub fn say(&self, body: Body) {
        let state = self.lock();
        let name = state.name.clone();
        let topic = match &body {
            Body::GuestRuns(_) => Topic::GuestReturn(name),
            Body::GuestTop(_) => Topic::GuestTop(name),
            _ => Topic::Guest(name),
        };
        state.publisher.publish(topic, body);
    }

    /// Its heartbeat.
    pub fn heartbeat(&self) -> GuestBeat {
        self.lock().beat.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn beat(&self) {
        if !self.dead {
            let body = Body::Guest(Box::new(self.beat.clone()));
            self.publisher.publish(Topic::Guest(self.name.clone()), body);
        }
    }

    fn is_watched(&self) -> bool {
        self.watched.is_some_and(|until| Instant::now() < until)
    }

    fn say_runs(&self) {
        let body = Body::GuestRuns(Box::new(self.queue.runs().clone()));
        self.publisher.publish(Topic::GuestReturn(self.name.clone()), body);
    }

    fn top(&mut self) {
        if self.dead || self.blind || !self.is_watched() {
            return;
        }
        self.snapshots += 1;
        let process = |pid, cpu, command: &str| Process {
            pid,
            user: "root".into(),
            cpu,
            memory: 2048,
            time_ms: 12_340,
            command: command.into(),
        };
        let top = Top {
            at: self.publisher.clock().now().wall,
            cpus: 2,
            load: Ratio::new(0.75),
            total: self.snapshots,
            processes: vec![process(42, 150, "burn\n\u{1b}[2Jcpu"), process(1, 0, "[init]")],
        };
        self.publisher.publish(Topic::GuestTop(self.name.clone()), Body::GuestTop(Box::new(top)));
    }

    fn hear(&mut self, command: Command) {
        if self.deaf || self.dead {
            return;
        }
        let now = self.publisher.clock().now();
        let answer = match self.known.admit(&command, now.wall, now.mono) {
            Admit::Run => self.run(&command.id, command.order, now.wall),
            Admit::Known(reply) => reply.map_or(Answer::Working, |r| r.answer),
            Admit::Refuse(failure) => Answer::Failed { failure },
        };
        let news = Some(News::Guest { runs: Box::new(self.queue.runs().clone()) });
        let reply = Reply { id: command.id.clone(), answer, news };
        self.known.answered(&command.id, Reply { news: None, ..reply.clone() });
        self.publisher.publish(Topic::Reply(command.client), Body::Reply(Box::new(reply)));
    }

    fn run(&mut self, id: &str, order: Order, now: Wall) -> Answer {
        let Order::Guest { name, command } = order else { panic!("not for a guest: {order:?}") };
        self.orders.push(command.clone());
        let failed = |failure| Answer::Failed { failure };
        let text = match command {
            GuestCommand::Run { line } => {
                let test = line.split(' ').next().unwrap();
                if !self.beat.tests.iter().any(|t| &**t == test) {
                    let why = format!("cannot run {test} in {name}: it has {}", self.beat.tests.join(", "));
                    return failed(Failure::invalid(why));
                }
                if let Err(why) = self.queue.order(id, &line, now) {
                    return failed(Failure::busy(format!("cannot run {line} in {name}: {why}")));
                }
                self.queue.begin(now);
                format!("{line} is taken")
            }
            GuestCommand::Cancel => {
                let (running, waiting) = self.queue.cancel();
                let (wall_ms, cpu_ms, output) = (500, 400, "".into());
                self.queue.ended(End { wall_ms, cpu_ms, status: Err("killed".into()), output });
                format!("{running} ended, {waiting} forgotten")
            }
            GuestCommand::Load { share, seconds } => {
                self.beat.loading = (seconds > 0).then_some(Loading { share, left: seconds });
                self.beat();
                "loading".into()
            }
            GuestCommand::Top { seconds } => {
                self.watched = Some(Instant::now() + Duration::from_secs(seconds.into()));
                "sending".into()
            }
        };
        Answer::Done { text: text.into() }
    }
}

/// A guest that hears all orders, and says of each that it is done; how often it has.
pub fn liar(net: &Net, clock: &Clock, name: &str) -> Arc<AtomicUsize> {
    let name = Sender::Guest(DomainName::parse(name).unwrap());
    let subscriptions = vec!["guest-control.".to_owned(), "control.".to_owned()];
    let (publisher, mut receiver) = net.connect(name, Boot(9), subscriptions, clock.clone());
    let lies = Arc::<AtomicUsize>::default();
    let told = lies.clone();
    tokio::spawn(async move {
        while let Some(incoming) = receiver.recv().await {
            if let Incoming::Message { envelope, .. } = incoming
                && let Body::Command(command) = envelope.body
            {
                let answer = Answer::Done { text: "done".into() };
                let reply = Reply { id: command.id, answer, news: None };
                publisher.publish(Topic::Reply(command.client), Body::Reply(Box::new(reply)));
                told.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    lies
}
