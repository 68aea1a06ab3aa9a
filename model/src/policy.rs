//! Who needs help, which domain should go, and who should take it: rules as pure, replaceable values, (samples, offers, clock) →
//! decision. No rule sees more than an agent has: its own domains with their past, the mean of the others' heartbeats, and what
//! others offer.
//!
//! ```text
//!   each unit    Policy::sample(own host, peers, now)        the rule learns
//!   asker        Engine::ask    -> Request                   its wishes (domains that may go), the best first
//!   helpers      Engine::offer  -> Offer                     one wish each, with projected load; room is reserved
//!   asker        the offer heard first is accepted           an offer is sent the sooner the better it is (`delay_ms`)
//! ```
//!
//! The guards are in [`Engine`], outside of the rules, so that no rule can break them: pins, affinity and anti-affinity, memory,
//! the load that a helper may reach, the cooldown of a domain, priorities.

pub mod adaptive;
pub mod counter;
pub mod engine;
pub mod five;
pub mod habit;
pub mod row;
#[cfg(test)]
mod tests;

pub use engine::{Engine, Guards, Refusal, Stay, WISHES_MAX, mates};
pub use habit::Habit;

use crate::{DomainName, Groups, HypervisorKind, Mono, Pin, Platform, ServerName, Watchdog, domain::words};
use serde::{Deserialize, Serialize};

/// One domain as the agent of its server knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// Its name.
    pub name: DomainName,
    /// CPUs that it wants now: what it uses and what it waits for.
    pub load: f64,
    /// How many of its vCPUs are busy now ([`crate::points::BUSY`] or more).
    pub busy: u16,
    /// What is known of its past; it travels with the domain.
    pub habit: Habit,
    /// Its memory in KiB.
    pub memory: u64,
    /// 0 to 100, see [`crate::DomainSettings`].
    pub priority: u8,
    /// Where it may run.
    pub pin: Pin,
    /// Groups whose domains stay together.
    pub with: Groups,
    /// Groups whose domains stay apart.
    pub apart: Groups,
    /// It runs and nothing goes on with it.
    #[serde(skip, default = "yes")]
    pub movable: bool,
    /// When it came here by a move, by this server's clock.
    #[serde(skip)]
    pub arrived: Option<Mono>,
}

/// What is wished for may move.
fn yes() -> bool {
    true
}

impl Guest {
    /// A domain that may move anywhere. Until its vCPUs have been seen it counts as busy on more of them than any server has.
    pub fn new(name: DomainName, memory: u64) -> Self {
        Guest {
            name,
            load: 0.0,
            busy: u16::MAX,
            habit: Habit::default(),
            memory,
            priority: 50,
            pin: Pin::default(),
            with: Groups::default(),
            apart: Groups::default(),
            movable: true,
            arrived: None,
        }
    }
}

/// One server as its own agent knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its name.
    pub name: ServerName,
    /// Where other servers' hypervisors reach it for a migration.
    pub address: Box<str>,
    /// What its domains run on.
    pub platform: Platform,
    /// How many CPUs it has.
    pub cpus: f64,
    /// Its memory in KiB.
    pub memory: u64,
    /// Whether it takes domains from others.
    pub accepting: bool,
    /// Whether a CPU serves more than one busy domain.
    pub shared: bool,
    /// The domains that it runs.
    pub guests: Vec<Guest>,
    /// The domains that it has room reserved for, and those on their way here.
    pub reserved: Vec<Guest>,
}

impl Host {
    /// A server without domains.
    pub fn new(name: ServerName, cpus: f64, memory: u64) -> Self {
        Host {
            name,
            address: "".into(),
            platform: HypervisorKind::Sim.into(),
            cpus,
            memory,
            accepting: true,
            shared: true,
            guests: Vec::new(),
            reserved: Vec::new(),
        }
    }

    /// What it runs and has reserved.
    pub fn all(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().chain(&self.reserved)
    }

    /// CPUs that its domains and its reservations want now.
    pub fn demand(&self) -> f64 {
        self.all().map(|g| g.load).sum()
    }

    /// The share of its CPUs that is wanted now; over 1 when they are too few.
    pub fn load(&self) -> f64 {
        self.demand() / self.cpus
    }

    /// The share of its memory that is taken or reserved.
    pub fn memory_share(&self) -> f64 {
        self.all().map(|g| g.memory).sum::<u64>() as f64 / self.memory.max(1) as f64
    }

    /// The mean of the shares of CPU and memory, as some balancers count.
    pub fn score(&self) -> f64 {
        (self.load().min(1.0) + self.memory_share()) / 2.0
    }

    /// The sums over its domains and reservations.
    pub fn sums(&self) -> Sums {
        self.all().fold(Sums::default(), |sums, guest| sums.with(guest))
    }
}

/// Sums over all domains of a server and its reservations: what a decision about one more or one less is made of.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sums {
    /// CPUs wanted now.
    pub demand: f64,
    /// vCPUs that are busy now.
    pub busy: u16,
    /// CPUs wanted usually.
    pub level: f64,
    /// The variance around that, in CPUs².
    pub variance: f64,
    /// Memory in KiB.
    pub memory: u64,
}

impl Sums {
    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Sums) -> Sums {
        Sums {
            demand: self.demand + other.demand,
            busy: self.busy.saturating_add(other.busy),
            level: self.level + other.level,
            variance: self.variance + other.variance,
            memory: self.memory.saturating_add(other.memory),
        }
    }

    /// The same with `guest` on board.
    #[must_use]
    pub fn with(&self, guest: &Guest) -> Sums {
        Sums {
            demand: self.demand + guest.load,
            busy: self.busy.saturating_add(guest.busy),
            level: self.level + guest.habit.level(),
            variance: self.variance + guest.habit.variance(),
            memory: self.memory.saturating_add(guest.memory),
        }
    }

    /// The share of `cpus` that is wanted now or usually, whichever is greater.
    pub fn projected(&self, cpus: f64) -> f64 {
        self.demand.max(self.level) / cpus
    }
}

/// What an agent knows of the others from their heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Peers {
    /// The mean of all servers' [`Host::score`].
    pub score: f64,
}

/// The domains of a group that come after the first one: who takes the first must have room for all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Mates {
    /// What they want together.
    pub sums: Sums,
    /// Where all of them may run.
    pub pin: Pin,
    /// From which groups any of them stays apart.
    pub apart: Groups,
}

/// A domain that an asker would give away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// The domain.
    pub guest: Guest,
    /// What the asker gains without it, in the rule's own unit.
    pub relief: f64,
    /// Those of its group that will follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mates: Option<Box<Mates>>,
}

words! {
    /// What help is needed for.
    Need {
        /// The rule of the server finds it overloaded.
        Overload = "overload",
        /// It is to be emptied.
        Evacuate = "evacuate",
        /// A domain is to come back to the server that gave it away.
        Restore = "restore",
    }
}

/// A server asks for help.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub asker: ServerName,
    /// What its domains run on: others cannot take them.
    pub platform: Platform,
    /// What for.
    pub need: Need,
    /// Only this server may offer; none when all may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<ServerName>,
    /// Nothing will move: who would help?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry: bool,
    /// What it suffers, in one sentence.
    pub why: Box<str>,
    /// The word of its rule.
    pub policy: Box<str>,
    /// The share of its CPUs that is wanted.
    pub load: f64,
    /// The same by its domains' levels.
    pub level: f64,
    /// Its number of CPUs.
    pub cpus: f64,
    /// What it suffers, in the rule's own unit.
    pub pain: f64,
    /// The domains that may go, the one that it would like best first.
    pub wishes: Vec<Wish>,
}

/// What a helper thinks of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// The gain for both servers together; the greatest wish is offered for.
    pub gain: f64,
    /// How long the helper waits before it offers, in milliseconds, so that the best offer is the first.
    pub delay_ms: f64,
}

/// A helper offers to take a domain, and has room reserved for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Who offers.
    pub helper: ServerName,
    /// Where its hypervisor is reached for the migration.
    pub address: Box<str>,
    /// What its domains run on.
    pub platform: Platform,
    /// Which of the wishes, counted from 0.
    pub wish: usize,
    /// The share of its CPUs that is wanted with the domain (and those that follow it) on board.
    pub projected: f64,
    /// What it is worth.
    pub worth: Worth,
}

/// A rule. It ranks; what is allowed at all is the [`Engine`]'s business.
pub trait Policy: std::fmt::Debug + Send {
    /// The word for it.
    fn name(&self) -> &'static str;

    /// A unit has ended: what the server and its domains wanted in it.
    fn sample(&mut self, host: &Host, peers: &Peers, now: Mono);

    /// What the server suffers, or nothing when it needs no help.
    fn pain(&self, host: &Host, now: Mono) -> Option<f64>;

    /// The relief that giving `guest` away brings, or nothing when that does not pay; the greatest is wished for first.
    fn relief(&self, host: &Host, sums: &Sums, guest: &Guest, pain: f64) -> Option<f64>;

    /// How many wishes a request has at most.
    fn wishes(&self) -> usize {
        8
    }

    /// What taking the wish with number `index` is worth for both servers, or nothing when it does not pay.
    fn worth(&self, host: &Host, sums: &Sums, request: &Request, index: usize) -> Option<Worth>;

    /// Whether `host`, which has `sums` on board, has room for `guest` too: it would not be overloaded in the rule's sense.
    fn room(&self, host: &Host, sums: &Sums, guest: &Guest) -> bool;

    /// The agent's own overload counter: its settings, and its points after the second that has just ended. Only `points` uses it.
    fn counted(&mut self, _watchdog: Watchdog, _points: u16) {}

    /// A domain has left by a move.
    fn gave(&mut self, _now: Mono) {}
}

/// Words of all rules, the default first.
pub const NAMES: [&str; 4] = ["points", "three-in-a-row", "three-of-five", "adaptive"];

/// A new rule by its word, for samples that are `unit_s` seconds apart.
pub fn by_name(name: &str, unit_s: f64) -> Option<Box<dyn Policy>> {
    Some(match name {
        "points" => Box::new(counter::Counter::default()),
        "three-in-a-row" => Box::new(row::ThreeInARow::default()),
        "three-of-five" => Box::new(five::ThreeOfFive::default()),
        "adaptive" => Box::new(adaptive::Adaptive::new(unit_s)),
        _ => return None,
    })
}
