//! Medians, percentiles, and the comparison of two things by batches that take turns: what disturbs the machine disturbs both.

use std::time::{Duration, Instant};

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value below which the share `p` of all values lies; NaN of none.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((p * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Two things compared.
pub struct Compared {
    /// The median of ours.
    pub ours: f64,
    /// The median of theirs.
    pub theirs: f64,
    /// The median of the pairs' ratios, ours by theirs.
    pub ratio: f64,
}

/// Runs `pairs` pairs of batches, ours and theirs in turn (and the second first in every other pair).
pub fn compare(
    pairs: usize,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
    mut theirs: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Compared> {
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..pairs {
        let (x, y) = if i % 2 == 0 {
            let x = ours()?;
            (x, theirs()?)
        } else {
            let y = theirs()?;
            (ours()?, y)
        };
        a.push(x);
        b.push(y);
        ratios.push(x / y);
    }
    Ok(Compared { ours: median(&a), theirs: median(&b), ratio: median(&ratios) })
}

/// Seconds that each of `n` calls took in the middle.
pub fn each(n: usize, mut f: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut took = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        f()?;
        took.push(start.elapsed().as_secs_f64());
    }
    Ok(median(&took))
}

/// Waits until `f` gives something; the error says `what` did not come.
pub fn wait_for<T>(what: &str, bound: Duration, mut f: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = f() {
            return Ok(value);
        }
        anyhow::ensure!(start.elapsed() < bound, "{what}: not within {} s", bound.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}
