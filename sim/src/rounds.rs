//! Rounds of help in simulated time: the very negotiation that agents run, over a wire on which a message takes a millisecond and
//! reaches all. Nothing is lost here; what happens then is tested in the model.
//!
//! ```text
//!   Ask(server) --the rule wants help, none runs--> step(Ask) --> Say to all, a millisecond later step(Heard) of who minds it
//!   step --> Move: on its way for the time that a move takes; the helper has it on board, the asker still serves it
//!        --> Tick: at Negotiation::due
//! ```

use crate::Figures;
use crate::cluster::{Place, Setup};
use rand::{Rng, rngs::StdRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use xvm_model::negotiation::{Effect, End, Input, RoundId, Say, spread_ms};
use xvm_model::policy::{Engine, Guest, Host};
use xvm_model::{DomainName, Mono, Now, ServerName, Wall, negotiation::Negotiation};

/// How long a message takes, in milliseconds.
const WIRE_MS: u64 = 1;
/// How often a server that may not ask yet looks again, in milliseconds.
const AGAIN_MS: u64 = 5_000;
/// A move back within this time undoes the one before it, in milliseconds.
const UNDONE_MS: u64 = 30 * 60_000;

/// A server in the replay.
pub struct Server {
    /// What its agent knows.
    pub host: Host,
    /// Its rule. None: no balancing.
    pub engine: Option<Engine>,
    talk: Negotiation,
    /// When its next tick is in the queue.
    tick: Option<u64>,
    /// Since which sample it is overloaded.
    pub hot: Option<usize>,
}

impl Server {
    /// A server in the first life of its agent.
    pub fn new(host: Host, engine: Option<Engine>) -> Self {
        let talk = Negotiation::new(host.name.clone(), 1, Mono(0), false);
        Server { host, engine, talk, tick: None, hot: None }
    }
}

/// What is going to happen.
enum Event {
    Ask { server: usize, until: u64 },
    Said { from: usize, say: Rc<Say> },
    Tick { server: usize },
    Arrive { round: RoundId, from: usize, to: usize, domain: DomainName },
}

/// Where a domain came from, and when.
#[derive(Clone, Copy)]
struct Trail {
    from: usize,
    at: u64,
}

/// All servers, and what is on its way between them.
pub struct Rounds {
    /// The servers, in the order of their numbers.
    pub servers: Vec<Server>,
    index: HashMap<ServerName, usize>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    /// Events so far: of one millisecond the earlier goes first.
    count: u64,
    /// Messages of each round that runs, and of those that ended in this sample.
    said: HashMap<RoundId, (u64, Option<End>)>,
    trails: HashMap<DomainName, Trail>,
    move_ms: u64,
    now: u64,
}

impl Rounds {
    /// Nothing goes on yet.
    pub fn new(servers: Vec<Server>, setup: &Setup) -> Self {
        Rounds {
            index: servers.iter().enumerate().map(|(s, server)| (server.host.name.clone(), s)).collect(),
            servers,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            count: 0,
            said: HashMap::new(),
            trails: HashMap::new(),
            move_ms: (setup.move_s * 1000.0) as u64,
            now: 0,
        }
    }

    /// From the sample at `begin` to the one at `end`: each server may ask once, in the given order, spread over the first half.
    pub fn unit(
        &mut self,
        order: &[usize],
        begin: u64,
        end: u64,
        place: &Place,
        rng: &mut StdRng,
        figures: &mut Figures,
    ) {
        let half = (end - begin) / 2;
        for (k, &server) in order.iter().enumerate() {
            let when = begin + half * k as u64 / order.len() as u64;
            self.push(when, Event::Ask { server, until: end });
        }
        while let Some(&Reverse((when, _, slot))) = self.queue.peek()
            && when < end
        {
            self.queue.pop();
            self.free.push(slot);
            self.now = when;
            match self.events[slot].take() {
                Some(Event::Ask { server, until }) => self.ask(server, until, place, rng, figures),
                Some(Event::Said { from, say }) => self.said(from, &say, end, place, rng, figures),
                Some(Event::Tick { server }) => {
                    self.servers[server].tick = None;
                    self.step(server, Input::Tick, end, place, rng, figures);
                }
                Some(Event::Arrive { round, from, to, domain }) => {
                    self.arrive(from, to, &domain, figures);
                    let result = Ok(domain.to_string().into());
                    self.step(from, Input::Moved { round, result }, end, place, rng, figures);
                }
                None => {}
            }
        }
        self.said.retain(|_, (count, ended)| {
            match ended {
                Some(End::Moved) => figures.messages.0 += *count,
                Some(_) => figures.messages.1 += *count,
                None => {}
            }
            ended.is_none()
        });
    }

    fn push(&mut self, when: u64, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.count += 1;
        self.queue.push(Reverse((when, self.count, slot)));
    }

    fn ask(&mut self, s: usize, until: u64, place: &Place, rng: &mut StdRng, figures: &mut Figures) {
        let server = &mut self.servers[s];
        let (Some(engine), now) = (&server.engine, Mono(self.now)) else { return };
        if !server.talk.may_ask(now) {
            if self.now + AGAIN_MS < until {
                self.push(self.now + AGAIN_MS, Event::Ask { server: s, until });
            }
            return;
        }
        match engine.ask(&server.host, now) {
            Some(request) => {
                figures.requests += 1;
                self.step(s, Input::Ask(Box::new(request)), until, place, rng, figures);
            }
            None if engine.policy.pain(&server.host, now).is_none() => server.talk.calm(),
            None => {}
        }
    }

    fn said(
        &mut self,
        from: usize,
        say: &Say,
        end: u64,
        place: &Place,
        rng: &mut StdRng,
        figures: &mut Figures,
    ) {
        let name = self.servers[from].host.name.clone();
        for s in 0..self.servers.len() {
            if s != from && self.servers[s].talk.minds(say) {
                let input = Input::Heard { from: name.clone(), say: say.clone() };
                self.step(s, input, end, place, rng, figures);
            }
        }
    }

    fn step(
        &mut self,
        s: usize,
        input: Input,
        end: u64,
        place: &Place,
        rng: &mut StdRng,
        figures: &mut Figures,
    ) {
        let spread = spread_ms(self.servers.len());
        let server = &mut self.servers[s];
        let Some(engine) = &server.engine else { return };
        let now = Now { mono: Mono(self.now), wall: Wall(self.now) };
        let effects = server.talk.step(input, engine, &server.host, now, rng.random_range(0..=spread));
        if let Some(due) = server.talk.due()
            && server.tick.is_none_or(|tick| tick > due.0)
        {
            server.tick = Some(due.0);
            self.push(due.0.max(self.now + 1), Event::Tick { server: s });
        }
        for effect in effects {
            match effect {
                Effect::Say(say) => {
                    if let Some(round) = say.round() {
                        self.said.entry(round.clone()).or_default().0 += 1;
                    }
                    self.push(self.now + WIRE_MS, Event::Said { from: s, say: Rc::new(say) });
                }
                Effect::Move { round, domain, to, .. } => {
                    let to = self.index[&to];
                    if let Some(guest) = self.servers[s].host.guests.iter_mut().find(|g| g.name == domain) {
                        guest.movable = false;
                        let coming = Guest { arrived: None, ..guest.clone() };
                        self.servers[to].host.reserved.push(coming);
                    }
                    figures.moving += 0.1 * place.load(&domain) * self.move_ms as f64 / 3_600_000.0;
                    // it arrives before the next sample
                    let when = (self.now + self.move_ms).min(end - 1);
                    self.push(when, Event::Arrive { round, from: s, to, domain });
                }
                Effect::Ended { round, end } => self.said.entry(round).or_default().1 = Some(end),
                Effect::Record(_) => {}
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, domain: &DomainName, figures: &mut Figures) {
        self.servers[to].host.reserved.retain(|g| g.name != *domain);
        let giver = &mut self.servers[from];
        let Some(at) = giver.host.guests.iter().position(|g| g.name == *domain) else { return };
        let mut guest = giver.host.guests.remove(at);
        if let Some(engine) = &mut giver.engine {
            engine.policy.gave(Mono(self.now));
        }
        (guest.movable, guest.arrived) = (true, Some(Mono(self.now)));
        self.servers[to].host.guests.push(guest);
        figures.moves += 1;
        let before = self.trails.insert(domain.clone(), Trail { from, at: self.now });
        if before.is_some_and(|b| b.from == to && self.now - b.at <= UNDONE_MS) {
            figures.undone += 1;
        }
    }
}
