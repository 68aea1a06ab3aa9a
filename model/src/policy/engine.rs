//! The guards around every rule: what may move at all, and what a server may take.
//!
//! Whoever asks and whoever helps runs the same [`Engine`]. It needs nothing but its own [`Host`] and the message before it, so
//! it decides the same on every server without a master.

use super::{Guest, Host, Mates, Need, Offer, Peers, Policy, Request, Sums, Wish, Worth};
use crate::platform::Misfit;
use crate::{DomainName, Groups, Mono, Pin, ServerName, domain::words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most wishes of a request.
pub const WISHES_MAX: usize = 64;

/// How careful the engine is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guards {
    /// How long a domain that was moved stays, in milliseconds. Comparable systems ship 30 minutes to 6 hours against ping-pong;
    /// the domains' loads of half an hour say more than those of a minute.
    pub cooldown_ms: u64,
}

impl Default for Guards {
    fn default() -> Self {
        Guards { cooldown_ms: 3_600_000 }
    }
}

/// Why a server does not take a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `accepting` is off.
    #[error("it does not accept domains")]
    Closed,
    /// Only another server is asked.
    #[error("another server is asked")]
    Only,
    /// The asker's hypervisor is of another kind.
    #[error("its hypervisor is of another kind")]
    Kind,
    /// A domain cannot move between the asker's processors and these.
    #[error("its processors are of another kind")]
    Cpu,
    /// The server is not among those that the domain is pinned to.
    #[error("the domain is pinned to other servers")]
    Pinned,
    /// A domain that must stay apart runs here or has room reserved.
    #[error("a domain of a group that stays apart is here")]
    Apart,
    /// Too little memory with the domain on board.
    #[error("it has too little memory")]
    Memory,
    /// The load with the domain on board would be over the limit.
    #[error("it would be loaded over its limit with the domain on board")]
    Load,
    /// The domain's priority is high, and it would come to a more loaded server.
    #[error("the domain has a high priority and would come to a more loaded server")]
    Priority,
    /// The rule finds that the move does not pay.
    #[error("the move does not pay")]
    Gain,
    /// It needs help itself.
    #[error("it asks for help itself")]
    Asks,
    /// It may have promised room in the life before, and keeps it free until that promise is over.
    #[error("it was started a moment ago")]
    Young,
}

words! {
    /// Why a domain stays on its server.
    Stay {
        /// It stands, or a job goes on with it.
        Busy = "it does not run, or a job goes on with it",
        /// No other server is among those that it is pinned to.
        Pinned = "it is pinned to this server",
        /// It came by a move a short time ago.
        Cooldown = "it was moved a short time ago",
        /// A domain that it stays together with is here, and only an evacuation moves whole groups.
        Mates = "a domain that it stays together with is here",
        /// A domain that it stays together with cannot leave.
        MateStays = "a domain that it stays together with cannot leave",
        /// The pins of its group have no other server in common.
        Parted = "the domains that it stays together with are pinned to other servers than it",
    }
}

/// A rule within its guards.
#[derive(Debug)]
pub struct Engine {
    /// Who ranks.
    pub policy: Box<dyn Policy>,
    /// What is allowed.
    pub guards: Guards,
}

impl Engine {
    /// The rule `policy` within the usual guards.
    pub fn new(policy: Box<dyn Policy>) -> Self {
        Engine { policy, guards: Guards::default() }
    }

    /// A unit has ended.
    pub fn sample(&mut self, host: &Host, peers: &Peers, now: Mono) {
        self.policy.sample(host, peers, now);
    }

    /// Why `guest` stays on `host`, or nothing when it may leave. Its rule's opinion is another matter; for an evacuation and for
    /// going home the cooldown does not count, and a group may leave as a whole.
    pub fn stays(&self, host: &Host, guest: &Guest, now: Mono, need: Need) -> Option<Stay> {
        if let Some(stay) = fixed(host, guest) {
            return Some(stay);
        }
        if need == Need::Overload {
            let cool = guest.arrived.is_none_or(|at| now.since(at) >= self.guards.cooldown_ms);
            let alone = host.all().all(|g| g.name == guest.name || g.with.common(&guest.with).is_none());
            return match (cool, alone) {
                (false, _) => Some(Stay::Cooldown),
                (_, false) => Some(Stay::Mates),
                _ => None,
            };
        }
        let mates = mates(host, guest);
        if mates.iter().any(|mate| fixed(host, mate).is_some()) {
            return Some(Stay::MateStays);
        }
        match pins(std::iter::once(guest).chain(mates)) {
            Some(pin) if pin.0.is_empty() || pin.0.iter().any(|server| *server != host.name) => None,
            _ => Some(Stay::Parted),
        }
    }

    /// What to ask the others, when help is needed and a domain may leave.
    pub fn ask(&self, host: &Host, now: Mono) -> Option<Request> {
        let pain = self.policy.pain(host, now)?;
        let sums = host.sums();
        let mut wishes: Vec<(f64, &Guest)> = host
            .guests
            .iter()
            .filter(|g| self.stays(host, g, now, Need::Overload).is_none())
            .filter_map(|g| Some((self.policy.relief(host, &sums, g, pain)?, g)))
            .collect();
        // of equal relief the domain with the lower priority bears the move; names make the order total
        wishes.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then(a.1.priority.cmp(&b.1.priority)).then(a.1.name.cmp(&b.1.name))
        });
        wishes.truncate(self.policy.wishes().min(WISHES_MAX));
        let wishes = wishes.into_iter().map(|(relief, g)| wish(g, relief, None)).collect();
        let why = format!("its domains want {:.2} of its CPUs", host.load());
        self.request(host, &sums, Need::Overload, pain, wishes, None, &why)
    }

    /// What to ask when `host` is to be emptied: any domain but those in `left` (tried before, and nobody had room), the greatest
    /// first, for it is the hardest to place. Of a group that stays together only one is wished for, and it goes where room for
    /// all of them is; its [`mates`] are sent after it by [`Engine::follow`].
    pub fn evacuate(&self, host: &Host, left: &[DomainName], now: Mono) -> Option<Request> {
        let mut guests: Vec<&Guest> = host
            .guests
            .iter()
            .filter(|g| !left.contains(&g.name) && self.stays(host, g, now, Need::Evacuate).is_none())
            .collect();
        let size = |g: &Guest| g.load.max(g.habit.level());
        guests.sort_by(|a, b| {
            size(b).total_cmp(&size(a)).then(b.memory.cmp(&a.memory)).then(a.name.cmp(&b.name))
        });
        let mut seen: BTreeSet<&DomainName> = BTreeSet::new();
        let mut wishes = Vec::new();
        for guest in guests {
            if wishes.len() < WISHES_MAX && !seen.contains(&guest.name) {
                let mates = mates(host, guest);
                seen.extend(mates.iter().map(|mate| &mate.name));
                wishes.push(wish(guest, size(guest), group(guest, &mates)));
            }
        }
        let why = format!("{} is to be emptied", host.name);
        self.request(host, &host.sums(), Need::Evacuate, 0.0, wishes, None, &why)
    }

    /// What to ask when the mates of `domain` went to `to` in an evacuation: whether it has room there too. Those that remain are
    /// not looked at, for the group is parted already.
    pub fn follow(&self, host: &Host, domain: &DomainName, to: &ServerName) -> Option<Request> {
        let guest = host.guests.iter().find(|g| g.name == *domain).filter(|g| fixed(host, g).is_none())?;
        let why = format!(
            "{} is to be emptied, and {domain} stays together with those that went to {to}",
            host.name
        );
        let wishes = vec![wish(guest, 0.0, None)];
        self.request(host, &host.sums(), Need::Evacuate, 0.0, wishes, Some(to.clone()), &why)
    }

    /// What to ask when `domain` is to go home to `to`; its [`mates`] here need room there too, and are to be recalled after it.
    pub fn recall(&self, host: &Host, domain: &DomainName, to: &ServerName, now: Mono) -> Option<Request> {
        let guest = host.guests.iter().find(|g| g.name == *domain)?;
        if *to == host.name || self.stays(host, guest, now, Need::Restore).is_some() {
            return None;
        }
        let why = format!("{domain} is to come back to {to}");
        let wishes = vec![wish(guest, 0.0, group(guest, &mates(host, guest)))];
        self.request(host, &host.sums(), Need::Restore, 0.0, wishes, Some(to.clone()), &why)
    }

    #[allow(clippy::too_many_arguments)] // what the requests differ in
    fn request(
        &self,
        host: &Host,
        sums: &Sums,
        need: Need,
        pain: f64,
        wishes: Vec<Wish>,
        only: Option<ServerName>,
        why: &str,
    ) -> Option<Request> {
        (!wishes.is_empty()).then(|| Request {
            asker: host.name.clone(),
            platform: host.platform.clone(),
            need,
            only,
            dry: false,
            why: why.into(),
            policy: self.policy.name().into(),
            load: sums.demand / host.cpus,
            level: sums.level / host.cpus,
            cpus: host.cpus,
            pain,
            wishes,
        })
    }

    /// Whether `host` may take `wish` at all; its projected load when it may.
    pub fn admit(&self, host: &Host, sums: &Sums, request: &Request, wish: &Wish) -> Result<f64, Refusal> {
        let guest = &wish.guest;
        if !host.accepting || host.name == request.asker {
            return Err(Refusal::Closed);
        }
        if request.only.as_ref().is_some_and(|only| *only != host.name) {
            return Err(Refusal::Only);
        }
        host.platform.takes(&request.platform).map_err(|misfit| match misfit {
            Misfit::Hypervisor(..) => Refusal::Kind,
            Misfit::Cpu(..) => Refusal::Cpu,
        })?;
        let mates = wish.mates.as_deref();
        if !guest.pin.allows(&host.name) || mates.is_some_and(|m| !m.pin.allows(&host.name)) {
            return Err(Refusal::Pinned);
        }
        let near = |apart: &Groups| host.all().any(|g| g.apart.common(apart).is_some());
        if near(&guest.apart) || mates.is_some_and(|m| near(&m.apart)) {
            return Err(Refusal::Apart);
        }
        // those that will follow count as on board
        let sums = &mates.map_or(*sums, |m| sums.and(&m.sums));
        if sums.memory.saturating_add(guest.memory) > host.memory {
            return Err(Refusal::Memory);
        }
        // the present load and the usual level: neither may push the server over, whichever is greater
        let projected = sums.with(guest).projected(host.cpus);
        if !self.policy.room(host, sums, guest) {
            return Err(Refusal::Load);
        }
        let left = request.load - guest.load / request.cpus;
        if request.need == Need::Overload && guest.priority > 50 && projected > left.max(request.level) {
            return Err(Refusal::Priority);
        }
        Ok(projected)
    }

    /// The best offer that `host` can make, or why it makes none (the reason for its last wish).
    pub fn offer(&self, host: &Host, request: &Request) -> Result<Offer, Refusal> {
        let sums = host.sums();
        let (mut best, mut why): (Option<Offer>, Refusal) = (None, Refusal::Gain);
        for (index, wish) in request.wishes.iter().enumerate() {
            let projected = match self.admit(host, &sums, request, wish) {
                Ok(projected) => projected,
                Err(refusal) => {
                    why = refusal;
                    continue;
                }
            };
            let worth = if request.need == Need::Overload {
                self.policy.worth(host, &sums, request, index)
            } else {
                // the wish that stands first is the hardest to place; of those who can take it, the least loaded
                let delay_ms = 50.0 * index as f64 + 100.0 * projected;
                Some(Worth { gain: -(index as f64), delay_ms })
            };
            let Some(worth) = worth else {
                why = Refusal::Gain;
                continue;
            };
            if best.as_ref().is_none_or(|b| worth.gain > b.worth.gain) {
                let (helper, address, platform) =
                    (host.name.clone(), host.address.clone(), host.platform.clone());
                best = Some(Offer { helper, address, platform, wish: index, projected, worth });
            }
        }
        best.ok_or(why)
    }
}

/// What no need overrides: a domain that does not run or has a job, or that is pinned here.
fn fixed(host: &Host, guest: &Guest) -> Option<Stay> {
    if !guest.movable {
        return Some(Stay::Busy);
    }
    let pin = &guest.pin.0;
    (!pin.is_empty() && pin.iter().all(|server| *server == host.name)).then_some(Stay::Pinned)
}

/// The domains of `host` that stay together with `guest`, also by way of others, in the order of their names.
pub fn mates<'a>(host: &'a Host, guest: &Guest) -> Vec<&'a Guest> {
    let mut found: Vec<&Guest> = Vec::new();
    if guest.with.0.is_empty() {
        return found;
    }
    loop {
        let next = host.guests.iter().find(|g| {
            g.name != guest.name
                && !found.iter().any(|f| f.name == g.name)
                && (g.with.common(&guest.with).is_some()
                    || found.iter().any(|f| f.with.common(&g.with).is_some()))
        });
        let Some(next) = next else { break };
        found.push(next);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The servers that the pins of all `guests` allow; none of them pinned: an empty pin, which allows all. None when they have none in
/// common.
fn pins<'a>(guests: impl IntoIterator<Item = &'a Guest>) -> Option<Pin> {
    guests.into_iter().filter(|g| !g.pin.0.is_empty()).try_fold(Pin::default(), |common, g| {
        let pin = match common.0.is_empty() {
            true => g.pin.clone(),
            false => Pin(common.0.iter().filter(|s| g.pin.0.contains(s)).cloned().collect()),
        };
        (!pin.0.is_empty()).then_some(pin)
    })
}

fn group(guest: &Guest, mates: &[&Guest]) -> Option<Box<Mates>> {
    let pin = pins(std::iter::once(guest).chain(mates.iter().copied()))?;
    let apart: BTreeSet<_> = mates.iter().flat_map(|g| g.apart.0.iter().cloned()).collect();
    let sums = mates.iter().fold(Sums::default(), |sums, g| sums.with(g));
    (!mates.is_empty()).then(|| Box::new(Mates { sums, pin, apart: Groups(apart.into_iter().collect()) }))
}

fn wish(guest: &Guest, relief: f64, mates: Option<Box<Mates>>) -> Wish {
    Wish { guest: Guest { arrived: None, ..guest.clone() }, relief, mates }
}
