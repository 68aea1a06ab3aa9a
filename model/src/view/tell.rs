//! Which events tell of a change: what a domain looked like before and after it.

use super::{Reach, Server, Shown, View};
use crate::event::{About, Event, word};
use crate::{Domain, DomainName, Job, Now, ServerName};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What events tell of a domain: a change of one of these is an event.
pub(super) struct Telling {
    shown: Shown,
    server: ServerName,
    pub(super) job: Option<Box<Job>>,
    pub(super) last: Option<Box<str>>,
}

impl View {
    pub(super) fn telling(
        &self,
        names: &BTreeSet<DomainName>,
        now: Now,
    ) -> Vec<(DomainName, Option<Telling>)> {
        names.iter().map(|n| (n.clone(), self.telling_of(n, now))).collect()
    }

    pub(super) fn telling_of(&self, name: &DomainName, now: Now) -> Option<Telling> {
        let view = self.domain(name.as_str(), now.mono)?;
        let job = view.domain.job.clone();
        Some(Telling { shown: view.shown, server: view.server, job, last: view.last.map(|o| o.id.clone()) })
    }

    pub(super) fn events_since(&self, before: Vec<(DomainName, Option<Telling>)>, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, old) in before {
            let new = self.telling_of(&name, now);
            let mut tell =
                |server: &ServerName, text: String| events.push(domain_event(&name, server, now, text));
            match (old, new) {
                (None, Some(new)) => tell(&new.server, format!("appeared on {}: {}", new.server, new.shown)),
                (Some(old), None) => tell(&old.server, format!("gone from {}", old.server)),
                (Some(old), Some(new)) => {
                    if let Some(job) = &new.job
                        && old.job.as_ref().map(|j| &j.id) != Some(&job.id)
                    {
                        let to = job.to.as_ref().map(|t| format!(" to {t}")).unwrap_or_default();
                        tell(&new.server, format!("job {}{to}", job.kind));
                    }
                    if old.server != new.server {
                        tell(&new.server, format!("server {} (was {})", new.server, old.server));
                    }
                    if old.shown != new.shown {
                        let claims = match new.shown {
                            Shown::Conflict => self.claims_text(&name, now),
                            _ => String::new(),
                        };
                        tell(&new.server, format!("state {} (was {}){claims}", new.shown, old.shown));
                    }
                    // another server's record may tell of a job that ended long ago
                    let fresh = old.server == new.server
                        || old.job.as_ref().is_some_and(|j| new.last.as_ref() == Some(&j.id));
                    if fresh && new.last.is_some() && old.last != new.last {
                        let outcome = self.domain(name.as_str(), now.mono).and_then(|v| v.last);
                        if let Some(outcome) = outcome {
                            match &outcome.result {
                                Ok(text) => tell(&new.server, format!("done {}: {text}", outcome.kind)),
                                Err(f) => tell(
                                    &new.server,
                                    format!("failed {}: {} {}", outcome.kind, f.code, f.text),
                                ),
                            }
                        }
                    }
                }
                (None, None) => {}
            }
        }
        events
    }

    fn claims_text(&self, name: &DomainName, now: Now) -> String {
        let servers = self.domain(name.as_str(), now.mono).map(|v| v.claimed_by).unwrap_or_default();
        let names: Vec<&str> = servers.iter().map(ServerName::as_str).collect();
        format!(": {} is active on {}", word(name.as_str()), names.join(" and "))
    }
}

pub(super) fn reach_event(server: &Server, reach: Reach, now: Now) -> Event {
    let why = match (&server.beat.stale, reach) {
        (Some(why), Reach::Stale) => format!(": {why}"),
        _ => String::new(),
    };
    let about = About::Server(server.name.clone());
    Event { at: now.wall, about, server: None, text: format!("state {reach}{why}") }
}

pub(super) fn domain_event(name: &DomainName, server: &ServerName, now: Now, text: String) -> Event {
    Event { at: now.wall, about: About::Domain(name.clone()), server: Some(server.clone()), text }
}

/// The names of domains that only one of two sorted lists holds, or whose records differ in what events tell.
pub(super) fn differing(old: &[Arc<Domain>], new: &[Arc<Domain>]) -> BTreeSet<DomainName> {
    let mut names = BTreeSet::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let order = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) => a.name.cmp(&b.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, _) => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Less => {
                names.insert(old[i].name.clone());
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                names.insert(new[j].name.clone());
                j += 1;
            }
            std::cmp::Ordering::Equal => {
                let (a, b) = (&old[i], &new[j]);
                let same = |d: &Arc<Domain>, other: &Arc<Domain>| {
                    d.state == other.state
                        && d.job.as_ref().map(|j| &j.id) == other.job.as_ref().map(|j| &j.id)
                        && d.last.as_ref().map(|l| &l.id) == other.last.as_ref().map(|l| &l.id)
                };
                if !same(a, b) {
                    names.insert(a.name.clone());
                }
                (i, j) = (i + 1, j + 1);
            }
        }
    }
    names
}
