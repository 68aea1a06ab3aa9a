//! What servers say, and what becomes of leases then. Nothing here waits: whatever is believed too soon or too late shows again in the
//! next word of the server.

use super::Keeper;
use xvm_model::lease::{Lease, Seen};
use xvm_model::{
    Body, ConfigName, Domain, DomainChange, DomainState, Envelope, JobKind, News, Sender, ServerName, Topic,
};

/// The destination's word counts when it was said so long after the source's that it does not run the domain, in milliseconds: the
/// domain may just be arriving.
const SETTLE_MS: u64 = 3_000;

impl Keeper {
    pub(super) fn link(&mut self, up: bool) {
        let (now, linked) = (self.now, self.linked);
        // events are for mounts
        drop(self.view.link(up, "", now));
        self.linked = up.then(|| linked.unwrap_or(now.mono));
        self.calls.clear();
        if up {
            self.beat = now.mono;
            self.calls.extend(super::ROLL_CALLS.iter().map(|ms| now.mono.plus(*ms)));
        }
    }

    pub(super) fn heard(&mut self, envelope: Envelope) {
        let Sender::Agent(server) = envelope.from.clone() else { return };
        let mut names: Vec<ConfigName> = Vec::new();
        let mut add = |domain: &Domain| {
            if let Ok(name) = ConfigName::parse(domain.name.as_str()) {
                names.push(name);
            }
        };
        let whole = match &envelope.body {
            Body::Heartbeat(beat) => {
                beat.domains.iter().for_each(&mut add);
                true
            }
            Body::Domain(change) => {
                self.early_end(&server, change);
                add_change(change, &mut names);
                false
            }
            Body::Reply(reply) => match &reply.news {
                Some(News::Domain { change }) => {
                    self.early_end(&server, change);
                    add_change(change, &mut names);
                    false
                }
                Some(News::Server { heartbeat }) => {
                    heartbeat.domains.iter().for_each(&mut add);
                    true
                }
                _ => return,
            },
            _ => return,
        };
        if whole {
            let concerned = |(_, e): &(&ConfigName, &super::Entry)| e.leases.of(&server).is_some();
            names.extend(self.configs.iter().filter(concerned).map(|(name, _)| name.clone()));
        }
        drop(self.view.apply(envelope, self.now));
        names.sort();
        names.dedup();
        for name in names {
            self.look(&name);
        }
    }

    /// A start that failed is told once, and the domain is gone with the next word.
    fn early_end(&mut self, server: &ServerName, change: &DomainChange) {
        let DomainChange::Is { domain } = change else { return };
        let Ok(name) = ConfigName::parse(domain.name.as_str()) else { return };
        let Some(entry) = self.configs.get(&name) else { return };
        let Some(super::entry::Work { step: super::entry::Step::Booting { server: s, order, .. }, .. }) =
            &entry.work
        else {
            return;
        };
        if s == server
            && !domain.state.is_active()
            && let Some(last) = domain.last.as_ref().filter(|l| Some(&l.id) == order.as_ref())
            && let Err(failure) = last.result.clone()
        {
            self.start_failed(&name, failure);
        }
    }

    /// Draws the conclusions about one config from what is known of the servers now.
    pub(super) fn look(&mut self, name: &ConfigName) {
        self.judge_start(name);
        self.adopt(name);
        self.observe(name);
        self.fence(name);
    }

    /// What the agent of a lease's server says of the domain of a config.
    pub(super) fn seen(&self, lease: &Lease, name: &ConfigName) -> Seen {
        let server = &lease.grant.server;
        if !self.view.link_up() {
            return Seen::Unknown;
        }
        if self.is_down(server) {
            return Seen::Away;
        }
        let Some(known) = self.view.server(server.as_str()) else { return Seen::Unknown };
        if known.beat.stale.is_some() {
            return Seen::Unknown;
        }
        match self.domain_on(server, name) {
            None => Seen::Off,
            // a copy that runs there under an older lease says nothing about this one
            Some(d) if d.state.is_active() && !runs_by(d, lease.grant.epoch) => Seen::Unknown,
            Some(d) if !d.state.is_active() && d.state != DomainState::Incoming && d.job.is_none() => {
                Seen::Off
            }
            Some(d) => {
                let moving =
                    !d.state.is_active() || d.job.as_ref().is_some_and(|j| j.kind == JobKind::Migrate);
                Seen::On { boot: known.stamp.boot, moving, ended: d.last.as_ref().map(|l| l.id.clone()) }
            }
        }
    }

    fn observe(&mut self, name: &ConfigName) {
        let now = self.now.mono;
        let Some(entry) = self.configs.get(name) else { return };
        let held = &entry.leases.held;
        let Some(first) = held.first() else { return };
        let off = self.seen(first, name) == Seen::Off;
        let off_since = off.then(|| entry.off_since.unwrap_or(now));
        let mut said: Vec<(ServerName, Seen)> =
            held.iter().map(|lease| (lease.grant.server.clone(), self.seen(lease, name))).collect();
        // that the destination does not have it either counts when it was said later
        if let ([_, to], Some(since)) = (&held[..], off_since)
            && said[1].1 == Seen::Off
            && self.view.server(to.grant.server.as_str()).is_none_or(|s| s.heard.mono < since.plus(SETTLE_MS))
        {
            said[1].1 = Seen::Unknown;
        }
        let Some(entry) = self.configs.get_mut(name) else { return };
        entry.off_since = off_since;
        let before = entry.leases.clone();
        let dropped = entry.leases.observe(|server| {
            said.iter().find(|(s, _)| s == server).map_or(Seen::Unknown, |(_, seen)| seen.clone())
        });
        if entry.leases != before {
            self.dirty = true;
            self.given_back(name, &dropped);
        }
    }

    /// Leases changed: exports follow, others are told.
    pub(super) fn given_back(&mut self, name: &ConfigName, dropped: &[Lease]) {
        if !dropped.is_empty() {
            for lease in dropped {
                tracing::info!(%name, server = %lease.grant.server, epoch = lease.grant.epoch, "lease ends");
            }
            if let Some(entry) = self.configs.get_mut(name) {
                entry.lending = None;
                entry.off_since = None;
            }
            self.export(name);
        }
        self.tell(name);
        self.apply_pending(name);
    }

    /// What time alone changes.
    pub(super) fn timers(&mut self) {
        let now = self.now.mono;
        let calls = self.calls.len();
        self.calls.retain(|at| *at > now);
        if self.calls.len() < calls {
            self.publish(Topic::RollCall, Body::RollCall);
        }
        self.start_early();
        let due: Vec<ConfigName> = self
            .configs
            .iter()
            .filter(|(_, e)| e.is_due(now) || e.retry.is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            if self.configs.get(&name).is_some_and(|e| e.retry.is_some_and(|at| at <= now)) {
                self.export(&name);
            }
            self.tell(&name);
        }
        if now < self.beat {
            return;
        }
        drop(self.view.tick(self.now));
        let names: Vec<ConfigName> = self
            .configs
            .iter()
            .filter(|(_, e)| !e.leases.held.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.look(&name);
            self.give_up_lending(&name);
            self.rescue(&name);
        }
        let due =
            |e: &super::Entry| e.restart && e.rest <= now && e.leases.held.is_empty() && e.work.is_none();
        let waiting: Vec<ConfigName> =
            self.configs.iter().filter(|(_, e)| due(e)).map(|(name, _)| name.clone()).collect();
        for name in waiting {
            self.restart(&name);
        }
        self.purge();
        self.fenced.retain(|_, at| now.since(*at) < super::rescue::FENCE_MS);
    }
}

/// Whether a domain runs by the lease with that number, as far as its server keeps it.
pub(super) fn runs_by(domain: &Domain, epoch: u64) -> bool {
    domain.settings.grant.as_deref().is_none_or(|g| g.epoch == epoch)
}

fn add_change(change: &DomainChange, names: &mut Vec<ConfigName>) {
    names.extend(ConfigName::parse(change.name().as_str()));
}
