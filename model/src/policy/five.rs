//! `three-of-five`: the trigger of Sandpiper, for comparison. A server asks when three of its last five samples are above 75 % and
//! the next is predicted above it too (first-order autoregression over the last hour of samples). The most loaded domain goes to
//! the least loaded server that stays below 75 %; when nobody can take it, the next.

use super::{Guest, Host, Peers, Policy, Request, Sums, Worth};
use crate::Mono;
use std::collections::VecDeque;

/// Above it a sample is hot.
pub const THRESHOLD: f64 = 0.75;
/// Samples that the prediction is made of.
pub const WINDOW: usize = 12;

/// The rule's memory.
#[derive(Debug, Default)]
pub struct ThreeOfFive {
    /// The last [`WINDOW`] loads.
    loads: VecDeque<f64>,
}

/// The next value of `x` by a first-order autoregression around its mean.
pub fn predicted(x: &VecDeque<f64>) -> Option<f64> {
    let last = *x.back()?;
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let (mut cov, mut var) = (0.0, 1e-9);
    for (a, b) in x.iter().zip(x.iter().skip(1)) {
        cov += (a - mean) * (b - mean);
        var += (a - mean).powi(2);
    }
    Some(mean + (cov / var).clamp(-1.0, 1.0) * (last - mean))
}

impl Policy for ThreeOfFive {
    fn name(&self) -> &'static str {
        "three-of-five"
    }

    fn sample(&mut self, host: &Host, _: &Peers, _: Mono) {
        self.loads.push_back(host.load().min(1.0));
        if self.loads.len() > WINDOW {
            self.loads.pop_front();
        }
    }

    fn pain(&self, host: &Host, _: Mono) -> Option<f64> {
        let hot = self.loads.iter().rev().take(5).filter(|&&l| l > THRESHOLD).count();
        (self.loads.len() >= 5 && hot >= 3 && predicted(&self.loads)? > THRESHOLD).then(|| host.load())
    }

    fn relief(&self, _: &Host, _: &Sums, guest: &Guest, _: f64) -> Option<f64> {
        Some(guest.load)
    }

    fn wishes(&self) -> usize {
        usize::MAX
    }

    fn worth(&self, host: &Host, sums: &Sums, request: &Request, index: usize) -> Option<Worth> {
        let projected = (sums.demand + request.wishes[index].guest.load) / host.cpus;
        // the first wish that anybody can take wins, and for it the least loaded helper
        Some(Worth { gain: -(index as f64), delay_ms: 200.0 * index as f64 + 100.0 * projected })
    }

    fn room(&self, host: &Host, sums: &Sums, guest: &Guest) -> bool {
        sums.with(guest).projected(host.cpus) < THRESHOLD
    }
}
