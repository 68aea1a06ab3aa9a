//! From a lease to a running domain.

use super::Keeper;
use super::commands::absent;
use super::entry::{Step, Work};
use super::kept::Image;
use super::servers::runs_by;
use super::step::{Effect, HELD_MS, Tag, Ticket};
use xvm_model::lease::Phase;
use xvm_model::outbox::{self, Addressee, BOUND_MS};
use xvm_model::{
    Answer, Boot, Code, ConfigName, DomainCommand, Failure, Job, JobKind, Order, Reach, Reply, ServerName,
    Spec, Wall,
};

/// How long, by the agent's clock, a domain that an agent said it makes may be unseen before it is taken for failed, in milliseconds.
const UNSEEN_MS: u64 = 3_000;
/// How long after it has found a forwarder imaged may not have heard a server that is there, in milliseconds.
const EARLY_MS: u64 = 3_000;

impl Keeper {
    /// Takes a lease and runs a config. Without a ticket it is `restart always` that asks.
    pub(super) fn start(
        &mut self,
        ticket: Option<&Ticket>,
        name: &ConfigName,
        on: Option<ServerName>,
    ) -> Result<(), Failure> {
        let (entry, _) = self.idle("start", name)?;
        let Image::Ready { .. } = entry.image else {
            return Err(Failure::busy(format!(
                "cannot start {name}: it has no image; `echo rebuild > ctl` makes one"
            )));
        };
        if let Some(holder) = entry.leases.holder() {
            let more = match self.is_down(holder) {
                true => format!(
                    "{holder} is down and may run it still; `echo always > restart` takes its disk away and starts it elsewhere"
                ),
                false => format!("{holder} runs it"),
            };
            return Err(Failure::busy(format!("cannot start {name}: {more}")));
        }
        let server = self.choose(name, on.as_ref())?;
        let boot = self.view.server(server.as_str()).map_or(Boot(0), |s| s.stamp.boot);
        let port = self.port(name)?;
        let make = self.grant(name, &server, port);
        let Some(entry) = self.configs.get_mut(name) else { return Err(absent("start", name)) };
        entry.leases.start(&server, boot, make)?;
        let id: Box<str> = match ticket {
            Some(ticket) => ticket.id.clone(),
            None => format!("restart.{name}.{}", entry.leases.epoch).into(),
        };
        let job = Job {
            id,
            kind: JobKind::Start,
            phase: "lease".into(),
            percent: 0,
            to: Some(server.clone()),
            since: self.now.wall,
            note: None,
        };
        entry.work = Some(Work { job, remaining: None, step: Step::Exporting { server }, answer: None });
        self.dirty = true;
        self.export(name);
        self.tell(name);
        if let Some(ticket) = ticket {
            self.answer(ticket, name, Answer::Accepted);
        }
        Ok(())
    }

    /// Whether the servers cannot have been heard yet: who asks for one then is not told that there is none.
    pub(super) fn is_early(&self, on: Option<&ServerName>) -> bool {
        let young = self.linked.is_none_or(|since| self.now.mono.since(since) < EARLY_MS);
        let known = on.map_or(self.view.server_count() > 0, |on| self.view.server(on.as_str()).is_some());
        young && !known
    }

    /// Starts that waited for their servers.
    pub(super) fn start_early(&mut self) {
        let (wait, go) = std::mem::take(&mut self.early)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, _, on)| self.is_early(on.as_ref()));
        self.early = wait;
        for (ticket, name, on) in go {
            if let Err(failure) = self.start(Some(&ticket), &name, on) {
                self.answer(&ticket, &name, Answer::Failed { failure });
            }
        }
    }

    /// Starts of the life before: whether their orders were given, and what became of them, their servers' words tell.
    pub(super) fn resume(&mut self) {
        let since = self.now.wall;
        for entry in self.configs.values_mut() {
            let [lease] = &entry.leases.held[..] else { continue };
            if lease.phase != Phase::Starting {
                continue;
            }
            let (server, boot) = (lease.grant.server.clone(), lease.boot);
            let id = format!("resumed.{}", lease.grant.stem()).into();
            let (kind, to) = (JobKind::Start, Some(server.clone()));
            let job = Job { id, kind, phase: "boot".into(), percent: 0, to, since, note: None };
            let step = Step::Booting { server, boot, order: None, deadline: None, answered: false };
            entry.work = Some(Work { job, remaining: None, step, answer: None });
        }
    }

    /// Tells the agent to make the domain.
    pub(super) fn boot(&mut self, name: &ConfigName) {
        let now = self.now;
        let spec = self.spec(name);
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(Work { step: step @ Step::Exporting { .. }, job, .. }) = &mut entry.work else { return };
        let Step::Exporting { server } = step else { return };
        let epoch = entry.leases.epoch;
        let known = self.view.server(server.as_str());
        let (Some(spec), Some(known)) = (spec, known) else {
            let failure = Failure::new(Code::HostDown, format!("{server} is not heard any more"));
            return self.start_failed(name, failure);
        };
        let (boot, heard) = (known.stamp.boot, (known.at, known.heard.mono));
        let deadline = Some(outbox::deadline(heard, now.mono, BOUND_MS + HELD_MS));
        let to = Addressee::Server(server.clone());
        job.phase = "boot".into();
        *step = Step::Booting { server: server.clone(), boot, order: None, deadline, answered: false };
        let command = DomainCommand::Create { spec: Box::new(spec) };
        let order = Box::new(Order::Domain { name: name.domain(), command });
        self.out.push(Effect::Order { name: name.clone(), tag: Tag::Create(epoch), to, boot, heard, order });
        self.tell(name);
    }

    /// What the first lease's server is to run.
    fn spec(&self, name: &ConfigName) -> Option<Spec> {
        let entry = self.configs.get(name)?;
        let (config, grant) = (entry.config.as_ref()?, entry.leases.held.first()?.grant.clone());
        let mut spec = Spec::of(config, grant.clone(), self.boot_of(name));
        spec.settings.grant = Some(Box::new(grant));
        Some(spec)
    }

    /// An agent has answered, or nobody did.
    pub(super) fn answered(&mut self, name: &ConfigName, tag: Tag, result: Result<Reply, Failure>) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        match tag {
            Tag::Create(epoch) if entry.leases.epoch == epoch => {
                let Some(Work { step: Step::Booting { server, order, deadline, answered, .. }, .. }) =
                    &mut entry.work
                else {
                    return;
                };
                match result {
                    Ok(reply) => {
                        *order = Some(reply.id);
                        *answered = true;
                        let said = self.view.server(server.as_str()).map_or(Wall(0), |s| s.at);
                        *deadline = Some(Wall(said.0.saturating_add(UNSEEN_MS)));
                        self.look(name);
                    }
                    // nobody knows: what its server says after the deadline counts
                    Err(failure) if matches!(failure.code, Code::TimedOut | Code::HostUnreachable) => {
                        tracing::warn!(%name, %failure, "a start was not answered");
                    }
                    Err(failure) => self.start_failed(name, failure),
                }
            }
            Tag::Prepare(epoch) => {
                if entry.lending.as_ref().is_none_or(|l| l.epoch != epoch) {
                    return;
                }
                match result {
                    Err(failure) => self.lend_failed(name, failure),
                    Ok(_) => {
                        if let Some(lending) = entry.lending.take() {
                            let to = &lending.to;
                            self.done(&lending.ticket, name, format!("the disk of {name} is lent to {to}"));
                        }
                    }
                }
            }
            Tag::Create(_) | Tag::Fence => {}
        }
    }

    /// The start has failed, and nothing runs: the lease goes back.
    pub(super) fn start_failed(&mut self, name: &ConfigName, failure: Failure) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(work) = entry.work.take_if(|w| w.job.kind == JobKind::Start) else { return };
        let Some(server) = work.job.to.clone() else { return };
        drop(entry.leases.failed(&server));
        self.rest(name);
        self.export(name);
        let text = match failure.text.strip_prefix(&format!("cannot create {name}: ")) {
            Some(why) => why.to_owned(),
            None => failure.text,
        };
        let failure = Failure::new(failure.code, format!("cannot start {name} on {server}: {text}"));
        self.end(name, work, Err(failure));
        self.apply_pending(name);
    }

    /// Whether a start that goes on has come to its end, by what its server says.
    pub(super) fn judge_start(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get(name) else { return };
        let Some(Work { step: Step::Booting { server, boot, order, deadline, answered }, .. }) = &entry.work
        else {
            return;
        };
        let Some(known) = self.view.server(server.as_str()) else { return };
        if self.view.reach(known, self.now.mono) == Reach::Down || known.beat.stale.is_some() {
            return;
        }
        let domain = self.domain_on(server, name);
        if let Some(domain) = domain
            && domain.state.is_active()
            && runs_by(domain, entry.leases.epoch)
        {
            let server = server.clone();
            let Some(entry) = self.configs.get_mut(name) else { return };
            entry.restart = false;
            let Some(work) = entry.work.take() else { return };
            return self.end(name, work, Ok(format!("{name} runs on {server}").into()));
        }
        let failed = domain.and_then(|d| d.last.as_ref()).filter(|l| Some(&l.id) == order.as_ref());
        if let Some(Err(failure)) = failed.map(|l| l.result.clone()) {
            return self.start_failed(name, failure);
        }
        let at_work = domain.is_some_and(|d| d.job.is_some());
        let (said, order_may_come) = (known.at.0, known.at.0.saturating_add(BOUND_MS + UNSEEN_MS));
        let Some(deadline) = *deadline else {
            if let Some(Work { step: Step::Booting { deadline, .. }, .. }) =
                self.configs.get_mut(name).and_then(|e| e.work.as_mut())
            {
                *deadline = Some(Wall(order_may_come));
            }
            return;
        };
        // an agent that was started anew may have left a call to its hypervisor behind
        let grace = if known.stamp.boot == *boot { 0 } else { 10_000 };
        if !at_work && said > deadline.0.saturating_add(grace) {
            let how = if *answered { "its agent began it" } else { "its agent did not answer" };
            let text = format!("{how}, and it does not run there");
            self.start_failed(name, Failure::new(Code::Io, text));
        }
    }
}
