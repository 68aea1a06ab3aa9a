//! What happened, as one line.

use crate::{ConfigName, DomainName, ServerName, Wall};
use std::fmt;

/// How the text of an event begins that tells what is wrong with a config's file.
pub const WRONG: &str = "wrong: ";

/// One change of the cluster as one process saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was seen here.
    pub at: Wall,
    /// The thing that it is about.
    pub about: About,
    /// The server that it concerns besides: the one on which a domain is.
    pub server: Option<ServerName>,
    /// What happened: a word, then details.
    pub text: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// The cluster as a whole: the forwarder.
    Cluster,
    /// A server.
    Server(ServerName),
    /// A domain.
    Domain(DomainName),
    /// A config.
    Config(ConfigName),
}

impl Event {
    /// Whether a listener at `scope` hears it: the cluster hears all, a server what concerns it, a domain and a config
    /// their own.
    pub fn heard_at(&self, scope: &About) -> bool {
        match scope {
            About::Cluster => true,
            About::Server(name) => self.about == *scope || self.server.as_ref() == Some(name),
            About::Domain(_) | About::Config(_) => self.about == *scope,
        }
    }
}

impl fmt::Display for Event {
    /// `2026-11-22T20:06:52.123Z domain small-1 state paused`, without a line end. A name with a space is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at.rfc3339())?;
        match &self.about {
            About::Cluster => f.write_str(" cluster")?,
            About::Server(n) => write!(f, " server {n}")?,
            About::Domain(n) => write!(f, " domain {}", word(n.as_str()))?,
            About::Config(n) => write!(f, " config {n}")?,
        }
        write!(f, " {}", self.text)
    }
}

/// A name as one word of a record: in quotes when it holds a space or a quote.
pub fn word(name: &str) -> String {
    if name.contains([' ', '"', '\\']) { format!("{name:?}") } else { name.to_owned() }
}
