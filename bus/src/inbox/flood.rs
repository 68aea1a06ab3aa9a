//! How much guests may say: a bucket of [`BURST`] messages each, filled again with [`RATE`] a second. What is more is dropped before it is
//! read, so a guest that floods the bus costs others little, and that it does is told once a minute.

use std::collections::HashMap;
use xvm_model::{DomainName, Mono};

/// Messages a second of one guest that are read.
pub(crate) const RATE: u64 = 20;
/// Messages that may come at once.
pub(crate) const BURST: u64 = 40;
/// Between two words about the same guest, in milliseconds.
const TELL_MS: u64 = 60_000;
/// Guests that are remembered; beyond it those with a full bucket are forgotten.
const GUESTS_MAX: usize = 16_384;

/// What to do with a message of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Read it.
    Yes,
    /// Drop it.
    No,
    /// Drop it, and tell that there are too many.
    Tell,
}

#[derive(Debug)]
struct Bucket {
    /// Thousandths of messages that may still come.
    left: u64,
    at: Mono,
    told: Option<Mono>,
}

/// All guests' buckets.
#[derive(Debug, Default)]
pub(crate) struct Floods {
    guests: HashMap<DomainName, Bucket>,
}

impl Floods {
    /// One more message of `name`.
    pub(crate) fn admit(&mut self, name: &DomainName, now: Mono) -> Admit {
        if !self.guests.contains_key(name) && self.guests.len() >= GUESTS_MAX {
            // a full bucket is as good as none; when all flood, the memory of whom was told is not worth more than the bound
            self.guests.retain(|_, b| now.since(b.at) * RATE < BURST * 1000);
            if self.guests.len() >= GUESTS_MAX {
                self.guests.clear();
            }
        }
        let full = Bucket { left: BURST * 1000, at: now, told: None };
        let bucket = self.guests.entry(name.clone()).or_insert(full);
        bucket.left = bucket.left.saturating_add(now.since(bucket.at).saturating_mul(RATE)).min(BURST * 1000);
        bucket.at = now;
        if bucket.left >= 1000 {
            bucket.left -= 1000;
            return Admit::Yes;
        }
        if bucket.told.is_some_and(|at| now.since(at) < TELL_MS) {
            return Admit::No;
        }
        bucket.told = Some(now);
        Admit::Tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect("valid")
    }

    #[test]
    fn a_flood_is_told_once_and_others_are_heard() {
        let (mut floods, a, b) = (Floods::default(), name("a"), name("b"));
        let first: Vec<Admit> = (0..1000).map(|_| floods.admit(&a, Mono(5))).collect();
        assert_eq!(first.iter().filter(|w| **w == Admit::Yes).count() as u64, BURST);
        assert_eq!(first.iter().filter(|w| **w == Admit::Tell).count(), 1);
        assert_eq!(floods.admit(&b, Mono(5)), Admit::Yes);
        assert_eq!(floods.admit(&a, Mono(55)), Admit::Yes, "one in 50 ms");
        assert_eq!(floods.admit(&a, Mono(55)), Admit::No);
        (0..BURST).for_each(|_| assert_eq!(floods.admit(&a, Mono(70_000)), Admit::Yes));
        assert_eq!(floods.admit(&a, Mono(70_000)), Admit::Tell, "a minute later");
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut floods = Floods::default();
        for i in 0..3 * GUESTS_MAX as u64 {
            assert_eq!(floods.admit(&name(&format!("g{i}")), Mono(i)), Admit::Yes);
            assert!(floods.guests.len() <= GUESTS_MAX);
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(waits in prop::collection::vec(0u64..200, 1..500)) {
            let (mut floods, a, mut now, mut read) = (Floods::default(), name("a"), 0, 0);
            for wait in waits {
                now += wait;
                read += u64::from(floods.admit(&a, Mono(now)) == Admit::Yes);
                prop_assert!(read <= BURST + now * RATE / 1000);
            }
        }
    }
}
