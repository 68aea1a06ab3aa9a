//! Time as a value: nothing in this crate asks a clock.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC, as the clock of one machine says. Two machines' clocks may differ by hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub u64);

/// Milliseconds of a clock that never steps, since some moment of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

/// Both clocks of this process, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For durations and deadlines.
    pub mono: Mono,
    /// For people, and for what other machines are told.
    pub wall: Wall,
}

impl Mono {
    /// Milliseconds from `earlier` to here; 0 when `earlier` is later.
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment and `ms` milliseconds.
    pub fn plus(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms))
    }
}

impl Wall {
    /// RFC 3339 in UTC with milliseconds: always 24 characters, `2026-11-22T20:06:52.123Z`.
    pub fn rfc3339(self) -> String {
        const LAST: u64 = 253_402_300_799_999; // the end of the year 9999
        let ms = i64::try_from(self.0.min(LAST)).unwrap_or(0);
        let stamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{stamp:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_have_one_width() {
        assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Wall(1_795_377_612_120).rfc3339().len(), 24);
        assert_eq!(Wall(u64::MAX).rfc3339().len(), 24);
    }
}
