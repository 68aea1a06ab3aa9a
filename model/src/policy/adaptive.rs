//! `adaptive`: moves the domain to the server where that saves the most CPU time in the hours to come.
//!
//! ```text
//!   pain(server)   = shortfall(sum of levels, DOUBT × sum of variances, CPUs) × HORIZON    CPU seconds that will be missed
//!   relief(domain) = pain(asker) - pain(asker without it)
//!   gain(move)     = relief - (pain(helper with it) - pain(helper))
//!   a move pays      gain >= MIN_GAIN, and >= MIN_SHARE of what both suffer
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
/// Levels drift and are not known exactly: the variance is taken half as large again.
pub const DOUBT: f64 = 1.5;
/// The least gain, in CPU seconds: twelve times the price of moving a busy domain (a tenth of a CPU for half a minute), for each
/// move is a risk.
pub const MIN_GAIN_S: f64 = 36.0;
/// The least gain as a share of what both servers suffer before. It needs no scale: in a full cluster, where all suffer, only moves
/// that change much are made, and in an empty one small gains count. With a smaller share moves rise much more than the lost time falls.
pub const MIN_SHARE: f64 = 0.30;
/// A server below it never asks while evening out is off.
pub const HIGH: f64 = 0.95;
/// What a helper's load may be with the domain on board.
pub const LOW: f64 = 0.90;

/// The rule's settings and memory.
#[derive(Debug)]
pub struct Adaptive {
    /// Whether it also evens out servers that are below [`HIGH`].
    pub even: bool,
    /// Seconds between two samples.
    unit_s: f64,
    /// Whether a sample has been seen.
    begun: bool,
}

impl Adaptive {
    /// The rule for samples that are `unit_s` seconds apart; it evens out.
    pub fn new(unit_s: f64) -> Self {
        Adaptive { even: true, unit_s, begun: false }
    }

    /// Seconds between two samples.
    pub fn unit_s(&self) -> f64 {
        self.unit_s
    }

    /// What `host` will suffer with a change of level and variance, in CPU seconds.
    fn suffers(host: &Host, sums: &Sums, level: f64, variance: f64) -> f64 {
        shortfall(sums.level + level, DOUBT * (sums.variance + variance), host.cpus) * HORIZON_S
    }
}

impl Policy for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn sample(&mut self, _: &Host, _: &Peers, _: Mono) {
        self.begun = true;
    }

    fn pain(&self, host: &Host, _: Mono) -> Option<f64> {
        let sums = host.sums();
        if !self.begun || (!self.even && sums.level < HIGH * host.cpus) {
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

    fn room(&self, host: &Host, sums: &Sums, guest: &Guest) -> bool {
        sums.with(guest).projected(host.cpus) < LOW
    }
}
