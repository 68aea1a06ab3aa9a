//! How a migration by pre-copy goes: a pure plan of rounds.
//!
//! The first round copies all memory; each further one what got dirty during the one before. When what is left takes less than
//! 50 ms, or after 30 rounds, the domain stands and the rest is copied.

use crate::hypervisor::Progress;

/// A domain stands when what is left takes less than this, in milliseconds.
const STOP_MS: u128 = 50;
/// Most rounds while it runs.
const ROUNDS: u32 = 30;

/// One migration's copy. All sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precopy {
    /// The domain's memory.
    memory: u64,
    /// What the domain changes in a second; 0 when it is paused.
    dirty: u64,
    /// What goes over in a second.
    bandwidth: u64,
    /// Rounds that are over.
    rounds: u32,
    /// What is still to be sent in this round.
    left: u64,
    /// What was sent in all rounds.
    sent: u64,
    /// The greatest percentage that was told.
    percent: u8,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Copy a round while the domain runs.
    Round,
    /// Stop the domain, and copy what is left.
    Stop,
}

impl Precopy {
    /// A copy that has not begun.
    pub fn new(memory: u64, dirty: u64, bandwidth: u64) -> Self {
        Precopy { memory, dirty, bandwidth: bandwidth.max(1), rounds: 0, left: memory, sent: 0, percent: 0 }
    }

    /// What to do with what is left now.
    pub fn step(&self) -> Step {
        let takes = u128::from(self.left) * 1_000 / u128::from(self.bandwidth);
        if self.rounds > 0 && (takes < STOP_MS || self.rounds >= ROUNDS) { Step::Stop } else { Step::Round }
    }

    /// The size of the next piece, at most `most` bytes and 50 ms; 0 when the round is over.
    pub fn piece(&self, most: u64) -> u64 {
        self.left.min(most).min((self.bandwidth / 20).max(1))
    }

    /// A piece was sent.
    pub fn sent(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.sent += bytes;
    }

    /// The round is over and took `ms` milliseconds: what got dirty meanwhile is to be sent again.
    pub fn round(&mut self, ms: u64) {
        self.rounds += 1;
        let dirtied = u128::from(self.dirty) * u128::from(ms) / 1_000;
        self.left = u64::try_from(dirtied).unwrap_or(u64::MAX).min(self.memory);
    }

    /// Bytes sent so far.
    pub fn total(&self) -> u64 {
        self.sent
    }

    /// Milliseconds that the sent bytes take at this bandwidth.
    pub fn due_ms(&self) -> u64 {
        u64::try_from(u128::from(self.sent) * 1_000 / u128::from(self.bandwidth)).unwrap_or(u64::MAX)
    }

    /// How far it is; the percentage never goes back, and is 100 only when nothing is left.
    pub fn progress(&mut self) -> Progress {
        let over = self.memory.saturating_sub(self.left);
        let percent = (u128::from(over) * 100 / u128::from(self.memory.max(1))).min(100) as u8;
        let percent = if self.left > 0 { percent.min(99) } else { percent };
        self.percent = self.percent.max(percent);
        Progress { percent: self.percent, sent: self.sent, remaining: self.left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a plan with exact times; gives (milliseconds in all, milliseconds down).
    fn run(mut copy: Precopy) -> (u64, u64) {
        let (mut total, mut percent) = (0, 0);
        for _ in 0..=ROUNDS {
            let stop = copy.step() == Step::Stop;
            let begin = copy.due_ms();
            copy.sent(copy.left);
            let took = copy.due_ms() - begin;
            let told = copy.progress().percent;
            assert!(told >= percent, "it goes back");
            percent = told;
            total += took;
            if stop {
                assert_eq!((copy.left, percent), (0, 100));
                return (total, took);
            }
            copy.round(took);
        }
        panic!("it never ends");
    }

    #[test]
    fn the_defaults_take_half_a_second() {
        let (total, down) = run(Precopy::new(512 << 20, 8 << 20, 1 << 30));
        assert!((500..=600).contains(&total) && down < 50, "{total} {down}");
    }

    #[test]
    fn a_paused_domain_is_copied_once() {
        assert_eq!(run(Precopy::new(1 << 30, 0, 1 << 30)), (1_000, 0));
    }

    #[test]
    fn what_never_converges_stops_after_thirty_rounds() {
        assert_eq!(run(Precopy::new(1 << 30, 2 << 30, 1 << 30)), (31_000, 1_000));
    }

    proptest! {
        #[test]
        fn every_copy_ends(memory in 1u64..1 << 50, dirty in 0u64..1 << 40, bandwidth in 1u64..1 << 40, most in 1u64..1 << 30) {
            let copy = Precopy::new(memory, dirty, bandwidth);
            prop_assert!((1..=most).contains(&copy.piece(most)));
            run(copy);
        }
    }
}
