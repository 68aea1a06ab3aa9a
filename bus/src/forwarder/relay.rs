//! The forwarder's thread: takes messages from publishers in batches, drops what is not of the bus's form, passes the rest on.
//!
//! Guests may have a second pair of sockets; what passes between the pairs is decided by [`gate`]. The guests' turn is short: one that
//! speaks without rest holds nobody up.
//!
//! It reads two frames and their lengths and never looks into a body. As libzmq's own proxy it goes on without waiting while there is
//! anything to read, and looks at subscriptions and the clock once a batch.

use super::{bind::Bound, gate, meter::Meter};
use crate::{Clock, wake::Sleeper};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use xvm_model::{
    Body, Boot, Envelope, Sender, ServerName, Topic,
    message::{MESSAGE_MAX, VERSION},
};
use zmq::{DONTWAIT, Message, SNDMORE, Sendable, Socket};

/// Messages between two looks at everything else.
const BATCH: usize = 1000;
/// The same for messages of guests.
const GUESTS_BATCH: usize = 50;
/// The longest topic frame and the longest subscription, in bytes.
const TOPIC_MAX: usize = 300;
/// Between two beacons.
const BEACON: Duration = Duration::from_secs(1);
/// New subscribers are answered together, at most so often: a thousand that come back at once cost fifty beacons a second.
const ANSWER: Duration = Duration::from_millis(20);

/// The thread's state.
pub(super) struct Relay {
    bound: Bound,
    /// The sockets of guests.
    guests: Option<Bound>,
    name: ServerName,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
    sleeper: Sleeper,
    /// What subscribers want, and what guests do. libzmq shows us each subscription and only the end of the last one.
    wanted: HashSet<Vec<u8>>,
    wanted_by_guests: HashSet<Vec<u8>>,
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
        guests: Option<Bound>,
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
            guests,
            name,
            meter,
            stop,
            sleeper,
            wanted: HashSet::new(),
            wanted_by_guests: HashSet::new(),
            clock,
            boot,
            seq: 0,
            last,
            asked: false,
        }
    }

    /// Runs until it is stopped.
    pub(super) fn run(mut self) {
        if let Some(guests) = &self.guests {
            // a publisher takes itself for heard when it is told of any subscription; that others want beacons tells all but guests
            tell(&guests.front, true, b"forwarder.");
        }
        while !self.stop.load(SeqCst) {
            let due = if self.asked { ANSWER } else { BEACON };
            let wait = due.saturating_sub(self.last.elapsed());
            let mut items = vec![
                self.sleeper.item(),
                self.bound.front.as_poll_item(zmq::POLLIN),
                self.bound.back.as_poll_item(zmq::POLLIN),
            ];
            if let Some(guests) = &self.guests {
                items.push(guests.front.as_poll_item(zmq::POLLIN));
                items.push(guests.back.as_poll_item(zmq::POLLIN));
            }
            match zmq::poll(&mut items, i64::try_from(wait.as_millis()).unwrap_or(0)) {
                Ok(_) | Err(zmq::Error::EINTR) => {}
                Err(e) => {
                    tracing::error!("the forwarder ends: cannot poll its sockets: {e}");
                    return;
                }
            }
            let mut readable = items[1..].iter().map(zmq::PollItem::is_readable);
            let [front, back, guests_front, guests_back] =
                std::array::from_fn(|_| readable.next() == Some(true));
            drop(readable);
            drop(items);
            if back {
                self.subscriptions();
            }
            if guests_back {
                self.subscriptions_of_guests();
            }
            if front {
                self.messages();
            }
            if guests_front {
                self.messages_of_guests();
            }
            let due = if self.asked { ANSWER } else { BEACON };
            if self.last.elapsed() >= due {
                self.beacon();
            }
        }
    }

    /// Passes on a batch.
    fn messages(&self) {
        let (mut messages, mut bytes) = (0, 0);
        for _ in 0..BATCH {
            let Some(read) = self.next(&self.bound.front) else { break };
            let Some((topic, body)) = read else { continue };
            messages += 1;
            bytes += (topic.len() + body.len()) as u64;
            if let Some(guests) = self.guests.as_ref().filter(|_| gate::outwards(&topic)) {
                say(&guests.back, &*topic, &*body);
            }
            say(&self.bound.back, topic, body);
        }
        self.meter.messages.fetch_add(messages, Relaxed);
        self.meter.bytes.fetch_add(bytes, Relaxed);
    }

    /// Passes on a batch of what guests say.
    fn messages_of_guests(&self) {
        let Some(guests) = &self.guests else { return };
        for _ in 0..GUESTS_BATCH {
            let Some(read) = self.next(&guests.front) else { break };
            let Some((topic, body)) = read else { continue };
            if !gate::inwards(&topic, &body) {
                self.meter.refused.fetch_add(1, Relaxed);
                continue;
            }
            self.meter.messages.fetch_add(1, Relaxed);
            self.meter.bytes.fetch_add((topic.len() + body.len()) as u64, Relaxed);
            say(&self.bound.back, topic, body);
        }
    }

    /// The next message, when there is one; without its frames, when it is not of the bus's form.
    fn next(&self, front: &Socket) -> Option<Option<(Message, Message)>> {
        let mut topic = Message::new();
        front.recv(&mut topic, DONTWAIT).ok()?;
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
            return Some(None);
        }
        Some(Some((topic, body)))
    }

    /// Tells the publishers what subscribers want, and the guests' ones what concerns them.
    fn subscriptions(&mut self) {
        for _ in 0..BATCH {
            let Some(read) = self.next_subscription(&self.bound.back) else { break };
            let Some((wants, prefix)) = read else { continue };
            self.asked |= wants && self.beacon_topic().as_bytes().starts_with(&prefix);
            if note(&mut self.wanted, wants, &prefix) {
                if !self.wanted_by_guests.contains(&prefix) {
                    tell(&self.bound.front, wants, &prefix);
                }
                if let Some(guests) = self.guests.as_ref().filter(|_| gate::concerns(&prefix)) {
                    tell(&guests.front, wants, &prefix);
                }
            }
        }
    }

    /// Tells the publishers what guests want of what they may be told.
    fn subscriptions_of_guests(&mut self) {
        for _ in 0..BATCH {
            let Some(read) = self.guests.as_ref().and_then(|g| self.next_subscription(&g.back)) else {
                break;
            };
            let Some((wants, prefix)) = read else { continue };
            self.asked |= wants && self.beacon_topic().as_bytes().starts_with(&prefix);
            if gate::may_want(&prefix)
                && note(&mut self.wanted_by_guests, wants, &prefix)
                && !self.wanted.contains(&prefix)
            {
                tell(&self.bound.front, wants, &prefix);
            }
        }
    }

    /// The next subscription or its end, when there is one; without it, when it is none.
    fn next_subscription(&self, back: &Socket) -> Option<Option<(bool, Vec<u8>)>> {
        let mut frame = Message::new();
        back.recv(&mut frame, DONTWAIT).ok()?;
        let read = match frame.split_first() {
            Some((wants @ (0 | 1), prefix)) if !frame.get_more() && prefix.len() <= TOPIC_MAX => {
                Some((*wants == 1, prefix.to_vec()))
            }
            // what a subscriber says besides subscriptions concerns nobody
            _ => None,
        };
        let counter = if read.is_some() { &self.meter.subscriptions } else { &self.meter.malformed };
        counter.fetch_add(1, Relaxed);
        Some(read)
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
                for bound in self.guests.iter().chain([&self.bound]) {
                    say(&bound.back, topic.as_bytes(), &*body);
                }
            }
            Err(e) => tracing::error!("cannot say {topic}: {e}"),
        }
    }
}

/// Says a message. An XPUB does not refuse: for a subscriber beyond its high-water mark the message is dropped.
fn say(back: &Socket, topic: impl Sendable, body: impl Sendable) {
    if back.send(topic, DONTWAIT | SNDMORE).is_ok() {
        back.send(body, DONTWAIT).ok();
    }
}

/// Tells publishers that somebody wants what begins so, or that nobody does any more.
fn tell(front: &Socket, wants: bool, prefix: &[u8]) {
    front.send([&[u8::from(wants)], prefix].concat(), DONTWAIT).ok();
}

/// Keeps what is wanted; whether that changed it.
fn note(wanted: &mut HashSet<Vec<u8>>, wants: bool, prefix: &[u8]) -> bool {
    if wants { wanted.insert(prefix.to_vec()) } else { wanted.remove(prefix) }
}
