//! What a guest wants of its vCPUs at a moment. Pure but for [`trace`], which reads a file once.

use serde::{Deserialize, Serialize};
use std::{io::Read, path::Path, sync::Arc};

/// Most lines of a trace: two months of one value each five minutes; it must fit in one frame when the domain moves.
const TRACE_MAX: usize = 20_000;
/// Most bytes of a trace file.
const TRACE_BYTES: u64 = 1 << 20;

/// The share of each vCPU that a guest wants over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Always the same share, 0 to 1.
    Constant(f64),
    /// Gently around 0.2; it differs from each second to the next.
    Wander,
    /// A recording, from the domain's boot on, over and over.
    Trace {
        /// Seconds that one value holds.
        step: u64,
        /// The shares, 0 to 1 each.
        shares: Arc<[f64]>,
    },
}

impl Demand {
    /// Whether all numbers are shares: for what came from a socket or a file.
    pub fn is_valid(&self) -> bool {
        let share = |s: &f64| (0.0..=1.0).contains(s);
        match self {
            Demand::Constant(s) => share(s),
            Demand::Wander => true,
            Demand::Trace { step, shares } => {
                (1..=86_400).contains(step)
                    && !shares.is_empty()
                    && shares.len() <= TRACE_MAX
                    && shares.iter().all(share)
            }
        }
    }

    /// What the guest wants of vCPU number `vcpu`, 0 to 1.
    ///
    /// `key` is the domain's own number (see [`key`]), `wall` seconds since 1970, `age` seconds since its boot.
    pub fn at(&self, key: u64, vcpu: u16, wall: u64, age: u64) -> f64 {
        match self {
            Demand::Constant(share) => *share,
            Demand::Wander => wander(key.wrapping_add(u64::from(vcpu)), wall),
            Demand::Trace { step, shares } => {
                let len = shares.len().max(1) as u64;
                let at = age / (*step).max(1) % len;
                shares.get(at as usize).copied().unwrap_or(0.0)
            }
        }
    }
}

/// The number that makes one domain's wandering its own: from the seed of the hypervisor and the domain's name.
pub fn key(seed: u64, name: &str) -> u64 {
    // FNV-1a: the same on every machine and in every version, as the standard hasher is not
    name.bytes()
        .fold(mix(seed) ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// SplitMix64's last step: every bit of the input changes half of the output's.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A number from 0 to 1 for `key` at `index`.
fn noise(key: u64, index: u64) -> f64 {
    (mix(mix(key) ^ index) >> 11) as f64 / (1u64 << 53) as f64
}

/// Slow hills of 30 s between 0.12 and 0.28, and on top steps that return after three seconds: who looks each second or each other
/// second always sees a change. The steps of all domains go the same way, so they do not cancel in a server's sum.
fn wander(key: u64, second: u64) -> f64 {
    const HILL: u64 = 30;
    const STEPS: [f64; 3] = [0.08, 0.0, -0.08];
    let (a, b) = (noise(key, second / HILL), noise(key, second / HILL + 1));
    let t = (second % HILL) as f64 / HILL as f64;
    let hill = 0.12 + 0.16 * (a + (b - a) * t);
    hill + STEPS[(second % 3) as usize] + 0.02 * noise(!key, second)
}

/// Reads a recording in PlanetLab's form: a number from 0 to 100 a line; empty lines do not count.
pub fn trace(path: &Path) -> Result<Vec<f64>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    file.take(TRACE_BYTES + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > TRACE_BYTES {
        return Err(format!("it is longer than {TRACE_BYTES} bytes"));
    }
    let mut shares = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let percent = line.trim().parse().ok().filter(|p| (0.0..=100.0).contains(p));
        let percent: f64 = percent.ok_or_else(|| {
            let line: String = line.chars().take(40).collect();
            format!("line {} is {line:?}; allowed is a number from 0 to 100", i + 1)
        })?;
        // four digits are a hundredth of a percent, and short on the wire
        shares.push((percent * 100.0).round() / 1e4);
    }
    match shares.len() {
        0 => Err("it holds no number; allowed is a number from 0 to 100 a line".into()),
        n if n > TRACE_MAX => Err(format!("it has {n} lines; allowed are at most {TRACE_MAX}")),
        _ => Ok(shares),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    proptest! {
        #[test]
        fn wandering_stays_near_and_never_stands(seed: u64, name in "[a-z]{1,8}", second in 0u64..1 << 40) {
            let key = key(seed, &name);
            let (a, b, c) = (wander(key, second), wander(key, second + 1), wander(key, second + 2));
            prop_assert!((0.04..=0.38).contains(&a), "{a}");
            prop_assert!((a - b).abs() > 0.04 && (a - c).abs() > 0.04, "{a} {b} {c}");
            prop_assert_eq!(a, Demand::Wander.at(key, 0, second, 0));
        }
    }

    #[test]
    fn wandering_is_around_a_fifth() {
        let mean = (0..10_000).map(|s| wander(key(1, "small-1"), s)).sum::<f64>() / 10_000.0;
        assert!((0.18..0.22).contains(&mean), "{mean}");
    }

    #[test]
    fn a_trace_runs_from_the_boot_and_over_again() {
        let demand = Demand::Trace { step: 10, shares: [0.1, 0.9].into() };
        let got: Vec<f64> = [0, 9, 10, 19, 20, 35].iter().map(|&age| demand.at(7, 0, 99, age)).collect();
        assert_eq!(got, [0.1, 0.1, 0.9, 0.9, 0.1, 0.9]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, says) in [("5\n101\n", "line 2 is \"101\""), ("", "it holds no number"), ("nan", "line 1")]
        {
            let mut file = tempfile::NamedTempFile::new().expect("file");
            write!(file, "{text}").expect("written");
            let e = trace(file.path()).expect_err(text);
            assert!(e.starts_with(says), "{e}");
        }
    }

    #[test]
    fn what_came_from_outside_is_checked() {
        assert!(!Demand::Constant(f64::NAN).is_valid());
        assert!(!Demand::Constant(2.0).is_valid());
        assert!(!Demand::Trace { step: 0, shares: [0.5].into() }.is_valid());
        assert!(!Demand::Trace { step: 1, shares: [].into() }.is_valid());
        assert!(Demand::Wander.is_valid());
    }
}
