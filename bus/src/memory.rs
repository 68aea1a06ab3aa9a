//! The in-memory bus: the same [`Publisher`] and [`Receiver`], the same bytes, no sockets, and faults on request.
//!
//! Everything random comes from one seed and all delays are tokio's, so a test with paused time runs the same way each time.

use crate::{
    Clock, Link, Publisher, Receiver,
    counts::{Meter, one},
    publisher::{Frames, Wire},
    queue::{Inlet, Raw, queue},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use xvm_model::{Boot, Sender};

/// What the net does wrong. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The share of messages that get lost, 0.0 to 1.0, for each receiver apart.
    pub loss: f64,
    /// The share of messages that come twice.
    pub doubling: f64,
    /// The share of messages that may overtake others of their sender (matters where there is a delay).
    pub reordering: f64,
    /// The shortest and the longest time on the way.
    pub delay: (Duration, Duration),
}

/// A net without sockets. Clones are the same net.
#[derive(Clone)]
pub struct Net {
    // a plain mutex: held for the copying of one message, never across an await
    state: Arc<Mutex<State>>,
}

struct State {
    rng: StdRng,
    faults: Faults,
    /// Whether the forwarder is there.
    up: bool,
    /// Who is cut off from the others, without notice.
    apart: BTreeSet<Sender>,
    /// Whose link is down.
    down: BTreeSet<Sender>,
    ports: Vec<Port>,
    /// Counts the ports.
    last: u64,
}

/// One connection.
struct Port {
    id: u64,
    sender: Sender,
    subscriptions: Vec<String>,
    inlet: Inlet,
    link: watch::Sender<Link>,
    /// Its counters.
    meter: Arc<Meter>,
    /// No message that keeps its order is delivered before this.
    due: Instant,
}

impl Net {
    /// A net without faults; what is random is decided by `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            faults: Faults::default(),
            up: true,
            apart: BTreeSet::new(),
            down: BTreeSet::new(),
            ports: Vec::new(),
            last: 0,
        };
        Net { state: Arc::new(Mutex::new(state)) }
    }

    /// Joins the net; the link is up at once when the forwarder is.
    pub fn connect(
        &self,
        sender: Sender,
        boot: Boot,
        subscriptions: Vec<String>,
        clock: Clock,
    ) -> (Publisher, Receiver) {
        let meter = Arc::<Meter>::default();
        let (link, watched) = watch::channel(Link::Down("no forwarder at memory: not heard yet".into()));
        let (inlet, outlet) = queue(Box::new(|| {}));
        let mut state = self.lock();
        state.last += 1;
        let id = state.last;
        state.ports.retain(|p| !p.inlet.is_closed());
        state.ports.push(Port {
            id,
            sender: sender.clone(),
            subscriptions: subscriptions.clone(),
            inlet,
            link,
            meter: meter.clone(),
            due: Instant::now(),
        });
        let wire = MemoryWire { net: self.clone(), id, sender: sender.clone() };
        let own = (sender, boot);
        let publisher =
            Publisher::new(own.clone(), clock.clone(), meter.clone(), watched.clone(), Box::new(wire));
        let receiver = Receiver::new(outlet, watched, &subscriptions, own, clock, meter.clone());
        state.tell_links();
        if state.linked(&state.ports[state.ports.len() - 1].sender) {
            one(&meter.links);
        }
        (publisher, receiver)
    }

    /// From now on the net does this wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// These are apart from the others: nothing passes between the two groups, and their links do not notice. An empty set heals.
    pub fn partition(&self, senders: impl IntoIterator<Item = Sender>) {
        self.lock().apart = senders.into_iter().collect();
    }

    /// Takes the forwarder away from all (false), or brings it back. All links tell.
    pub fn forwarder(&self, up: bool) {
        let mut state = self.lock();
        state.up = up;
        state.tell_links();
    }

    /// Takes the forwarder away from one alone (false), or brings it back. Its link tells.
    pub fn link(&self, sender: &Sender, up: bool) {
        let mut state = self.lock();
        if up {
            state.down.remove(sender);
        } else {
            state.down.insert(sender.clone());
        }
        state.tell_links();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // every change is one assignment: a panic elsewhere leaves nothing half-made
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn linked(&self, sender: &Sender) -> bool {
        self.up && !self.down.contains(sender)
    }

    /// Brings each port's link up to date.
    fn tell_links(&mut self) {
        for port in &self.ports {
            let up = self.linked(&port.sender);
            port.link.send_if_modified(|link| {
                let changed = link.is_up() != up;
                if changed {
                    *link =
                        if up { Link::Up } else { Link::Down("no forwarder at memory: taken away".into()) };
                }
                changed
            });
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random_bool(share.min(1.0))
    }

    fn delay(&mut self) -> Duration {
        let (short, long) = self.faults.delay;
        if long <= short { short } else { self.rng.random_range(short..=long) }
    }

    /// Gives `frames` of the port `from` to everyone who wants them.
    fn pass(&mut self, from: u64, sender: &Sender, frames: &Frames) -> bool {
        if !self.linked(sender) {
            return false;
        }
        let now = Instant::now();
        for i in 0..self.ports.len() {
            let port = &self.ports[i];
            let wants =
                port.id != from && port.subscriptions.iter().any(|s| frames.topic.starts_with(s.as_bytes()));
            let reaches =
                self.linked(&port.sender) && self.apart.contains(sender) == self.apart.contains(&port.sender);
            if !wants || !reaches || self.chance(self.faults.loss) {
                continue;
            }
            let copies = if self.chance(self.faults.doubling) { 2 } else { 1 };
            for _ in 0..copies {
                let mut due = now + self.delay();
                let overtakes = self.chance(self.faults.reordering);
                let port = &mut self.ports[i];
                if !overtakes {
                    due = due.max(port.due);
                    port.due = due;
                }
                let raw = Raw { due: (due > now).then_some(due), frames: frames.clone() };
                // a full queue drops, as libzmq's high-water mark does
                if !port.inlet.put(raw) {
                    one(&port.meter.overrun);
                }
            }
        }
        true
    }
}

/// A publisher's way into the net.
struct MemoryWire {
    net: Net,
    id: u64,
    sender: Sender,
}

impl Wire for MemoryWire {
    fn send(&self, frames: Frames) -> bool {
        self.net.lock().pass(self.id, &self.sender, &frames)
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}
