//! Domains that stand still because their disk did not answer (the process that exports it had died, the network was away): they go on
//! by themselves once it does.
//!
//! ```text
//!   running ── io-error ─▶ stopped ── 0.2 s ─▶ each of its exports is asked for ── all there ─▶ unpaused
//!                             ▲                    └── not all: again after 1 s         │
//!                             └── stopped again: after 0.5 s, 1 s, ... 30 s ────────────┘
//! ```
//!
//! A domain whose lease is over stays as it is: its exports are gone under these names for ever, so nothing answers for them. And if one
//! were let go on by mistake, it would have no disk to write to. One that a user paused is not touched: the hypervisor gives another reason.

use super::Agent;
use crate::driver::step::{Id, Op};
use crate::hypervisor::HvResult;
use std::collections::BTreeMap;
use xvm_model::{Domain, DomainName, DomainState, Mono};

/// Why a domain is paused whose disk gave an error, in the words of libvirt's driver.
const REASON: &str = "io-error";
/// When exports are asked for first, in milliseconds: whoever exports is started anew within a moment.
const FIRST_MS: u64 = 200;
/// When exports that were not there are asked for again.
const AGAIN_MS: u64 = 1_000;
/// When a domain that stopped again is let go on again, at first and at most.
const WAIT_MS: (u64, u64) = (500, 30_000);
/// One that has run so long since is well: when it stops again, that is another matter.
const WELL_MS: u64 = 5_000;

/// The domains that stopped.
#[derive(Debug, Default)]
pub(super) struct State(BTreeMap<DomainName, Stopped>);

#[derive(Debug)]
struct Stopped {
    /// It is being let go on.
    op: Option<Id>,
    /// When to look at it.
    at: Mono,
    /// How long it waits when it stops again.
    wait: u64,
    /// It ran when it was looked at.
    well: bool,
}

impl State {
    pub(super) fn wake(&self) -> Option<Mono> {
        self.0.values().filter(|s| s.op.is_none()).map(|s| s.at).min()
    }

    /// Whether an operation is one of these.
    pub(super) fn is(&self, op: Id) -> bool {
        self.0.values().any(|s| s.op == Some(op))
    }
}

impl Agent {
    /// A domain's record is new.
    pub(super) fn resume_heard(&mut self, name: &DomainName) {
        let now = self.now.mono;
        if !self.records.get(name).is_some_and(stopped) {
            return;
        }
        let entry = self.resume.0.entry(name.clone()).or_insert_with(|| {
            tracing::warn!(%name, "stands still, for its disk gives errors; it goes on when its exports answer");
            Stopped { op: None, at: now.plus(FIRST_MS), wait: WAIT_MS.0, well: false }
        });
        if std::mem::take(&mut entry.well) {
            entry.at = now.plus(entry.wait);
        }
    }

    /// It was let go on, or its exports do not answer.
    pub(super) fn resumed(&mut self, op: Id, name: &DomainName, result: &HvResult<()>) {
        let now = self.now.mono;
        let Some(entry) = self.resume.0.get_mut(name).filter(|s| s.op == Some(op)) else { return };
        entry.op = None;
        entry.at = now.plus(AGAIN_MS);
        if result.is_ok() {
            tracing::info!(%name, "its exports answer: it goes on");
            entry.at = now.plus(entry.wait);
            entry.wait = (entry.wait * 2).min(WAIT_MS.1);
        }
        self.ask(name);
    }

    pub(super) fn resume_timers(&mut self) {
        let now = self.now.mono;
        let due = self.resume.0.iter().filter(|(_, s)| s.op.is_none() && s.at <= now);
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let idle = self.works.get(&name).is_none_or(|w| w.short.is_none() && w.job.is_none());
            let record = self.records.get(&name);
            let grant = record.filter(|d| stopped(d)).and_then(|d| d.settings.grant.clone());
            let op = match (&grant, idle) {
                (Some(grant), true) => Some(self.begin(&name, Op::Resume(grant.clone()))),
                _ => None,
            };
            let gone = self.records.get(&name).is_none();
            let Some(entry) = self.resume.0.get_mut(&name) else { continue };
            if gone || (grant.is_none() && entry.well) {
                self.resume.0.remove(&name);
                continue;
            }
            entry.op = op;
            entry.well = grant.is_none();
            entry.at = now.plus(if entry.well { WELL_MS } else { AGAIN_MS });
        }
    }
}

/// Whether a domain stands still because of its disk, which it has by a lease.
fn stopped(domain: &Domain) -> bool {
    domain.state == DomainState::Paused
        && domain.reason.as_deref() == Some(REASON)
        && domain.settings.grant.is_some()
}
