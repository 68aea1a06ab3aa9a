//! The end of what a program prints.

use xvm_model::guest::OUTPUT_MAX;

/// So much is kept; one byte more than [`xvm_model::guest::tail`] looks at, so that it sees that there was more.
const KEPT: usize = 2 * OUTPUT_MAX + 1;

/// Takes all that is printed, and keeps the end.
#[derive(Debug, Default)]
pub(super) struct Last {
    /// Twice [`KEPT`] at most: bytes are moved once in so many, not with each part.
    bytes: Vec<u8>,
}

impl Last {
    /// Adds what was printed.
    pub(super) fn put(&mut self, part: &[u8]) {
        let part = &part[part.len().saturating_sub(KEPT)..];
        if self.bytes.len() + part.len() > 2 * KEPT {
            self.bytes.drain(..self.bytes.len().saturating_sub(KEPT));
        }
        self.bytes.extend_from_slice(part);
    }

    /// The end.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(KEPT)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_end_and_bounded(parts in prop::collection::vec((any::<u8>(), 0usize..20_000), 0..20)) {
            let (mut last, mut all) = (Last::default(), Vec::new());
            for (byte, n) in parts {
                let part = vec![byte; n];
                last.put(&part);
                all.extend(part);
                prop_assert!(last.bytes.capacity() <= 4 * KEPT);
            }
            prop_assert_eq!(last.bytes(), &all[all.len().saturating_sub(KEPT)..]);
        }
    }
}
