//! The forwarder's thread: takes messages from publishers in batches, drops what is not of the bus's form, passes the rest on.
//!
//! It reads two frames and their lengths and never looks into a body. As libzmq's own proxy it goes on without waiting while there is
//! anything to read, and looks at subscriptions and the clock once a batch.

use super::bind::Bound;
use crate::{Clock, wake::Sleeper};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use xvm_model::{
    Body, Boot, Counters, Envelope, Sender, ServerName, Topic,
    message::{MESSAGE_MAX, VERSION},
};
use zmq::{DONTWAIT, Message, SNDMORE};

/// Messages between two looks at everything else.
const BATCH: usize = 1000;
/// The longest topic frame and the longest subscription, in bytes.
const TOPIC_MAX: usize = 300;
/// Between two beacons.
const BEACON: Duration = Duration::from_secs(1);
/// New subscribers are answered together, at most so often: a thousand that come back at once cost fifty beacons a second.
const ANSWER: Duration = Duration::from_millis(20);

/// What the forwarder has done; written by its thread, read by any.
#[derive(Debug)]
pub(super) struct Meter {
    messages: AtomicU64,
    bytes: AtomicU64,
    malformed: AtomicU64,
    subscriptions: AtomicU64,
    start: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            start: Instant::now(),
        }
    }
}

impl Meter {
    pub(super) fn read(&self) -> Counters {
        Counters {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            subscriptions: self.subscriptions.load(Relaxed),
            uptime: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            protected: false,
        }
    }
}

/// The thread's state.
pub(super) struct Relay {
    bound: Bound,
    name: ServerName,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
    sleeper: Sleeper,
    /// What the publishers were told that someone wants. libzmq shows us each subscription and only the end of the last one.
    wanted: HashSet<Vec<u8>>,
    clock: Clock,
    boot: Boot,
    /// Counts the beacons.
    seq: u64,
    /// When the last beacon was said.
    last: Instant,
    /// A new subscriber waits for one.
    asked: bool,
}

impl Relay {
    pub(super) fn new(
        bound: Bound,
        name: ServerName,
        meter: Arc<Meter>,
        stop: Arc<AtomicBool>,
        sleeper: Sleeper,
    ) -> Self {
        let clock = Clock::system();
        let boot = Boot(clock.now().wall.0);
        let last = Instant::now();
        Relay {
            bound,
            name,
            meter,
            stop,
            sleeper,
            wanted: HashSet::new(),
            clock,
            boot,
            seq: 0,
            last,
            asked: false,
        }
    }

    /// Runs until it is stopped.
    pub(super) fn run(mut self) {
        while !self.stop.load(SeqCst) {
            let due = if self.asked { ANSWER } else { BEACON };
            let wait = due.saturating_sub(self.last.elapsed());
            let mut items = [
                self.bound.front.as_poll_item(zmq::POLLIN),
                self.bound.back.as_poll_item(zmq::POLLIN),
                self.sleeper.item(),
            ];
            match zmq::poll(&mut items, i64::try_from(wait.as_millis()).unwrap_or(0)) {
                Ok(_) | Err(zmq::Error::EINTR) => {}
                Err(e) => {
                    tracing::error!("the forwarder ends: cannot poll its sockets: {e}");
                    return;
                }
            }
            let (front, back) = (items[0].is_readable(), items[1].is_readable());
            if back {
                self.subscriptions();
            }
            if front {
                self.messages();
            }
            let due = if self.asked { ANSWER } else { BEACON };
            if self.last.elapsed() >= due {
                self.beacon();
            }
        }
    }

    /// Passes on a batch.
    fn messages(&self) {
        let (front, back) = (&self.bound.front, &self.bound.back);
        let (mut messages, mut bytes) = (0, 0);
        for _ in 0..BATCH {
            let mut topic = Message::new();
            if front.recv(&mut topic, DONTWAIT).is_err() {
                break;
            }
            let mut body = Message::new();
            let good = topic.get_more()
                && front.recv(&mut body, DONTWAIT).is_ok()
                && !body.get_more()
                && topic.len() <= TOPIC_MAX
                && body.len() <= MESSAGE_MAX;
            if !good {
                self.meter.malformed.fetch_add(1, Relaxed);
                let mut more = if topic.get_more() { body.get_more() } else { false };
                while more && front.recv(&mut body, DONTWAIT).is_ok() {
                    more = body.get_more();
                }
                continue;
            }
            messages += 1;
            bytes += (topic.len() + body.len()) as u64;
            // an XPUB does not refuse: for a subscriber beyond its high-water mark the message is dropped
            if back.send(topic, DONTWAIT | SNDMORE).is_ok() {
                back.send(body, DONTWAIT).ok();
            }
        }
        self.meter.messages.fetch_add(messages, Relaxed);
        self.meter.bytes.fetch_add(bytes, Relaxed);
    }

    /// Tells the publishers what subscribers want.
    fn subscriptions(&mut self) {
        for _ in 0..BATCH {
            let mut frame = Message::new();
            if self.bound.back.recv(&mut frame, DONTWAIT).is_err() {
                break;
            }
            if frame.get_more() || frame.len() > TOPIC_MAX + 1 {
                self.meter.malformed.fetch_add(1, Relaxed);
                continue;
            }
            let changed = match frame.split_first() {
                Some((1, prefix)) => {
                    self.asked |= self.beacon_topic().as_bytes().starts_with(prefix);
                    self.wanted.insert(prefix.to_vec())
                }
                Some((0, prefix)) => self.wanted.remove(prefix),
                // what a subscriber says besides subscriptions concerns nobody
                _ => {
                    self.meter.malformed.fetch_add(1, Relaxed);
                    continue;
                }
            };
            self.meter.subscriptions.fetch_add(1, Relaxed);
            if changed {
                self.bound.front.send(frame, DONTWAIT).ok();
            }
        }
    }

    fn beacon_topic(&self) -> String {
        format!("forwarder.{}", self.name)
    }

    /// Says that it lives.
    fn beacon(&mut self) {
        self.last = Instant::now();
        self.asked = false;
        self.seq += 1;
        let envelope = Envelope {
            v: VERSION,
            from: Sender::Forwarder(self.name.clone()),
            boot: self.boot,
            seq: self.seq,
            at: self.clock.now().wall,
            body: Body::Forwarder(self.meter.read()),
        };
        let topic = Topic::Forwarder(self.name.clone()).to_string();
        match serde_json::to_vec(&envelope) {
            Ok(body) => {
                if self.bound.back.send(topic.as_bytes(), DONTWAIT | SNDMORE).is_ok() {
                    self.bound.back.send(body, DONTWAIT).ok();
                }
            }
            Err(e) => tracing::error!("cannot say {topic}: {e}"),
        }
    }
}
