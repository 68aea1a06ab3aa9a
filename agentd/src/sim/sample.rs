//! What is measured: loads and counters since the last look, and the record that others see.

use super::{
    core::Core,
    shares::{Want, divide},
    state::State,
    store::Record,
};
use crate::hypervisor::Host;
use std::collections::BTreeMap;
use xvm_model::{Disk, Domain, DomainMemory, DomainName, DomainState, Nic, Ratio, ServerMemory, Vcpu};

/// Bytes a second that a fully busy vCPU reads from disk; it writes half of it.
const DISK: f64 = 4e6;
/// Bytes a second that a fully busy vCPU receives; it sends half of it.
const NET: f64 = 1e6;
/// The size of every simulated disk in bytes.
const CAPACITY: u64 = 8 << 30;

/// What was measured of one domain.
#[derive(Debug, Clone, Default, PartialEq)]
struct Measured {
    /// What each vCPU got, and on which CPU.
    vcpus: Vec<Vcpu>,
    /// Seconds of vCPU time since it is here: all counters come from it.
    busy: f64,
}

/// The last look.
#[derive(Debug, Default)]
pub struct Sample {
    /// By domain; those that do not run keep their counters until they are started anew.
    domains: BTreeMap<DomainName, Measured>,
    /// The load of each physical CPU.
    cpus: Vec<f64>,
    /// When it was, in milliseconds since 1970; 0 before the first.
    at: u64,
}

impl Sample {
    /// A domain starts: its counters do so too.
    pub fn forget(&mut self, name: &DomainName) {
        self.domains.remove(name);
    }
}

/// Whether its vCPUs run in this moment.
fn runs(st: &State, name: &DomainName, r: &Record) -> bool {
    r.shown().0 == DomainState::Running && !st.leaving.get(name).is_some_and(|l| l.stopped)
}

/// What its guest wants of one vCPU.
fn want(r: &Record, vcpu: u16, wall: u64) -> f64 {
    let age = wall.saturating_sub(r.booted);
    match r.busy {
        Some(busy) if wall < busy.until => busy.share.get(),
        _ if age < r.boot_ms => 1.0,
        _ => r.demand.at(r.key, vcpu, wall / 1_000, age / 1_000),
    }
}

impl Core {
    /// Measures now.
    fn look(&self, st: &mut State) {
        let wall = self.wall();
        let seconds = if st.sample.at == 0 { 0.0 } else { wall.saturating_sub(st.sample.at) as f64 / 1e3 };
        let mut wants = Vec::new();
        let mut whose = Vec::new();
        for (name, r) in st.kept.domains.iter().filter(|(n, r)| runs(st, n, r)) {
            let last = st.sample.domains.get(name);
            whose.push(name.clone());
            wants.extend((0..r.vcpus).map(|i| Want {
                share: want(r, i, wall),
                last: last.and_then(|m| m.vcpus.get(usize::from(i))).and_then(|v| v.cpu),
            }));
        }
        let given = divide(self.config.cpus, &wants);
        let mut got = given.vcpus.into_iter();
        let mut domains = BTreeMap::new();
        for (name, r) in &st.kept.domains {
            let mut m = st.sample.domains.remove(name).unwrap_or_default();
            if whose.binary_search(name).is_ok() {
                let mine: Vec<_> = got.by_ref().take(usize::from(r.vcpus)).collect();
                m.busy += mine.iter().map(|g| g.share).sum::<f64>() * seconds;
                m.vcpus = mine.iter().map(|g| Vcpu { load: Ratio::new(g.share), cpu: Some(g.cpu) }).collect();
            }
            domains.insert(name.clone(), m);
        }
        st.sample = Sample { domains, cpus: given.cpus, at: wall };
    }

    /// One domain as others see it.
    fn show(st: &State, name: &DomainName, r: &Record) -> Domain {
        let measured = st.sample.domains.get(name);
        let running = runs(st, name, r);
        let stopped = st.leaving.get(name).is_some_and(|l| l.stopped) && r.handover.is_none();
        let (state, reason) = match r.shown() {
            (DomainState::Running, _) if stopped => (DomainState::Paused, Some("migrating".into())),
            shown => shown,
        };
        let idle = Vcpu { load: Ratio::ZERO, cpu: None };
        let vcpus: Vec<Vcpu> = (0..usize::from(r.vcpus))
            .map(|i| measured.filter(|_| running).and_then(|m| m.vcpus.get(i)).copied().unwrap_or(idle))
            .collect();
        let count = |rate: f64| (measured.map_or(0.0, |m| m.busy) * rate) as u64;
        Domain {
            state,
            reason: reason.map(Into::into),
            load: Ratio::mean(vcpus.iter().map(|v| v.load)),
            vcpus,
            memory: DomainMemory {
                max: r.memory,
                current: r.memory,
                resident: Some(if state.is_active() { r.memory } else { 0 }),
            },
            disks: vec![Disk {
                name: "vda".into(),
                read: count(DISK),
                written: count(DISK / 2.0),
                capacity: Some(CAPACITY),
            }],
            nics: vec![Nic { name: "vnet0".into(), received: count(NET), sent: count(NET / 2.0) }],
            settings: r.settings.clone(),
            ..Domain::new(name.clone(), r.uuid)
        }
    }

    /// One that is on its way here.
    fn show_coming(st: &State, name: &DomainName) -> Option<Domain> {
        let coming = st.coming.get(name)?;
        Some(Domain { state: DomainState::Incoming, reason: None, ..Core::show(st, name, &coming.record) })
    }

    /// All domains, measured now.
    pub fn domains(&self) -> Vec<Domain> {
        let mut st = self.state();
        self.look(&mut st);
        let here = st.kept.domains.iter().filter(|(n, _)| !st.coming.contains_key(*n));
        let here = here.map(|(n, r)| Core::show(&st, n, r));
        here.chain(st.coming.keys().filter_map(|n| Core::show_coming(&st, n))).collect()
    }

    /// One domain, with the loads of the last look.
    pub fn domain(&self, name: &DomainName) -> Option<Domain> {
        let st = self.state();
        Core::show_coming(&st, name).or_else(|| Some(Core::show(&st, name, st.kept.domains.get(name)?)))
    }

    /// The machine, measured now.
    pub fn host(&self) -> Host {
        let mut st = self.state();
        self.look(&mut st);
        let total = self.config.memory;
        Host {
            cpus: st.sample.cpus.iter().map(|&l| Ratio::new(l)).collect(),
            memory: ServerMemory { total, free: total.saturating_sub(st.taken()) },
            // domains have no processors here
            cpu: None,
        }
    }
}
