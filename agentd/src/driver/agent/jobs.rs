//! Commands that go on: the job is in the domain's record while it runs, its outcome in `last` when it has ended. The state machines
//! are drawn in [`crate::driver::agent`].

mod begin;

pub(super) use begin::By;

use super::{Agent, migration::Locating};
use crate::driver::step::{Id, Op};
use crate::hypervisor::Way;
use crate::hypervisor::{HvError, HvResult, Moved, Progress};
use xvm_model::{
    Body, Came, Domain, DomainChange, DomainName, DomainState, Failure, Grant, Job, JobKind, Mono, Outcome,
    Spec, Topic,
};

/// A guest loses the first request before it listens, so it is asked again this often, in milliseconds.
const SHUTDOWN_AGAIN_MS: u64 = 3_000;
/// How long a guest may take to power off, in milliseconds.
const SHUTDOWN_MS: u64 = 120_000;
/// A question about a job's end is repeated this often, in milliseconds.
pub(super) const ASK_AGAIN_MS: u64 = 1_000;
/// Progress is told at most this often: 5 a second.
const TELL_MS: u64 = 200;

/// A job that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// As others see it.
    pub(super) job: Job,
    pub(super) stage: Stage,
    /// The domain as it was heard last; while it migrates, as it was when it was last active here.
    pub(super) held: Box<Domain>,
    /// When progress was told last.
    told: Mono,
    /// There is progress that was not told.
    untold: bool,
}

/// Where a job is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Create: what the domain boots from is fetched.
    Fetching {
        /// The operation.
        op: Id,
        /// What follows.
        spec: Box<Spec>,
    },
    /// Create: its exports become devices.
    Importing {
        /// The operation.
        op: Id,
        /// What follows.
        spec: Box<Spec>,
    },
    /// Start, create, reboot: the call runs.
    Called { op: Id },
    /// Start, create: the call has ended, the domain is asked.
    Ended { result: HvResult<()>, mark: Id, again: Mono },
    /// Shutdown: the guest is asked now and then.
    Asking {
        /// The request that is under way.
        op: Option<Id>,
        /// When to ask again.
        again: Mono,
        /// When to give up.
        until: Mono,
        /// The hypervisor has asked it once. What a domain's state does not allow after that is no refusal: it is going off, which takes
        /// Xen a while in which libvirt has a job on it, or has it as off already.
        asked: bool,
        /// The hypervisor refused; it counts when the domain still runs after this mark.
        refused: Option<(HvError, Id)>,
    },
    /// Migrate: imaged is asked for a lease for the destination.
    Leasing {
        /// The request.
        op: Id,
        /// Where it is to go, and how.
        way: Way,
        /// What is written down then.
        came: Box<Came>,
        /// See [`Stage::Marking`].
        must: bool,
    },
    /// Migrate: where it comes from is written down with it, before it leaves.
    Marking {
        /// The operation.
        op: Id,
        /// Where it is to go, and how.
        way: Way,
        /// The lease that it has there.
        grant: Option<Box<Grant>>,
        /// Without a mark it does not begin: nobody would know that it was moved to help, and it might be moved on at once.
        must: bool,
        /// It ends when the domain is marked: a mark that comes late would undo what users set meanwhile.
        cancelled: bool,
    },
    /// Migrate: the call runs.
    Moving { op: Id, address: Box<str> },
    /// Migrate: the call has ended, both hypervisors are asked.
    Locating(Box<Locating>),
}

impl Running {
    /// The operation whose end is waited for.
    pub(super) fn op(&self) -> Option<Id> {
        match &self.stage {
            Stage::Fetching { op, .. }
            | Stage::Importing { op, .. }
            | Stage::Called { op }
            | Stage::Marking { op, .. }
            | Stage::Moving { op, .. } => Some(*op),
            Stage::Asking { op, .. } => *op,
            Stage::Leasing { .. } | Stage::Ended { .. } | Stage::Locating(_) => None,
        }
    }

    pub(super) fn wake(&self) -> Option<Mono> {
        let stage = match &self.stage {
            Stage::Fetching { .. }
            | Stage::Importing { .. }
            | Stage::Called { .. }
            | Stage::Leasing { .. }
            | Stage::Marking { .. }
            | Stage::Moving { .. } => None,
            Stage::Ended { again, .. } => Some(*again),
            Stage::Asking { op: None, again, until, .. } => Some(*again.min(until)),
            Stage::Asking { until, .. } => Some(*until),
            Stage::Locating(l) => Some(l.again),
        };
        stage.into_iter().chain(self.untold.then(|| self.told.plus(TELL_MS))).min()
    }

    /// The domain as others should see it while the job runs.
    pub(super) fn shown(&self, record: Option<&Domain>, now: Mono) -> Option<Domain> {
        let active = record.filter(|d| d.state.is_active());
        match &self.stage {
            Stage::Moving { .. } => Some(active.unwrap_or(&self.held).clone()),
            Stage::Locating(l) => Some(active.cloned().unwrap_or_else(|| l.shown(&self.held, now))),
            // one that is being made is shown before its hypervisor knows it
            _ if self.job.kind == JobKind::Start => Some(record.cloned().unwrap_or_else(|| self.off())),
            _ => record.cloned(),
        }
    }
}

impl Running {
    /// The domain while its hypervisor does not know it.
    fn off(&self) -> Domain {
        Domain { state: DomainState::Shutoff, ..(*self.held).clone() }
    }
}

impl Agent {
    pub(super) fn progressed(&mut self, op: Id, name: &DomainName, progress: Progress) {
        let now = self.now.mono;
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        if run.op() != Some(op) {
            return;
        }
        let over = progress.percent >= 100 && progress.remaining == 0;
        let phase = if over { "switch" } else { "copy" };
        let percent = progress.percent.min(100);
        run.untold |= (&*run.job.phase, run.job.percent) != (phase, percent);
        run.job.phase = phase.into();
        run.job.percent = percent;
        if run.untold && now.since(run.told) >= TELL_MS {
            (run.told, run.untold) = (now, false);
            self.publish_domain(name);
        }
    }

    /// The call of a job has ended.
    pub(super) fn job_finished(&mut self, name: &DomainName, result: HvResult<Option<Moved>>) {
        let (now, mark) = (self.now.mono, self.mark());
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        let kind = run.job.kind;
        match &mut run.stage {
            Stage::Called { .. } if kind == JobKind::Reboot => {
                let outcome = match result {
                    Ok(_) => Ok(format!("{name} was asked to start anew").into()),
                    Err(error) => Err(error.failure(&format!("reboot {name}"))),
                };
                self.end_job(name, outcome);
            }
            Stage::Fetching { spec, .. } | Stage::Importing { spec, .. } => match result {
                Ok(_) => {
                    let (spec, imported) = (spec.clone(), matches!(run.stage, Stage::Importing { .. }));
                    self.create_on(name, spec, imported);
                }
                Err(error) => self.end_job(name, Err(error.failure(&format!("create {name}")))),
            },
            Stage::Called { .. } => {
                let again = now.plus(ASK_AGAIN_MS);
                run.stage = Stage::Ended { result: result.map(|_| ()), mark, again };
                self.ask(name);
            }
            Stage::Asking { op, asked, refused, .. } => {
                *op = None;
                match result {
                    Ok(_) => *asked = true,
                    Err(HvError::Unreachable(_)) => {}
                    Err(HvError::WrongState(_)) if *asked => {}
                    Err(error) => *refused = Some((error, mark)),
                }
                self.ask(name);
            }
            Stage::Marking { cancelled: true, .. } => {
                let why =
                    format!("cannot migrate {name}: cancelled before it began; it is on {}", self.me.name);
                self.end_job(name, Err(Failure::busy(why)));
            }
            Stage::Marking { way, grant, must, .. } => {
                // a hypervisor that keeps no marks moves domains all the same
                if let Err(error) = &result
                    && *must
                    && !matches!(error, HvError::NotSupported(_))
                {
                    let failure = error.failure(&format!("write down where {name} comes from"));
                    return self.end_job(name, Err(failure));
                }
                let (way, grant) = (way.clone(), grant.take());
                let address = way.address.clone();
                let op = self.begin(name, Op::Migrate { way, grant });
                if let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) {
                    run.stage = Stage::Moving { op, address };
                }
            }
            Stage::Moving { address, .. } => {
                let moved = result.map(Option::unwrap_or_default);
                let locating = Locating::new(std::mem::take(address), moved, mark, now);
                run.stage = Stage::Locating(Box::new(locating));
                run.job.phase = "ask".into();
                self.publish_domain(name);
                self.ask_both(name);
            }
            Stage::Leasing { .. } | Stage::Ended { .. } | Stage::Locating(_) => {}
        }
    }

    /// The domain's record is as of `query` or later.
    pub(super) fn job_heard(&mut self, name: &DomainName, query: Id) {
        let record = self.records.get(name);
        let state = record.map(|d| d.state);
        let active = state.is_some_and(DomainState::is_active);
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        if let Some(record) = record.filter(|_| active || run.job.kind != JobKind::Migrate) {
            *run.held = record.clone();
        }
        match &mut run.stage {
            Stage::Fetching { .. }
            | Stage::Importing { .. }
            | Stage::Called { .. }
            | Stage::Leasing { .. }
            | Stage::Marking { .. }
            | Stage::Moving { .. } => {}
            Stage::Ended { result, mark, .. } if query > *mark => {
                let outcome = started(name, result, state);
                self.end_job(name, outcome);
            }
            Stage::Ended { .. } => {}
            Stage::Asking { .. } if !active => {
                self.end_job(name, Ok(format!("{name} is shut off").into()));
            }
            Stage::Asking { refused: Some((error, mark)), .. } if query > *mark => {
                let failure = error.failure(&format!("shutdown {name}"));
                self.end_job(name, Err(failure));
            }
            Stage::Asking { .. } => {}
            Stage::Locating(l) => {
                if query > l.mark {
                    l.here = Some(record.cloned());
                    self.judge_migration(name);
                }
            }
        }
    }

    /// The question `query` about the domain was not answered; a repeated one may be.
    pub(super) fn job_unheard(&mut self, name: &DomainName, query: Id) {
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        match &mut run.stage {
            Stage::Locating(l) if query > l.mark => l.here = None,
            _ => {}
        }
    }

    pub(super) fn job_timers(&mut self) {
        let now = self.now.mono;
        let due: Vec<DomainName> = self
            .works
            .iter()
            .filter(|(_, w)| w.job.as_ref().and_then(Running::wake).is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.job_due(&name);
        }
    }

    fn job_due(&mut self, name: &DomainName) {
        let now = self.now.mono;
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        let tell = run.untold && now.since(run.told) >= TELL_MS;
        if tell {
            (run.told, run.untold) = (now, false);
        }
        match &mut run.stage {
            Stage::Fetching { .. }
            | Stage::Importing { .. }
            | Stage::Called { .. }
            | Stage::Leasing { .. }
            | Stage::Marking { .. }
            | Stage::Moving { .. } => {}
            Stage::Ended { again, .. } if *again <= now => {
                *again = now.plus(ASK_AGAIN_MS);
                self.ask(name);
            }
            Stage::Ended { .. } => {}
            Stage::Asking { until, .. } if *until <= now => {
                let why = format!(
                    "cannot shutdown {name}: the guest has not powered off within {} s; `echo destroy > ctl` pulls the plug",
                    SHUTDOWN_MS / 1000
                );
                self.end_job(name, Err(Failure::new(xvm_model::Code::TimedOut, why)));
            }
            Stage::Asking { op: None, again, .. } if *again <= now => {
                *again = now.plus(SHUTDOWN_AGAIN_MS);
                let op = self.begin(name, Op::Shutdown);
                if let Some(Running { stage: Stage::Asking { op: slot, .. }, .. }) =
                    self.works.get_mut(name).and_then(|w| w.job.as_mut())
                {
                    *slot = Some(op);
                }
            }
            Stage::Asking { .. } => {}
            Stage::Locating(l) if l.again <= now => self.migration_due(name),
            Stage::Locating(_) => {}
        }
        if tell {
            self.publish_domain(name);
        }
    }

    /// The job of a domain that is on this server has ended. When the hypervisor does not know the domain any more, how it ended is told
    /// once before its record goes.
    pub(super) fn end_job(&mut self, name: &DomainName, result: Result<Box<str>, Failure>) {
        let at = self.now.wall;
        let Some(work) = self.works.get_mut(name) else { return };
        let Some(run) = work.job.take() else { return };
        let last = Box::new(Outcome { id: run.job.id, kind: run.job.kind, at, result });
        work.last = Some(last.clone());
        let ended = last.clone();
        if self.records.get(name).is_none() {
            let domain = Domain { state: DomainState::Shutoff, job: None, last: Some(last), ..*run.held };
            let change = Box::new(DomainChange::Is { domain });
            self.publish(Topic::Domain(self.me.name.clone()), Body::Domain(change));
        }
        self.publish_domain(name);
        self.drop_idle(name);
        self.help_moved(&ended.id, &ended.result);
    }
}

/// How a start ended, by what the domain is after the call.
fn started(name: &DomainName, call: &HvResult<()>, state: Option<DomainState>) -> Result<Box<str>, Failure> {
    match (state, call) {
        (Some(state), _) if state.is_active() => Ok(format!("{name} is {state}").into()),
        (_, Err(error)) => Err(error.failure(&format!("start {name}"))),
        (Some(state), Ok(())) => Err(Failure::new(
            xvm_model::Code::Io,
            format!("cannot start {name}: it was started, and is {state} again"),
        )),
        (None, Ok(())) => Err(Failure::new(
            xvm_model::Code::Io,
            format!("cannot start {name}: it was started, and the hypervisor does not know it any more"),
        )),
    }
}
