//! Where a domain is, when several servers speak of it.
//!
//! While a domain migrates both hypervisors know it, and after it one of them may keep its definition: that is no conflict. A
//! conflict is two servers, neither of them down, that both claim it active while none of them says that it migrates.

use super::{BRIDGE_MS, Reach, Server, View};
use crate::{Domain, DomainName, DomainState, JobKind, Mono, Now, Outcome, ServerName};
use std::sync::Arc;

/// What `domains/NAME/state` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// What the hypervisor says.
    Known(DomainState),
    /// Its server is down: what the hypervisor said last may be true or not.
    Unknown,
    /// Two servers claim that it is active.
    Conflict,
}

impl Shown {
    /// The word of the file.
    pub fn word(self) -> &'static str {
        match self {
            Shown::Known(state) => state.word(),
            Shown::Unknown => "unknown",
            Shown::Conflict => "conflict",
        }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// A domain as the whole cluster shows it.
#[derive(Debug, Clone)]
pub struct DomainView {
    /// The state to show.
    pub shown: Shown,
    /// The record of the server that has it.
    pub domain: Arc<Domain>,
    /// The server that has it; the first by name in a conflict.
    pub server: ServerName,
    /// All servers that claim it active, in a conflict.
    pub claimed_by: Vec<ServerName>,
    /// When that server was last heard.
    pub heard: Now,
    /// How its last job ended, on whichever server.
    pub last: Option<Arc<Outcome>>,
}

impl View {
    /// A domain by its name, as of `now`.
    pub fn domain(&self, name: &str, now: Mono) -> Option<DomainView> {
        let (name, servers) = self.domains.get_key_value(name)?;
        let claims = || servers.iter().filter_map(|s| self.claim(s, name, now));
        let last = |domain: &Domain| newest(domain.last.as_deref(), self.outcomes.get(name));
        let Some(best) =
            claims().max_by(|a, b| a.rank().cmp(&b.rank()).then(b.server.name.cmp(&a.server.name)))
        else {
            let bridge = self.departures.get(name).filter(|d| now.since(d.1) < BRIDGE_MS)?;
            let (departed, _) = &**bridge;
            let heard = self.servers.get(&departed.to).map_or(Now::default(), |s| s.heard);
            return Some(DomainView {
                shown: Shown::Known(departed.domain.state),
                last: last(&departed.domain),
                domain: Arc::new(departed.domain.clone()),
                server: departed.to.clone(),
                claimed_by: Vec::new(),
                heard,
            });
        };
        let claimed_by = if servers.len() > 1 { conflict(claims()) } else { Vec::new() };
        let shown = if !claimed_by.is_empty() {
            Shown::Conflict
        } else if best.reach == Reach::Down {
            Shown::Unknown
        } else {
            Shown::Known(best.domain.state)
        };
        Some(DomainView {
            shown,
            last: last(best.domain),
            domain: best.domain.clone(),
            server: claimed_by.first().unwrap_or(&best.server.name).clone(),
            claimed_by,
            heard: best.server.heard,
        })
    }

    /// The domains that a server has, as the whole cluster sees it: without definitions and arrivals whose domain is elsewhere.
    pub fn domains_of<'a>(&'a self, server: &'a Server, now: Mono) -> impl Iterator<Item = &'a DomainName> {
        server.domains.iter().map(|d| &d.name).filter(move |name| self.has(server, name, now))
    }

    /// Whether a domain is on a server, as the whole cluster sees it.
    pub fn has(&self, server: &Server, name: &DomainName, now: Mono) -> bool {
        match self.domains.get(name) {
            Some(claims) if claims.len() == 1 => server.domain(name).is_some(),
            Some(_) => self
                .domain(name.as_str(), now)
                .is_some_and(|d| d.server == server.name || d.claimed_by.contains(&server.name)),
            None => false,
        }
    }

    fn claim<'a>(&'a self, server: &ServerName, name: &DomainName, now: Mono) -> Option<Claim<'a>> {
        let server = self.servers.get(server)?;
        Some(Claim { server, reach: self.reach(server, now), domain: server.domain(name)? })
    }
}

struct Claim<'a> {
    server: &'a Server,
    reach: Reach,
    domain: &'a Arc<Domain>,
}

impl Claim<'_> {
    fn migrates(&self) -> bool {
        self.domain.job.as_ref().is_some_and(|j| j.kind == JobKind::Migrate)
    }

    /// The greater claim is believed. An active claim of a server that is down beats a mere definition elsewhere: it may well run.
    fn rank(&self) -> u8 {
        let down = self.reach == Reach::Down;
        match self.domain.state {
            DomainState::Running | DomainState::Paused if down => 3,
            DomainState::Running | DomainState::Paused if self.migrates() => 5,
            DomainState::Running | DomainState::Paused => 4,
            DomainState::Shutoff | DomainState::Crashed if down => 0,
            DomainState::Shutoff | DomainState::Crashed => 2,
            DomainState::Incoming => 1,
        }
    }
}

fn conflict<'a>(claims: impl Iterator<Item = Claim<'a>>) -> Vec<ServerName> {
    let active: Vec<Claim> =
        claims.filter(|c| c.domain.state.is_active() && c.reach != Reach::Down).collect();
    if active.len() < 2 || active.iter().any(Claim::migrates) {
        return Vec::new();
    }
    let mut names: Vec<ServerName> = active.iter().map(|c| c.server.name.clone()).collect();
    names.sort();
    names
}

fn newest(own: Option<&Outcome>, kept: Option<&Arc<Outcome>>) -> Option<Arc<Outcome>> {
    match (own, kept) {
        (Some(own), Some(kept)) if kept.at > own.at => Some(kept.clone()),
        (Some(own), _) => Some(Arc::new(own.clone())),
        (None, kept) => kept.cloned(),
    }
}
