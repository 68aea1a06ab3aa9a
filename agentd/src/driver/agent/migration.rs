//! How a migration ended. Nothing is inferred from what the call said: the hypervisors of both sides are asked where the domain is,
//! again and again until that is known.
//!
//! | here | there | |
//! |---|---|---|
//! | off or unknown | active | it moved |
//! | active | off or unknown | it stayed; the call says why |
//! | active | arriving for 10 s (120 s when the call broke off: it may go on) | it stayed |
//! | active | no answer for 30 s | it stayed |
//! | active | active, for 10 s | it runs on both: told loudly |
//! | off or unknown | off or unknown, for 5 s | it runs nowhere |
//! | off or unknown | no answer | asked without end: the destination may run it |

use super::{Agent, jobs::ASK_AGAIN_MS, jobs::Stage};
use crate::driver::step::{Effect, Id};
use crate::hypervisor::{HvError, HvResult, Moved};
use xvm_model::{
    Body, Code, Departed, Domain, DomainChange, DomainName, DomainState, Failure, Mono, Outcome, ServerName,
    Topic,
};

/// How long a destination may be silent while the domain is active here, in milliseconds.
const SILENT_MS: u64 = 30_000;
/// How long both sides may claim the domain: one of them may be about to let go.
const BOTH_MS: u64 = 10_000;
/// How long the domain may go on arriving there after the call has ended; when nobody knows how it ended, it may go on unseen.
const ARRIVING_MS: u64 = 10_000;
const ARRIVING_UNSEEN_MS: u64 = 120_000;
/// How long neither side may know it.
const NEITHER_MS: u64 = 5_000;
/// After this time a domain that is not here is not shown as if it still were.
const HELD_MS: u64 = 3_000;

/// A migration whose call has ended.
#[derive(Debug)]
pub(super) struct Locating {
    address: Box<str>,
    /// What the call said.
    call: HvResult<Moved>,
    /// Only answers to later questions count.
    pub(super) mark: Id,
    /// What this hypervisor answered last.
    pub(super) here: Option<Option<Domain>>,
    /// What the other hypervisor answered last.
    there: Option<Option<Domain>>,
    /// The question to the other that is under way.
    locate: Option<Id>,
    /// When to ask again.
    pub(super) again: Mono,
    since: Mono,
    /// Since when the two answers are what they are.
    verdict: Option<(Verdict, Mono)>,
}

/// What two answers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Moved,
    Stayed,
    /// Active here, and still arriving there.
    Arriving,
    /// Active here, and the other does not answer.
    Silent,
    Both,
    Neither,
    /// Too little is known to tell anything, ever.
    Unknown,
}

impl Locating {
    pub(super) fn new(address: Box<str>, call: HvResult<Moved>, mark: Id, now: Mono) -> Self {
        let again = now.plus(ASK_AGAIN_MS);
        Locating {
            address,
            call,
            mark,
            here: None,
            there: None,
            locate: None,
            again,
            since: now,
            verdict: None,
        }
    }

    /// The domain as others should see it while it is not active here: for a moment as it was, so that nobody sees a gap between
    /// two servers.
    pub(super) fn shown(&self, held: &Domain, now: Mono) -> Domain {
        let mut domain = held.clone();
        if now.since(self.since) >= HELD_MS && self.here.is_some() {
            domain.state = DomainState::Shutoff;
            domain.reason = Some(format!("left for {}, which does not answer", self.address).into());
        }
        domain
    }

    /// Whether this hypervisor said, after the call, that it does not run it.
    pub(super) fn is_off_here(&self) -> bool {
        self.here.as_ref().is_some_and(|d| !d.as_ref().is_some_and(|d| d.state.is_active()))
    }

    fn arriving(&self) -> bool {
        matches!(&self.there, Some(Some(d)) if d.state == DomainState::Incoming)
    }

    /// How long a domain that is still arriving is waited for.
    fn patience(&self) -> u64 {
        match self.call {
            Err(HvError::Unreachable(_)) => ARRIVING_UNSEEN_MS,
            _ => ARRIVING_MS,
        }
    }

    fn verdict(&self) -> Verdict {
        let active = |answer: &Option<Option<Domain>>| {
            answer.as_ref().map(|d| d.as_ref().is_some_and(|d| d.state.is_active()))
        };
        match (active(&self.here), active(&self.there)) {
            (Some(false), Some(true)) => Verdict::Moved,
            (Some(true), Some(false)) if self.arriving() => Verdict::Arriving,
            (Some(true), Some(false)) => Verdict::Stayed,
            (Some(true), None) => Verdict::Silent,
            (Some(true), Some(true)) => Verdict::Both,
            (Some(false), Some(false)) => Verdict::Neither,
            (None, _) | (Some(false), None) => Verdict::Unknown,
        }
    }
}

impl Agent {
    /// Asks both sides, each unless a question to it is under way.
    pub(super) fn ask_both(&mut self, name: &DomainName) {
        self.ask(name);
        let query = Id(self.ids + 1);
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        let uuid = run.held.uuid;
        let Stage::Locating(l) = &mut run.stage else { return };
        if l.locate.is_none() {
            l.locate = Some(query);
            let address = l.address.clone();
            self.ids = query.0;
            self.out.push(Effect::Locate { query, address, name: name.clone(), uuid });
        }
    }

    fn locating(&mut self, name: &DomainName) -> Option<&mut Locating> {
        match &mut self.works.get_mut(name)?.job.as_mut()?.stage {
            Stage::Locating(l) => Some(l),
            _ => None,
        }
    }

    pub(super) fn located(&mut self, query: Id, name: &DomainName, result: HvResult<Option<Domain>>) {
        let Some(l) = self.locating(name).filter(|l| l.locate == Some(query)) else { return };
        l.locate = None;
        l.there = result.ok();
        self.judge_migration(name);
    }

    pub(super) fn migration_due(&mut self, name: &DomainName) {
        let now = self.now.mono;
        let Some(l) = self.locating(name) else { return };
        l.again = now.plus(ASK_AGAIN_MS);
        self.judge_migration(name);
        self.ask_both(name);
    }

    /// Ends the job when the answers of both sides tell how.
    pub(super) fn judge_migration(&mut self, name: &DomainName) {
        let (now, me) = (self.now.mono, self.me.name.clone());
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        let to = run.job.to.clone().unwrap_or_else(|| me.clone());
        let Stage::Locating(l) = &mut run.stage else { return };
        let verdict = l.verdict();
        let since = match l.verdict {
            Some((old, since)) if old == verdict => since,
            _ => now,
        };
        l.verdict = Some((verdict, since));
        let lasts = |ms| now.since(since) >= ms;
        let fail =
            |code, why: String| Err(Failure::new(code, format!("cannot migrate {name} to {to}: {why}")));
        let outcome = match verdict {
            Verdict::Moved => return self.depart(name, to),
            Verdict::Stayed => stayed(name, &to, &me, l),
            Verdict::Arriving if lasts(l.patience()) => stayed(name, &to, &me, l),
            Verdict::Silent if lasts(SILENT_MS) => {
                let why = l.call.as_ref().err().map(|e| format!("{e}; ")).unwrap_or_default();
                fail(Code::Io, format!("{why}{to} does not answer; it is {} on {me}", state_of(&l.here)))
            }
            Verdict::Both if lasts(BOTH_MS) => {
                fail(Code::Io, format!("it runs on both {me} and {to}: destroy one of them at once"))
            }
            Verdict::Neither if lasts(NEITHER_MS) => {
                let why = l.call.as_ref().err().map(|e| format!("{e}; ")).unwrap_or_default();
                fail(Code::Io, format!("{why}it runs neither on {me} nor on {to}"))
            }
            Verdict::Arriving | Verdict::Silent | Verdict::Both | Verdict::Neither | Verdict::Unknown => {
                return;
            }
        };
        self.end_job(name, outcome);
    }

    /// It moved: told at once, and in heartbeats for a minute.
    fn depart(&mut self, name: &DomainName, to: ServerName) {
        let at = self.now.wall;
        let Some(work) = self.works.get_mut(name) else { return };
        let Some(run) = work.job.take() else { return };
        let Stage::Locating(l) = run.stage else { return };
        let Some(mut domain) = l.there.flatten() else { return };
        let took = match &l.call {
            Ok(moved) => took(moved),
            Err(error) => format!(" (the call said: {error})"),
        };
        let verb = if domain.state == DomainState::Running { "runs" } else { "is paused" };
        let result = Ok(format!("{name} {verb} on {to}{took}").into());
        let last = Box::new(Outcome { id: run.job.id, kind: run.job.kind, at, result });
        work.last = Some(last.clone());
        let ended = last.clone();
        domain.job = None;
        domain.last = Some(last);
        let departed = Departed { domain, to };
        self.departed.add(departed.clone(), self.now.mono);
        let change = Box::new(DomainChange::Departed { departed });
        self.publish(Topic::Domain(self.me.name.clone()), Body::Domain(change));
        if self.records.get(name).is_some() {
            // its definition stays here
            self.publish_domain(name);
        }
        self.drop_idle(name);
        self.help_moved(&ended.id, &ended.result);
    }
}

/// The domain is still here: what the call said is why.
fn stayed(name: &DomainName, to: &ServerName, me: &ServerName, l: &Locating) -> Result<Box<str>, Failure> {
    let what = format!("migrate {name} to {to}");
    let is = format!("it is {} on {me}", state_of(&l.here));
    Err(match &l.call {
        Err(HvError::Cancelled) => Failure::busy(format!("cannot {what}: cancelled; {is}")),
        Err(error) => {
            let failure = error.failure(&what);
            Failure::new(failure.code, format!("{}; {is}", failure.text))
        }
        Ok(_) => {
            Failure::new(Code::Io, format!("cannot {what}: the hypervisor says that it moved, but {is}"))
        }
    })
}

fn state_of(answer: &Option<Option<Domain>>) -> DomainState {
    answer.as_ref().and_then(|d| d.as_ref()).map_or(DomainState::Shutoff, |d| d.state)
}

/// `: 612 ms, down 41 ms`
fn took(moved: &Moved) -> String {
    match (moved.total_ms, moved.down_ms) {
        (0, None) => String::new(),
        (total, None) => format!(": {total} ms"),
        (total, Some(down)) => format!(": {total} ms, down {down} ms"),
    }
}
