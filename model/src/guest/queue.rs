//! Tests of a guest: one runs, others wait, the last ones are remembered.
//!
//! ```text
//!   order ──▶ waiting ──▶ running ──▶ done | failed | cancelled
//!                └─── cancel ─────────────────────────────┘
//! ```

use super::{GuestRuns, RUNS_MAX, Run, RunState, WAITING_MAX};
use crate::Wall;

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
    /// How much CPU time it took, in milliseconds.
    pub cpu_ms: u64,
    /// Its exit status, or why it has none.
    pub status: Result<i32, Box<str>>,
    /// The end of what it printed, see [`super::tail`].
    pub output: Box<str>,
}

/// The tests of a guest.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    runs: GuestRuns,
    /// The running one is to end.
    cancelled: bool,
}

impl Queue {
    /// As others see them.
    pub fn runs(&self) -> &GuestRuns {
        &self.runs
    }

    /// Takes a test. An error says why not, in the middle of a sentence.
    pub fn order(&mut self, id: &str, line: &str, now: Wall) -> Result<(), String> {
        let waiting = self.runs.runs.iter().filter(|r| r.state == RunState::Waiting).count();
        if waiting >= WAITING_MAX {
            return Err(format!("{waiting} tests wait already; `echo cancel > guest/ctl` ends them"));
        }
        self.runs.runs.push(Run {
            id: id.into(),
            line: line.into(),
            state: RunState::Waiting,
            at: now,
            wall_ms: 0,
            cpu_ms: 0,
            status: None,
            why: None,
            output: "".into(),
        });
        while self.runs.runs.len() > RUNS_MAX {
            // those that wait are fewer, so the oldest that is over goes
            let Some(at) = self.runs.runs.iter().position(|r| r.state.is_over()) else { break };
            self.runs.runs.remove(at);
        }
        Ok(())
    }

    /// The line of the test that begins now, when none runs and one waits.
    pub fn begin(&mut self, now: Wall) -> Option<Box<str>> {
        if self.running().is_some() {
            return None;
        }
        let next = self.runs.runs.iter_mut().find(|r| r.state == RunState::Waiting)?;
        (next.state, next.at) = (RunState::Running, now);
        self.cancelled = false;
        Some(next.line.clone())
    }

    /// The test that runs.
    pub fn running(&self) -> Option<&Run> {
        self.runs.runs.iter().find(|r| r.state == RunState::Running)
    }

    /// The test that runs is to end, and those that wait are over. How many of both there were.
    pub fn cancel(&mut self) -> (usize, usize) {
        let mut waited = 0;
        for run in &mut self.runs.runs {
            if run.state == RunState::Waiting {
                (run.state, run.why) = (RunState::Cancelled, Some("cancelled before it began".into()));
                waited += 1;
            }
        }
        let runs = self.running().is_some();
        self.cancelled |= runs;
        (usize::from(runs), waited)
    }

    /// The test that ran has ended.
    pub fn ended(&mut self, end: End) {
        let cancelled = std::mem::take(&mut self.cancelled);
        let Some(run) = self.runs.runs.iter_mut().find(|r| r.state == RunState::Running) else { return };
        run.state = match &end.status {
            _ if cancelled => RunState::Cancelled,
            Ok(0) => RunState::Done,
            _ => RunState::Failed,
        };
        (run.wall_ms, run.cpu_ms, run.output) = (end.wall_ms, end.cpu_ms, end.output);
        match end.status {
            Ok(status) => run.status = Some(status),
            Err(why) => run.why = Some(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(status: Result<i32, Box<str>>) -> End {
        End { wall_ms: 5, cpu_ms: 4, status, output: "x\n".into() }
    }

    #[test]
    fn one_after_the_other() {
        let mut q = Queue::default();
        assert_eq!(q.begin(Wall(0)), None);
        q.order("a", "fibonacci 1", Wall(1)).expect("taken");
        q.order("b", "image", Wall(1)).expect("taken");
        assert_eq!(q.begin(Wall(2)).as_deref(), Some("fibonacci 1"));
        assert_eq!(q.begin(Wall(2)), None, "one runs");
        q.ended(end(Ok(0)));
        assert_eq!(q.begin(Wall(9)).as_deref(), Some("image"));
        assert!(!q.runs().is_idle());
        q.order("c", "disk", Wall(10)).expect("taken");
        assert_eq!(q.cancel(), (1, 1));
        q.ended(end(Err("killed by signal 9".into())));
        let states: Vec<RunState> = q.runs().runs.iter().map(|r| r.state).collect();
        assert_eq!(states, [RunState::Done, RunState::Cancelled, RunState::Cancelled]);
        assert!(q.runs().is_idle() && q.begin(Wall(11)).is_none());
        q.order("d", "no", Wall(12)).expect("taken");
        q.begin(Wall(12)).expect("begins");
        q.ended(end(Ok(3)));
        assert_eq!(q.runs().last().map(|r| (r.state, r.status)), Some((RunState::Failed, Some(3))));
    }

    proptest! {
        // whatever is ordered, cancelled and ends: bounded, at most one runs, each is over once and in its order
        #[test]
        fn a_queue_keeps_its_bounds(steps in prop::collection::vec(0u8..5, 0..300)) {
            let mut q = Queue::default();
            let (mut taken, mut begun) = (Vec::new(), Vec::new());
            for (i, step) in steps.into_iter().enumerate() {
                let line = i.to_string();
                match step {
                    0 | 1 => if q.order(&line, &line, Wall(0)).is_ok() { taken.push(line) },
                    2 => begun.extend(q.begin(Wall(0)).map(String::from)),
                    3 => q.ended(end(Ok(0))),
                    _ => drop(q.cancel()),
                }
                let runs = q.runs();
                prop_assert!(runs.runs.len() <= RUNS_MAX);
                prop_assert!(runs.check().is_ok());
                prop_assert!(runs.runs.iter().filter(|r| r.state == RunState::Running).count() <= 1);
            }
            let mut rest = taken.iter();
            prop_assert!(begun.iter().all(|b| rest.any(|t| t == b)), "in order, and each once");
        }
    }
}
