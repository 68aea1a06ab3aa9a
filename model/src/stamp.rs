//! Who said something, and in which order.

use serde::{Deserialize, Serialize};

/// One life of one process. A later life of the same sender has a greater number: it is the wall clock's milliseconds at the
/// start, or one more than the boot before it where a daemon kept that on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(pub u64);

/// The position of a message among all that one sender says: first by boot, then by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// The sender's life.
    pub boot: Boot,
    /// Counts the sender's messages from 1.
    pub seq: u64,
}

/// Drops doubles of one sender: remembers the last 128 numbers of its present life.
///
/// A message older than that window is taken for a double. A message of an earlier life is dropped; what happens when a
/// sender's clock went backwards between two lives is the view's concern (see [`crate::view`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    top: Stamp,
    seen: u128,
}

impl Window {
    /// True when `stamp` was not seen before; it is then remembered.
    pub fn fresh(&mut self, stamp: Stamp) -> bool {
        if stamp.boot != self.top.boot {
            if self.seen != 0 && stamp.boot < self.top.boot {
                return false;
            }
            *self = Window { top: stamp, seen: 1 };
            return true;
        }
        if stamp.seq > self.top.seq {
            let shift = stamp.seq - self.top.seq;
            self.seen = if shift >= 128 { 0 } else { self.seen << shift };
            self.top.seq = stamp.seq;
        }
        let back = self.top.seq - stamp.seq;
        if back >= 128 || self.seen & (1 << back) != 0 {
            return false;
        }
        self.seen |= 1 << back;
        true
    }

    /// Forgets the sender, so that a life with a lower number is heard again.
    pub fn reset(&mut self) {
        *self = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(boot: u64, seq: u64) -> Stamp {
        Stamp { boot: Boot(boot), seq }
    }

    #[test]
    fn an_earlier_life_is_not_heard() {
        let mut w = Window::default();
        assert!(w.fresh(stamp(2, 9)));
        assert!(!w.fresh(stamp(1, 10)));
        assert!(w.fresh(stamp(3, 1)));
        w.reset();
        assert!(w.fresh(stamp(1, 1)));
    }

    proptest! {
        #[test]
        fn each_number_passes_at_most_once_and_in_order_always(seqs in prop::collection::vec(1u64..300, 1..400)) {
            let mut w = Window::default();
            let mut passed = std::collections::HashSet::new();
            let mut top = 0;
            for s in seqs {
                let fresh = w.fresh(stamp(1, s));
                if s > top { prop_assert!(fresh); top = s; }
                if fresh { prop_assert!(passed.insert(s)); }
            }
        }
    }
}
