//! The thread that owns the ZeroMQ sockets of a connection: moves bytes, and knows whether a forwarder is there.
//!
//! ```text
//! publishers --queue--> [ thread ] == XPUB, SUB of each leg ==> forwarders
//! receiver <--queue---- [        ]
//! ```
//! It ends when all publishers and the receiver are gone.

mod leg;

use crate::{
    BusConfig, ConnectError, Link,
    counts::{Meter, add, one},
    publisher::{Frames, Wire},
    queue::{Inlet, Raw},
    wake::{Sleeper, Waker},
};
pub(crate) use leg::set_common;
use leg::{Leg, Read};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Messages that wait to be sent at most.
pub(crate) const OUT_COUNT: usize = 4096;
/// Bytes that wait to be sent at most, one message aside.
const OUT_BYTES: usize = 64 << 20;
/// Messages that are read from one leg before others have their turn.
const BATCH: usize = 256;
/// Between two looks at the clock when nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// The publishers' end of the thread.
pub(crate) struct Outlet {
    // dropped before `end`, so that the thread that is woken sees it closed
    queue: SyncSender<Frames>,
    /// Bytes that wait.
    bytes: Arc<AtomicUsize>,
    /// Where there is no forwarder nothing is queued: it would come late.
    link: watch::Receiver<Link>,
    end: WakeOnDrop,
}

struct WakeOnDrop(Waker);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Wire for Outlet {
    fn send(&self, frames: Frames) -> bool {
        let len = frames.len();
        if !self.link.borrow().is_up() || self.bytes.load(SeqCst) >= OUT_BYTES {
            return false;
        }
        self.bytes.fetch_add(len, SeqCst);
        if self.queue.try_send(frames).is_err() {
            self.bytes.fetch_sub(len, SeqCst);
            return false;
        }
        self.end.0.wake();
        true
    }
}

/// What the thread works with.
pub(crate) struct Thread {
    legs: Vec<Leg>,
    queue: Receiver<Frames>,
    bytes: Arc<AtomicUsize>,
    inlet: Inlet,
    link: watch::Sender<Link>,
    meter: Arc<Meter>,
    sleeper: Sleeper,
    /// Some publisher is left.
    speaking: bool,
}

impl Thread {
    /// The thread's state and the publishers' end of it; the sockets are opened, and connect by themselves.
    pub(crate) fn new(
        config: &BusConfig,
        inlet: Inlet,
        link: watch::Sender<Link>,
        meter: Arc<Meter>,
        (waker, sleeper): (Waker, Sleeper),
    ) -> Result<(Thread, Outlet), ConnectError> {
        let context = zmq::Context::new();
        let mut legs = Vec::new();
        for (i, endpoint) in config.forwarders.iter().enumerate() {
            if config.forwarders[..i].contains(endpoint) {
                continue;
            }
            legs.push(
                Leg::open(&context, endpoint.clone(), &config.subscriptions).map_err(|e| {
                    ConnectError::Socket { endpoint: endpoint.to_string(), why: e.to_string() }
                })?,
            );
        }
        let (sender, queue) = std::sync::mpsc::sync_channel(OUT_COUNT);
        let bytes = Arc::<AtomicUsize>::default();
        let outlet =
            Outlet { queue: sender, bytes: bytes.clone(), link: link.subscribe(), end: WakeOnDrop(waker) };
        Ok((Thread { legs, queue, bytes, inlet, link, meter, sleeper, speaking: true }, outlet))
    }

    /// Runs until nobody speaks or listens any more.
    pub(crate) fn run(mut self) {
        let mut last = Instant::now();
        loop {
            let woken = {
                let mut items = vec![self.sleeper.item()];
                for leg in &self.legs {
                    leg.items(&mut items);
                }
                let wait = self.legs.iter().filter_map(Leg::reopens_in).fold(TICK, Duration::min);
                let wait = i64::try_from(wait.as_millis()).unwrap_or(0) + 1;
                match zmq::poll(&mut items, wait) {
                    Ok(_) | Err(zmq::Error::EINTR) => {}
                    Err(e) => {
                        tracing::error!("the bus's thread ends: cannot poll its sockets: {e}");
                        return;
                    }
                }
                items[0].is_readable()
            };
            if woken {
                self.sleeper.clear();
            }
            let now = Instant::now();
            // we stood still (SIGSTOP, a suspended machine): that silence was ours
            let ours = now.duration_since(last) > TICK * 4;
            last = now;
            for i in 0..self.legs.len() {
                if ours {
                    self.legs[i].forgive(now);
                }
                self.read(i, now);
                self.legs[i].tick(now);
            }
            self.tell();
            self.write();
            if !self.speaking && self.inlet.is_closed() {
                self.legs.iter().for_each(Leg::linger);
                return;
            }
        }
    }

    /// Takes what one leg has.
    fn read(&mut self, i: usize, now: Instant) {
        for _ in 0..BATCH {
            match self.legs[i].read(now) {
                Read::Nothing => return,
                Read::Malformed => one(&self.meter.malformed),
                Read::Message(frames) => {
                    if !self.inlet.put(Raw { due: None, frames }) && !self.inlet.is_closed() {
                        one(&self.meter.overrun);
                    }
                }
            }
        }
    }

    /// Sends what waits to every leg that is up.
    fn write(&mut self) {
        // no more than what waits now, so that reading has its turn
        for _ in 0..OUT_COUNT {
            let frames = match self.queue.try_recv() {
                Ok(frames) => frames,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.speaking = false;
                    return;
                }
            };
            self.bytes.fetch_sub(frames.len(), SeqCst);
            let mut up = self.legs.iter().filter(|leg| leg.is_up());
            let Some(first) = up.next() else {
                add(&self.meter.unsent, 1);
                continue;
            };
            up.for_each(|leg| leg.write(frames.clone()));
            first.write(frames);
        }
    }

    /// Tells the link as it is.
    fn tell(&self) {
        let up = self.legs.iter().any(Leg::is_up);
        let now = if up {
            Link::Up
        } else {
            let why: Vec<String> = self.legs.iter().map(Leg::why).collect();
            Link::Down(why.join("; "))
        };
        self.link.send_if_modified(|link| {
            let changed = link.is_up() != up;
            if changed && up {
                one(&self.meter.links);
            }
            if *link != now {
                *link = now;
            }
            changed
        });
    }
}
