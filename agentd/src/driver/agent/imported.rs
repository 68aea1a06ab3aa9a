//! Devices that are made of exports, for hypervisors that do not open exports themselves: dropped when the domain that used them has
//! gone. (They are made by `create` and `prepare`.)
//!
//! Who uses them is told whole, not who has gone: so nothing is lost by a message or a life that ended at the wrong moment.

use super::Agent;
use crate::driver::step::Effect;
use crate::imports::devices::User;
use xvm_model::{Domain, DomainState, Grant, Mono};

/// A domain that is not seen for so long, in milliseconds, has gone: one that starts anew is away for a moment.
const GONE_MS: u64 = 5_000;
/// Without any change it is told this often, in milliseconds: what was attached for a domain that did not come is dropped then.
const AGAIN_MS: u64 = 60_000;

/// Who used them at the last sample, and when to tell.
#[derive(Debug, Default)]
pub(super) struct State {
    users: Vec<User>,
    due: Option<Mono>,
}

impl State {
    pub(super) fn wake(&self) -> Option<Mono> {
        self.due
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
