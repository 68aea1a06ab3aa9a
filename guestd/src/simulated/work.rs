//! How far a test is in a guest that only reckons: its CPU time grows with what the domain gets.

use crate::builtin::Cost;
use std::time::Duration;
use xvm_model::Mono;
use xvm_model::guest::queue::End;
use xvm_model::guest::tail;

/// A test that is reckoned.
#[derive(Debug)]
pub(super) struct Work {
    /// Its name and arguments.
    pub(super) line: String,
    cost: Cost,
    begun: Mono,
    /// Until when it is reckoned.
    at: Mono,
    /// CPU time so far, in nanoseconds.
    spent: u64,
}

impl Work {
    /// Begins now.
    pub(super) fn new(line: String, cost: Cost, now: Mono) -> Self {
        Work { line, cost, begun: now, at: now, spent: 0 }
    }

    /// Time goes on, with `share` of one CPU for it since the last time; its end when it has come to it.
    pub(super) fn advance(&mut self, share: f64, now: Mono) -> Option<End> {
        let passed = Duration::from_millis(now.since(self.at)).mul_f64(share.clamp(0.0, 1.0));
        self.at = now;
        self.spent = self.spent.saturating_add(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX));
        let whole = u64::try_from(self.cost.cpu.as_nanos()).unwrap_or(u64::MAX);
        (self.spent >= whole).then(|| {
            self.spent = whole;
            self.end(Ok(0))
        })
    }

    /// Its end when it is killed now.
    pub(super) fn killed(&self) -> End {
        End { output: "".into(), ..self.end(Err("killed by signal 9".into())) }
    }

    /// CPU time so far, in milliseconds.
    pub(super) fn cpu_ms(&self) -> u64 {
        self.spent / 1_000_000
    }

    fn end(&self, status: Result<i32, Box<str>>) -> End {
        let output = tail(self.cost.output.as_bytes());
        End { wall_ms: self.at.since(self.begun), cpu_ms: self.cpu_ms(), status, output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_a_cpu_takes_twice_as_long() {
        let cost = Cost { cpu: Duration::from_secs(2), output: "x\n".into() };
        let mut work = Work::new("a".into(), cost, Mono(1_000));
        assert_eq!(work.advance(0.5, Mono(4_900)), None);
        assert_eq!(work.killed().wall_ms, 3_900);
        let end = work.advance(0.5, Mono(5_000)).expect("over");
        let wanted = End { wall_ms: 4_000, cpu_ms: 2_000, status: Ok(0), output: "x\n".into() };
        assert_eq!(end, wanted);
    }

    proptest! {
        #[test]
        fn never_faster_than_a_cpu(steps in prop::collection::vec((0u64..5_000, -1.0f64..3.0), 1..50)) {
            let cost = Cost { cpu: Duration::from_secs(20), output: String::new() };
            let (mut work, mut now) = (Work::new("a".into(), cost, Mono(0)), 0);
            for (ms, share) in steps {
                now += ms;
                if let Some(end) = work.advance(share, Mono(now)) {
                    prop_assert!(end.wall_ms >= 20_000 && end.cpu_ms == 20_000);
                    break;
                }
                prop_assert!(work.cpu_ms() <= now);
            }
        }
    }
}
