//! How much guests may say: a bucket of [`BURST`] messages each, filled again with [`RATE`] a second. What is more is dropped before it is
//! read, so a guest that floods the bus costs others little, and that it does is told once a minute.
//!
//! The guests that have a key have one more bucket in common, of the signatures that are looked at ([`CHECKS`] a second): who floods the
//! bus under another's name does not empty that one's, and costs no more than that.

use std::collections::HashMap;
use xvm_model::{DomainName, Mono};

/// Messages a second of one guest that are read.
pub(crate) const RATE: u64 = 20;
/// Messages that may come at once.
pub(crate) const BURST: u64 = 40;
/// Between two words about the same guest, in milliseconds.
const TELL_MS: u64 = 60_000;
/// Signatures a second that are looked at, and so many at once: some 50 us of a processor each.
pub(crate) const CHECKS: u64 = 2_000;
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

impl Bucket {
    fn full(burst: u64, at: Mono) -> Bucket {
        Bucket { left: burst * 1000, at, told: None }
    }

    /// Fills it up to now; whether one more may come.
    fn has(&mut self, rate: u64, burst: u64, now: Mono) -> bool {
        self.left = self.left.saturating_add(now.since(self.at).saturating_mul(rate)).min(burst * 1000);
        self.at = now;
        self.left >= 1000
    }

    /// Takes one, if there is one.
    fn take(&mut self, rate: u64, burst: u64, now: Mono) -> bool {
        let has = self.has(rate, burst, now);
        self.left -= if has { 1000 } else { 0 };
        has
    }

    /// Whether it is to be told now: once a minute.
    fn tell(&mut self, now: Mono) -> bool {
        let tell = self.told.is_none_or(|at| now.since(at) >= TELL_MS);
        if tell {
            self.told = Some(now);
        }
        tell
    }
}

/// All guests' buckets.
#[derive(Debug, Default)]
pub(crate) struct Floods {
    guests: HashMap<DomainName, Bucket>,
    /// The signatures of all.
    checks: Option<Bucket>,
    /// When it was told of a guest that somebody spoke without its key.
    forged: HashMap<DomainName, Mono>,
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
        let bucket = self.guests.entry(name.clone()).or_insert_with(|| Bucket::full(BURST, now));
        match bucket.take(RATE, BURST, now) {
            true => Admit::Yes,
            false if bucket.tell(now) => Admit::Tell,
            false => Admit::No,
        }
    }

    /// Whether the next message of `name` would be read.
    pub(crate) fn would_admit(&mut self, name: &DomainName, now: Mono) -> bool {
        self.guests.get_mut(name).is_none_or(|b| b.has(RATE, BURST, now))
    }

    /// One more signature; false when there are too many.
    pub(crate) fn check(&mut self, now: Mono) -> bool {
        self.checks.get_or_insert_with(|| Bucket::full(CHECKS, now)).take(CHECKS, CHECKS, now)
    }

    /// Somebody spoke as `name`, which has a key, without it; whether that is to be told.
    pub(crate) fn forged(&mut self, name: &DomainName, now: Mono) -> bool {
        self.forged.retain(|_, at| now.since(*at) < TELL_MS);
        let tell = !self.forged.contains_key(name);
        if tell {
            self.forged.insert(name.clone(), now);
        }
        tell
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
    fn signatures_are_looked_at_as_often_as_may_be() {
        let (mut floods, a) = (Floods::default(), name("a"));
        let looked = |floods: &mut Floods, at| (0..10_000).filter(|_| floods.check(Mono(at))).count() as u64;
        assert_eq!(looked(&mut floods, 5), CHECKS);
        assert_eq!(looked(&mut floods, 105), CHECKS / 10);
        assert!(
            floods.forged(&a, Mono(5)) && !floods.forged(&a, Mono(60_004)) && floods.forged(&a, Mono(60_005))
        );
        assert!(floods.would_admit(&a, Mono(5)));
        (0..BURST).for_each(|_| {
            assert!(floods.would_admit(&a, Mono(5)) && floods.admit(&a, Mono(5)) == Admit::Yes);
        });
        assert!(!floods.would_admit(&a, Mono(5)) && floods.would_admit(&a, Mono(55)));
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
