//! `points`: the rule of 2007. A unit in which the server is at 80 % or more and a CPU serves more than one busy domain gives a
//! point, another takes one; at 5 the server asks. The domain that pushed it over goes: the one whose load rose most since the
//! counter left 0. The least loaded helper that stays below 80 % answers first.
//!
//! An agent that has the load of each CPU counts with [`crate::points::Points`], second by second; this is the same rule for
//! samples of a whole server, which is all that recorded loads have.

use super::{Guest, Host, Peers, Policy, Request, Sums, Worth};
use crate::{DomainName, Mono, Watchdog};
use std::collections::HashMap;

/// The counter with its settings.
#[derive(Debug, Default)]
pub struct Counter {
    /// Threshold and limit.
    pub watchdog: Watchdog,
    /// The points.
    points: u16,
    /// The domains' loads in the sample before the counter left 0.
    before: HashMap<DomainName, f64>,
}

impl Policy for Counter {
    fn name(&self) -> &'static str {
        "points"
    }

    fn sample(&mut self, host: &Host, _: &Peers, _: Mono) {
        let hot = host.shared && host.load() >= self.watchdog.threshold.get();
        if hot {
            self.points = self.points.saturating_add(1).min(crate::points::POINTS_MAX);
        } else {
            self.points = self.points.saturating_sub(1);
        }
        if self.points == 0 {
            self.before = host.guests.iter().map(|g| (g.name.clone(), g.load)).collect();
        }
    }

    fn pain(&self, host: &Host, _: Mono) -> Option<f64> {
        (self.points >= self.watchdog.limit).then(|| host.load())
    }

    fn relief(&self, _: &Host, _: &Sums, guest: &Guest, _: f64) -> Option<f64> {
        Some(guest.load - self.before.get(&guest.name).copied().unwrap_or(0.0))
    }

    fn wishes(&self) -> usize {
        1
    }

    fn worth(&self, host: &Host, sums: &Sums, request: &Request, index: usize) -> Option<Worth> {
        let projected = (sums.demand + request.wishes[index].guest.load) / host.cpus;
        Some(Worth { gain: request.load - projected, delay_ms: 100.0 * projected })
    }

    fn limit(&self) -> f64 {
        self.watchdog.threshold.get()
    }
}
