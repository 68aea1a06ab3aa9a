//! Where daemons take the time from, so that tests can choose it.
//!
//! The monotonic half is tokio's: with tokio's paused time it stands still and jumps as the test says.

use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use xvm_model::{Mono, Now, Wall};

/// A clock; clones tell the same time. [`Mono`] counts from the clock's making, so moments of two clocks made apart must not be
/// compared: a process makes one and clones it.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The moment that is `Mono(0)`.
    start: Instant,
    /// The wall time at `start` where a test chose it; none asks the system each time.
    base: Option<Wall>,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Clock { start: Instant::now(), base: None }
    }

    /// A clock whose wall time is `base` now and goes on with the monotonic time: for tests.
    pub fn at(base: Wall) -> Self {
        Clock { start: Instant::now(), base: Some(base) }
    }

    /// Both times, read together.
    pub fn now(&self) -> Now {
        let mono = self.mono();
        let wall = match self.base {
            Some(base) => Wall(base.0.saturating_add(mono.0)),
            // a clock before 1970 is shown as 1970
            None => Wall(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| millis(d.as_millis()))),
        };
        Now { mono, wall }
    }

    /// The monotonic time alone; cheaper than [`Clock::now`].
    pub fn mono(&self) -> Mono {
        Mono(millis(self.start.elapsed().as_millis()))
    }
}

fn millis(ms: u128) -> u64 {
    u64::try_from(ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_chosen_clock_goes_with_paused_time() {
        let clock = Clock::at(Wall(1_000));
        let copy = clock.clone();
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now(), Now { mono: Mono(250), wall: Wall(1_250) });
        assert_eq!(copy.now(), clock.now());
    }
}
