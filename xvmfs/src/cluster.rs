//! What the mount knows: the view and what else it heard, and the task that feeds them from the bus.
//!
//! Readers take the latest view as an immutable value; the one task that applies messages publishes a new one after each. A reply's
//! news is applied before the one who waits for the reply is woken: who orders a pause reads `paused` from then on.

use crate::refusals::Refusals;
use crate::row::{Place, Scene, Subject};
use crate::schedules::Schedules;
use crate::stream::Streams;
use crate::tops::Tops;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use xvm_bus::{Client, Clock, GuestKeys, Incoming, Link, Publisher, Receiver};
use xvm_model::event::WRONG;
use xvm_model::history::{Histories, arrival};
use xvm_model::{
    About, Body, Counters, Domain, DomainChange, DomainName, Envelope, Event, Failure, Mono, News, Now,
    PublicKey, Sender, ServerName, Topic, View,
};

/// When roll-calls are sent after a forwarder is found, in milliseconds: our side to the publishers may connect later than the side
/// that hears.
const ROLL_CALLS: [u64; 4] = [0, 100, 400, 1500];

/// The state of a mount.
pub struct Cluster {
    /// The latest view.
    view: ArcSwap<View>,
    /// Counts the views; who waits for a change subscribes.
    changed: watch::Sender<u64>,
    /// This process's time.
    clock: Clock,
    /// To the bus.
    publisher: Publisher,
    /// Sends orders and waits for their replies.
    client: Client,
    /// The addresses of the forwarders, for sentences.
    forwarders: String,
    /// A plain mutex: held for a few lines, never across an await.
    histories: Mutex<Histories>,
    /// What forwarders said of themselves, and when.
    counters: Mutex<BTreeMap<ServerName, (Counters, Mono)>>,
    /// How many moves were heard of, by order and by a round of help.
    moves: [AtomicU64; 2],
    /// The last refusal of each directory.
    refusals: Mutex<Refusals>,
    /// Held while a domain that stays apart from others is sent away, until the answer says where to.
    pub(crate) parting: tokio::sync::Mutex<()>,
    /// Open `events` files.
    streams: Streams,
    /// Guests whose processes are read.
    tops: Tops,
    /// With which guests sign what they say, for the receiver.
    guest_keys: GuestKeys,
    /// Schedules of tests.
    schedules: Schedules,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what these mutexes hold is whole between any two statements, so a panic elsewhere does not spoil it
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// An empty cluster that speaks through `publisher` and `client`; `forwarders` are the addresses, for sentences.
    pub fn new(publisher: Publisher, client: Client, clock: Clock, forwarders: String) -> Arc<Self> {
        Self::with_schedules(publisher, client, clock, forwarders, Schedules::default())
    }

    /// The same with schedules of tests that were kept.
    pub fn with_schedules(
        publisher: Publisher,
        client: Client,
        clock: Clock,
        forwarders: String,
        schedules: Schedules,
    ) -> Arc<Self> {
        Arc::new(Cluster {
            view: ArcSwap::from_pointee(View::default()),
            changed: watch::Sender::new(0),
            clock,
            publisher,
            client,
            forwarders,
            histories: Mutex::default(),
            counters: Mutex::default(),
            moves: Default::default(),
            refusals: Mutex::default(),
            parting: tokio::sync::Mutex::default(),
            streams: Streams::default(),
            tops: Tops::default(),
            guest_keys: GuestKeys::default(),
            schedules,
        })
    }

    /// The latest view.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// This moment.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Wakes at each new view.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Open `events` files.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Guests whose processes are read.
    pub fn tops(&self) -> &Tops {
        &self.tops
    }

    /// Schedules of tests.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// Wakes who waits for a change: of something that no view holds.
    pub fn touch(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Days of load.
    pub fn histories(&self) -> MutexGuard<'_, Histories> {
        locked(&self.histories)
    }

    /// The last refusals.
    pub fn refusals(&self) -> MutexGuard<'_, Refusals> {
        locked(&self.refusals)
    }

    /// What forwarders said of themselves, and when.
    pub fn forwarder_counters(&self) -> Vec<(ServerName, Counters, Mono)> {
        locked(&self.counters).iter().map(|(n, (c, at))| (n.clone(), *c, *at)).collect()
    }

    /// The bus, for its link and its own counters.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Sends orders.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Keeps a refusal for the file `error` of its directory.
    pub fn refuse(&self, place: &Place, failure: Failure) -> Failure {
        let wall = self.clock.now().wall;
        self.refusals().keep(place.clone(), wall, failure.clone());
        failure
    }

    /// One line about the bus: where, whether it is there, and that it is not protected.
    pub fn bus_sentence(&self) -> String {
        let link = match self.publisher.link() {
            Link::Up => "up".to_owned(),
            Link::Down(why) => format!("down ({why})"),
        };
        let protected = locked(&self.counters).values().all(|(c, _)| c.protected);
        let protection = if protected && self.view().link_up() {
            ""
        } else {
            ", NOT PROTECTED: no keys, for trusted networks only"
        };
        format!("bus {} {link}{protection}", self.forwarders)
    }

    /// One moment of a place; `None` when there is no such thing.
    pub fn scene(&self, place: &Place) -> Option<Scene<'_>> {
        let (view, now) = (self.view(), self.now());
        let thing = match place {
            Place::Cluster => Subject::Cluster,
            Place::Server(name) => Subject::Server(view.server(name.as_str())?.clone()),
            Place::Domain(name) => Subject::Domain(Box::new(view.domain(name.as_str(), now.mono)?)),
            Place::Guest(name) => Subject::Guest(name.clone(), view.guest(name.as_str(), now.mono)?.clone()),
            Place::Round(id) => Subject::Round(view.round(id)?.clone()),
            Place::Config(name) => Subject::Config(view.config(name.as_str())?.clone()),
            Place::Test(name) => Subject::Test(Box::new(self.schedules.get(name.as_str())?)),
        };
        Some(Scene { cluster: self, view, now, thing })
    }

    /// Applies what the bus says until `shutdown`.
    pub async fn feed(&self, receiver: Receiver, shutdown: impl Future<Output = ()>) {
        let mut receiver = receiver.checking(self.guest_keys.clone());
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut calls: Vec<Mono> = Vec::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = tick.tick() => {
                    self.change(|view, now| view.tick(now));
                    if self.clock.now().mono.0 % 3_600_000 < 250 {
                        let wall = self.clock.now().wall;
                        self.histories().forget(wall);
                    }
                }
                () = until(&self.clock, calls.first().copied()) => {
                    calls.remove(0);
                    self.roll_call();
                }
                incoming = receiver.recv() => match incoming {
                    None => return,
                    Some(Incoming::Link(link)) => {
                        let (up, why) = match link {
                            Link::Up => (true, String::new()),
                            Link::Down(why) => (false, why),
                        };
                        let mono = self.clock.now().mono;
                        calls = if up { ROLL_CALLS.iter().map(|ms| mono.plus(*ms)).collect() } else { Vec::new() };
                        self.change(|view, now| view.link(up, &why, now));
                    }
                    Some(Incoming::Message { envelope, .. }) => self.hear(envelope),
                    Some(Incoming::Flood(name)) => self.change(|view, now| view.guest_floods(&name, now)),
                    Some(Incoming::Forged(name)) => self.change(|view, now| view.guest_forged(&name, now)),
                },
            }
        }
    }

    /// Asks every daemon for a heartbeat.
    pub fn roll_call(&self) {
        self.publisher.publish(Topic::RollCall, Body::RollCall);
    }

    fn hear(&self, envelope: Envelope) {
        self.note_arrivals(&envelope);
        let images = matches!(envelope.from, Sender::Images(_));
        self.take_in(envelope);
        if images {
            self.learn_keys();
        }
    }

    /// Takes the guests' keys from what imaged says. A guest that was believed without its key is forgotten, and asked anew.
    fn learn_keys(&self) {
        let (view, mut anew) = (self.view(), false);
        let keys: Vec<(DomainName, PublicKey)> =
            view.configs().filter_map(|c| Some((c.record.name.domain(), c.record.guest_key?))).collect();
        for (name, key) in &keys {
            anew |= self.guest_keys.get(name) != Some(*key)
                && view.domain(name.as_str(), self.now().mono).is_some();
        }
        self.guest_keys.set(keys);
        if anew {
            self.roll_call();
        }
    }

    fn take_in(&self, envelope: Envelope) {
        match (&envelope.from, &envelope.body) {
            (Sender::Forwarder(name), Body::Forwarder(counters)) => {
                let mut known = locked(&self.counters);
                if known.len() < 64 || known.contains_key(name) {
                    known.insert(name.clone(), (*counters, self.clock.now().mono));
                }
            }
            (from, Body::Reply(reply)) => {
                let (from, reply) = (from.clone(), (**reply).clone());
                self.change(|view, now| view.apply(envelope, now));
                self.client.deliver_from(&from, reply);
            }
            // they are for those who read them now; a view that keeps them would be copied each second
            (Sender::Guest(name), Body::GuestTop(_)) => {
                let (name, wall) = (name.clone(), self.clock.now().wall);
                if let Body::GuestTop(top) = envelope.body {
                    self.tops.put(&name, *top, wall);
                }
            }
            (Sender::Agent(name), Body::Heartbeat(beat)) => {
                let wall = self.clock.now().wall;
                let mut histories = self.histories();
                histories.server(name, beat.load(), wall);
                for domain in beat.domains.iter().filter(|d| d.state.is_active()) {
                    histories.domain(&domain.name, domain.load, wall);
                }
                drop(histories);
                self.change(|view, now| view.apply(envelope, now));
            }
            _ => self.change(|view, now| view.apply(envelope, now)),
        }
    }

    /// Writes down which domains came to the sender from another server. What its record said before is not looked up in all moves.
    fn note_arrivals(&self, envelope: &Envelope) {
        let Sender::Agent(name) = &envelope.from else { return };
        let view = self.view();
        let server = view.server(name.as_str());
        for domain in records(&envelope.body) {
            let Some(came) = arrival(domain, name) else { continue };
            let known = server.and_then(|s| s.domain(&domain.name));
            if known.and_then(|d| arrival(d, name)) != Some(came)
                && self.histories().moved(&domain.name, name, came)
                && server.is_some()
            {
                self.moves[usize::from(came.round.is_some())].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Moves that were heard of since the mount, by order and by a round of help.
    pub fn moves(&self) -> [u64; 2] {
        [0, 1].map(|i: usize| self.moves[i].load(Ordering::Relaxed))
    }

    /// What is wrong with a config's file stands in its `error` as a refusal does.
    fn note_wrong(&self, event: &Event) {
        if let (About::Config(name), Some(why)) = (&event.about, event.text.strip_prefix(WRONG)) {
            let failure = Failure::invalid(format!("the file of {name} is not used as it is: {why}"));
            self.refusals().keep(Place::Config(name.clone()), event.at, failure);
        }
    }

    /// Publishes a changed view and tells its events.
    fn change(&self, f: impl FnOnce(&mut View, Now) -> Vec<Event>) {
        let mut view = (**self.view.load()).clone();
        let events = f(&mut view, self.clock.now());
        self.view.store(Arc::new(view));
        events.iter().for_each(|e| self.note_wrong(e));
        self.streams.tell(&events);
        self.touch();
    }
}

/// The records of domains in a message.
fn records(body: &Body) -> &[Domain] {
    let change = match body {
        Body::Heartbeat(beat) => return &beat.domains,
        Body::Domain(change) => change,
        Body::Reply(reply) => match &reply.news {
            Some(News::Domain { change }) => change,
            Some(News::Server { heartbeat }) => return &heartbeat.domains,
            Some(News::Config { .. } | News::Guest { .. }) | None => return &[],
        },
        _ => return &[],
    };
    match &**change {
        DomainChange::Is { domain } => std::slice::from_ref(domain),
        DomainChange::Gone { .. } | DomainChange::Departed { .. } => &[],
    }
}

async fn until(clock: &Clock, at: Option<Mono>) {
    match at {
        Some(at) => tokio::time::sleep(Duration::from_millis(at.since(clock.now().mono))).await,
        None => std::future::pending().await,
    }
}
