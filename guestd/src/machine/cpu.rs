//! `/proc/stat`, `/proc/loadavg`, `/proc/uptime`.

use xvm_model::Ratio;

/// Time that all CPUs together spent since the boot, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// All.
    pub all: u64,
    /// Used by programs, the kernel and interrupts.
    pub busy: u64,
    /// Given to others by the host.
    pub steal: u64,
}

impl CpuTimes {
    /// The share of the CPUs that was used since `earlier`.
    pub fn load_since(self, earlier: CpuTimes) -> Ratio {
        share(self.busy.saturating_sub(earlier.busy), self.all.saturating_sub(earlier.all))
    }

    /// The share of the CPUs that the host gave to others since `earlier`.
    pub fn steal_since(self, earlier: CpuTimes) -> Ratio {
        share(self.steal.saturating_sub(earlier.steal), self.all.saturating_sub(earlier.all))
    }
}

fn share(part: u64, all: u64) -> Ratio {
    if all == 0 { Ratio::ZERO } else { Ratio::new(part as f64 / all as f64) }
}

/// Reads `/proc/stat`: the time of all CPUs, and how many are on line, 1 at least.
pub fn parse_stat(text: &str) -> Option<(CpuTimes, u16)> {
    let mut total = None;
    let mut cpus = 0u16;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("cpu") => total = Some(times(words)),
            Some(word) if word.starts_with("cpu") => cpus = cpus.saturating_add(1),
            _ => {}
        }
    }
    total.map(|times| (times, cpus.max(1)))
}

/// user nice system idle iowait irq softirq steal; what follows (guest, guest_nice) is a part of user and nice.
fn times<'a>(words: impl Iterator<Item = &'a str>) -> CpuTimes {
    let mut fields = [0u64; 8];
    for (field, word) in fields.iter_mut().zip(words) {
        *field = word.parse().unwrap_or(0);
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal] = fields;
    let sum = |all: &[u64]| all.iter().fold(0u64, |sum, x| sum.saturating_add(*x));
    let busy = sum(&[user, nice, system, irq, softirq]);
    CpuTimes { all: sum(&[busy, idle, iowait, steal]), busy, steal }
}

/// Reads `/proc/loadavg`: the averages over 1, 5 and 15 minutes in hundredths.
pub fn parse_average(text: &str) -> Option<[u32; 3]> {
    let mut words = text.split_ascii_whitespace();
    // a cast from f64 saturates, and a NaN is 0
    let mut next = || Some((words.next()?.parse::<f64>().ok()? * 100.0).round() as u32);
    Some([next()?, next()?, next()?])
}

/// Reads `/proc/uptime`: whole seconds since the boot.
pub fn parse_uptime(text: &str) -> Option<u64> {
    Some(text.split_ascii_whitespace().next()?.parse::<f64>().ok()? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "\
cpu  274794 16120 63892 219508 3406 0 1497 418 0 0
cpu0 132761 8174 29513 117505 1068 0 518 213 0 0
cpu1 142033 7945 34379 102002 2338 0 979 205 0 0
intr 4630404 0 0 0
ctxt 123
";

    #[test]
    fn recorded_texts() {
        let (times, cpus) = parse_stat(STAT).expect("it reads");
        assert_eq!(cpus, 2);
        assert_eq!((times.busy, times.steal, times.all), (356_303, 418, 579_635));
        let later = CpuTimes { all: times.all + 200, busy: times.busy + 50, steal: times.steal + 20 };
        assert_eq!((later.load_since(times), later.steal_since(times)), (Ratio::new(0.25), Ratio::new(0.1)));
        assert_eq!(times.load_since(later), Ratio::ZERO, "counters that went back are no load");
        // an old kernel without iowait and the rest
        assert_eq!(parse_stat("cpu 1 2 3 4\n").map(|(t, n)| (t.all, n)), Some((10, 1)));
        assert_eq!(parse_average("2.44 0.60 11.96 1/123 4567\n"), Some([244, 60, 1196]));
        assert_eq!(parse_uptime("350735.47 234388.90\n"), Some(350_735));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>(), numbers in prop::collection::vec(any::<u64>(), 0..12)) {
            let line = numbers.iter().fold("cpu".to_owned(), |line, n| format!("{line} {n}"));
            for text in [text.as_str(), &line, &line[3..]] {
                let _ = (parse_stat(text), parse_average(text), parse_uptime(text));
            }
        }
    }
}
