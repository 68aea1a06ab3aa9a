//! Domains that are made from a config: imaged says which, and holds a lease for each. Their hypervisor forgets them when they are off.
//!
//! From the moment that the order is accepted the domain is told like any other (shut off, with its job), so whoever hears this agent
//! and does not hear of the domain knows that it neither runs nor is about to.

use super::{
    Agent,
    commands::{About, Ticket, check_values},
    jobs::{By, Stage},
};
use crate::driver::step::Op;
use xvm_model::{
    Code, Domain, DomainCommand, DomainMemory, DomainName, DomainState, Failure, JobKind, Ratio, Spec, Vcpu,
    lifecycle,
};

impl Agent {
    pub(super) fn create(&mut self, ticket: Ticket, name: &DomainName, mut spec: Spec) {
        self.supersede(name, &spec);
        if let Err(failure) = self.check_create(name, &spec) {
            return self.refuse(&ticket, About::Domain(name), failure);
        }
        spec.settings.grant = Some(Box::new(spec.grant.clone()));
        let domain = coming(&spec);
        let spec = Box::new(spec);
        let (phase, stage) = match spec.boot.clone() {
            Some(boot) => {
                ("fetch", Stage::Fetching { op: self.begin(name, Op::Fetch(Box::new(boot))), spec })
            }
            None => self.create_next(name, spec, false),
        };
        self.accept_job(By::Order(&ticket), domain, JobKind::Start, phase, None, stage);
    }

    /// What it boots from is here; when it is `imported`, so are its disks.
    pub(super) fn create_on(&mut self, name: &DomainName, spec: Box<Spec>, imported: bool) {
        let (phase, stage) = self.create_next(name, spec, imported);
        if let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) {
            run.stage = stage;
            run.job.phase = phase.into();
        }
        self.publish_domain(name);
    }

    /// A migration from here whose destination does not answer would be asked about without end. An order by a newer lease tells that
    /// imaged knows how it ended: the destination has lost its disk, whatever became of the domain there.
    fn supersede(&mut self, name: &DomainName, spec: &Spec) {
        if self.records.get(name).is_some_and(|d| d.state.is_active()) {
            return;
        }
        let Some(run) = self.works.get(name).and_then(|w| w.job.as_ref()) else { return };
        let newer = run.held.settings.grant.as_ref().is_some_and(|old| {
            old.config == spec.grant.config && old.epoch < spec.grant.epoch && run.held.uuid == spec.uuid
        });
        if !newer || !matches!(&run.stage, Stage::Locating(l) if l.is_off_here()) {
            return;
        }
        let to = run.job.to.as_ref().map_or("another server", |to| to.as_str());
        let why =
            format!("cannot tell whether {name} came to {to}, which does not answer: it is started anew");
        self.end_job(name, Err(Failure::new(Code::Io, why)));
    }

    fn check_create(&self, name: &DomainName, spec: &Spec) -> Result<(), Failure> {
        let me = &self.me.name;
        let cannot = |code, why: String| Err(Failure::new(code, format!("cannot create {name}: {why}")));
        if let Some(why) = self.stale() {
            return cannot(Code::Io, format!("the hypervisor of {me} is not heard: {why}"));
        }
        if let Err(why) = spec.check() {
            return cannot(Code::Invalid, why);
        }
        if spec.name != *name || spec.grant.server != *me {
            let (server, other) = (&spec.grant.server, &spec.name);
            return cannot(Code::Invalid, format!("its lease is for {other} on {server}, not on {me}"));
        }
        check_settings(name, spec)?;
        let all = self.all_shown();
        if let Some(domain) = all.iter().find(|d| d.name == *name) {
            let command = DomainCommand::Create { spec: Box::new(spec.clone()) };
            lifecycle::check(name.as_str(), &command, domain.state, domain.job.as_deref())?;
        }
        if let Some(other) = all.iter().find(|d| d.uuid == spec.uuid) {
            let (other, state) = (&other.name, other.state);
            return cannot(Code::Exists, format!("{other}, which is {state} on {me}, has the same identity"));
        }
        if !spec.settings.pin.allows(me) {
            return cannot(Code::Permission, format!("the domain is pinned to {}", spec.settings.pin));
        }
        self.check_apart(&coming(spec))
    }

    /// The step before it is made, or its making.
    fn create_next(&mut self, name: &DomainName, spec: Box<Spec>, imported: bool) -> (&'static str, Stage) {
        if self.me.imports && !imported {
            let grant = Box::new(spec.grant.clone());
            return ("import", Stage::Importing { op: self.begin(name, Op::Import(grant)), spec });
        }
        ("begin", Stage::Called { op: self.begin(name, Op::Create(spec)) })
    }
}

/// What is kept with a domain has the ranges of the commands that set it.
fn check_settings(name: &DomainName, spec: &Spec) -> Result<(), Failure> {
    let s = &spec.settings;
    for command in [
        DomainCommand::Priority { value: s.priority },
        DomainCommand::Pin { value: s.pin.clone() },
        DomainCommand::With { value: s.with.clone() },
        DomainCommand::Apart { value: s.apart.clone() },
    ] {
        check_values(name, &command)?;
    }
    Ok(())
}

/// The domain as it is told until its hypervisor knows it.
fn coming(spec: &Spec) -> Domain {
    Domain {
        state: DomainState::Shutoff,
        vcpus: vec![Vcpu { load: Ratio::ZERO, cpu: None }; usize::from(spec.vcpus)],
        memory: DomainMemory { max: spec.memory, current: spec.memory, resident: None },
        settings: spec.settings.clone(),
        ..Domain::new(spec.name.clone(), spec.uuid)
    }
}
