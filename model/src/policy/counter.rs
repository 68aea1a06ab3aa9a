//! `points`: the rule of 2007. A unit in which the server is at 80 % or more and a CPU serves more than one busy domain gives a
//! point, another takes one; at 5 the server asks. The domain that pushed it over goes: the one whose load rose most since the
//! counter left 0. The least loaded helper answers first: one that stays below 80 %, or that has a CPU of its own for each busy vCPU,
//! for only shared CPUs are an overload.
//!
//! ```text
//!   agent        Policy::counted   its own counter, from the load of each CPU, second by second ([`crate::points::Points`])
//!   recordings   Policy::sample    the same rule by samples of a whole server, which is all that recorded loads have
//!   a domain left                  the overload must be seen anew before the next is asked for
//! ```

use super::{Guest, Host, Peers, Policy, Request, Sums, Worth};
use crate::{DomainName, Mono, Watchdog, points::POINTS_MAX};
use std::collections::HashMap;

/// What idle vCPUs may want beside the busy ones, as a share of a server's CPUs: some percent of each CPU is never quiet, and no load
/// is measured exactly.
pub const IDLE: f64 = 0.05;
/// How many units an agent's counter must rise before a server asks again after a move: the first may still have seen the domain.
const SETTLE: u16 = 2;

/// The counter with its settings.
#[derive(Debug, Default)]
pub struct Counter {
    /// Threshold and limit.
    pub watchdog: Watchdog,
    /// The points.
    points: u16,
    /// Whether they come from the agent's counter.
    driven: bool,
    /// Hot units since the last cool one, and since the last move.
    hot: u16,
    /// Whether a domain has left since the counter was last at 0.
    gave: bool,
    /// The domains' loads in the sample before the counter left 0.
    before: HashMap<DomainName, f64>,
}

impl Counter {
    /// The points now.
    pub fn points(&self) -> u16 {
        self.points
    }

    fn count(&mut self, points: u16, hot: bool) {
        (self.points, self.hot) = (points.min(POINTS_MAX), if hot { self.hot.saturating_add(1) } else { 0 });
        self.gave &= self.points > 0;
    }
}

impl Policy for Counter {
    fn name(&self) -> &'static str {
        "points"
    }

    fn counted(&mut self, watchdog: Watchdog, points: u16) {
        (self.watchdog, self.driven) = (watchdog, true);
        // an unchanged counter is in the middle of a unit, or at one of its ends
        if points != self.points || points == 0 || points >= POINTS_MAX {
            self.count(points, points > self.points || points >= POINTS_MAX);
        }
    }

    fn sample(&mut self, host: &Host, _: &Peers, _: Mono) {
        if !self.driven {
            let hot = host.shared && host.load() >= self.watchdog.threshold.get();
            let points = if hot { self.points.saturating_add(1) } else { self.points.saturating_sub(1) };
            self.count(points, hot);
        }
        if self.points == 0 {
            self.before = host.guests.iter().map(|g| (g.name.clone(), g.load)).collect();
        }
    }

    fn pain(&self, host: &Host, _: Mono) -> Option<f64> {
        let settle = if self.driven && self.gave { SETTLE } else { 1 };
        (self.points >= self.watchdog.limit && self.hot >= settle).then(|| host.load())
    }

    fn relief(&self, _: &Host, _: &Sums, guest: &Guest, _: f64) -> Option<f64> {
        // one that is not busy shares no CPU that others wait for
        (guest.busy > 0).then(|| guest.load - self.before.get(&guest.name).copied().unwrap_or(0.0))
    }

    fn wishes(&self) -> usize {
        1
    }

    fn worth(&self, host: &Host, sums: &Sums, request: &Request, index: usize) -> Option<Worth> {
        let projected = (sums.demand + request.wishes[index].guest.load) / host.cpus;
        Some(Worth { gain: request.load - projected, delay_ms: 100.0 * projected })
    }

    fn room(&self, host: &Host, sums: &Sums, guest: &Guest) -> bool {
        let with = sums.with(guest);
        let projected = with.projected(host.cpus);
        projected < self.watchdog.threshold.get()
            || (f64::from(with.busy) <= host.cpus && projected <= 1.0 + IDLE)
    }

    fn gave(&mut self, _: Mono) {
        (self.hot, self.gave) = (0, true);
    }
}
