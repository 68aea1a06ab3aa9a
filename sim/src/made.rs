//! Made loads, for questions of size: as many domains as wanted, most of them idle, each with a level of its own that rises and falls
//! over the day, and noise around it, as recordings show. What policies are worth is not to be read from them.

use crate::Loads;
use rand::{Rng, SeedableRng, rngs::StdRng};

impl Loads {
    /// `domains` domains over `samples` five minutes, from chance `seed`; they want 0.14 CPUs in the mean.
    pub fn made(domains: usize, samples: usize, seed: u64) -> Loads {
        let mut rng = StdRng::seed_from_u64(seed);
        let one = |_| {
            let (level, phase): (f64, f64) = (0.56 * rng.random::<f64>().powi(3), rng.random());
            (0..samples)
                .map(|t| {
                    let day = 1.0 + 0.5 * ((t as f64 / 288.0 + phase) * std::f64::consts::TAU).sin();
                    (level * day * (0.6 + 0.8 * rng.random::<f64>())).min(1.0)
                })
                .collect()
        };
        let loads = (0..domains).map(one).collect();
        Loads {
            name: format!("made-{seed}"),
            names: (0..domains).map(|d| format!("d{d}")).collect(),
            domains: loads,
        }
    }
}
