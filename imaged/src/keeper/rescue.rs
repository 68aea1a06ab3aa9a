//! Leases and domains that do not fit together: one that runs without a lease is ended, one that runs under a lease that was forgotten is
//! taken over, one whose server is down is started elsewhere.

use super::Keeper;
use super::step::{Effect, Tag};
use xvm_model::config::Restart;
use xvm_model::lease::{Lease, Phase, Seen};
use xvm_model::outbox::Addressee;
use xvm_model::{Code, ConfigName, DomainCommand, DomainState, Failure, JobKind, Order, Reach, ServerName};

/// A domain that runs without a lease is ordered away at most this often, in milliseconds.
pub(super) const FENCE_MS: u64 = 5_000;
/// A restart that failed is tried again after so long, in milliseconds.
const REST_MS: u64 = 5_000;

impl Keeper {
    /// A domain runs under a lease that is not known here, and none is: what was known is lost (an old state came back from a backup).
    /// Its lease is taken as it is, for its exports are what keeps it alive.
    pub(super) fn adopt(&mut self, name: &ConfigName) {
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
    pub(super) fn fence(&mut self, name: &ConfigName) {
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

    /// Whether a server says that a migration took the domain away, and that it cannot tell yet how that ended.
    fn has_left(&self, server: &ServerName, name: &ConfigName) -> bool {
        self.domain_on(server, name).is_some_and(|d| {
            let migrates = d.job.as_ref().is_some_and(|j| j.kind == JobKind::Migrate);
            migrates && !d.state.is_active() && d.state != DomainState::Incoming
        })
    }

    /// A destination that is down before it is ready for a migration does not get ready.
    pub(super) fn give_up_lending(&mut self, name: &ConfigName) {
        let lending = self.configs.get(name).and_then(|e| e.lending.as_ref());
        if let Some(to) = lending.map(|l| l.to.clone()).filter(|to| self.is_down(to)) {
            self.lend_failed(name, Failure::new(Code::HostDown, format!("{to} is down")));
        }
    }

    /// `restart always`: the lease of a server that is down is taken back, then it is started elsewhere.
    pub(super) fn rescue(&mut self, name: &ConfigName) {
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
        // kept on disk with the revocation: a life of imaged that ends now leaves it to the next
        entry.restart = true;
        tracing::warn!(%name, server = %holder, leases = dropped.len(), "its server is down: its disk is taken away");
        self.dirty = true;
        if let Some(work) = work {
            let failure = Failure::new(Code::HostDown, format!("cannot start {name}: {holder} is down"));
            self.end(name, work, Err(failure));
        }
        self.given_back(name, &dropped);
        self.restart(name);
    }

    /// Starts a config whose disk was taken away from its server; tried again until it runs.
    pub(super) fn restart(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        if entry.config.as_ref().is_none_or(|c| c.restart != Restart::Always) {
            entry.restart = false;
            self.dirty = true;
        } else if let Err(failure) = self.start(None, name, None) {
            tracing::error!(%name, %failure, "cannot be started elsewhere");
            self.rest(name);
        }
    }

    /// A restart that failed is tried again, not at once.
    pub(super) fn rest(&mut self, name: &ConfigName) {
        let rest = self.now.mono.plus(REST_MS);
        if let Some(entry) = self.configs.get_mut(name) {
            entry.rest = rest;
        }
    }
}
