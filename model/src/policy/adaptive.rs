//! `adaptive`: moves the domain to the server where that saves the most CPU time in the hours to come.
//!
//! ```text
//!   pain(server)   = shortfall(sum of levels, sum of variances, CPUs) × HORIZON       CPU seconds that will be missed
//!   relief(domain) = pain(asker) - pain(asker without it)
//!   gain(move)     = relief - (pain(helper with it) - pain(helper))
//!   a move pays      gain >= MIN_GAIN, and >= MIN_SHARE of what both suffer
//!   an asker rests   PAUSE after it gave a domain away
//! ```
//!
//! There is no trigger that counts hot samples: a spike moves neither level nor pain much, a steady overload does within minutes
//! (see [`Habit`](super::Habit)), and a spiky domain costs more room than a steady one of the same level, so that it goes where
//! room is. What the rule knows: each own domain's level and variance; of the asker its pain and the wishes' numbers. Offers come the
//! sooner the more they gain, so the first offer is the best.

use super::{Guest, Host, Peers, Policy, Request, Sums, Worth, habit::shortfall};
use crate::Mono;

/// How long the gain of a move is counted, in seconds. Levels drift apart over hours; three of them is the middle of a shift.
pub const HORIZON_S: f64 = 3.0 * 3600.0;
/// The least gain, in CPU seconds: well above the price of a move (a tenth of a CPU for half a minute), for each move is a risk.
pub const MIN_GAIN_S: f64 = 72.0;
/// The least gain as a share of what both servers suffer before: a move that changes little is not made, however hot it is.
pub const MIN_SHARE: f64 = 0.05;
/// How long a server that gave a domain away does not ask again, once its levels are known: the next samples must first show
/// what the move brought.
pub const PAUSE_MS: u64 = 3_600_000;
/// Units that must have been seen before the first request: one sample may be a spike, two are not.
pub const MIN_UNITS: u32 = 2;
/// A server below it never asks while evening out is off.
pub const HIGH: f64 = 0.90;
/// What a helper's load may be with the domain on board.
pub const LOW: f64 = 0.85;

/// The rule's settings and memory.
#[derive(Debug)]
pub struct Adaptive {
    /// Whether it also evens out servers that are below [`HIGH`].
    pub even: bool,
    /// Seconds between two samples.
    unit_s: f64,
    /// Units seen.
    units: u32,
    /// When it last gave a domain away.
    gave: Option<Mono>,
}

impl Adaptive {
    /// The rule for samples that are `unit_s` seconds apart; it evens out.
    pub fn new(unit_s: f64) -> Self {
        Adaptive { even: true, unit_s, units: 0, gave: None }
    }

    /// Seconds between two samples.
    pub fn unit_s(&self) -> f64 {
        self.unit_s
    }

    /// What `host` will suffer with a change of level and variance, in CPU seconds.
    fn suffers(host: &Host, sums: &Sums, level: f64, variance: f64) -> f64 {
        shortfall(sums.level + level, (sums.variance + variance).max(0.0), host.cpus) * HORIZON_S
    }
}

impl Policy for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn sample(&mut self, _: &Host, _: &Peers, _: Mono) {
        self.units = self.units.saturating_add(1);
    }

    fn pain(&self, host: &Host, now: Mono) -> Option<f64> {
        let sums = host.sums();
        let rests = self.gave.is_some_and(|at| now.since(at) < PAUSE_MS);
        if self.units < MIN_UNITS || rests || (!self.even && sums.level < HIGH * host.cpus) {
            return None;
        }
        Some(Self::suffers(host, &sums, 0.0, 0.0)).filter(|&pain| pain >= MIN_GAIN_S)
    }

    fn relief(&self, host: &Host, sums: &Sums, guest: &Guest, pain: f64) -> Option<f64> {
        let relief = pain - Self::suffers(host, sums, -guest.habit.level(), -guest.habit.variance());
        (relief >= MIN_GAIN_S && relief >= MIN_SHARE * pain).then_some(relief)
    }

    fn wishes(&self) -> usize {
        64
    }

    fn worth(&self, host: &Host, sums: &Sums, request: &Request, index: usize) -> Option<Worth> {
        let wish = &request.wishes[index];
        let own = Self::suffers(host, sums, 0.0, 0.0);
        let with = Self::suffers(host, sums, wish.guest.habit.level(), wish.guest.habit.variance());
        let gain = wish.relief - (with - own);
        let pays = gain >= MIN_GAIN_S && gain >= MIN_SHARE * (request.pain + own);
        pays.then(|| Worth { gain, delay_ms: 100.0 * (1.0 - gain / request.pain).clamp(0.0, 1.0) })
    }

    fn limit(&self) -> f64 {
        LOW
    }

    fn gave(&mut self, now: Mono) {
        self.gave = Some(now);
    }
}
