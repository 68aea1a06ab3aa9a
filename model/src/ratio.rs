//! A share between nothing and all, kept in hundredths.

use serde::{Deserialize, Serialize};
use std::fmt;

/// 0.00 to 1.00 in steps of 0.01: what one CPU, all CPUs of a server or all vCPUs of a domain are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Ratio(u8);

impl Ratio {
    /// Nothing at all.
    pub const ZERO: Ratio = Ratio(0);
    /// All of it.
    pub const ONE: Ratio = Ratio(100);

    /// The nearest hundredth; what is below 0 or not a number is 0, what is above 1 is 1.
    pub fn new(share: f64) -> Self {
        let hundredths = (share * 100.0).round().clamp(0.0, 100.0);
        // a NaN survives clamp and casts to 0
        Ratio(hundredths as u8)
    }

    /// The share as a number, 0.0 to 1.0.
    pub fn get(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// 0 to 100.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// The mean of several shares; 0 of none.
    pub fn mean(shares: impl IntoIterator<Item = Ratio>) -> Ratio {
        let (sum, n) = shares.into_iter().fold((0u64, 0u64), |(s, n), r| (s + u64::from(r.0), n + 1));
        (sum + n / 2).checked_div(n).map_or(Ratio::ZERO, |mean| Ratio(mean.min(100) as u8))
    }
}

impl From<f64> for Ratio {
    fn from(share: f64) -> Self {
        Ratio::new(share)
    }
}

impl From<Ratio> for f64 {
    fn from(r: Ratio) -> f64 {
        r.get()
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:02}", self.0 / 100, self.0 % 100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_some_ratio() {
        for (share, text) in
            [(0.0, "0.00"), (-3.0, "0.00"), (0.424, "0.42"), (1.0, "1.00"), (7.0, "1.00"), (f64::NAN, "0.00")]
        {
            assert_eq!(Ratio::new(share).to_string(), text);
        }
        assert_eq!(Ratio::mean([Ratio::ZERO, Ratio::ONE]).to_string(), "0.50");
        assert_eq!(Ratio::mean([]), Ratio::ZERO);
    }
}
