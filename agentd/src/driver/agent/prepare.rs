//! What domains boot from, and their disks where the hypervisor does not open them itself: here before a migration brings a domain, and
//! looked after when somebody asks for that (`update-imports`).

use super::{
    Agent,
    commands::{About, Ticket},
};
use crate::driver::step::{Effect, Id, Op};
use crate::hypervisor::HvResult;
use std::collections::BTreeMap;
use xvm_model::spec::Boot;
use xvm_model::{Answer, Code, DomainName, Failure, Grant, Mono};

/// How long it may take until all is there, in milliseconds: less than imaged, which asks for it, is given by who waits for a lease.
const PREPARE_MS: u64 = 45_000;
/// How many domains may be about to come.
const COMING: usize = 64;
/// How long who asked for an update waits for its end, in milliseconds.
const UPDATE_MS: u64 = 4_000;

/// What goes on.
#[derive(Debug, Default)]
pub(super) struct State {
    coming: BTreeMap<Id, Coming>,
    updating: Option<Updating>,
}

/// A domain that is about to come.
#[derive(Debug)]
struct Coming {
    ticket: Ticket,
    name: DomainName,
    /// The lease whose exports are to become devices after this operation.
    then: Option<Box<Grant>>,
    until: Mono,
}

/// An update that is under way.
#[derive(Debug)]
struct Updating {
    /// Who waits for its end; none when they were told that it takes long.
    ticket: Option<Ticket>,
    until: Mono,
}

impl State {
    /// The domains that are about to come.
    pub(super) fn coming(&self) -> impl Iterator<Item = &DomainName> {
        self.coming.values().map(|c| &c.name)
    }

    /// Whether an operation is one of these.
    pub(super) fn is(&self, op: Id) -> bool {
        self.coming.contains_key(&op)
    }

    pub(super) fn wake(&self) -> Option<Mono> {
        let update = self.updating.as_ref().filter(|u| u.ticket.is_some()).map(|u| u.until);
        self.coming.values().map(|c| c.until).chain(update).min()
    }
}

impl Agent {
    pub(super) fn prepare(
        &mut self,
        ticket: Ticket,
        name: &DomainName,
        grant: &Grant,
        boot: Option<Box<Boot>>,
    ) {
        let about = About::Domain(name);
        let cannot = |code, why: &str| Failure::new(code, format!("cannot prepare {name}: {why}"));
        let checked = grant.check().and_then(|()| boot.as_ref().map_or(Ok(()), |b| b.check()));
        if let Err(why) = checked {
            return self.refuse(&ticket, about, cannot(Code::Invalid, &why));
        }
        if grant.config.domain() != *name || grant.server != self.me.name {
            let why = format!("its lease is for {} on {}", grant.config, grant.server);
            return self.refuse(&ticket, about, cannot(Code::Invalid, &why));
        }
        if self.prepare.coming.len() >= COMING {
            let why = format!("{COMING} domains are about to come already; try again later");
            return self.refuse(&ticket, about, cannot(Code::Busy, &why));
        }
        let grant = self.me.imports.then(|| Box::new(grant.clone()));
        let (what, then) = match (boot, grant) {
            (Some(boot), grant) => (Op::Fetch(boot), grant),
            (None, Some(grant)) => (Op::Import(grant), None),
            (None, None) => {
                let text = format!("{name} may come: it boots from its disk").into();
                return self.answer(&ticket, about, Answer::Done { text });
            }
        };
        self.send(&ticket, Answer::Working, None);
        let op = self.begin(name, what);
        let until = self.now.mono.plus(PREPARE_MS);
        self.prepare.coming.insert(op, Coming { ticket, name: name.clone(), then, until });
    }

    /// The fetching, or the import of its disks, has ended.
    pub(super) fn prepared(&mut self, op: Id, name: &DomainName, result: HvResult<()>) {
        let Some(mut coming) = self.prepare.coming.remove(&op) else { return };
        if let (Ok(()), Some(grant)) = (&result, coming.then.take()) {
            let op = self.begin(name, Op::Import(grant));
            self.prepare.coming.insert(op, coming);
            return;
        }
        let answer = match result {
            Ok(()) => {
                Answer::Done { text: format!("{name} may come: all that it boots from is here").into() }
            }
            Err(error) => Answer::Failed { failure: error.failure(&format!("prepare {name}")) },
        };
        self.answer(&coming.ticket, About::Domain(name), answer);
    }

    /// The order to look after what is imported.
    pub(super) fn update(&mut self, ticket: Ticket) {
        let me = &self.me.name;
        let refusal = match (&self.prepare.updating, self.stale()) {
            (Some(_), _) => {
                Some(Failure::busy(format!("cannot update the imports of {me}: that goes on already")))
            }
            // whatever is not known to be here would be dropped
            (None, Some(why)) => Some(Failure::new(
                Code::Io,
                format!("cannot update the imports of {me}: its hypervisor is not heard: {why}"),
            )),
            (None, None) => None,
        };
        if let Some(failure) = refusal {
            return self.refuse(&ticket, About::Server, failure);
        }
        let mut here: Vec<DomainName> = self.all_shown().into_iter().map(|d| d.name).collect();
        here.extend(self.prepare.coming.values().map(|c| c.name.clone()));
        self.send(&ticket, Answer::Working, None);
        let until = self.now.mono.plus(UPDATE_MS);
        self.prepare.updating = Some(Updating { ticket: Some(ticket), until });
        let (users, grants) = (self.import_users(), self.import_grants());
        self.out.push(Effect::Update { here, users, grants });
    }

    pub(super) fn updated(&mut self, result: Result<String, String>) {
        let Some(Updating { ticket, .. }) = self.prepare.updating.take() else { return };
        let answer = match result {
            Ok(text) => Answer::Done { text: text.into() },
            Err(why) => {
                let text = format!("cannot update the imports of {}: {why}", self.me.name);
                Answer::Failed { failure: Failure::new(Code::Io, text) }
            }
        };
        if let Some(ticket) = ticket {
            self.answer(&ticket, About::Server, answer);
        }
    }

    pub(super) fn prepare_timers(&mut self) {
        let now = self.now.mono;
        let late: Vec<Id> =
            self.prepare.coming.iter().filter(|(_, c)| c.until <= now).map(|(op, _)| *op).collect();
        for op in late {
            let Some(Coming { ticket, name, .. }) = self.prepare.coming.remove(&op) else { continue };
            let why = format!(
                "cannot prepare {name}: not all that it boots from is here after {} s",
                PREPARE_MS / 1000
            );
            self.refuse(&ticket, About::Domain(&name), Failure::new(Code::TimedOut, why));
        }
        let Some(updating) = self.prepare.updating.as_mut().filter(|u| u.until <= now) else { return };
        if let Some(ticket) = updating.ticket.take() {
            let why = format!(
                "cannot tell how the update of the imports of {} ends: it has not ended after {} s and goes on",
                self.me.name,
                UPDATE_MS / 1000
            );
            self.refuse(&ticket, About::Server, Failure::new(Code::TimedOut, why));
        }
    }
}
