//! The sending half of a connection.

use crate::keys::SIGNATURE;
use crate::{
    Clock, Counts, Link, SecretKey,
    counts::{Meter, one},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::sync::watch;
use xvm_model::{
    Body, Boot, Envelope, Sender, Topic,
    message::{MESSAGE_MAX, VERSION},
};

/// One message as it travels: two frames.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    /// The topic frame.
    pub(crate) topic: Vec<u8>,
    /// The envelope's JSON.
    pub(crate) body: Vec<u8>,
}

impl Frames {
    /// Bytes of both.
    pub(crate) fn len(&self) -> usize {
        self.topic.len() + self.body.len()
    }
}

/// Where a publisher puts its messages: the sockets' thread, or the in-memory net.
pub(crate) trait Wire: Send + Sync {
    /// Takes a message or drops it (false); never waits.
    fn send(&self, frames: Frames) -> bool;
}

/// Says things on the bus. Clones are one publisher: they share sender, life and numbers.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// Signs what it says.
    secret: Option<Arc<SecretKey>>,
}

struct Shared {
    /// Who speaks.
    sender: Sender,
    /// Its life.
    boot: Boot,
    /// Counts its messages.
    seq: AtomicU64,
    /// For the time stamps.
    clock: Clock,
    /// Shared with the receiver and the sockets' thread.
    meter: Arc<Meter>,
    /// The link as the sockets' thread sees it.
    link: watch::Receiver<Link>,
    /// Takes the frames.
    wire: Box<dyn Wire>,
}

impl Publisher {
    pub(crate) fn new(
        (sender, boot): (Sender, Boot),
        clock: Clock,
        meter: Arc<Meter>,
        link: watch::Receiver<Link>,
        wire: Box<dyn Wire>,
    ) -> Self {
        Publisher {
            shared: Arc::new(Shared { sender, boot, seq: AtomicU64::new(0), clock, meter, link, wire }),
            secret: None,
        }
    }

    /// The same publisher, which signs what it says from now on.
    pub fn signing(self, secret: SecretKey) -> Publisher {
        Publisher { secret: Some(Arc::new(secret)), ..self }
    }

    /// Says `body` under `topic`. Never waits: what cannot be taken (full queue, no forwarder, longer than
    /// [`MESSAGE_MAX`]) is dropped and counted, since state is repeated and orders are answered.
    pub fn publish(&self, topic: Topic, body: Body) {
        let s = &*self.shared;
        let envelope = Envelope {
            v: VERSION,
            from: s.sender.clone(),
            boot: s.boot,
            seq: s.seq.fetch_add(1, Relaxed) + 1,
            at: s.clock.now().wall,
            body,
        };
        let sent = match serde_json::to_vec(&envelope) {
            Ok(body) if body.len() <= MESSAGE_MAX - SIGNATURE => {
                let name = topic.to_string().into_bytes();
                let body = match &self.secret {
                    Some(secret) => secret.sign(&name, body),
                    None => body,
                };
                s.wire.send(Frames { topic: name, body })
            }
            Ok(body) => {
                tracing::warn!(
                    "cannot publish {topic}: {} bytes; at most {MESSAGE_MAX} are allowed",
                    body.len()
                );
                false
            }
            Err(e) => {
                tracing::warn!("cannot publish {topic}: {e}");
                false
            }
        };
        one(if sent { &s.meter.sent } else { &s.meter.unsent });
    }

    /// The link now.
    pub fn link(&self) -> Link {
        self.shared.link.borrow().clone()
    }

    /// Waits until the link is up.
    pub async fn up(&self) {
        // an error means that the sockets' thread is gone: then it never comes up
        if self.shared.link.clone().wait_for(Link::is_up).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The link's changes.
    pub fn watch(&self) -> watch::Receiver<Link> {
        self.shared.link.clone()
    }

    /// The counters now, of this publisher and its receiver.
    pub fn counts(&self) -> Counts {
        self.shared.meter.read()
    }

    /// Who speaks.
    pub fn sender(&self) -> &Sender {
        &self.shared.sender
    }

    /// Its life.
    pub fn boot(&self) -> Boot {
        self.shared.boot
    }

    /// The clock that its messages are stamped with.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publisher({})", self.shared.sender)
    }
}
