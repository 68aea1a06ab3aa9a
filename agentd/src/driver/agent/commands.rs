//! Orders: each is carried out at most once, checked, and answered.

use super::{Agent, Work, jobs::By};
use crate::driver::step::Op;
use crate::hypervisor::Way;
use xvm_model::placement::check_way;
use xvm_model::{
    Answer, Body, ClientName, Code, Command, Domain, DomainCommand, DomainName, Failure, JobKind, News,
    Order, Reply, ServerName, Topic, command::GROUPS_MAX, lifecycle, receipts::Admit,
};

/// Who is answered, and under which id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) id: Box<str>,
    pub(super) client: ClientName,
}

/// What the answer to an order is about: its news come along.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'a> {
    Server,
    Domain(&'a DomainName),
}

impl Agent {
    pub(super) fn command(&mut self, command: Command) {
        let ticket = Ticket { id: command.id.clone(), client: command.client.clone() };
        let about = match &command.order {
            Order::Server { .. } => About::Server,
            Order::Domain { name, .. } => About::Domain(name),
            // configs are imaged's, and guests' their own, which hear other topics
            Order::Config { .. } | Order::Guest { .. } => return,
        };
        match self.receipts.admit(&command, self.now.wall, self.now.mono) {
            Admit::Run => match command.order {
                Order::Server { command } => self.server_command(ticket, command),
                Order::Domain { name, command } => self.domain_command(ticket, &name, command),
                Order::Config { .. } | Order::Guest { .. } => {}
            },
            Admit::Known(None) => self.send(&ticket, Answer::Working, None),
            Admit::Known(Some(reply)) => {
                let news = self.news(about, &reply.answer);
                self.send(&ticket, reply.answer, news);
            }
            Admit::Refuse(failure) => self.send(&ticket, Answer::Failed { failure }, None),
        }
    }

    /// The last answer to an order: it is remembered for the order's copies.
    pub(super) fn answer(&mut self, ticket: &Ticket, about: About<'_>, answer: Answer) {
        let reply = Reply { id: ticket.id.clone(), answer: answer.clone(), news: None };
        self.receipts.answered(&ticket.id, reply);
        let news = self.news(about, &answer);
        self.send(ticket, answer, news);
    }

    pub(super) fn refuse(&mut self, ticket: &Ticket, about: About<'_>, failure: Failure) {
        self.answer(ticket, about, Answer::Failed { failure });
    }

    pub(super) fn send(&mut self, ticket: &Ticket, answer: Answer, news: Option<News>) {
        let reply = Reply { id: ticket.id.clone(), answer, news };
        self.publish(Topic::Reply(ticket.client.clone()), Body::Reply(Box::new(reply)));
    }

    /// What is true now, so that whoever gave an order sees its effect with the answer. Refusals bring the domain along too: it was
    /// perhaps ordered because the sender knew an old state.
    fn news(&self, about: About<'_>, answer: &Answer) -> Option<News> {
        match (about, answer) {
            // before the first sample nothing is known, and that is no news
            _ if self.beat.silent() => None,
            (_, Answer::Working) | (About::Server, Answer::Failed { .. }) => None,
            (About::Server, _) => Some(News::Server { heartbeat: Box::new(self.heartbeat()) }),
            (About::Domain(name), _) => Some(News::Domain { change: Box::new(self.change(name)) }),
        }
    }

    fn domain_command(&mut self, ticket: Ticket, name: &DomainName, command: DomainCommand) {
        let about = About::Domain(name);
        let command = match command {
            DomainCommand::Create { spec } => return self.create(ticket, name, *spec),
            DomainCommand::Prepare { grant, boot } => return self.prepare(ticket, name, &grant, boot),
            command => command,
        };
        match self.check(name, &command) {
            Err(failure) => self.refuse(&ticket, about, failure),
            Ok(domain) => match command {
                DomainCommand::Start => self.begin_job(ticket, domain, JobKind::Start, Op::Start),
                DomainCommand::Reboot => self.begin_job(ticket, domain, JobKind::Reboot, Op::Reboot),
                DomainCommand::Shutdown => self.begin_shutdown(ticket, domain),
                DomainCommand::Migrate { to: Some(to), address, paused } => {
                    self.begin_migration(By::Order(&ticket), domain, to, Way { address, paused });
                }
                DomainCommand::Migrate { to: None, .. } => {
                    let text = format!("cannot migrate {name}: the order names no server");
                    self.refuse(&ticket, about, Failure::invalid(text));
                }
                DomainCommand::Cancel => self.cancel(ticket, name),
                short => self.begin_short(ticket, domain, short),
            },
        }
    }

    /// The domain as it is, when the command may be carried out now.
    pub(super) fn check(&self, name: &DomainName, command: &DomainCommand) -> Result<Domain, Failure> {
        let word = command.word();
        let job = self.works.get(name).and_then(|w| w.job.as_ref());
        let only_stops_asking =
            *command == DomainCommand::Cancel && job.is_some_and(|j| j.job.kind == JobKind::Shutdown);
        if let Some(why) = self.stale().filter(|_| !only_stops_asking) {
            return Err(Failure::new(
                Code::Io,
                format!("cannot {word} {name}: the hypervisor of {} is not heard: {why}", self.me.name),
            ));
        }
        let Some(domain) = self.shown(name) else {
            return Err(Failure::no_entry(format!(
                "cannot {word} {name}: {} has no domain of that name",
                self.me.name
            )));
        };
        check_values(name, command)?;
        if let Some(short) = self.works.get(name).and_then(|w| w.short.as_ref()) {
            return Err(short.busy(word, name, self.now.mono));
        }
        lifecycle::check(name.as_str(), command, domain.state, domain.job.as_deref())?;
        match command {
            DomainCommand::Migrate { to: Some(to), address, paused } => {
                check_way(&domain, *paused)?;
                self.check_migration(&domain, to, address)?;
            }
            DomainCommand::Start => self.check_apart(&domain)?,
            DomainCommand::Fence { epoch } => check_lease(&domain, *epoch)?,
            _ => {}
        }
        Ok(domain)
    }

    fn check_migration(&self, domain: &Domain, to: &ServerName, address: &str) -> Result<(), Failure> {
        let name = &domain.name;
        let cannot =
            |code, why: String| Err(Failure::new(code, format!("cannot migrate {name} to {to}: {why}")));
        if *to == self.me.name || address == &*self.me.address {
            cannot(Code::Exists, format!("it is on {} already", self.me.name))
        } else if !domain.settings.pin.allows(to) {
            cannot(Code::Permission, format!("the domain is pinned to {}", domain.settings.pin))
        } else if address.is_empty() {
            cannot(Code::Invalid, "the order does not say where its hypervisor is".into())
        } else {
            Ok(())
        }
    }

    /// No domain runs beside one that it stays apart from.
    pub(super) fn check_apart(&self, domain: &Domain) -> Result<(), Failure> {
        let beside = |d: &&Domain| d.name != domain.name && d.state.is_active();
        let clash = self.records.iter().filter(beside).find_map(|d| {
            let group = d.settings.apart.common(&domain.settings.apart)?;
            Some((&d.name, group))
        });
        match clash {
            None => Ok(()),
            Some((other, group)) => Err(Failure::new(
                Code::Permission,
                format!(
                    "cannot start {}: it stays apart from {other} (group {group}), which runs on {}",
                    domain.name, self.me.name
                ),
            )),
        }
    }

    pub(super) fn work(&mut self, name: &DomainName) -> &mut Work {
        self.works.entry(name.clone()).or_default()
    }
}

/// Only a domain of that very lease may be ended because the lease is over.
fn check_lease(domain: &Domain, epoch: u64) -> Result<(), Failure> {
    match domain.settings.grant.as_deref() {
        Some(grant) if grant.epoch == epoch => Ok(()),
        Some(grant) => Err(Failure::busy(format!(
            "cannot fence {}: it runs under lease {}, not {epoch}",
            domain.name, grant.epoch
        ))),
        None => Err(Failure::busy(format!("cannot fence {}: it runs without a lease", domain.name))),
    }
}

/// Values come from the bus: whoever sent them may not have read them by the tables of [`xvm_model::command`].
pub(super) fn check_values(name: &DomainName, command: &DomainCommand) -> Result<(), Failure> {
    let word = command.word();
    let wrong = |why: &str| Err(Failure::invalid(format!("cannot {word} {name}: {why}")));
    match command {
        DomainCommand::Priority { value } if *value > 100 => wrong("the priority is 0 to 100"),
        DomainCommand::Load { seconds, .. } if *seconds > 86_400 => wrong("SECONDS is 0 to 86400"),
        DomainCommand::Pin { value } if value.0.len() > 64 => wrong("at most 64 servers are allowed"),
        DomainCommand::With { value } | DomainCommand::Apart { value } if value.0.len() > GROUPS_MAX => {
            wrong(&format!("at most {GROUPS_MAX} groups are allowed"))
        }
        _ => Ok(()),
    }
}
