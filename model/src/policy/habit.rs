//! What a domain usually wants, in a few numbers: the level (mean) and the variance around it.
//!
//! Recorded loads of a thousand domains say why so little is enough: within hours, a domain's load around its level is white noise
//! (the correlation of one sample of 5 minutes with the next is 0 within 0.05), and a forgetting mean of an hour or two predicts the
//! next half hour as well as any mixture of means over 5 minutes to a day does (it explains 92 % of the squares, and 95 % of the
//! next three hours). A spike moves the level little, a steady load soon: that is how the rule waits longer for the spiky. The
//! numbers add up over the domains of a server, and fit into a request.
//!
//! ```text
//!   samples of any length -> units of 300 s (their mean) -> level, variance
//! ```
//!
//! Faster samples are gathered into units first, so that a variance means the same however often an agent looks. The unit under way
//! counts for the level by its length, and alone when it is the first.

use serde::{Deserialize, Serialize};

/// The length of a unit in seconds. Longer samples are a unit each.
pub const UNIT_S: f64 = 300.0;
/// The level forgets with this time constant: an hour of samples averages most of the noise out, and follows the day.
pub const LEVEL_S: f64 = 3600.0;
/// The variance forgets with this one: a day, for that is what an agent keeps.
pub const VARIANCE_S: f64 = 24.0 * 3600.0;
/// The variance that is believed of an unknown domain, in CPUs² for each CPU of its level: the mean of all recorded domains.
pub const VARIANCE_PRIOR: f64 = 0.06;
/// The variance that is believed of an unknown domain that does nothing.
pub const VARIANCE_IDLE: f64 = 0.000_12;
/// How many units that belief counts for: two hours.
pub const PRIOR_UNITS: f64 = 24.0;

/// A domain's past.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Habit {
    /// Whole units seen.
    units: f64,
    /// The forgetting mean of its demand in whole units, in CPUs.
    level: f64,
    /// The forgetting mean of the squared distance from the level before, in CPUs².
    surprise: f64,
    /// CPU seconds of the unit under way.
    part: f64,
    /// How long that unit is already, in seconds.
    part_s: f64,
}

/// The share of the newest of `units` units, `unit_s` long, in a mean that forgets with `memory_s`: the plain mean at first.
fn share(unit_s: f64, memory_s: f64, units: f64) -> f64 {
    (unit_s / memory_s).max(1.0 / units).min(1.0)
}

impl Habit {
    /// A sample of `unit_s` seconds in which `load` CPUs were wanted; a load that is no number counts as 0.
    pub fn note(&mut self, load: f64, unit_s: f64) {
        let load = if load.is_finite() { load.max(0.0) } else { 0.0 };
        self.part += load * unit_s;
        self.part_s += unit_s;
        if self.part_s < UNIT_S - 1e-6 {
            return;
        }
        let (mean, length) = (self.part / self.part_s, self.part_s);
        (self.part, self.part_s) = (0.0, 0.0);
        if self.units > 0.0 {
            let squared = (mean - self.level).powi(2);
            self.surprise += share(length, VARIANCE_S, self.units) * (squared - self.surprise);
        }
        self.units += 1.0;
        self.level += share(length, LEVEL_S, self.units) * (mean - self.level);
    }

    /// How long it has been seen, in units of [`UNIT_S`] and parts of one.
    pub fn units(&self) -> f64 {
        self.units + self.part_s / UNIT_S
    }

    /// The usual demand in CPUs.
    pub fn level(&self) -> f64 {
        if self.part_s <= 0.0 {
            return self.level;
        }
        let mean = self.part / self.part_s;
        if self.units <= 0.0 {
            return mean;
        }
        let whole = share(UNIT_S, LEVEL_S, self.units + 1.0);
        self.level + whole * (self.part_s / UNIT_S) * (mean - self.level)
    }

    /// The variance around it in CPUs²: what was seen, and what is believed of any domain of that level, the less the more was seen.
    pub fn variance(&self) -> f64 {
        let seen = (self.units - 1.0).clamp(0.0, VARIANCE_S / UNIT_S);
        let believed = VARIANCE_PRIOR * self.level() + VARIANCE_IDLE;
        (seen * self.surprise + PRIOR_UNITS * believed) / (seen + PRIOR_UNITS)
    }
}

/// The mean demand beyond `cpus`, in CPUs, of domains whose levels sum up to `level` and whose variances to `variance`.
///
/// The sum of many loads is taken as logistic: like the normal distribution, but with the heavier tail that loads have, and its
/// mean excess is one logarithm.
pub fn shortfall(level: f64, variance: f64, cpus: f64) -> f64 {
    // the scale of a logistic distribution is √3/π of its standard deviation
    let scale = (variance.max(1e-6)).sqrt() * 0.551_328_9;
    let z = (level - cpus) / scale;
    if z > 30.0 { level - cpus } else { scale * z.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_steady_load_is_known_soon_and_a_spike_moves_little() {
        let mut h = Habit::default();
        (0..30).for_each(|_| h.note(0.2, 1.0));
        assert!((h.level() - 0.2).abs() < 1e-9, "a new domain is known after seconds");
        (30..24 * 300).for_each(|_| h.note(0.2, 1.0));
        assert!((h.level() - 0.2).abs() < 1e-9 && h.variance() < 0.6 * 0.2 * VARIANCE_PRIOR);
        h.note(1.0, 300.0);
        assert!(h.level() < 0.27, "one unit counts a twelfth");
        h.note(f64::NAN, 300.0);
        assert!(h.level().is_finite());
    }

    proptest! {
        /// If this fails, an agent that looks each second decides otherwise than a replay of 5-minute samples.
        #[test]
        fn level_and_variance_are_the_same_at_any_rate(loads in prop::collection::vec((0.0f64..1.0, 0.0f64..0.5), 1..60)) {
            let (mut slow, mut fast) = (Habit::default(), Habit::default());
            for (load, ripple) in loads {
                slow.note(load, 300.0);
                for second in 0..300 {
                    let sign = if second % 2 == 0 { 1.0 } else { -1.0 };
                    fast.note(load + sign * ripple.min(load), 1.0);
                    prop_assert!(fast.variance() >= 0.0 && fast.level() >= 0.0);
                }
                prop_assert!((slow.level() - fast.level()).abs() < 1e-9);
                prop_assert!((slow.variance() - fast.variance()).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn shortfall_is_the_excess_when_certain_and_nothing_when_far_below() {
        assert!((shortfall(6.0, 0.0, 4.0) - 2.0).abs() < 1e-6);
        assert!(shortfall(1.0, 0.1, 4.0) < 1e-6);
        assert!(shortfall(3.5, 0.4, 4.0) > shortfall(3.5, 0.1, 4.0));
        assert!(shortfall(3.6, 0.1, 4.0) > shortfall(3.5, 0.1, 4.0));
    }
}
