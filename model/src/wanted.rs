//! What domains want of a server's CPUs, not only what they get: on a full CPU that serves several busy vCPUs, those that got the most
//! would take more.
//!
//! ```text
//!   CPU below FULL, or one vCPU on it        a vCPU wants what it uses
//!   CPU full and shared                      the vCPUs that got (nearly) the largest share want a whole CPU, the others what they use;
//!                                            idle ones that take something of it share it too
//! ```
//!
//! A fair scheduler gives every vCPU what it wants up to an equal share of what is left, so whoever got less than the largest share was
//! satisfied. Where the hypervisor tells no map of vCPUs to CPUs, the whole server is looked at as one pool. The estimate errs to the
//! large side: a helper rather refuses a domain than dies of it.

use crate::{Domain, DomainState, Ratio, points::BUSY};

/// The load from which a CPU counts as full: the rest is what sampling and the hypervisor itself take.
pub const FULL: f64 = 0.95;
/// What idle vCPUs may take of a CPU without sharing it.
const NOTHING: f64 = 0.01;
/// A vCPU that got this share of the largest share got as much as it could.
const NEARLY: f64 = 0.85;

/// What one domain wants.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wanted {
    /// CPUs.
    pub cpus: f64,
    /// How many of its vCPUs are busy.
    pub busy: u16,
}

/// What each of `domains` wants of a server with `cpus`, in their order; a domain that does not run wants nothing.
pub fn wanted(cpus: &[Ratio], domains: &[&Domain]) -> Vec<Wanted> {
    let running = |d: &&&Domain| d.state == DomainState::Running;
    let pool = |vcpu: &crate::Vcpu| vcpu.cpu.map(usize::from).filter(|&cpu| cpu < cpus.len());
    let mapped = domains
        .iter()
        .filter(running)
        .flat_map(|d| &d.vcpus)
        .all(|v| v.load.get() < BUSY || pool(v).is_some());
    // one pool a CPU, or one for all
    let pools = if mapped { cpus.len() } else { 1 };
    let (mut largest, mut sharers, mut idle) = (vec![0.0_f64; pools], vec![0_usize; pools], vec![0.0; pools]);
    let at = |vcpu: &crate::Vcpu| if mapped { pool(vcpu) } else { Some(0) };
    for vcpu in domains.iter().filter(running).flat_map(|d| &d.vcpus) {
        let Some(pool) = at(vcpu) else { continue };
        if vcpu.load.get() < BUSY {
            idle[pool] += vcpu.load.get();
        } else {
            largest[pool] = largest[pool].max(vcpu.load.get());
            sharers[pool] += 1;
        }
    }
    let full = |pool: usize| {
        let load = if mapped { cpus[pool].get() } else { Ratio::mean(cpus.iter().copied()).get() };
        let enough = if mapped { 1 } else { cpus.len() };
        load >= FULL && (sharers[pool] > enough || idle[pool] > NOTHING * enough as f64)
    };
    let want = |vcpu: &crate::Vcpu| {
        let load = vcpu.load.get();
        match at(vcpu) {
            Some(pool) if load >= BUSY && full(pool) && load >= NEARLY * largest[pool] => 1.0,
            _ => load,
        }
    };
    let of = |domain: &&Domain| match domain.state {
        DomainState::Running => Wanted {
            cpus: domain.vcpus.iter().map(want).sum(),
            busy: domain.vcpus.iter().filter(|v| v.load.get() >= BUSY).count().min(usize::from(u16::MAX))
                as u16,
        },
        _ => Wanted::default(),
    };
    domains.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cpus_of(cpus: &[f64], domains: &[Domain]) -> Vec<f64> {
        let cpus: Vec<Ratio> = cpus.iter().map(|&c| Ratio::new(c)).collect();
        wanted(&cpus, &domains.iter().collect::<Vec<_>>()).iter().map(|w| w.cpus).collect()
    }

    #[test]
    fn those_who_share_a_full_cpu_want_a_whole_one() {
        let five: Vec<Domain> = (0..5).map(|_| Domain::running(&[(0.8, None)])).collect();
        assert_eq!(cpus_of(&[1.0; 4], &five), [1.0; 5]);
        // a scheduler that keeps three on a CPU of their own
        let uneven: Vec<Domain> = [(1.0, 0), (1.0, 1), (1.0, 2), (0.5, 3), (0.5, 3)]
            .map(|(load, cpu)| Domain::running(&[(load, Some(cpu))]))
            .into();
        assert_eq!(cpus_of(&[1.0; 4], &uneven), [1.0; 5]);
    }

    #[test]
    fn what_idle_ones_take_is_missed_too() {
        // else a server that seems to be just full would take one idle domain after the other
        let mut all: Vec<Domain> = (0..2).map(|_| Domain::running(&[(0.95, None)])).collect();
        all.extend((0..2).map(|_| Domain::running(&[(0.05, None)])));
        assert_eq!(cpus_of(&[1.0; 2], &all), [1.0, 1.0, 0.05, 0.05]);
        let mapped = [
            Domain::running(&[(0.95, Some(0))]),
            Domain::running(&[(0.05, Some(0))]),
            Domain::running(&[(0.97, Some(1))]),
        ];
        assert_eq!(cpus_of(&[1.0, 0.97], &mapped), [1.0, 0.05, 0.97]);
    }

    #[test]
    fn who_is_satisfied_wants_what_it_uses() {
        let quiet = [Domain::running(&[(0.2, Some(0))]), Domain::running(&[(0.78, Some(0))])];
        assert_eq!(cpus_of(&[0.98], &quiet), [0.2, 1.0]);
        assert_eq!(cpus_of(&[0.90], &quiet), [0.2, 0.78]);
        assert_eq!(cpus_of(&[1.0, 1.0], &[Domain::running(&[(0.97, Some(0)), (0.97, Some(1))])]), [1.94]);
        let mut paused = Domain::running(&[(0.9, Some(0))]);
        paused.state = DomainState::Paused;
        assert_eq!(wanted(&[Ratio::ONE], &[&paused]), [Wanted::default()]);
    }

    proptest! {
        #[test]
        fn it_never_wants_less_than_it_uses_nor_more_than_its_vcpus(
            cpus in prop::collection::vec(0.0..1.0f64, 0..4),
            loads in prop::collection::vec((0.0..1.0f64, prop::option::of(0u16..6)), 0..9),
        ) {
            let domains: Vec<Domain> = loads.chunks(2).map(Domain::running).collect();
            for (domain, cpus) in domains.iter().zip(cpus_of(&cpus, &domains)) {
                let used: f64 = domain.vcpus.iter().map(|v| v.load.get()).sum();
                prop_assert!(cpus >= used && cpus <= domain.vcpus.len() as f64);
            }
        }
    }
}
