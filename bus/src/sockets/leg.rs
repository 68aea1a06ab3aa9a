//! The sockets towards one forwarder.
//!
//! ```text
//!             subscription seen (it hears us)
//!             and beacon heard (we hear it)           connection lost, or 3 s without a word
//! [connecting] ----------------------------> [up] ----------------------------------------> [down]
//!      ^                                                                                       |
//!      +------------- new sockets: nothing that waited in the old ones comes late -------------+
//! ```
//! Publishers usually own a PUB. Ours is an XPUB, which shows the forwarder's subscriptions: only then does a message arrive there.

use crate::{Endpoint, publisher::Frames};
use std::time::{Duration, Instant};
use xvm_model::message::MESSAGE_MAX;
use zmq::{Context, DONTWAIT, Message, PollItem, SNDMORE, Socket, SocketEvent};

/// Without a word for so long (a forwarder speaks each second) there is no forwarder.
const SILENCE: Duration = Duration::from_secs(3);
/// Sockets that do not get a connection are made anew after this, so that a name is looked up again and v6 has its turn.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Between two makings of sockets.
const PAUSE: Duration = Duration::from_millis(100);
/// The topic of forwarders.
const BEACON: &[u8] = b"forwarder.";
/// The events that are watched.
const EVENTS: i32 = SocketEvent::DISCONNECTED as i32
    | SocketEvent::CONNECT_RETRIED as i32
    | SocketEvent::HANDSHAKE_FAILED_NO_DETAIL as i32
    | SocketEvent::HANDSHAKE_FAILED_PROTOCOL as i32
    | SocketEvent::HANDSHAKE_FAILED_AUTH as i32;

/// What a read gave.
pub(super) enum Read {
    /// Nothing waits.
    Nothing,
    /// Something that is not two frames.
    Malformed,
    /// A message.
    Message(Frames),
}

/// One forwarder as this connection sees it.
pub(super) struct Leg {
    context: Context,
    endpoint: Endpoint,
    subscriptions: Vec<String>,
    /// None between a loss and the next attempt.
    sockets: Option<Sockets>,
    /// When they were made, or lost.
    since: Instant,
    /// Counts the sockets that were made.
    attempt: u64,
    /// When anything was heard last.
    heard: Instant,
    /// A beacon was heard since.
    beacon: bool,
    /// Subscriptions of the forwarder that we know.
    wanted: i64,
    /// Why it is not up.
    why: &'static str,
}

struct Sockets {
    out: Socket,
    sub: Socket,
    /// Tell what happens to the connections of `out` and `sub`.
    monitors: [Socket; 2],
    /// Names the monitors; no two are alike in one context.
    name: String,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // libzmq's own thread waits for ever when it tells an event to a monitor that was closed; the one way to end monitoring that
        // this binding has is to begin another one, of no events
        for (socket, side) in [(&self.out, "out"), (&self.sub, "sub")] {
            if let Err(e) = socket.monitor(&format!("inproc://{side}-off-{}", self.name), 0) {
                tracing::error!("cannot end the watch over {}: {e}", self.name);
            }
        }
    }
}

impl Sockets {
    fn new(
        context: &Context,
        endpoint: &Endpoint,
        subscriptions: &[String],
        attempt: u64,
    ) -> zmq::Result<Self> {
        let out = context.socket(zmq::XPUB)?;
        let sub = context.socket(zmq::SUB)?;
        // a name may have addresses of both families, and libzmq takes one of them: try v4 first, then v6, and so on
        let v6 = match endpoint {
            Endpoint::Tcp { host, .. } if host.contains(':') => true,
            Endpoint::Tcp { host, .. } => {
                host.parse::<std::net::Ipv4Addr>().is_err() && attempt.is_multiple_of(2)
            }
            Endpoint::Ipc { .. } => false,
        };
        for socket in [&out, &sub] {
            set_common(socket)?;
            socket.set_ipv6(v6)?;
            socket.set_reconnect_ivl(50)?;
            socket.set_reconnect_ivl_max(500)?;
        }
        let name = format!("{attempt}-{endpoint}");
        let mut monitors = Vec::new();
        for (socket, side) in [(&out, "out"), (&sub, "sub")] {
            // a name of its own for each attempt: the old monitor goes away in its own time
            let name = format!("inproc://{side}-{name}");
            socket.monitor(&name, EVENTS)?;
            let monitor = context.socket(zmq::PAIR)?;
            monitor.set_linger(0)?;
            monitor.connect(&name)?;
            monitors.push(monitor);
        }
        let [a, b] = <[Socket; 2]>::try_from(monitors).map_err(|_| zmq::Error::EFAULT)?;
        let sockets = Sockets { out, sub, monitors: [a, b], name };
        sockets.out.connect(&endpoint.publish())?;
        sockets.sub.connect(&endpoint.subscribe())?;
        for prefix in subscriptions {
            sockets.sub.set_subscribe(prefix.as_bytes())?;
        }
        // the last one: when the forwarder answers it with its beacon, it knows the others too
        sockets.sub.set_subscribe(BEACON)?;
        Ok(sockets)
    }
}

/// What all sockets of the bus have in common.
pub(crate) fn set_common(socket: &Socket) -> zmq::Result<()> {
    const HIGH_WATER: i32 = 4000;
    socket.set_linger(0)?;
    socket.set_sndhwm(HIGH_WATER)?;
    socket.set_rcvhwm(HIGH_WATER)?;
    socket.set_heartbeat_ivl(1_000)?;
    socket.set_heartbeat_timeout(3_000)?;
    socket.set_handshake_ivl(3_000)?;
    // longer ones than MESSAGE_MAX are counted and dropped; the sender of one that is longer still is cut off before it is read
    socket.set_maxmsgsize(i64::try_from(4 * MESSAGE_MAX).unwrap_or(i64::MAX))
}

impl Leg {
    /// A leg that connects by itself.
    pub(super) fn open(context: &Context, endpoint: Endpoint, subscriptions: &[String]) -> zmq::Result<Leg> {
        let now = Instant::now();
        Ok(Leg {
            sockets: Some(Sockets::new(context, &endpoint, subscriptions, 1)?),
            context: context.clone(),
            endpoint,
            subscriptions: subscriptions.to_vec(),
            since: now,
            attempt: 1,
            heard: now,
            beacon: false,
            wanted: 0,
            why: "not heard yet",
        })
    }

    /// What the thread waits for.
    pub(super) fn items<'a>(&'a self, items: &mut Vec<PollItem<'a>>) {
        if let Some(s) = &self.sockets {
            for socket in [&s.out, &s.sub, &s.monitors[0], &s.monitors[1]] {
                items.push(socket.as_poll_item(zmq::POLLIN));
            }
        }
    }

    /// How long until sockets are made anew, when there are none.
    pub(super) fn reopens_in(&self) -> Option<Duration> {
        self.sockets.is_none().then(|| PAUSE.saturating_sub(self.since.elapsed()))
    }

    /// Whether it hears us and we hear it.
    pub(super) fn is_up(&self) -> bool {
        self.sockets.is_some() && self.beacon && self.wanted > 0
    }

    /// Why it is not up, as a sentence.
    pub(super) fn why(&self) -> String {
        format!("no forwarder at {}: {}", self.endpoint, self.why)
    }

    /// Reads one message.
    pub(super) fn read(&mut self, now: Instant) -> Read {
        let Some(s) = &self.sockets else { return Read::Nothing };
        let mut topic = Message::new();
        if s.sub.recv(&mut topic, DONTWAIT).is_err() {
            return Read::Nothing;
        }
        let mut body = Message::new();
        let mut more = topic.get_more();
        let mut frames = 1;
        while more {
            // the frames of a message arrive together
            if s.sub.recv(&mut body, DONTWAIT).is_err() {
                break;
            }
            frames += 1;
            more = body.get_more();
        }
        self.heard = now;
        self.beacon |= topic.starts_with(BEACON);
        if frames == 2 {
            Read::Message(Frames { topic: topic.to_vec(), body: body.to_vec() })
        } else {
            Read::Malformed
        }
    }

    /// Sends one message; beyond the high-water mark libzmq drops it.
    pub(super) fn write(&self, frames: Frames) {
        if let Some(s) = &self.sockets
            && s.out.send(frames.topic, DONTWAIT | SNDMORE).is_ok()
        {
            // an XPUB never refuses the second frame of what it took
            s.out.send(frames.body, DONTWAIT).ok();
        }
    }

    /// Looks at subscriptions, connections and the clock.
    pub(super) fn tick(&mut self, now: Instant) {
        let Some(s) = &self.sockets else {
            if now.duration_since(self.since) >= PAUSE {
                self.reopen(now);
            }
            return;
        };
        let mut frame = Message::new();
        while s.out.recv(&mut frame, DONTWAIT).is_ok() {
            match frame.first() {
                Some(1) => self.wanted += 1,
                Some(0) => self.wanted = (self.wanted - 1).max(0),
                _ => {}
            }
        }
        let mut lost = false;
        for monitor in &s.monitors {
            while monitor.recv(&mut frame, DONTWAIT).is_ok() {
                // the first frame: event (16 bits of this machine), value (32 bits); then the address
                if let [a, b, _, _, _, _] = frame[..] {
                    if i32::from(u16::from_ne_bytes([a, b])) == SocketEvent::CONNECT_RETRIED as i32 {
                        self.why =
                            if self.why == "not heard yet" { "nothing listens there" } else { self.why };
                    } else {
                        lost = true;
                    }
                }
                if frame.get_more() {
                    monitor.recv(&mut frame, DONTWAIT).ok();
                }
            }
        }
        if lost {
            let heard = self.beacon;
            self.close(
                now,
                if heard { "the connection was lost" } else { "what listens there is no xvm-forwarder" },
            );
        } else if self.beacon && now.duration_since(self.heard) >= SILENCE {
            // the same sockets go on: when it wakes up, it is heard at once
            self.beacon = false;
            self.since = now;
            self.why = "it is silent for 3 s";
        } else if !self.is_up() && now.duration_since(self.since) >= ATTEMPT {
            self.reopen(now);
        }
    }

    /// We stood still, so the silence until now says nothing.
    pub(super) fn forgive(&mut self, now: Instant) {
        self.heard = now;
    }

    /// What was sent just before the end may still leave, for a tenth of a second.
    pub(super) fn linger(&self) {
        if let Some(s) = &self.sockets {
            s.out.set_linger(100).ok();
        }
    }

    fn close(&mut self, now: Instant, why: &'static str) {
        self.sockets = None;
        self.since = now;
        self.beacon = false;
        self.wanted = 0;
        self.why = why;
    }

    fn reopen(&mut self, now: Instant) {
        self.close(now, self.why);
        self.attempt += 1;
        match Sockets::new(&self.context, &self.endpoint, &self.subscriptions, self.attempt) {
            Ok(sockets) => self.sockets = Some(sockets),
            // no descriptors left, perhaps: tried again after the pause
            Err(e) => tracing::warn!("cannot connect to {}: {e}", self.endpoint),
        }
    }
}
