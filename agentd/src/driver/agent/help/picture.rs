//! This server as the rules see it: what its domains want, what room there is, and what may move.

use super::{Agent, UNIT_S};
use std::collections::BTreeSet;
use xvm_model::policy::{Guest, Host, Need};
use xvm_model::{Came, Domain, DomainName, DomainState, Mono, Platform, Wall, points, wanted::wanted};

/// So long after its arrival a domain counts with at least the load that its last server saw, in milliseconds: three samples.
const ARRIVED_MS: u64 = 3_000;

impl Agent {
    /// The server with all domains that take room here: also those that arrive, and those that leave until they have left.
    pub(super) fn picture(&self) -> Host {
        let domains = self.all_shown();
        let here: Vec<&Domain> =
            domains.iter().filter(|d| d.state.is_active() || d.state == DomainState::Incoming).collect();
        let wants = wanted(&self.host.cpus, &here);
        let guests: Vec<Guest> = here
            .iter()
            .zip(wants)
            .map(|(d, wants)| {
                let mut guest = Guest::new(d.name.clone(), d.memory.current);
                (guest.load, guest.busy) = (wants.cpus, wants.busy);
                // what it wants here was not seen yet, or by a sample of a moment; what its last server said is more
                if let Some((expected, at)) = self.help.expected.get(&d.name)
                    && (d.state == DomainState::Incoming || self.now.mono.since(*at) < ARRIVED_MS)
                {
                    guest.load = guest.load.max(expected.load);
                    guest.busy = guest.busy.max(expected.busy);
                    guest.habit = expected.habit;
                }
                if let Some(habit) = self.help.habits.get(&d.name) {
                    guest.habit = *habit;
                }
                guest.priority = d.settings.priority;
                guest.pin = d.settings.pin.clone();
                guest.with = d.settings.with.clone();
                guest.apart = d.settings.apart.clone();
                guest.movable = d.state.is_active() && d.fixed.is_none() && self.is_free(&d.name);
                guest.arrived = d.settings.came.as_deref().and_then(|came| self.arrived(came));
                guest
            })
            .collect();
        let taken: u64 = guests.iter().map(|g| g.memory).sum();
        let (total, free) = (self.host.memory.total, self.host.memory.free);
        let mut host = Host::new(
            self.me.name.clone(),
            self.host.cpus.len().max(1) as f64,
            // what the hypervisor and others take is not there for domains
            total.min(free.saturating_add(taken)),
        );
        host.accepting = self.settings.accepting && self.stale().is_none();
        host.shared =
            points::is_shared(self.host.cpus.len(), self.records.iter().filter(|d| d.state.is_active()));
        host.address = self.me.address.clone();
        host.platform = Platform { hypervisor: self.me.hypervisor, cpu: self.host.cpu.clone() };
        host.guests = guests;
        host
    }

    /// Nothing goes on with the domain.
    fn is_free(&self, name: &DomainName) -> bool {
        self.works.get(name).is_none_or(|w| w.short.is_none() && w.job.is_none())
    }

    /// When a domain came here because another server was overloaded, by this server's clock: only such a move is one that others must
    /// not follow soon.
    fn arrived(&self, came: &Came) -> Option<Mono> {
        let ago = self.now.wall.0.saturating_sub(self.helped(came)?.0);
        Some(Mono(self.now.mono.0.saturating_sub(ago)))
    }

    /// The same by the clock of who moved it. One that is marked as coming from here never left: what was true before goes on.
    pub(in crate::driver::agent) fn helped(&self, came: &Came) -> Option<Wall> {
        if came.from == self.me.name {
            return came.helped;
        }
        (came.round.is_some() && &*came.why == Need::Overload.word()).then_some(came.at)
    }

    /// The server with the room on board that it has promised; who is here already counts once.
    pub(super) fn with_reserved(&self, mut host: Host) -> Host {
        let coming = self.help.talk.reserved().filter(|g| host.guests.iter().all(|own| own.name != g.name));
        host.reserved.extend(coming.cloned());
        host
    }

    /// Each domain's past grows by one sample; one that came by a round brings its past along.
    pub(super) fn note_habits(&mut self, host: &mut Host) {
        let here: BTreeSet<&DomainName> = host.guests.iter().map(|g| &g.name).collect();
        self.help.habits.retain(|name, _| here.contains(name));
        let running = |name: &DomainName| {
            self.records
                .get(name)
                .is_some_and(|d| matches!(d.state, DomainState::Running | DomainState::Paused))
        };
        for guest in host.guests.iter_mut().filter(|g| running(&g.name)) {
            let brought = || self.help.expected.get(&guest.name).map(|(g, _)| g.habit).unwrap_or_default();
            let mut habit = self.help.habits.get(&guest.name).copied().unwrap_or_else(brought);
            habit.note(guest.load, UNIT_S);
            self.help.habits.insert(guest.name.clone(), habit);
            guest.habit = habit;
        }
    }
}
