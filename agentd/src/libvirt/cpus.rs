//! Some of a machine's CPUs, as users name them: `0-3,8`.

/// CPUs in rising order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(Vec<u16>);

impl CpuList {
    /// Reads numbers and ranges with commas between.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<u16>(), last.parse::<u16>()) {
                (Ok(first), Ok(last)) if first <= last && last < 8192 => cpus.extend(first..=last),
                _ => {
                    return Err(format!(
                        "{part:?} is no CPU and no range of CPUs such as 0-3, each below 8192"
                    ));
                }
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(CpuList(cpus))
    }

    /// The number under which the machine's `cpu` is shown: its place in the list.
    pub fn place(&self, cpu: u16) -> Option<u16> {
        self.0.binary_search(&cpu).ok().and_then(|place| u16::try_from(place).ok())
    }

    /// Of one value for each of the machine's CPUs, those of the list.
    pub fn of<T>(&self, all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        let listed = move |(cpu, value)| Some(value).filter(|_| self.holds(cpu));
        all.into_iter().enumerate().filter_map(listed)
    }

    fn holds(&self, cpu: usize) -> bool {
        u16::try_from(cpu).is_ok_and(|cpu| self.place(cpu).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        let list = CpuList::parse("8,1-3,2").expect("valid");
        assert_eq!([0, 1, 3, 8, 9].map(|cpu| list.place(cpu)), [None, Some(0), Some(2), Some(3), None]);
        assert_eq!(list.of(0..9).collect::<Vec<_>>(), [1, 2, 3, 8]);
        assert_eq!(list.of(0..3).collect::<Vec<_>>(), [1, 2], "the machine has fewer");
        for bad in ["", "x", "3-1", "1,", "0-", "-1", "0-99999", "8192"] {
            assert!(CpuList::parse(bad).is_err(), "{bad}");
        }
    }
}
