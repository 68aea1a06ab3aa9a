//! What servers say, and what becomes of leases then. Nothing here waits: whatever is believed too soon or too late shows again in the
//! next word of the server.

use super::Keeper;
use super::step::{Effect, Tag};
use xvm_model::config::Restart;
use xvm_model::lease::{Lease, Phase, Seen};
use xvm_model::outbox::Addressee;
use xvm_model::{
    Body, Code, ConfigName, Domain, DomainChange, DomainCommand, DomainState, Envelope, Failure, JobKind,
    News, Order, Reach, Sender, ServerName, Topic,
};

/// The destination's word counts when it was said so long after the source's that it does not run the domain, in milliseconds: the
/// domain may just be arriving.
const SETTLE_MS: u64 = 3_000;
/// A domain that runs without a lease is ordered away at most this often, in milliseconds.
const FENCE_MS: u64 = 5_000;

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
    fn seen(&self, lease: &Lease, name: &ConfigName) -> Seen {
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
    fn given_back(&mut self, name: &ConfigName, dropped: &[Lease]) {
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

    /// A domain runs under a lease that is not known here, and none is: what was known is lost (an old state came back from a backup).
    /// Its lease is taken as it is, for its exports are what keeps it alive.
    fn adopt(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get(name) else { return };
        if !entry.leases.held.is_empty() || entry.work.is_some() {
            return;
        }
        let found = self.view.servers().find_map(|s| {
            let domain = self.domain_on(&s.name, name).filter(|d| d.state.is_active())?;
            let grant = domain.settings.grant.as_deref()?;
            (grant.epoch > entry.leases.epoch
                && grant.server == s.name
                && grant.config == *name
                && grant.check().is_ok())
            .then(|| (grant.clone(), s.stamp.boot))
        });
        let Some((grant, boot)) = found else { return };
        tracing::warn!(%name, server = %grant.server, epoch = grant.epoch, "a lease that was not known is taken over");
        let Some(entry) = self.configs.get_mut(name) else { return };
        entry.leases.epoch = grant.epoch;
        entry.port = grant.port;
        entry.leases.held.push(Lease { grant, phase: Phase::Held, job: None, boot });
        self.dirty = true;
        self.export(name);
        self.tell(name);
    }

    /// A domain that runs where it has no lease any more (a server that was cut off, and is back) has no disk: it is ended there.
    fn fence(&mut self, name: &ConfigName) {
        let now = self.now.mono;
        let Some(entry) = self.configs.get(name) else { return };
        if self.fenced.get(name).is_some_and(|at| now.since(*at) < FENCE_MS) {
            return;
        }
        let stray = self.view.servers().find_map(|s| {
            let heard = self.view.reach(s, now) != Reach::Down && s.beat.stale.is_none();
            let has = self.domain_on(&s.name, name).filter(|d| d.state.is_active());
            // only what is known to be over: the number of its lease was given, and is not held
            let epoch = has.and_then(|d| d.settings.grant.as_deref()).map(|g| g.epoch)?;
            let over =
                epoch <= entry.leases.epoch && !entry.leases.held.iter().any(|l| l.grant.epoch == epoch);
            let moving = has.is_some_and(|d| d.job.is_some());
            (heard && over && !moving).then_some((s, epoch))
        });
        let Some((server, epoch)) = stray else { return };
        tracing::warn!(%name, server = %server.name, "a domain runs without a lease: it is ended");
        let (boot, heard) = (server.stamp.boot, (server.at, server.heard.mono));
        let to = Addressee::Server(server.name.clone());
        let order = Box::new(Order::Domain { name: name.domain(), command: DomainCommand::Fence { epoch } });
        self.fenced.insert(name.clone(), now);
        self.out.push(Effect::Order { name: name.clone(), tag: Tag::Fence, to, boot, heard, order });
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
        let waiting: Vec<ConfigName> = self
            .configs
            .iter()
            .filter(|(_, e)| e.restart && e.rest <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            let done = self.start(None, &name, None).is_ok();
            let Some(entry) = self.configs.get_mut(&name) else { continue };
            let always = entry.config.as_ref().is_some_and(|c| c.restart == Restart::Always);
            entry.restart = always && !done && entry.leases.held.is_empty() && entry.work.is_none();
        }
        self.purge();
        self.fenced.retain(|_, at| now.since(*at) < FENCE_MS);
    }

    /// Whether a server says that a migration took the domain away, and that it cannot tell yet how that ended.
    fn has_left(&self, server: &ServerName, name: &ConfigName) -> bool {
        self.domain_on(server, name).is_some_and(|d| {
            let migrates = d.job.as_ref().is_some_and(|j| j.kind == JobKind::Migrate);
            migrates && !d.state.is_active() && d.state != DomainState::Incoming
        })
    }

    /// A destination that is down before it is ready for a migration does not get ready.
    fn give_up_lending(&mut self, name: &ConfigName) {
        let lending = self.configs.get(name).and_then(|e| e.lending.as_ref());
        if let Some(to) = lending.map(|l| l.to.clone()).filter(|to| self.is_down(to)) {
            self.lend_failed(name, Failure::new(Code::HostDown, format!("{to} is down")));
        }
    }

    /// `restart always`: the lease of a server that is down is taken back, then it is started elsewhere.
    fn rescue(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get(name) else { return };
        let always = entry.config.as_ref().is_some_and(|c| c.restart == Restart::Always);
        let Some(holder) = entry.leases.holder().cloned() else { return };
        // the other end of a migration may run it: then its word counts
        let said: Vec<Seen> = entry.leases.held.iter().map(|l| self.seen(l, name)).collect();
        let nobody = |(lease, seen): (&Lease, &Seen)| match seen {
            Seen::Away | Seen::Off => true,
            Seen::Unknown => false,
            Seen::On { .. } => self.has_left(&lease.grant.server, name),
        };
        let lost = said.contains(&Seen::Away) && entry.leases.held.iter().zip(&said).all(nobody);
        if !always || !lost {
            return;
        }
        let Some(entry) = self.configs.get_mut(name) else { return };
        let work = entry.work.take();
        let dropped = entry.leases.revoke();
        tracing::warn!(%name, server = %holder, leases = dropped.len(), "its server is down: its disk is taken away");
        self.dirty = true;
        if let Some(work) = work {
            let failure = Failure::new(Code::HostDown, format!("cannot start {name}: {holder} is down"));
            self.end(name, work, Err(failure));
        }
        self.given_back(name, &dropped);
        if let Err(failure) = self.start(None, name, None) {
            tracing::error!(%name, %failure, "cannot be started elsewhere");
            if let Some(entry) = self.configs.get_mut(name) {
                entry.restart = true;
            }
        }
    }
}

/// Whether a domain runs by the lease with that number, as far as its server keeps it.
pub(super) fn runs_by(domain: &Domain, epoch: u64) -> bool {
    domain.settings.grant.as_deref().is_none_or(|g| g.epoch == epoch)
}

fn add_change(change: &DomainChange, names: &mut Vec<ConfigName>) {
    names.extend(ConfigName::parse(change.name().as_str()));
}
