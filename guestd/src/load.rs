//! Load on request: a thread for each CPU that is busy for a share of each period of 100 ms.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::{Duration, Instant};
use xvm_model::Ratio;

/// How often each CPU is busy and idle.
const PERIOD: Duration = Duration::from_millis(100);
/// The threads compute, and need next to no stack.
const STACK: usize = 64 * 1024;
/// Between two looks at the clock a thread counts so far: some 10 µs.
const SPINS: u32 = 10_000;

/// Load that goes on until its end, or until this is dropped.
#[derive(Debug)]
pub struct Load {
    /// The threads are to end.
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Loads each CPU that this process may use.
    pub fn begin(share: Ratio, time: Duration) -> Load {
        let (over, until) = (Arc::new(AtomicBool::new(false)), Instant::now() + time);
        let busy = PERIOD.mul_f64(share.get());
        let threads = cpus().into_iter().filter_map(|cpu| {
            let over = over.clone();
            let thread = Builder::new().name("load".into()).stack_size(STACK);
            let started = thread.spawn(move || {
                if let Some(cpu) = cpu {
                    let mut set = CpuSet::new();
                    set.set(cpu);
                    // where that is not allowed the kernel spreads the threads by itself
                    let _ = sched_setaffinity(None, &set);
                }
                load(&over, busy, until);
            });
            started.inspect_err(|error| tracing::warn!(%error, "a CPU stays without load")).ok()
        });
        Load { threads: threads.collect(), over }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        self.threads.iter().for_each(|t| t.thread().unpark());
    }
}

/// The CPUs that this process may use; none of them has a number where the kernel does not say.
fn cpus() -> Vec<Option<usize>> {
    let Ok(set) = sched_getaffinity(None) else { return vec![None] };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(Some).collect()
}

/// Busy, then idle, period by period. Periods begin at fixed moments, so that a late wake-up does not make them longer.
fn load(over: &AtomicBool, busy: Duration, until: Instant) {
    let mut period = Instant::now();
    loop {
        while period.elapsed() < busy {
            if over.load(Relaxed) || Instant::now() >= until {
                return;
            }
            (0..SPINS).for_each(|i| {
                std::hint::black_box(i);
            });
        }
        period = (period + PERIOD).max(Instant::now().checked_sub(PERIOD).unwrap_or(period));
        while let Some(rest) =
            period.min(until).checked_duration_since(Instant::now()).filter(|r| !r.is_zero())
        {
            if over.load(Relaxed) {
                return;
            }
            park_timeout(rest);
        }
        if over.load(Relaxed) || Instant::now() >= until {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, load goes on after its end or after it was replaced.
    #[test]
    fn load_ends_by_itself_and_when_it_is_dropped() {
        let mut short = Load::begin(Ratio::new(0.2), Duration::from_millis(30));
        assert!(!short.threads.is_empty());
        short.threads.drain(..).for_each(|t| t.join().expect("it ends by itself"));
        let mut long = Load::begin(Ratio::new(0.1), Duration::from_secs(3600));
        let threads = std::mem::take(&mut long.threads);
        long.over.store(true, Relaxed);
        threads.iter().for_each(|t| t.thread().unpark());
        threads.into_iter().for_each(|t| t.join().expect("it ends when it is told to"));
    }
}
