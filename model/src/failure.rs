//! Refusals: the kind as an errno, the rest as a sentence.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $number:literal;)*) => {
        /// The kind of a refusal; on the bus it is the errno's name. Numbers are Linux's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* #[serde(rename = $text)] $name,)* }

        impl Code {
            /// All codes, for tables and tests.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The errno's name.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// The errno's number on Linux.
            pub fn errno(self) -> i32 {
                match self { $(Code::$name => $number,)* }
            }
        }
    };
}

codes! {
    /// Not the owner, or not a thing that can be done here at all.
    Permission = "EPERM", 1;
    /// No such server, domain, file.
    NoEntry = "ENOENT", 2;
    /// The hypervisor said no; the sentence holds its words.
    Io = "EIO", 5;
    /// The mode forbids it.
    Access = "EACCES", 13;
    /// Wrong state, or a job runs.
    Busy = "EBUSY", 16;
    /// There is one already.
    Exists = "EEXIST", 17;
    /// Unknown command or bad value.
    Invalid = "EINVAL", 22;
    /// No server or volume group has room.
    NoSpace = "ENOSPC", 28;
    /// This hypervisor cannot.
    NotSupported = "EOPNOTSUPP", 95;
    /// No answer in time: the outcome is unknown.
    TimedOut = "ETIMEDOUT", 110;
    /// The server is down.
    HostDown = "EHOSTDOWN", 112;
    /// No forwarder.
    HostUnreachable = "EHOSTUNREACH", 113;
}

/// Why something was not done: an errno for programs, a sentence for people (`cannot WHAT NAME: why`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// What, which, why, and what is allowed; one line.
    pub text: String,
}

impl Failure {
    /// A refusal with its sentence; line ends in `text` become spaces, so that it stays one line.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.contains(['\n', '\r']) {
            text = text
                .split(['\n', '\r'])
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .collect::<Vec<_>>()
                .join(" ");
        }
        Failure { code, text }
    }

    /// [`Code::Invalid`] with its sentence.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::Invalid, text)
    }

    /// [`Code::Busy`] with its sentence.
    pub fn busy(text: impl Into<String>) -> Self {
        Self::new(Code::Busy, text)
    }

    /// [`Code::NoEntry`] with its sentence.
    pub fn no_entry(text: impl Into<String>) -> Self {
        Self::new(Code::NoEntry, text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_travels() {
        let f = Failure::busy("cannot pause small-1:\n it is paused\r\n");
        assert_eq!(f.text, "cannot pause small-1: it is paused");
        let json = serde_json::to_string(&f).expect("json");
        assert_eq!(json, r#"{"code":"EBUSY","text":"cannot pause small-1: it is paused"}"#);
        assert_eq!(serde_json::from_str::<Failure>(&json).expect("back"), f);
    }
}
