//! The overload counter, the rule of 2007, as a value: a sample of a server comes in each second, points come out.
//!
//! ```text
//!   unit: all CPUs at `threshold` or more, and a CPU serves more than one busy domain   points + 1
//!   unit: anything else                                                                points - 1, not below 0
//!   points >= limit                                                                    overloaded
//! ```
//!
//! A unit is `unit` samples long; what counts is the mean of each CPU's load over it, and whether any of its samples saw a CPU that
//! was shared. A full CPU alone is no overload: one domain that uses all that it can get would gain nothing by moving.

use crate::{Domain, DomainState, Ratio, Watchdog};

/// The most points that are counted.
pub const POINTS_MAX: u16 = 1000;

/// The load from which a vCPU counts as busy: below it a domain neither suffers from a shared CPU nor makes others suffer.
pub const BUSY: f64 = 0.10;

/// The counter of one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Points {
    value: u16,
    /// The sum of percents of each CPU since the unit's begin.
    sums: Vec<u64>,
    /// How many samples the unit has.
    samples: u16,
    /// Whether one of them saw a shared CPU.
    shared: bool,
}

impl Points {
    /// The points now, 0 to [`POINTS_MAX`].
    pub fn value(&self) -> u16 {
        self.value
    }

    /// Sets the points and begins a new unit.
    pub fn set(&mut self, value: u16) {
        *self = Points { value: value.min(POINTS_MAX), ..Points::default() };
    }

    /// Whether the server should ask for help.
    pub fn overloaded(&self, watchdog: &Watchdog) -> bool {
        self.value >= watchdog.limit
    }

    /// Counts one sample, taken a second after the one before it; true when it ended a unit.
    pub fn sample<'a>(
        &mut self,
        watchdog: &Watchdog,
        cpus: &[Ratio],
        domains: impl IntoIterator<Item = &'a Domain>,
    ) -> bool {
        if self.sums.len() != cpus.len() {
            // another number of CPUs is another machine: its unit begins here
            (self.sums, self.samples, self.shared) = (vec![0; cpus.len()], 0, false);
        }
        for (sum, cpu) in self.sums.iter_mut().zip(cpus) {
            *sum += u64::from(cpu.percent());
        }
        self.samples = self.samples.saturating_add(1);
        self.shared |= is_shared(cpus.len(), domains);
        if self.samples < watchdog.unit {
            return false;
        }
        let full = u64::from(watchdog.threshold.percent()) * u64::from(self.samples);
        let hot = self.shared && !self.sums.is_empty() && self.sums.iter().all(|&sum| sum >= full);
        self.value = if hot { (self.value + 1).min(POINTS_MAX) } else { self.value.saturating_sub(1) };
        self.sums.fill(0);
        (self.samples, self.shared) = (0, false);
        true
    }
}

/// Whether at least one of `cpus` CPUs serves more than one busy domain: by the map of vCPUs to CPUs where the hypervisor tells all
/// of it, else because more vCPUs are busy than there are CPUs.
pub fn is_shared<'a>(cpus: usize, domains: impl IntoIterator<Item = &'a Domain>) -> bool {
    let mut owner: Vec<Option<usize>> = vec![None; cpus];
    let (mut busy_vcpus, mut busy_domains, mut mapped, mut shared) = (0, 0, true, false);
    for (index, domain) in domains.into_iter().enumerate() {
        if domain.state != DomainState::Running {
            continue;
        }
        let before = busy_vcpus;
        for vcpu in domain.vcpus.iter().filter(|v| v.load.get() >= BUSY) {
            busy_vcpus += 1;
            match vcpu.cpu.and_then(|cpu| owner.get_mut(usize::from(cpu))) {
                Some(Some(other)) if *other != index => shared = true,
                Some(slot) => *slot = Some(index),
                None => mapped = false,
            }
        }
        busy_domains += usize::from(busy_vcpus > before);
    }
    shared || (!mapped && busy_domains > 1 && busy_vcpus > cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_hot_seconds_make_an_overload_and_cool_ones_end_it() {
        let (w, mut p) = (Watchdog::default(), Points::default());
        let two = [Domain::running(&[(0.5, Some(0))]), Domain::running(&[(0.5, Some(0))])];
        for n in 1..=5 {
            p.sample(&w, &[Ratio::ONE], &two);
            assert_eq!(p.value(), n);
        }
        assert!(p.overloaded(&w));
        p.sample(&w, &[Ratio::new(0.79)], &two);
        assert!(!p.overloaded(&w));
    }

    #[test]
    fn one_domain_that_fills_the_machine_is_no_overload() {
        let (w, mut p) = (Watchdog::default(), Points::default());
        p.sample(&w, &[Ratio::ONE], &[Domain::running(&[(1.0, Some(0)), (1.0, Some(0))])]);
        p.sample(
            &w,
            &[Ratio::ONE],
            &[Domain::running(&[(0.95, None), (0.9, None)]), Domain::running(&[(0.05, None)])],
        );
        assert_eq!(p.value(), 0);
    }

    #[test]
    fn without_a_map_more_busy_vcpus_than_cpus_share() {
        assert!(is_shared(1, &[Domain::running(&[(0.5, None)]), Domain::running(&[(0.5, None)])]));
        assert!(!is_shared(2, &[Domain::running(&[(0.5, None)]), Domain::running(&[(0.5, None)])]));
        assert!(!is_shared(2, &[Domain::running(&[(0.5, Some(0))]), Domain::running(&[(0.5, Some(1))])]));
    }

    #[test]
    fn a_unit_of_three_seconds_counts_its_mean() {
        let w = Watchdog { unit: 3, ..Watchdog::default() };
        let mut p = Points::default();
        let two = [Domain::running(&[(0.5, Some(0))]), Domain::running(&[(0.5, Some(0))])];
        let ended: Vec<bool> =
            [1.0, 0.5, 0.9].map(|l| p.sample(&w, &[Ratio::new(l)], &two)).into_iter().collect();
        assert_eq!((ended, p.value()), (vec![false, false, true], 1));
    }

    proptest! {
        #[test]
        fn points_move_by_at_most_one_and_stay_in_range(
            start in 0u16..=POINTS_MAX,
            unit in 1u16..5,
            samples in prop::collection::vec((prop::collection::vec(0.0f64..=1.0, 0..4), any::<bool>()), 0..200),
        ) {
            let w = Watchdog { unit, ..Watchdog::default() };
            let mut p = Points::default();
            p.set(start);
            for (cpus, shared) in samples {
                let before = p.value();
                let cpus: Vec<Ratio> = cpus.into_iter().map(Ratio::new).collect();
                let domains = if shared { vec![Domain::running(&[(1.0, None); 5]), Domain::running(&[(1.0, None)])] } else { vec![] };
                let ended = p.sample(&w, &cpus, &domains);
                prop_assert!(p.value().abs_diff(before) <= u16::from(ended));
                prop_assert!(p.value() <= POINTS_MAX);
            }
        }

        #[test]
        fn a_unit_that_is_hot_throughout_adds_and_a_cool_one_takes(hot in any::<bool>(), start in 1u16..999, unit in 1u16..5) {
            let w = Watchdog { unit, ..Watchdog::default() };
            let mut p = Points::default();
            p.set(start);
            let two = [Domain::running(&[(0.5, Some(0))]), Domain::running(&[(0.5, Some(0))])];
            for _ in 0..unit {
                p.sample(&w, &[Ratio::new(if hot { 0.8 } else { 0.79 })], &two);
            }
            prop_assert_eq!(p.value(), if hot { start + 1 } else { start - 1 });
        }
    }
}
