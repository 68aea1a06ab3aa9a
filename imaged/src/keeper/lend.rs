//! The second lease of a migration: lent when the source's agent asks for it, and taken back when it was for nothing.

use super::Keeper;
use super::commands::absent;
use super::entry::Lending;
use super::step::{Effect, Tag, Ticket};
use xvm_model::outbox::Addressee;
use xvm_model::{Answer, Boot, Code, ConfigName, DomainCommand, Failure, Mono, Order, ServerName, Wall};

impl Keeper {
    /// A second lease for the destination of a migration.
    pub(super) fn lend(
        &mut self,
        ticket: &Ticket,
        name: &ConfigName,
        from: &ServerName,
        to: &ServerName,
        job: &str,
    ) -> Result<(), Failure> {
        let entry = self.configs.get(name).ok_or_else(|| absent("lend", name))?;
        let wrong = |why: String| Failure::busy(format!("cannot migrate {name} to {to}: {why}"));
        if entry.work.is_some() || entry.lending.is_some() {
            return Err(wrong("something else goes on with its config".into()));
        }
        let boot = self.view.server(from.as_str()).map(|s| s.stamp.boot);
        let boot = boot.ok_or_else(|| wrong(format!("{from} is not heard")))?;
        if self.view.server(to.as_str()).is_none() {
            return Err(wrong(format!("{to} is not heard")));
        }
        let port = self.port(name)?;
        let make = self.grant(name, to, port);
        let now = self.now.mono;
        let Some(entry) = self.configs.get_mut(name) else { return Err(absent("lend", name)) };
        let epoch = entry.leases.lend((from, boot), to, job, now, make)?.grant.epoch;
        entry.off_since = None;
        entry.lending = Some(Lending { ticket: ticket.clone(), to: to.clone(), epoch, exported: false });
        self.dirty = true;
        self.send(ticket, Answer::Working, None);
        self.export(name);
        self.tell(name);
        Ok(())
    }

    /// Both exports are there: the destination gets ready.
    pub(super) fn prepare(&mut self, name: &ConfigName) {
        let boot_files = self.boot_of(name).map(Box::new);
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(lending) = &mut entry.lending else { return };
        lending.exported = true;
        let (to, epoch) = (lending.to.clone(), lending.epoch);
        let Some(lease) = entry.leases.of(&to) else { return };
        let grant = Box::new(lease.grant.clone());
        let Some(server) = self.view.server(to.as_str()) else {
            let failure = Failure::new(Code::HostDown, format!("{to} is not heard any more"));
            return self.lend_failed(name, failure);
        };
        let (boot, heard): (Boot, (Wall, Mono)) = (server.stamp.boot, (server.at, server.heard.mono));
        let command = DomainCommand::Prepare { grant, boot: boot_files };
        let order = Box::new(Order::Domain { name: name.domain(), command });
        let to = Addressee::Server(to);
        self.out.push(Effect::Order { name: name.clone(), tag: Tag::Prepare(epoch), to, boot, heard, order });
    }

    /// The destination cannot have it: the second lease goes, and whoever asked for it is told.
    pub(super) fn lend_failed(&mut self, name: &ConfigName, failure: Failure) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(lending) = entry.lending.take() else { return };
        entry.leases.held.retain(|l| l.grant.epoch != lending.epoch);
        self.dirty = true;
        self.export(name);
        self.tell(name);
        let to = &lending.to;
        let failure = Failure::new(failure.code, format!("cannot migrate {name} to {to}: {}", failure.text));
        self.answer(&lending.ticket, name, Answer::Failed { failure });
    }
}
