//! The receiving half of a connection.
//!
//! JSON is read here, in the receiver's own task: the sockets' thread only moves bytes.

use crate::{
    Clock, Counts, GuestKeys, Incoming, Link, counts::Meter, inbox::Inbox, publisher::Frames, queue::Outlet,
};
use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use xvm_model::{Boot, Sender};

/// Hears the bus.
pub struct Receiver {
    /// Raw messages.
    outlet: Outlet,
    /// The link's changes.
    link: watch::Receiver<Link>,
    /// The checks.
    inbox: Inbox,
    /// Messages that the in-memory net delays, by the moment of their delivery.
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// Numbers the delayed, so that equal moments keep their order.
    number: u64,
    /// For the memory of senders.
    clock: Clock,
    /// Shared with the publisher.
    meter: Arc<Meter>,
    /// No more raw messages come.
    ended: bool,
}

/// A message that is on its way.
struct Delayed {
    due: Instant,
    number: u64,
    frames: Frames,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Delayed {}
impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl Receiver {
    pub(crate) fn new(
        outlet: Outlet,
        link: watch::Receiver<Link>,
        subscriptions: &[String],
        own: (Sender, Boot),
        clock: Clock,
        meter: Arc<Meter>,
    ) -> Self {
        Receiver {
            outlet,
            link,
            inbox: Inbox::new(subscriptions, own, meter.clone()),
            delayed: BinaryHeap::new(),
            number: 0,
            clock,
            meter,
            ended: false,
        }
    }

    /// The same receiver, which believes guests that have a key only what they have signed.
    pub fn checking(mut self, keys: GuestKeys) -> Receiver {
        self.inbox.check_with(keys);
        self
    }

    /// What comes next; none when the sockets' thread has ended. Cancel-safe: a future that is dropped loses nothing.
    pub async fn recv(&mut self) -> Option<Incoming> {
        loop {
            let due = self.delayed.peek().map(|d| d.0.due);
            let frames = tokio::select! {
                biased;
                Ok(()) = self.link.changed() => {
                    return Some(Incoming::Link(self.link.borrow_and_update().clone()));
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    match self.delayed.pop() {
                        Some(Reverse(d)) => d.frames,
                        None => continue,
                    }
                }
                raw = self.outlet.take(), if !self.ended => match raw {
                    None => { self.ended = true; continue }
                    Some(raw) => match raw.due {
                        None => raw.frames,
                        Some(due) => {
                            self.number += 1;
                            self.delayed.push(Reverse(Delayed { due, number: self.number, frames: raw.frames }));
                            continue;
                        }
                    },
                },
                else => return None,
            };
            if let Some(incoming) = self.inbox.accept(&frames, self.clock.mono()) {
                return Some(incoming);
            }
        }
    }

    /// The link now, without waiting for its change.
    pub fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// The counters now, of this receiver and its publisher.
    pub fn counts(&self) -> Counts {
        self.meter.read()
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}
