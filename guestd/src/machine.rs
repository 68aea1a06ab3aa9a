//! What the guest's kernel says in `/proc`: pure parsers, and who reads the files for a heartbeat.
//!
//! | file | what |
//! |---|---|
//! | [`cpu`] | time that CPUs spent, load averages, uptime |
//! | [`memory`] | memory, and pressure (PSI) |
//! | [`process`] | one process |
//! | here | [`Machine`]: all that a heartbeat tells |
//!
//! The parsers take whatever they are given: what cannot be read is none, and nothing panics.

pub mod cpu;
pub mod memory;
pub mod process;

use cpu::CpuTimes;
use std::path::{Path, PathBuf};
use xvm_model::guest::{GuestMemory, Pressure};
use xvm_model::{GuestBeat, Ratio};

/// Between two readings of the CPUs' time there are so many ticks at least: less says nothing about the load.
const TICKS_MIN: u64 = 10;

/// Reads the machine for heartbeats, and remembers the CPUs' time of the last one.
#[derive(Debug)]
pub struct Machine {
    proc: PathBuf,
    /// The CPUs' time at the last heartbeat.
    last: CpuTimes,
    /// What was told then: load and steal.
    shares: (Ratio, Ratio),
}

impl Machine {
    /// The machine whose `/proc` is `proc`; its load is counted from here on.
    pub fn new(proc: &Path) -> Self {
        let last = cpus(proc).map_or_else(CpuTimes::default, |(times, _)| times);
        Machine { proc: proc.into(), last, shares: (Ratio::ZERO, Ratio::ZERO) }
    }

    /// A heartbeat without what guestd itself does: interval, tests and load that it makes are left to the caller.
    pub fn beat(&mut self) -> GuestBeat {
        let (times, n) = cpus(&self.proc).unwrap_or((self.last, 1));
        if times.all.saturating_sub(self.last.all) >= TICKS_MIN {
            self.shares = (times.load_since(self.last), times.steal_since(self.last));
            self.last = times;
        }
        let read = |name: &str| std::fs::read_to_string(self.proc.join(name)).unwrap_or_default();
        let waits = |what: &str| memory::parse_pressure(&read(&format!("pressure/{what}")));
        let pressure = match (waits("cpu"), waits("memory"), waits("io")) {
            (Some(cpu), Some(memory), Some(io)) => Some(Pressure { cpu, memory, io }),
            _ => None,
        };
        GuestBeat {
            interval_ms: 0,
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: cpu::parse_uptime(&read("uptime")).unwrap_or(0),
            cpus: n,
            load: self.shares.0,
            steal: self.shares.1,
            average: cpu::parse_average(&read("loadavg")).unwrap_or_default(),
            pressure,
            memory: self.memory(),
            tests: Vec::new(),
            loading: None,
        }
    }

    /// Its memory now.
    pub fn memory(&self) -> GuestMemory {
        memory::parse_meminfo(&std::fs::read_to_string(self.proc.join("meminfo")).unwrap_or_default())
    }
}

/// The CPUs' time and how many there are.
pub(crate) fn cpus(proc: &Path) -> Option<(CpuTimes, u16)> {
    cpu::parse_stat(&std::fs::read_to_string(proc.join("stat")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).expect("written");
    }

    #[test]
    fn a_heartbeat_from_recorded_files() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        write(dir.path(), "stat", "cpu  100 0 0 100 0 0 0 0 0 0\ncpu0 50 0 0 50\ncpu1 50 0 0 50\n");
        let mut machine = Machine::new(dir.path());
        write(dir.path(), "stat", "cpu  150 0 0 130 0 0 0 20 0 0\ncpu0 50 0 0 50\ncpu1 50 0 0 50\n");
        write(dir.path(), "uptime", "90.15 12.00\n");
        let beat = machine.beat();
        assert_eq!((beat.cpus, beat.uptime, beat.pressure), (2, 90, None));
        assert_eq!((beat.load, beat.steal), (Ratio::new(0.5), Ratio::new(0.2)));
        // at once again: too short to tell, so the same
        assert_eq!(machine.beat().load, Ratio::new(0.5));
    }

    #[test]
    fn a_machine_that_says_nothing_has_a_heartbeat() {
        let beat = Machine::new(Path::new("/nowhere")).beat();
        assert_eq!((beat.cpus, beat.memory), (1, GuestMemory::default()));
    }
}
