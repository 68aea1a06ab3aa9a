//! Who gets how much of the physical CPUs, and where: a pure function of what the vCPUs want.
//!
//! How much: max-min fair. All get what they want while there is enough; under contention there is one level up to which everybody
//! gets what they want and which nobody exceeds. So nothing is left idle that somebody wants.
//!
//! Where: the busy vCPUs are spread evenly, each on an own CPU while there are free ones, and stay where they were when that is even.
//! What a vCPU gets beyond the room on its CPU runs on others, as a scheduler would move it within the second.

/// What one vCPU wants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Want {
    /// The share of a CPU, 0 to 1.
    pub share: f64,
    /// The physical CPU it was on last.
    pub last: Option<u16>,
}

/// What one vCPU gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Got {
    /// The share of a CPU, 0 to what it wants.
    pub share: f64,
    /// The physical CPU that it mostly runs on.
    pub cpu: u16,
}

/// All that is given in one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Given {
    /// What each vCPU gets, in the order of the wants.
    pub vcpus: Vec<Got>,
    /// The load of each physical CPU, 0 to 1; their sum is that of the vCPUs.
    pub cpus: Vec<f64>,
}

/// Divides `cpus` physical CPUs among `wants`.
pub fn divide(cpus: u16, wants: &[Want]) -> Given {
    let cpus = cpus.max(1);
    let level = level(f64::from(cpus), wants);
    let places = place(cpus, wants);
    let vcpus: Vec<Got> = wants
        .iter()
        .zip(&places)
        .map(|(w, &cpu)| Got { share: w.share.clamp(0.0, 1.0).min(level), cpu })
        .collect();
    let mut loads = vec![0.0; usize::from(cpus)];
    let mut spill = 0.0;
    for got in &vcpus {
        if let Some(load) = loads.get_mut(usize::from(got.cpu)) {
            let here = got.share.min(1.0 - *load);
            *load += here;
            spill += got.share - here;
        }
    }
    // the sum is at most the capacity, so all of the spill finds room
    for load in &mut loads {
        let more = spill.min(1.0 - *load).max(0.0);
        *load += more;
        spill -= more;
    }
    Given { vcpus, cpus: loads }
}

/// The share that nobody exceeds: 1 while there is enough for all.
fn level(capacity: f64, wants: &[Want]) -> f64 {
    let mut shares: Vec<f64> = wants.iter().map(|w| w.share.clamp(0.0, 1.0)).collect();
    shares.sort_by(f64::total_cmp);
    let (mut left, mut others) = (capacity, shares.len());
    for share in shares {
        let fair = left / others as f64;
        if share > fair {
            return fair;
        }
        left -= share;
        others -= 1;
    }
    1.0
}

/// A CPU for each vCPU; the counts of busy vCPUs on two CPUs differ by one at most.
fn place(cpus: u16, wants: &[Want]) -> Vec<u16> {
    let n = usize::from(cpus);
    let busy: Vec<usize> = (0..wants.len()).filter(|&i| wants[i].share > 0.0).collect();
    let (even, mut extra) = (busy.len() / n, busy.len() % n);
    let mut count = vec![0usize; n];
    // idle vCPUs stay where they were and count nowhere
    let mut places: Vec<u16> = wants
        .iter()
        .enumerate()
        .map(|(i, w)| w.last.filter(|&c| c < cpus).unwrap_or((i % n) as u16))
        .collect();
    let mut homeless = Vec::new();
    for i in busy {
        match wants[i].last.filter(|&c| c < cpus).map(usize::from) {
            Some(cpu) if count[cpu] < even => count[cpu] += 1,
            Some(cpu) if count[cpu] == even && extra > 0 => {
                count[cpu] += 1;
                extra -= 1;
            }
            _ => homeless.push(i),
        }
    }
    for i in homeless {
        let cpu = (0..n).min_by_key(|&c| count[c]).unwrap_or(0);
        count[cpu] += 1;
        places[i] = cpu as u16;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wants() -> impl Strategy<Value = (u16, Vec<Want>)> {
        let share = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64];
        let want = (share, proptest::option::of(0u16..12)).prop_map(|(share, last)| Want { share, last });
        (1u16..9, proptest::collection::vec(want, 0..40))
    }

    const BIT: f64 = 1e-9;

    proptest! {
        #[test]
        fn what_is_given_is_fair((cpus, wants) in wants()) {
            let given = divide(cpus, &wants);
            let got: f64 = given.vcpus.iter().map(|g| g.share).sum();
            let wanted: f64 = wants.iter().map(|w| w.share).sum();
            let capacity = f64::from(cpus);
            prop_assert!(got <= capacity + BIT, "more than there is");
            prop_assert!((got - wanted.min(capacity)).abs() < BIT, "something idle is wanted: {got} of {wanted}");
            prop_assert!((got - given.cpus.iter().sum::<f64>()).abs() < BIT, "the CPUs' loads are the vCPUs'");
            prop_assert!(given.cpus.iter().all(|&l| (0.0..=1.0 + BIT).contains(&l)));
            let most = given.vcpus.iter().map(|g| g.share).fold(0.0, f64::max);
            for (w, g) in wants.iter().zip(&given.vcpus) {
                prop_assert!(g.share <= w.share, "more than wanted");
                prop_assert!(g.cpu < cpus);
                prop_assert!(g.share >= w.share - BIT || g.share >= most - BIT, "who wants more has less than another");
            }
        }

        #[test]
        fn places_are_even_and_stay((cpus, wants) in wants()) {
            let first = divide(cpus, &wants);
            let mut count = vec![0usize; usize::from(cpus)];
            for (w, g) in wants.iter().zip(&first.vcpus) {
                count[usize::from(g.cpu)] += usize::from(w.share > 0.0);
            }
            let (least, most) = (count.iter().min().expect("one"), count.iter().max().expect("one"));
            prop_assert!(most - least <= 1, "{count:?}");
            let again: Vec<Want> = wants.iter().zip(&first.vcpus).map(|(w, g)| Want { last: Some(g.cpu), ..*w }).collect();
            prop_assert_eq!(divide(cpus, &again), first);
        }
    }

    #[test]
    fn three_on_two_cpus_share() {
        let want = Want { share: 1.0, last: None };
        let given = divide(2, &[want, want, want]);
        assert!(given.vcpus.iter().all(|g| (g.share - 2.0 / 3.0).abs() < BIT), "{given:?}");
        assert_eq!(given.vcpus.iter().map(|g| g.cpu).collect::<Vec<_>>(), [0, 1, 0]);
        assert!(given.cpus.iter().all(|&l| (l - 1.0).abs() < BIT), "{given:?}");
    }
}
