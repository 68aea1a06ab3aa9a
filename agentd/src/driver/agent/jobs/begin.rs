//! How a job begins, and how it is cancelled.

use super::{Running, SHUTDOWN_AGAIN_MS, SHUTDOWN_MS, Stage};
use crate::driver::agent::{
    Agent,
    commands::{About, Ticket},
};
use crate::driver::step::{Effect, Op};
use crate::hypervisor::Way;
use xvm_model::{Answer, Came, Domain, DomainName, DomainSettings, Failure, Job, JobKind, ServerName};

/// Who began a job; its id is the job's.
#[derive(Debug, Clone, Copy)]
pub(in crate::driver::agent) enum By<'a> {
    /// An order, which is answered.
    Order(&'a Ticket),
    /// A round of help.
    Round {
        /// The round.
        id: &'a str,
        /// Why, in a word.
        why: &'a str,
    },
}

impl By<'_> {
    /// The job's id.
    fn id(&self) -> &str {
        match self {
            By::Order(ticket) => &ticket.id,
            By::Round { id, .. } => id,
        }
    }
}

impl Agent {
    pub(in crate::driver::agent) fn begin_job(
        &mut self,
        ticket: Ticket,
        domain: Domain,
        kind: JobKind,
        what: Op,
    ) {
        let op = self.begin(&domain.name, what);
        self.accept_job(By::Order(&ticket), domain, kind, "begin", None, Stage::Called { op });
    }

    pub(in crate::driver::agent) fn begin_shutdown(&mut self, ticket: Ticket, domain: Domain) {
        let op = self.begin(&domain.name, Op::Shutdown);
        let now = self.now.mono;
        let until = now.plus(SHUTDOWN_MS);
        let again = now.plus(SHUTDOWN_AGAIN_MS);
        let stage = Stage::Asking { op: Some(op), again, until, asked: false, refused: None };
        self.accept_job(By::Order(&ticket), domain, JobKind::Shutdown, "wait", None, stage);
    }

    /// Begins a migration; that it may begin now was checked.
    pub(in crate::driver::agent) fn begin_migration(
        &mut self,
        by: By<'_>,
        domain: Domain,
        to: ServerName,
        way: Way,
    ) {
        let (round, why) = match by {
            By::Order(_) => (None, "ordered".into()),
            By::Round { id, why } => (Some(id.into()), why.into()),
        };
        if let By::Order(_) = by {
            self.leaving_ordered(&domain.name);
        }
        let helped = domain.settings.came.as_deref().and_then(|came| self.helped(came));
        let came = Came { from: self.me.name.clone(), at: self.now.wall, round, why, helped };
        let (came, must) = (Box::new(came), matches!(by, By::Round { .. }));
        let (phase, stage) = match domain.settings.grant.clone() {
            Some(grant) => {
                let op = self.ask_lease(&domain, &grant, &to, by.id());
                ("lease", Stage::Leasing { op, way, came, must })
            }
            None => {
                let settings = DomainSettings { came: Some(came), ..domain.settings.clone() };
                let op = self.begin(&domain.name, Op::Set(settings));
                ("begin", Stage::Marking { op, way, grant: None, must, cancelled: false })
            }
        };
        self.accept_job(by, domain, JobKind::Migrate, phase, Some(to), stage);
    }

    pub(in crate::driver::agent) fn accept_job(
        &mut self,
        by: By<'_>,
        domain: Domain,
        kind: JobKind,
        phase: &str,
        to: Option<ServerName>,
        stage: Stage,
    ) {
        let job = Job {
            id: by.id().into(),
            kind,
            phase: phase.into(),
            percent: 0,
            to,
            since: self.now.wall,
            note: None,
        };
        let (told, name) = (self.now.mono, domain.name.clone());
        let held = Box::new(domain);
        self.work(&name).job = Some(Running { job, stage, held, told, untold: false });
        self.publish_domain(&name);
        if let By::Order(ticket) = by {
            self.answer(ticket, About::Domain(&name), Answer::Accepted);
        }
    }

    /// The order to cancel the job that runs; that it may be cancelled now was checked.
    pub(in crate::driver::agent) fn cancel(&mut self, ticket: Ticket, name: &DomainName) {
        let about = About::Domain(name);
        let domain = self.shown(name);
        let (Some(domain), Some(run)) = (domain, self.works.get_mut(name).and_then(|w| w.job.as_mut()))
        else {
            let failure = Failure::busy(format!("cannot cancel {name}: no job runs"));
            return self.refuse(&ticket, about, failure);
        };
        if let Stage::Marking { cancelled, .. } = &mut run.stage {
            *cancelled = true;
            let text = format!("{name} does not migrate").into();
            return self.answer(&ticket, about, Answer::Done { text });
        }
        if let Stage::Leasing { op, .. } = run.stage {
            self.out.push(Effect::Unlend { op });
            let why = format!("cannot migrate {name}: cancelled before it began; it is on {}", self.me.name);
            self.end_job(name, Err(Failure::busy(why)));
            let text = format!("{name} does not migrate").into();
            return self.answer(&ticket, about, Answer::Done { text });
        }
        if let Stage::Fetching { .. } | Stage::Importing { .. } = run.stage {
            self.end_job(
                name,
                Err(Failure::busy(format!("cannot create {name}: cancelled before it began"))),
            );
            let text = format!("{name} does not start").into();
            return self.answer(&ticket, about, Answer::Done { text });
        }
        match run.job.kind {
            JobKind::Migrate => self.begin_short(ticket, domain, xvm_model::DomainCommand::Cancel),
            JobKind::Shutdown => {
                let why = "cancelled; the guest was asked, and may still power off";
                self.end_job(name, Err(Failure::busy(format!("cannot shutdown {name}: {why}"))));
                let text = format!("{name} is not asked to power off any more").into();
                self.answer(&ticket, about, Answer::Done { text });
            }
            kind => {
                let why = format!(
                    "cannot cancel the {kind} of {name}: it ends by itself; only a migration or a shutdown can be cancelled"
                );
                self.refuse(&ticket, about, Failure::busy(why));
            }
        }
    }
}
