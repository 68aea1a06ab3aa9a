//! Devices that are made of exports, for hypervisors that do not open exports themselves: dropped when the domain that used them has
//! gone. (They are made by `create` and `prepare`.)
//!
//! A domain whose disk has lost its connection goes on without an error, and waits where it reads or writes: its status says so.
//!
//! Who uses them is told whole, not who has gone: so nothing is lost by a message or a life that ended at the wrong moment.

use super::Agent;
use crate::driver::step::Effect;
use crate::imports::devices::{User, Waiting};
use xvm_model::{Domain, DomainName, DomainState, Grant, Mono};

/// A domain that is not seen for so long, in milliseconds, has gone: one that starts anew is away for a moment.
const GONE_MS: u64 = 5_000;
/// Without any change it is told this often, in milliseconds: what was attached for a domain that did not come is dropped then.
const AGAIN_MS: u64 = 60_000;

/// Who used them at the last sample, and when to tell.
#[derive(Debug, Default)]
pub(super) struct State {
    users: Vec<User>,
    due: Option<Mono>,
    /// Who waits for a disk.
    waiting: Waiting,
}

impl State {
    pub(super) fn wake(&self) -> Option<Mono> {
        self.due
    }

    /// Why a domain is not as it should be, if it waits for a disk.
    pub(super) fn reason(&self, name: &DomainName, state: DomainState) -> Option<Box<str>> {
        let why = self.waiting.get(name).filter(|_| state.is_active())?;
        Some(format!("waits for its disk: {why}").into())
    }
}

impl Agent {
    /// A whole sample was heard.
    pub(super) fn imported_sampled(&mut self) {
        if !self.me.imports {
            return;
        }
        let users = self.import_users();
        // one that has come is waited for no more
        let changed = self.imported.users != users;
        let soon = self.now.mono.plus(GONE_MS);
        if changed || self.imported.due.is_none() {
            self.imported.due = Some(self.imported.due.map_or(soon, |due| due.min(soon)));
        }
        self.imported.users = users;
    }

    pub(super) fn imported_timers(&mut self) {
        let now = self.now.mono;
        if self.imported.due.is_none_or(|due| due > now) {
            return;
        }
        // whatever is not known to be here would be dropped
        if self.stale().is_some() {
            self.imported.due = Some(now.plus(GONE_MS));
            return;
        }
        self.imported.due = Some(now.plus(AGAIN_MS));
        let users = self.import_users();
        self.out.push(Effect::Tidy { users });
    }

    /// Others wait for a disk than before, or for another reason.
    pub(super) fn imported_waiting(&mut self, waiting: Waiting) {
        let before = std::mem::replace(&mut self.imported.waiting, waiting);
        let now = &self.imported.waiting;
        let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
        let news =
            |name: &&DomainName| before.get(*name) != now.get(*name) && self.records.get(name).is_some();
        let changed: Vec<DomainName> = names.filter(news).cloned().collect();
        for name in &changed {
            self.publish_domain(name);
        }
    }

    /// Who uses devices made of exports, or is about to.
    pub(super) fn import_users(&self) -> Vec<User> {
        if !self.me.imports {
            return Vec::new();
        }
        let coming = self.prepare.coming().map(|name| (name.clone(), None));
        let here = self.all_shown().into_iter().filter(here);
        here.map(|d| (d.name, d.settings.grant.map(|g| g.stem()))).chain(coming).collect()
    }

    /// The leases of the domains that are here.
    pub(super) fn import_grants(&self) -> Vec<Grant> {
        if !self.me.imports {
            return Vec::new();
        }
        let here = self.all_shown().into_iter().filter(here);
        // a value that was kept with a domain is not more to be trusted than one from the bus
        let own = |g: &Grant| g.server == self.me.name && g.check().is_ok();
        here.filter_map(|d| d.settings.grant).map(|g| *g).filter(own).collect()
    }
}

/// Whether a domain may have its disks open, or be about to open them.
fn here(domain: &Domain) -> bool {
    domain.job.is_some() || !matches!(domain.state, DomainState::Shutoff | DomainState::Crashed)
}
