//! The cluster as one process knows it from what it heard.
//!
//! A [`View`] is a value: a clone costs two pointers and never changes, so readers take a clone and nothing waits for anybody.
//!
//! Why all views converge: each agent numbers its messages, a view applies only what is newer than the last that it applied of that
//! agent, and a heartbeat is the agent's whole state. So after the last heartbeat that two views both hear they say the same of that
//! server, whatever was lost, doubled or reordered before. A boot number lower than the known one (a clock that was set back) is
//! believed once the known life is [`Reach::Down`].

mod apply;
mod configs;
mod guests;
mod lost;
mod place;
mod rounds;
mod server;
mod tell;
mod thing;

pub use configs::{ConfigView, Images};
pub use guests::Guest;
pub use place::{DomainView, Shown};
pub use thing::{Thing, thing_id};

use crate::round::End;
use crate::{
    BalanceMode, Departed, Domain, DomainName, Heartbeat, Mono, Now, Outcome, ServerName, Stamp, Wall,
};
use imbl::OrdMap;
use smallvec::SmallVec;
use std::sync::Arc;

/// Heartbeats missed until a server is [`Reach::Stale`].
pub const STALE_AFTER: u64 = 3;
/// Heartbeats missed until a server is [`Reach::Down`].
pub const DOWN_AFTER: u64 = 10;
/// How long the end of a domain that nobody has any more is remembered, in milliseconds.
pub const GONE_MS: u64 = 120_000;
/// How long a departed domain is shown at its destination before the destination itself speaks of it, in milliseconds.
pub const BRIDGE_MS: u64 = 10_000;

/// How long a departure is remembered after it was told last, in milliseconds.
const TOLD_MS: u64 = 60_000;

/// How well a server is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Its heartbeats come, and its hypervisor answers it.
    Up,
    /// Up, and it takes no domains from others.
    Maintenance,
    /// Three heartbeats are missing, or its hypervisor does not answer it.
    Stale,
    /// Ten heartbeats are missing.
    Down,
}

impl Reach {
    /// The word of `servers/NAME/state`.
    pub fn word(self) -> &'static str {
        match self {
            Reach::Up => "up",
            Reach::Maintenance => "maintenance",
            Reach::Stale => "stale",
            Reach::Down => "down",
        }
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// One server as it was heard last.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name.
    pub name: ServerName,
    /// The last message that was applied.
    pub stamp: Stamp,
    /// When that came, by our clocks.
    pub heard: Now,
    /// When its last message was said, by its own clock.
    pub at: Wall,
    /// Its last heartbeat, without the domains.
    pub beat: Arc<Heartbeat>,
    /// Its domains, sorted by name.
    pub domains: Vec<Arc<Domain>>,
    /// How a job of the server as a whole ended of which its agent does not tell the end.
    lost: Option<Arc<Outcome>>,
    /// What the view last told about its reach in an event.
    told: Reach,
}

impl Server {
    /// One domain of this server.
    pub fn domain(&self, name: &DomainName) -> Option<&Arc<Domain>> {
        self.domains.binary_search_by(|d| d.name.cmp(name)).ok().map(|i| &self.domains[i])
    }
}

/// The servers whose lists hold a domain: nearly always one.
type Claims = SmallVec<[ServerName; 1]>;

/// Whether a forwarder is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkState {
    up: bool,
    since: Mono,
}

/// The cluster as one process knows it.
#[derive(Debug, Clone)]
pub struct View {
    servers: OrdMap<ServerName, Arc<Server>>,
    /// All names, with who claims them; a name without a claim is in `departures`.
    domains: OrdMap<DomainName, Claims>,
    /// By number; a sorted map takes a third of a hash map's memory.
    things: OrdMap<u64, Thing>,
    /// Where a server said that it sent a domain, until the destination speaks for itself.
    departures: OrdMap<DomainName, Arc<(Departed, Mono)>>,
    /// The jobs by which domains departed, and when that was told last: each builds one bridge, though it is told for a minute, in
    /// which the domain may have come to its end.
    told: OrdMap<DomainName, Arc<(Box<str>, Mono)>>,
    /// How the last job of a domain ended, also when the server that ran it does not have the domain any more.
    outcomes: OrdMap<DomainName, Arc<Outcome>>,
    /// How the last job of a domain ended that nobody has any more, and since when: who waited for it is told.
    gone: OrdMap<DomainName, (Arc<Outcome>, Mono)>,
    /// What each server said last of its rounds of help.
    rounds: OrdMap<ServerName, Arc<rounds::Told>>,
    /// Domains whose guestd was heard.
    guests: OrdMap<DomainName, Arc<Guest>>,
    /// imaged and its configs.
    images: Option<Arc<Images>>,
    /// How many rounds ended with each word while we listened.
    ended: [u64; End::ALL.len()],
    /// What was told last of the cluster's balance; none before the first server.
    balance: Option<BalanceMode>,
    /// When a forwarder was found first.
    joined: Option<Mono>,
    link: LinkState,
}

impl Default for View {
    fn default() -> Self {
        View {
            servers: OrdMap::new(),
            domains: OrdMap::new(),
            things: OrdMap::new(),
            departures: OrdMap::new(),
            told: OrdMap::new(),
            outcomes: OrdMap::new(),
            gone: OrdMap::new(),
            rounds: OrdMap::new(),
            guests: OrdMap::new(),
            images: None,
            ended: [0; End::ALL.len()],
            balance: None,
            joined: None,
            link: LinkState { up: false, since: Mono(0) },
        }
    }
}

impl View {
    /// All servers, by name.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.values()
    }

    /// One server.
    pub fn server(&self, name: &str) -> Option<&Arc<Server>> {
        self.servers.get(name)
    }

    /// The names of all domains, sorted.
    pub fn domain_names(&self) -> impl Iterator<Item = &DomainName> {
        self.domains.keys()
    }

    /// How the last job of a domain ended that nobody has any more, for [`GONE_MS`].
    pub fn ended(&self, name: &DomainName) -> Option<&Outcome> {
        self.gone.get(name).map(|(outcome, _)| &**outcome)
    }

    /// How many domains there are.
    pub fn domain_count(&self) -> usize {
        self.domains.len()
    }

    /// How many servers there are.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// The server, domain, round or config that has this number, see [`thing_id`].
    pub fn thing(&self, id: u64) -> Option<&Thing> {
        self.things.get(&id)
    }

    /// Whether a forwarder is there.
    pub fn link_up(&self) -> bool {
        self.link.up
    }

    /// How well a server is heard at `now`. Without a forwarder nobody can be heard, so no server is then called down.
    pub fn reach(&self, server: &Server, now: Mono) -> Reach {
        let missed = self.missed(server.heard.mono, server.beat.settings.heartbeat_ms, now);
        if missed >= DOWN_AFTER && self.link.up {
            Reach::Down
        } else if missed >= STALE_AFTER || server.beat.stale.is_some() {
            Reach::Stale
        } else if server.beat.settings.accepting {
            Reach::Up
        } else {
            Reach::Maintenance
        }
    }

    /// How many messages that come every `interval_ms` milliseconds are missing. After the forwarder came back all get their time.
    fn missed(&self, heard: Mono, interval_ms: u32, now: Mono) -> u64 {
        let silent_since = heard.max(if self.link.up { self.link.since } else { Mono(0) });
        now.since(silent_since) / u64::from(interval_ms).max(1)
    }
}
