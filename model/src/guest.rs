//! What guestd says from within a domain: how it is, what it ran, its processes; and what it is told.
//!
//! | file | what |
//! |---|---|
//! | here | the messages and their bounds |
//! | [`command`] | what a guest is told, and the words of `guest/ctl` |
//! | [`queue`] | tests: one at a time, in order, at most once; used by guestd and by simulated guests |
//!
//! A guest is not trusted: whatever it says is bounded and checked ([`GuestBeat::check`], [`GuestRuns::check`], [`Top::check`]), and how
//! much it may say is limited where it is received.

pub mod command;
pub mod queue;

use crate::domain::words;
use crate::{Ratio, Wall};
use serde::{Deserialize, Serialize};

/// How often a guest may say that it lives, in milliseconds.
pub const INTERVAL_RANGE_MS: std::ops::RangeInclusive<u32> = 100..=60_000;
/// How many tests a guest remembers, the running and the waiting ones included.
pub const RUNS_MAX: usize = 32;
/// How many tests may wait.
pub const WAITING_MAX: usize = 16;
/// The longest line that names a test with its arguments, in bytes.
pub const RUN_LINE_MAX: usize = 1024;
/// How much of a test's output is kept, in bytes: its last lines.
pub const OUTPUT_MAX: usize = 4096;
/// How many tests a guest names in its heartbeat.
pub const TESTS_MAX: usize = 64;
/// How many processes are told, the busiest first.
pub const PROCESSES_MAX: usize = 40;
/// The longest short text that a guest says: a version, a name, a sentence, in bytes.
pub const TEXT_MAX: usize = 400;

/// That a guest lives, and how it is: every [`GuestBeat::interval_ms`], and at a roll-call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestBeat {
    /// When the next one comes, see [`INTERVAL_RANGE_MS`].
    pub interval_ms: u32,
    /// guestd's version.
    pub version: Box<str>,
    /// Seconds since the guest booted.
    pub uptime: u64,
    /// Its CPUs.
    pub cpus: u16,
    /// The share of them that was used since the last heartbeat.
    pub load: Ratio,
    /// The share of them that the host gave to others meanwhile.
    pub steal: Ratio,
    /// Its load averages over 1, 5 and 15 minutes, in hundredths.
    pub average: [u32; 3],
    /// The share of the last 10 s in which something waited (PSI, `some avg10`); none where its kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// Its memory.
    pub memory: GuestMemory,
    /// The names of the tests that it runs.
    pub tests: Vec<Box<str>>,
    /// The load that it was told to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loading: Option<Loading>,
}

/// Pressure stall information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// Waiting for a CPU.
    pub cpu: Ratio,
    /// Waiting for memory.
    pub memory: Ratio,
    /// Waiting for a disk.
    pub io: Ratio,
}

/// Memory as the guest's kernel sees it, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestMemory {
    /// All that it has.
    pub total: u64,
    /// What programs could still get.
    pub available: u64,
    /// Swap.
    pub swap: u64,
    /// Swap that is free.
    pub swap_free: u64,
}

/// Load that a guest makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    /// How much of each CPU.
    pub share: Ratio,
    /// Seconds until it ends.
    pub left: u32,
}

words! {
    /// What became of a test.
    RunState {
        /// Others run before it.
        Waiting = "waiting",
        /// It runs.
        Running = "running",
        /// It ended by itself with status 0.
        Done = "done",
        /// It ended with another status or by a signal, or could not be started.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
    }
}

impl RunState {
    /// Whether it is over.
    pub fn is_over(self) -> bool {
        !matches!(self, RunState::Waiting | RunState::Running)
    }
}

/// A test, from the order on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The order's id.
    pub id: Box<str>,
    /// Which of the order's id's tests it is: the line as it was written.
    pub line: Box<str>,
    /// What became of it.
    pub state: RunState,
    /// When it began, by the guest's clock; when it was ordered, while it waits.
    pub at: Wall,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
    /// How much CPU time it and its children took, in milliseconds.
    pub cpu_ms: u64,
    /// Its exit status; none while it is not over, when it ended by a signal and when it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// Why it has no status, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<str>>,
    /// The end of what it printed, whole lines, [`OUTPUT_MAX`] bytes at most; what is not UTF-8 is replaced.
    pub output: Box<str>,
}

/// The tests that a guest remembers. Like a heartbeat it tells all: what it does not name is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestRuns {
    /// In the order in which they were ordered, [`RUNS_MAX`] at most.
    pub runs: Vec<Run>,
}

impl GuestRuns {
    /// The test that was ordered last.
    pub fn last(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// Whether none runs or waits.
    pub fn is_idle(&self) -> bool {
        self.runs.iter().all(|r| r.state.is_over())
    }
}

/// The processes of a guest, while somebody reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// When, by the guest's clock.
    pub at: Wall,
    /// Its CPUs.
    pub cpus: u16,
    /// The share of them that was used since the last one.
    pub load: Ratio,
    /// How many processes there are.
    pub total: u32,
    /// The busiest first, [`PROCESSES_MAX`] at most.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Whose it is; the number of a user without a name.
    pub user: Box<str>,
    /// Hundredths of one CPU since the last time: 150 for one and a half.
    pub cpu: u32,
    /// Memory that it has in use, in KiB.
    pub memory: u64,
    /// CPU time in all, in milliseconds.
    pub time_ms: u64,
    /// Its command line, or its name in brackets.
    pub command: Box<str>,
}

fn short(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.len() > most {
        return Err(format!("its {what} has {} bytes; at most {most} are taken", text.len()));
    }
    Ok(())
}

fn few(what: &str, n: usize, most: usize) -> Result<(), String> {
    if n > most { Err(format!("it names {n} {what}; at most {most} are taken")) } else { Ok(()) }
}

impl GuestBeat {
    /// What no guestd says; the sentence tells.
    pub fn check(&self) -> Result<(), String> {
        if !INTERVAL_RANGE_MS.contains(&self.interval_ms) {
            let (from, to) = (INTERVAL_RANGE_MS.start(), INTERVAL_RANGE_MS.end());
            return Err(format!("its interval is {} ms, not {from} to {to}", self.interval_ms));
        }
        short("version", &self.version, TEXT_MAX)?;
        few("tests", self.tests.len(), TESTS_MAX)?;
        self.tests.iter().try_for_each(|t| short("test's name", t, TEXT_MAX))
    }
}

impl GuestRuns {
    /// What no guestd says; the sentence tells.
    pub fn check(&self) -> Result<(), String> {
        few("tests that it ran", self.runs.len(), RUNS_MAX)?;
        self.runs.iter().try_for_each(|r| {
            short("order's id", &r.id, TEXT_MAX)?;
            short("line", &r.line, RUN_LINE_MAX)?;
            short("sentence", r.why.as_deref().unwrap_or_default(), TEXT_MAX)?;
            short("output", &r.output, OUTPUT_MAX)
        })
    }
}

impl Top {
    /// What no guestd says; the sentence tells.
    pub fn check(&self) -> Result<(), String> {
        few("processes", self.processes.len(), PROCESSES_MAX)?;
        self.processes.iter().try_for_each(|p| {
            short("user", &p.user, TEXT_MAX)?;
            short("command line", &p.command, TEXT_MAX)
        })
    }
}

/// The end of what a program printed: whole lines where there are any, [`OUTPUT_MAX`] bytes at most, UTF-8, and no control characters but
/// line ends and tabs.
pub fn tail(printed: &[u8]) -> Box<str> {
    let end = &printed[printed.len().saturating_sub(2 * OUTPUT_MAX)..];
    let text: String = String::from_utf8_lossy(end)
        .chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect();
    if printed.len() == end.len() && text.len() <= OUTPUT_MAX {
        return text.into();
    }
    let mut from = text.len().saturating_sub(OUTPUT_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let cut = &text[from..];
    // the first line is a part of one, unless it is the only one
    let whole = cut.find('\n').map(|at| &cut[at + 1..]).filter(|rest| !rest.is_empty());
    whole.unwrap_or(cut).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_of_an_output() {
        assert_eq!(&*tail(b"1\n2\n"), "1\n2\n");
        assert_eq!(&*tail(b"\x1b[1mx\xff\n"), "\u{fffd}[1mx\u{fffd}\n");
        let long = "line\n".repeat(2000);
        let end = tail(long.as_bytes());
        assert!(end.starts_with("line\n") && end.len() <= OUTPUT_MAX && end.len() > OUTPUT_MAX - 10);
        assert_eq!(tail(&[b'x'; 9000]).len(), OUTPUT_MAX);
    }

    proptest! {
        #[test]
        fn whatever_is_printed_is_bounded_text(printed in prop::collection::vec(any::<u8>(), 0..20_000)) {
            let end = tail(&printed);
            prop_assert!(end.len() <= OUTPUT_MAX);
            prop_assert!(!end.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
