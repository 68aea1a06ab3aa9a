//! A cluster in a box: agents, a wire that loses, doubles, delays and reorders, moves that take time and fail, agents that stop and
//! start anew, a split network. A schedule is its seed. What must hold at every moment is checked after every step.

use super::super::*;
use crate::policy::{self, Guest, Sums};
use crate::{GroupName, Groups, Wall};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A small generator of chance.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
}

pub struct Agent {
    pub host: Host,
    pub engine: Engine,
    pub talk: Negotiation,
    pub boot: u64,
    /// It is down until then: it hears and says nothing; its domains run on.
    pub down: u64,
    /// Its domains are to leave.
    pub evacuating: bool,
    /// Those that have to follow others, with where to.
    pub follow: Vec<(DomainName, ServerName)>,
    pub ended: Vec<End>,
}

struct Carry {
    round: RoundId,
    from: usize,
    to: usize,
    domain: DomainName,
    at: u64,
    ok: bool,
}

pub struct World {
    pub agents: Vec<Agent>,
    rule: &'static str,
    /// Milliseconds between two samples, and two chances to ask.
    pub unit: u64,
    wire: Vec<(u64, usize, ServerName, Say)>,
    carries: Vec<Carry>,
    pub moves: HashMap<RoundId, DomainName>,
    arrived: HashMap<DomainName, u64>,
    pub records: BTreeMap<RoundId, Round>,
    pub said: usize,
    pub chance: Chance,
    /// In percent: how often a message is lost, doubled, and very late, and how often a move fails.
    pub loss: u64,
    pub double: u64,
    pub late: u64,
    pub fail: u64,
    /// Agents below this index do not hear those from it on.
    pub split: Option<usize>,
    pub dry: bool,
    pub now: u64,
}

/// So short that a domain may move twice in a test, and longer than most would wait.
pub const COOLDOWN_MS: u64 = 60_000;

pub fn name(s: usize) -> ServerName {
    ServerName::parse(&format!("s{s}")).expect("name")
}

pub fn groups(names: &[&str]) -> Groups {
    Groups(names.iter().map(|n| GroupName::parse(n).expect("name")).collect())
}

pub fn guest(name: &str, load: f64) -> Guest {
    let mut guest = Guest { load, busy: 1, ..Guest::new(DomainName::parse(name).expect("name"), 1) };
    // an hour of it is known
    (0..12).for_each(|_| guest.habit.note(load, 300.0));
    guest
}

pub fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(ms) }
}

fn engine(rule: &str) -> Engine {
    let mut engine = Engine::new(policy::by_name(rule, 1.0).expect("rule"));
    engine.guards.cooldown_ms = COOLDOWN_MS;
    engine
}

impl World {
    /// Servers of four CPUs with `memory` for that many domains; all begin in the first life of their agent.
    pub fn new(rule: &'static str, seed: u64, memory: u64, domains: Vec<Vec<Guest>>) -> World {
        let agents = domains.into_iter().enumerate().map(|(s, guests)| {
            let host =
                Host { guests, address: format!("10.0.0.{s}").into(), ..Host::new(name(s), 4.0, memory) };
            Agent {
                engine: engine(rule),
                talk: Negotiation::new(host.name.clone(), 1, Mono(0), false),
                host,
                boot: 1,
                down: 0,
                evacuating: false,
                follow: Vec::new(),
                ended: Vec::new(),
            }
        });
        World {
            agents: agents.collect(),
            rule,
            unit: 1_000,
            wire: Vec::new(),
            carries: Vec::new(),
            moves: HashMap::new(),
            arrived: HashMap::new(),
            records: BTreeMap::new(),
            said: 0,
            chance: Chance(seed),
            loss: 0,
            double: 0,
            late: 0,
            fail: 0,
            split: None,
            dry: false,
            now: 0,
        }
    }

    pub fn step(&mut self, a: usize, input: Input) {
        if self.agents[a].down > self.now {
            return;
        }
        let chance = self.chance.below(1 + spread_ms(self.agents.len()));
        let agent = &mut self.agents[a];
        for effect in agent.talk.step(input, &agent.engine, &agent.host, at(self.now), chance) {
            match effect {
                Effect::Say(say) => self.publish(a, say),
                Effect::Move { round, domain, to, address } => {
                    assert!(!self.dry, "a dry round moves {domain}");
                    assert_eq!(*address, *self.agents[self.index(&to)].host.address);
                    self.begin(a, round, domain, &to);
                }
                Effect::Ended { end, .. } => self.agents[a].ended.push(end),
                Effect::Record(round) => {
                    assert!(round.offers.len() <= crate::round::BIDS_MAX && round.asker == name(a));
                    self.records.insert(round.id.clone(), *round);
                }
            }
        }
        self.check();
    }

    fn index(&self, server: &ServerName) -> usize {
        self.agents.iter().position(|a| a.host.name == *server).expect("a known server")
    }

    fn publish(&mut self, from: usize, say: Say) {
        assert_eq!(say.check(), Ok(()), "{say:?}");
        let text = serde_json::to_string(&say).expect("json");
        let say: Say = serde_json::from_str(&text).expect("what is said can be read");
        self.said += 1;
        for to in (0..self.agents.len()).filter(|&to| to != from) {
            let apart = self.split.is_some_and(|k| (from < k) != (to < k));
            let lost = apart || self.chance.percent(self.loss);
            let copies = u64::from(!lost) + u64::from(!apart && self.chance.percent(self.double));
            for _ in 0..copies {
                let way = if self.chance.percent(self.late) {
                    20_000
                } else if self.loss > 0 {
                    30
                } else {
                    1
                };
                let when = self.now + 1 + self.chance.below(way);
                self.wire.push((when, to, name(from), say.clone()));
            }
        }
    }

    fn begin(&mut self, from: usize, round: RoundId, domain: DomainName, to: &ServerName) {
        assert!(!self.moves.contains_key(&round), "{round} moves twice");
        let cool = self.arrived.get(&domain).is_none_or(|at| self.now - at >= COOLDOWN_MS);
        assert!(cool || self.agents.iter().any(|a| a.evacuating), "{domain} moves within its cooldown");
        self.moves.insert(round.clone(), domain.clone());
        let to = self.index(to);
        let here = self.agents[from].host.guests.iter_mut().find(|g| g.name == domain).expect("it is here");
        here.movable = false;
        // from here on the helper's hypervisor knows that it arrives
        let guest = here.clone();
        self.agents[to].host.guests.push(guest);
        let at = self.now + 200 + self.chance.below(8_000);
        let ok = !self.chance.percent(self.fail);
        self.carries.push(Carry { round, from, to, domain, at, ok });
    }

    fn finish(&mut self, c: Carry) {
        let (home, loser) = if c.ok { (c.to, c.from) } else { (c.from, c.to) };
        self.agents[loser].host.guests.retain(|g| g.name != c.domain);
        for guest in self.agents[home].host.guests.iter_mut().filter(|g| g.name == c.domain) {
            guest.movable = true;
            if c.ok {
                guest.arrived = Some(Mono(self.now));
            }
        }
        if c.ok {
            self.arrived.insert(c.domain.clone(), self.now);
            self.agents[c.from].engine.policy.gave(Mono(self.now));
        }
        let sentence = |text: &str| format!("{} {text}", c.domain).into();
        let result = if c.ok { Ok(sentence("runs there")) } else { Err(sentence("runs where it was")) };
        self.step(c.from, Input::Moved { round: c.round, result });
    }

    /// A unit has ended: the rules learn, and who needs help asks.
    fn beat(&mut self, ask: bool) {
        for a in 0..self.agents.len() {
            let agent = &mut self.agents[a];
            let busy: u16 = agent.host.guests.iter().map(|g| g.busy).sum();
            agent.host.shared = f64::from(busy) > agent.host.cpus;
            agent.engine.sample(&agent.host, &policy::Peers::default(), Mono(self.now));
            if !ask || agent.down > self.now || !agent.talk.may_ask(Mono(self.now)) {
                continue;
            }
            let request =
                if agent.evacuating { self.leave(a) } else { agent.engine.ask(&agent.host, Mono(self.now)) };
            if let Some(request) = request {
                self.step(a, Input::Ask(Box::new(policy::Request { dry: self.dry, ..request })));
            }
        }
    }

    /// What an agent asks that empties its server: first those that have to follow, then the others.
    fn leave(&mut self, a: usize) -> Option<policy::Request> {
        let agent = &mut self.agents[a];
        while let Some((domain, to)) = agent.follow.pop() {
            if let Some(request) = agent.engine.follow(&agent.host, &domain, &to) {
                return Some(request);
            }
        }
        agent.engine.evacuate(&agent.host, &[], Mono(self.now))
    }

    /// Runs for `ms` milliseconds, from one event to the next.
    pub fn run(&mut self, ms: u64, ask: bool) {
        let end = self.now + ms;
        while self.now < end {
            let beat = (self.now / self.unit + 1) * self.unit;
            let dues =
                self.agents.iter().filter(|a| a.down <= self.now).filter_map(|a| a.talk.due()).map(|at| at.0);
            let next = dues.chain(self.wire.iter().map(|m| m.0)).chain(self.carries.iter().map(|c| c.at));
            self.now = next.min().unwrap_or(beat).clamp(self.now + 1, beat.min(end.max(self.now + 1)));
            let now = self.now;
            let (mut due, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.wire).into_iter().partition(|m| m.0 <= now);
            self.wire = rest;
            due.sort_by_key(|m| m.0);
            for (_, to, from, say) in due {
                self.step(to, Input::Heard { from, say });
            }
            let (done, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.carries).into_iter().partition(|c| c.at <= now);
            self.carries = rest;
            for carry in done {
                self.left(&carry);
                self.finish(carry);
            }
            for a in 0..self.agents.len() {
                if self.agents[a].talk.due().is_some_and(|at| at <= Mono(now)) {
                    self.step(a, Input::Tick);
                }
            }
            if now == beat {
                self.beat(ask);
            }
        }
    }

    /// The mates of a domain that has left have to follow it.
    fn left(&mut self, carry: &Carry) {
        let to = name(carry.to);
        let agent = &mut self.agents[carry.from];
        let guest = agent.host.guests.iter().find(|g| g.name == carry.domain).cloned();
        if let Some(guest) = guest.filter(|_| carry.ok && agent.evacuating) {
            let mates = policy::mates(&agent.host, &guest);
            agent.follow = mates.iter().map(|g| (g.name.clone(), to.clone())).collect();
        }
    }

    /// The agent `a` stops, and starts anew after up to ten seconds, knowing nothing but what its hypervisor says.
    pub fn crash(&mut self, a: usize) {
        let down = self.now + self.chance.below(10_000);
        let agent = &mut self.agents[a];
        (agent.boot, agent.down) = (agent.boot + 1, down);
        agent.engine = engine(self.rule);
        agent.talk = Negotiation::new(agent.host.name.clone(), agent.boot, Mono(down), true);
    }

    pub fn reserved(&self) -> usize {
        self.agents.iter().map(|a| a.talk.reserved().count()).sum()
    }

    /// What must be true at every moment.
    fn check(&self) {
        let mut homes: HashMap<&GroupName, usize> = HashMap::new();
        for (a, agent) in self.agents.iter().enumerate() {
            let here: BTreeSet<&DomainName> = agent.host.guests.iter().map(|g| &g.name).collect();
            let promised = agent.talk.reserved().filter(|g| !here.contains(&g.name));
            let all: Vec<&Guest> = agent.host.guests.iter().chain(promised).collect();
            for (i, g) in all.iter().enumerate() {
                assert!(g.pin.allows(&agent.host.name), "{} is not where it is pinned to", g.name);
                let near =
                    all[i + 1..].iter().find(|o| o.name != g.name && g.apart.common(&o.apart).is_some());
                assert!(near.is_none(), "{} and {near:?} are together", g.name);
            }
            for group in agent.host.guests.iter().flat_map(|g| &g.with.0) {
                let together = *homes.entry(group).or_insert(a) == a;
                assert!(together || self.agents.iter().any(|a| a.evacuating), "{group} was parted");
            }
            let own = format!("d{a}-");
            let Some(last) = all.iter().rfind(|g| !g.name.as_str().starts_with(&own)) else { continue };
            let rest = all.iter().filter(|g| g.name != last.name).fold(Sums::default(), |s, g| s.with(g));
            let room = agent.engine.policy.room(&agent.host, &rest, last);
            assert!(room, "{} is pushed over its room: {:?}", agent.host.name, rest.with(last));
            assert!(rest.with(last).memory <= agent.host.memory, "{} has too little memory", agent.host.name);
        }
    }
}
