//! Public keys of who signs what it says.

use crate::text::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An Ed25519 public key (RFC 8032), written as 64 lower-case hexadecimal digits. Whether it is a point of the curve is found out by who
/// checks a signature with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<PublicKey, String> {
        let mut key = [0; 32];
        let read = hex::decode_to_slice(text, &mut key);
        // one key has one form
        let good = read.is_ok() && !text.bytes().any(|c| c.is_ascii_uppercase());
        good.then_some(PublicKey(key)).ok_or_else(|| {
            format!("{text:?} is no key; allowed are 64 hexadecimal digits, 0 to 9 and a to f")
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

as_text!(PublicKey);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in
            ["", "0", &"A".repeat(64), &"g".repeat(64), &"0".repeat(63), &"0".repeat(66), &"ä".repeat(32)]
        {
            let why = PublicKey::parse(bad).expect_err(bad);
            assert!(why.contains("64 hexadecimal digits"), "{why}");
        }
    }

    proptest! {
        #[test]
        fn it_reads_as_it_was_written(bytes in any::<[u8; 32]>(), text in any::<String>()) {
            let key = PublicKey(bytes);
            prop_assert_eq!(PublicKey::parse(&key.to_string()), Ok(key));
            let json = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
            prop_assert!(PublicKey::parse(&text).is_err());
        }
    }
}
