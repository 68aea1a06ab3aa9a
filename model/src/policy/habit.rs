//! What a domain usually wants, as three numbers: how many units were seen, the level (mean) and the variance around it.
//!
//! Recorded loads of a thousand domains say why so little is enough: around its level of the day a domain's load is nearly white
//! noise (the correlation of one sample with the next is 0.1 to 0.2, and no smaller an hour later), so that the long mean predicts
//! the next hour better than the last samples do. A spike moves the level little, a steady load soon: that is how the rule waits
//! longer for the spiky. The numbers add up over the domains of a server, and fit into a request.

use serde::{Deserialize, Serialize};

/// The level forgets with this time constant: an hour of samples averages most of the noise out, and follows the day. Chosen from
/// 1, 1.5 and 2 hours (with the two thresholds of `adaptive`) on four of five recorded days, checked on the fifth, in turn.
pub const LEVEL_S: f64 = 3600.0;
/// The variance forgets with this one: a day, for that is what an agent keeps.
pub const VARIANCE_S: f64 = 24.0 * 3600.0;
/// The variance that is believed of an unknown domain: 0.2 CPUs around its level, squared.
pub const VARIANCE_PRIOR: f64 = 0.04;
/// How many units that belief counts for.
pub const PRIOR_UNITS: f64 = 6.0;

/// A domain's past in three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Habit {
    /// Units seen.
    units: f64,
    /// The forgetting mean of its demand, in CPUs.
    level: f64,
    /// The forgetting mean of the squared distance from the level before, in CPUs².
    variance: f64,
}

impl Default for Habit {
    fn default() -> Self {
        Habit { units: 0.0, level: 0.0, variance: VARIANCE_PRIOR }
    }
}

impl Habit {
    /// A unit of `unit_s` seconds in which `load` CPUs were wanted; a load that is no number counts as 0.
    pub fn note(&mut self, load: f64, unit_s: f64) {
        let load = if load.is_finite() { load.max(0.0) } else { 0.0 };
        let share = |memory_s: f64, units: f64| (unit_s / memory_s).max(1.0 / units).min(1.0);
        if self.units > 0.0 {
            let surprise = (load - self.level).powi(2);
            self.variance += share(VARIANCE_S, self.units + PRIOR_UNITS) * (surprise - self.variance);
        }
        self.units += 1.0;
        self.level += share(LEVEL_S, self.units) * (load - self.level);
    }

    /// Units seen.
    pub fn units(&self) -> f64 {
        self.units
    }

    /// The usual demand in CPUs.
    pub fn level(&self) -> f64 {
        self.level
    }

    /// The variance around it in CPUs².
    pub fn variance(&self) -> f64 {
        self.variance
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

    #[test]
    fn a_steady_load_is_known_soon_and_a_spike_moves_little() {
        let mut h = Habit::default();
        for _ in 0..24 {
            h.note(0.2, 300.0);
        }
        assert!((h.level() - 0.2).abs() < 1e-9 && h.variance() < VARIANCE_PRIOR / 4.0);
        h.note(1.0, 300.0);
        assert!(h.level() < 0.27, "one unit counts a twelfth");
        h.note(f64::NAN, 300.0);
        assert!(h.level().is_finite());
    }

    #[test]
    fn shortfall_is_the_excess_when_certain_and_nothing_when_far_below() {
        assert!((shortfall(6.0, 0.0, 4.0) - 2.0).abs() < 1e-6);
        assert!(shortfall(1.0, 0.1, 4.0) < 1e-6);
        assert!(shortfall(3.5, 0.4, 4.0) > shortfall(3.5, 0.1, 4.0));
        assert!(shortfall(3.6, 0.1, 4.0) > shortfall(3.5, 0.1, 4.0));
    }
}
