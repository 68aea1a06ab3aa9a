//! `adaptive`: moves the domain to the server where that saves the most CPU time in the hours to come.
//!
//! ```text
//!   pain(server)   = shortfall(sum of levels, DOUBT × sum of variances, CPUs) × HORIZON    CPU seconds that will be missed
//!   relief(domain) = pain(asker) - pain(asker without it)
//!   gain(move)     = relief - (pain(helper with it) - pain(helper))
//!   a move pays      gain >= MIN_GAIN, and >= MIN_SHARE of what both suffer or MOST of what the domain wants
//! ```
//!
//! There is no trigger that counts hot samples: a spike moves neither level nor pain much, a steady overload does within minutes
//! (see [`Habit`](super::Habit)), and a spiky domain costs more room than a steady one of the same level, so that it goes where
//! room is. What the rule knows: each own domain's level and variance; of the asker its pain and the wishes' numbers. Offers come the
//! sooner the more they gain, so the first offer is the best.

use super::{
    Guest, Host, Peers, Policy, Request, Sums, Worth,
    habit::{UNIT_S, shortfall},
};
use crate::Mono;

/// How long the gain of a move is counted, in seconds. Levels drift apart over hours; three of them is the middle of a shift.
pub const HORIZON_S: f64 = 3.0 * 3600.0;
/// Levels drift and are not known exactly: the variance is taken twice as large.
pub const DOUBT: f64 = 2.0;
/// The least gain, in CPU seconds: eight times the price of moving a busy domain (a tenth of a CPU for half a minute), for each move is
/// a risk. Half of it doubles the moves and saves little.
pub const MIN_GAIN_S: f64 = 24.0;
/// The least gain as a share of what both servers suffer before. It needs no scale: in a full cluster, where all suffer, only moves
/// that change much are made, and in an empty one small gains count. With a smaller share moves rise much more than the lost time falls.
pub const MIN_SHARE: f64 = 0.20;
/// The gain, as a share of what the domain wants within the horizon, that pays whatever else both servers suffer: it would be missing
/// most of the time. One domain of a crowd never relieves much of what all suffer.
pub const MOST: f64 = 0.60;
/// A server below it never asks while evening out is off.
pub const HIGH: f64 = 0.95;
/// How far above the mean of all servers (CPU and memory, as in their heartbeats) one must be to even out.
pub const MARGIN: f64 = 0.02;
/// What a helper's load may be with the domain on board.
pub const LOW: f64 = 0.90;
/// The share of a server's memory from which it asks.
pub const HIGH_MEMORY: f64 = 0.95;
/// The share of a helper's memory that may be taken with the domain on board.
pub const LOW_MEMORY: f64 = 0.90;
/// How long an agent and a domain must have been seen, in seconds. A steady overload that a new agent finds is relieved soon after it; a
/// shorter spike is not known to be one.
pub const KNOWN_S: f64 = 30.0;
/// How long the worst helper waits longer than the best, in milliseconds: more than chance adds, so that the best is the first.
pub const SPREAD_MS: f64 = 250.0;

/// How much longer a full helper waits than an empty one that gains the same, in milliseconds.
pub const TIE_MS: f64 = 30.0;

/// The rule's settings and memory.
#[derive(Debug)]
pub struct Adaptive {
    /// Whether it also evens out servers that are below [`HIGH`].
    pub even: bool,
    /// Seconds between two samples.
    unit_s: f64,
    /// How long it has looked, in seconds.
    seen_s: f64,
    /// The mean score of all servers; 0 until one was heard, and then nothing is evened out.
    mean: f64,
}

impl Adaptive {
    /// The rule for samples that are `unit_s` seconds apart; it evens out.
    pub fn new(unit_s: f64) -> Self {
        Adaptive { even: true, unit_s, seen_s: 0.0, mean: 0.0 }
    }

    /// Seconds between two samples.
    pub fn unit_s(&self) -> f64 {
        self.unit_s
    }

    /// What `host` will suffer with a change of level and variance, in CPU seconds.
    fn suffers(host: &Host, sums: &Sums, level: f64, variance: f64) -> f64 {
        shortfall(sums.level + level, DOUBT * (sums.variance + variance), host.cpus) * HORIZON_S
    }

    /// What a server has too much of, in KiB down to [`LOW_MEMORY`], once it is over [`HIGH_MEMORY`].
    fn surplus(host: &Host, sums: &Sums) -> Option<f64> {
        let (taken, total) = (sums.memory as f64, host.memory as f64);
        (taken > HIGH_MEMORY * total).then(|| (taken - LOW_MEMORY * total).max(1.0))
    }
}

impl Policy for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn sample(&mut self, _: &Host, peers: &Peers, _: Mono) {
        self.seen_s += self.unit_s;
        self.mean = peers.score;
    }

    fn pain(&self, host: &Host, _: Mono) -> Option<f64> {
        if self.seen_s < KNOWN_S {
            return None;
        }
        let sums = host.sums();
        let pain = Self::suffers(host, &sums, 0.0, 0.0);
        if Self::surplus(host, &sums).is_some() {
            return Some(pain.max(MIN_GAIN_S));
        }
        // evening out is for those who have more than the others: nobody asks in a cluster that is even
        let usual = (sums.level / host.cpus + host.memory_share()) / 2.0;
        let high = sums.level >= HIGH * host.cpus
            || (self.even && self.mean > 0.0 && usual > self.mean * (1.0 + MARGIN));
        (pain >= MIN_GAIN_S && high).then_some(pain)
    }

    fn relief(&self, host: &Host, sums: &Sums, guest: &Guest, pain: f64) -> Option<f64> {
        if guest.habit.units() * UNIT_S < KNOWN_S {
            return None;
        }
        let relief = Self::suffers(host, sums, 0.0, 0.0)
            - Self::suffers(host, sums, -guest.habit.level(), -guest.habit.variance());
        if let Some(surplus) = Self::surplus(host, sums) {
            // memory cannot be shared out like time: what ends the want at once is worth most, then what relieves the CPUs
            return Some(relief + pain * (1.0 + (guest.memory as f64 / surplus).min(1.0)));
        }
        pays(relief, pain, guest).then_some(relief)
    }

    fn wishes(&self) -> usize {
        64
    }

    fn worth(&self, host: &Host, sums: &Sums, request: &Request, index: usize) -> Option<Worth> {
        let wish = &request.wishes[index];
        let own = Self::suffers(host, sums, 0.0, 0.0);
        let with = Self::suffers(host, sums, wish.guest.habit.level(), wish.guest.habit.variance());
        let gain = wish.relief - (with - own);
        let pays = pays(gain, request.pain + own, &wish.guest);
        // two that would hardly suffer gain the same: then the emptier one is the first
        let loss = (1.0 - gain / request.pain).clamp(0.0, 1.0);
        let projected = sums.with(&wish.guest).projected(host.cpus).clamp(0.0, 1.0);
        pays.then_some(Worth { gain, delay_ms: SPREAD_MS * loss + TIE_MS * projected })
    }

    fn room(&self, host: &Host, sums: &Sums, guest: &Guest) -> bool {
        let with = sums.with(guest);
        with.projected(host.cpus) < LOW && with.memory as f64 <= LOW_MEMORY * host.memory as f64
    }
}

/// Whether a gain is worth the move of `guest` between servers that suffer `pain` together.
fn pays(gain: f64, pain: f64, guest: &Guest) -> bool {
    gain >= MIN_GAIN_S && (gain >= MIN_SHARE * pain || gain >= MOST * guest.habit.level() * HORIZON_S)
}
