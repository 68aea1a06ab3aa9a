//! The one who sends orders: repeats them, waits for the answer, and knows when to give up.
//!
//! The pure part is [`xvm_model::Outbox`]; here are its timers and the table of who waits for which answer.

use crate::{Clock, Link, Publisher};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use xvm_model::{
    Body, Boot, ClientName, Code, Command, DomainName, Failure, Mono, Order, Outbox, Reply, Sender, Step,
    Wall,
    outbox::{self, Addressee, BOUND_MS},
};

/// Orders that may be under way at once.
pub const PENDING_MAX: usize = 4096;
/// Answers to one order that wait to be read; more are dropped, since the receiver answers again.
const ANSWERS: usize = 4;

/// Sends orders and waits for their answers. Clones are one client.
///
/// Its owner subscribes to `reply.NAME` and gives each [`Reply`] that it receives to [`Client::deliver`], after it has applied the
/// reply's news: so whoever gets the answer of [`Client::order`] sees what it ordered.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Orders that are under way, by their ids: who was told, and where the answers go.
type Pending = HashMap<Box<str>, (Addressee, mpsc::Sender<Reply>)>;

struct Shared {
    publisher: Publisher,
    name: ClientName,
    clock: Clock,
    /// Counts the orders of this life.
    number: AtomicU64,
    /// Milliseconds that an order may take.
    bound: u64,
    /// Who waits, by the order's id. A plain mutex: held for one look-up, never across an await.
    pending: Mutex<Pending>,
}

impl Client {
    /// A client that speaks through `publisher` and is answered under `reply.NAME`. Its life is the publisher's, so ids of two lives
    /// differ; two clients with one name at once must not be.
    pub fn new(publisher: Publisher, name: ClientName) -> Self {
        Self::with_bound(publisher, name, Duration::from_millis(BOUND_MS))
    }

    /// The same with another bound than 5 s for each order.
    pub fn with_bound(publisher: Publisher, name: ClientName, bound: Duration) -> Self {
        let clock = publisher.clock().clone();
        let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let shared =
            Shared { publisher, name, clock, number: AtomicU64::new(0), bound, pending: Mutex::default() };
        Client { shared: Arc::new(shared) }
    }

    /// Orders something of `to`, whose present life is `boot` and whose last heartbeat showed its wall clock `heard.0` and was
    /// heard at `heard.1` by [`Client::clock`].
    ///
    /// The answer is `Accepted` or `Done`. The failure is the server's, or EHOSTUNREACH at once without a forwarder, ETIMEDOUT when
    /// no answer came within the bound, EBUSY when [`PENDING_MAX`] orders are under way.
    /// Dropping the future stops repeating; the order may be carried out all the same.
    pub async fn order(
        &self,
        to: impl Into<Addressee>,
        boot: Boot,
        heard: (Wall, Mono),
        order: Order,
    ) -> Result<Reply, Failure> {
        let s = &*self.shared;
        if let Link::Down(why) = s.publisher.link() {
            return Err(Failure::new(Code::HostUnreachable, format!("cannot {}: {why}", order.what())));
        }
        let now = s.clock.mono();
        let number = s.number.fetch_add(1, Relaxed) + 1;
        let command = Command {
            id: format!("{}.{}.{number}", s.name, s.publisher.boot().0).into(),
            client: s.name.clone(),
            boot,
            deadline: outbox::deadline(heard, now, s.bound),
            order,
        };
        let to = to.into();
        let (mut answers, _waiting) = self.wait_for(&command, to.clone())?;
        let mut outbox = Outbox::new(command, to, now, s.bound);
        let mut link = s.publisher.watch();
        loop {
            let now = s.clock.mono();
            let up = link.borrow_and_update().is_up();
            let until = match outbox.step(now, up) {
                Step::Ended(end) => return end,
                Step::Send => {
                    let command = Box::new(outbox.command().clone());
                    s.publisher.publish(outbox.to().topic(), Body::Command(command));
                    continue;
                }
                Step::Wait(until) => until,
            };
            let wait = Duration::from_millis(until.since(now));
            let heard = async {
                tokio::select! {
                    Some(reply) = answers.recv() => Some(reply),
                    Ok(()) = link.changed() => None,
                    else => std::future::pending().await,
                }
            };
            if let Ok(Some(reply)) = timeout(wait, heard).await {
                outbox.hear(reply, s.clock.mono());
            }
        }
    }

    /// Gives a reply to who waits for it; one that nobody waits for is dropped.
    pub fn deliver(&self, reply: Reply) {
        let waiting = self.pending().get(&reply.id).map(|(_, waiting)| waiting.clone());
        if let Some(waiting) = waiting {
            // full: the order is asked again and answered again
            drop(waiting.try_send(reply));
        }
    }

    /// The same for a reply that `from` said: a guest answers only what it was told itself, since guests are not trusted.
    pub fn deliver_from(&self, from: &Sender, reply: Reply) {
        let own = |name: &DomainName| {
            let pending = self.pending();
            pending.get(&reply.id).is_some_and(|(to, _)| *to == Addressee::Guest(name.clone()))
        };
        if !matches!(from, Sender::Guest(name) if !own(name)) {
            self.deliver(reply);
        }
    }

    /// The clock that `heard` of [`Client::order`] is compared with.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Whose `reply` topic the answers come under.
    pub fn name(&self) -> &ClientName {
        &self.shared.name
    }

    /// The link now.
    pub fn link(&self) -> Link {
        self.shared.publisher.link()
    }

    /// Orders that are under way.
    pub fn pending_count(&self) -> usize {
        self.pending().len()
    }

    /// Enters an order in the table; it leaves when the guard is dropped.
    fn wait_for(
        &self,
        command: &Command,
        to: Addressee,
    ) -> Result<(mpsc::Receiver<Reply>, Waiting<'_>), Failure> {
        let mut pending = self.pending();
        if pending.len() >= PENDING_MAX {
            return Err(Failure::busy(format!(
                "cannot {}: {PENDING_MAX} orders wait for their answers already; try again later",
                command.order.what()
            )));
        }
        let (sender, receiver) = mpsc::channel(ANSWERS);
        pending.insert(command.id.clone(), (to, sender));
        Ok((receiver, Waiting { client: self, id: command.id.clone() }))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // one insert or one remove at a time: a panic leaves nothing half-made
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes an order out of the table however its future ends.
struct Waiting<'a> {
    client: &'a Client,
    id: Box<str>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.client.pending().remove(&self.id);
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.shared.name)
    }
}
