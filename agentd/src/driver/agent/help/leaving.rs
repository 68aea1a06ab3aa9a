//! Domains that leave by an evacuation: `restore` must bring back each of them, also one whose migration ended while no agent saw it,
//! or after the evacuation was cancelled.
//!
//! ```text
//!   begins ─▶ leaving ── its job says so, or a sample knows it no more ─▶ away (and its group follows) ── it is here again ─▶ home
//!                └── somebody orders it elsewhere, or it is still here after 10 minutes ─▶ home
//! ```

use super::Agent;
use crate::driver::kept::Leaving;
use xvm_model::policy::engine::mates;
use xvm_model::{DomainName, JobKind, ServerName};

/// How long a migration that nobody sees may go on, in milliseconds.
const UNSEEN_MS: u64 = 600_000;
/// How long the rest of a group waits for the end of such a migration, in milliseconds.
const HOLD_MS: u64 = 60_000;

impl Agent {
    pub(super) fn leaving_begins(&mut self, domain: &DomainName, to: &ServerName) {
        let host = self.picture();
        let guest = host.guests.iter().find(|g| g.name == *domain);
        let mates = guest.map(|g| mates(&host, g).iter().map(|m| m.name.clone()).collect());
        let leaving = &mut self.help.errand.leaving;
        leaving.retain(|l| l.domain != *domain);
        leaving.push(Leaving {
            domain: domain.clone(),
            to: to.clone(),
            mates: mates.unwrap_or_default(),
            since: self.now.wall,
            before: false,
        });
        self.keep();
    }

    /// Somebody ordered it elsewhere: that it is not here is not owed to an evacuation.
    pub(in crate::driver::agent) fn leaving_ordered(&mut self, domain: &DomainName) {
        let before = self.help.errand.leaving.len();
        self.help.errand.leaving.retain(|l| l.domain != *domain);
        if self.help.errand.leaving.len() < before {
            self.keep();
        }
    }

    /// A whole sample was heard: who has left unseen, and who will not leave any more.
    pub(super) fn leaving_sampled(&mut self) {
        let now = self.now.wall.0;
        let job = |name: &DomainName| self.works.get(name).is_some_and(|w| w.job.is_some());
        let all = &self.help.errand.leaving;
        let gone: Vec<DomainName> = all
            .iter()
            .filter(|l| self.records.get(&l.domain).is_none() && !job(&l.domain))
            .map(|l| l.domain.clone())
            .collect();
        let stays: Vec<DomainName> = all
            .iter()
            .filter(|l| now.saturating_sub(l.since.0) >= UNSEEN_MS && !job(&l.domain))
            .map(|l| l.domain.clone())
            .filter(|name| !gone.contains(name))
            .collect();
        gone.iter().for_each(|name| self.leaving_gone(name));
        stays.iter().for_each(|name| self.leaving_ordered(name));
    }

    /// It has left.
    pub(super) fn leaving_gone(&mut self, domain: &DomainName) {
        let now = self.now.mono;
        let state = &mut self.help.errand;
        let Some(at) = state.leaving.iter().position(|l| l.domain == *domain) else { return };
        let Leaving { to, mates, .. } = state.leaving.remove(at);
        if !state.away.contains(domain) {
            state.away.push(domain.clone());
        }
        if let Some(run) = state.running.as_mut().filter(|r| r.kept.kind == JobKind::Evacuate) {
            run.progress = now;
            let follow = &mut run.kept.follow;
            let followed = follow.iter().any(|(name, _)| name == domain);
            follow.retain(|(name, _)| name != domain);
            if !followed {
                follow.extend(mates.into_iter().map(|name| (name, to.clone())));
            }
        }
        self.keep();
    }

    /// The first of a group may be on its way since a life before: the others go where it goes.
    pub(super) fn leaving_holds(&self) -> bool {
        let now = self.now.wall.0;
        self.help
            .errand
            .leaving
            .iter()
            .any(|l| l.before && !l.mates.is_empty() && now.saturating_sub(l.since.0) < HOLD_MS)
    }
}
