//! Settings of a config, and whose it is: what may change when, and what has to be done with volumes for it.

use super::Keeper;
use super::commands::absent;
use super::kept::Image;
use super::step::{Task, Ticket};
use xvm_model::config::settings::{self, When};
use xvm_model::{Answer, Config, ConfigName, Failure, JobKind};

impl Keeper {
    pub(super) fn set(
        &mut self,
        ticket: &Ticket,
        name: &ConfigName,
        word: &str,
        key: &str,
        value: &str,
    ) -> Result<(), Failure> {
        let row =
            settings::row(key).map_err(|why| Failure::invalid(format!("cannot {word} {name}: {why}")))?;
        let what = format!("{word} {key} of");
        let (entry, config) = match row.when {
            When::Always => {
                let entry = self.configs.get(name).ok_or_else(|| absent(&what, name))?;
                let why = || Failure::busy(format!("cannot {what} {name}: its file does not read"));
                (entry, entry.config.as_ref().ok_or_else(why)?)
            }
            _ => self.stopped(&what, name)?,
        };
        let before = config.clone();
        let mut after = before.clone();
        settings::set(&mut after, key, value)
            .map_err(|why| Failure::invalid(format!("cannot {what} {name}: {why}")))?;
        if row.key == "os" {
            self.check_os(&what, name, &after)?;
        }
        if after.disk < before.disk {
            return Err(Failure::invalid(format!(
                "cannot {what} {name}: a disk only gets larger, and it has {} MiB",
                before.disk
            )));
        }
        let made = matches!(entry.image, Image::Ready { .. });
        let shown = (row.show)(&after).replace('\n', ", ");
        if before == after {
            self.done(ticket, name, format!("{key} of {name} is {shown}"));
        } else if made && needs_work(&before, &after) {
            let grown = (after.disk + after.swap).saturating_sub(before.disk + before.swap);
            self.check_room(&what, name, grown)?;
            let kind = if matches!(row.key, "disk" | "swap") { JobKind::Resize } else { JobKind::Set };
            let task = Task::Change { before: Box::new(before), after: Box::new(after) };
            self.send(ticket, Answer::Working, None);
            self.begin(name, kind, &ticket.id, task, Some(ticket.clone()));
        } else {
            let later =
                if row.when == When::Rebuild && made { ", counting from the next rebuild on" } else { "" };
            let text = format!("{key} of {name} is {shown}{later}").into();
            self.replace(name, after, Some((ticket.clone(), text)));
        }
        Ok(())
    }

    /// Another definition, written to its file; it is taken back when that cannot be done.
    pub(super) fn replace(&mut self, name: &ConfigName, after: Config, answer: Option<(Ticket, Box<str>)>) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        let before = entry.config.replace(after.clone()).unwrap_or_else(|| after.clone());
        self.write(name, &after, before, answer);
    }

    pub(super) fn own(
        &mut self,
        ticket: &Ticket,
        name: &ConfigName,
        (uid, gid, mode): (Option<u32>, Option<u32>, Option<u16>),
    ) -> Result<(), Failure> {
        let what = "change the owner of";
        let entry = self.configs.get(name).ok_or_else(|| absent(what, name))?;
        let why = || Failure::busy(format!("cannot {what} {name}: its file does not read"));
        let mut after = entry.config.clone().ok_or_else(why)?;
        let rights = &mut after.rights;
        rights.uid = uid.unwrap_or(rights.uid);
        rights.gid = gid.unwrap_or(rights.gid);
        rights.mode = mode.unwrap_or(rights.mode);
        after
            .check()
            .map_err(|(key, why)| Failure::invalid(format!("cannot {what} {name}: {key}: {why}")))?;
        let text = format!("{name} belongs to {}:{}", after.rights.uid, after.rights.gid).into();
        self.replace(name, after, Some((ticket.clone(), text)));
        Ok(())
    }
}

/// Whether a change of the definition is one of the volumes or of what is on them.
pub(super) fn needs_work(before: &Config, after: &Config) -> bool {
    (before.disk, before.swap, &before.address, &before.keys)
        != (after.disk, after.swap, &after.address, &after.keys)
}
