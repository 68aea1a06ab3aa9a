//! Names of servers, domains and clients, checked once at the edge and trusted inside.
//!
//! A name becomes a directory of the tree and a part of a topic, so it can hold neither `/` nor control characters.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {text:?} is not valid: {rule}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

const HOST_RULE: &str = "1 to 64 letters, digits, '-', '.' or '_', beginning with a letter or a digit";
const DOMAIN_RULE: &str = "1 to 200 bytes, no '/', no control characters, not beginning with '.' or a space";

fn host_like(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

fn domain_like(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && !text.starts_with(['.', ' '])
        && !text.contains(|c: char| c == '/' || c.is_control())
}

const CONFIG_RULE: &str =
    "1 to 40 letters, digits or '-', beginning and ending with a letter or a digit; not `defaults`";

/// A label of a host name (RFC 1123), for the guest is called so; short enough that an export's name holds it.
fn label_like(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    (1..=40).contains(&text.len())
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || c == '-')
        && text != "defaults"
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path, $rule:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`; the error names the text and the rule.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { kind: $kind, text: text.chars().take(80).collect(), rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A physical machine, as its agent calls it: usually its host name.
    ServerName, "server", host_like, HOST_RULE
);
name!(
    /// A virtual machine, as its hypervisor calls it. One name is one domain in a whole cluster.
    DomainName, "domain", domain_like, DOMAIN_RULE
);
name!(
    /// The definition of a domain, which is called the same; also the host name of its guest.
    ConfigName, "config", label_like, CONFIG_RULE
);
name!(
    /// One who sends commands and gets replies: a mount, a test.
    ClientName, "client", host_like, HOST_RULE
);

name!(
    /// A group of domains that stay together or apart.
    GroupName, "group", host_like, HOST_RULE
);

name!(
    /// A schedule of tests.
    TestName, "test", host_like, HOST_RULE
);

impl ConfigName {
    /// The domain that this config defines.
    pub fn domain(&self) -> DomainName {
        DomainName(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_names() {
        for good in ["a", "ferby", "ferby.example.org", "x_1-2", &"a".repeat(64)] {
            assert!(ServerName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(ServerName::parse(bad).is_err(), "{bad}");
        }
        for good in ["a", "small-1", "X9", &"a".repeat(40)] {
            assert!(ConfigName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "a_b", "defaults", &"a".repeat(41)] {
            assert!(ConfigName::parse(bad).is_err(), "{bad}");
        }
        for good in ["small-1", "Windows Server", "grün", &"a".repeat(200)] {
            assert!(DomainName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", " a", "a/b", "a\0", "a\nb", &"a".repeat(201)] {
            assert!(DomainName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_from_json_is_checked_too() {
        assert!(serde_json::from_str::<ServerName>("\"../etc\"").is_err());
        assert_eq!(serde_json::to_string(&DomainName::parse("x").expect("valid")).expect("json"), "\"x\"");
    }
}
