//! The guards around every rule: what may move at all, and what a server may take.
//!
//! Whoever asks and whoever helps runs the same [`Engine`]. It needs nothing but its own [`Host`] and the message before it, so
//! it decides the same on every server without a master.

use super::{Guest, Host, Offer, Peers, Policy, Request, Sums, Wish};
use crate::Mono;

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

    /// Whether `guest` may leave `host`: it runs, its cooldown is over, it is not pinned to this server alone, and no domain that
    /// it must stay with would be left behind.
    pub fn may_leave(&self, host: &Host, guest: &Guest, now: Mono) -> bool {
        let cool = guest.arrived.is_none_or(|at| now.since(at) >= self.guards.cooldown_ms);
        let stuck = guest.pin.0.len() == 1 && guest.pin.allows(&host.name);
        let mates = !guest.with.is_empty()
            && host
                .all()
                .any(|g| g.name != guest.name && g.with.iter().any(|group| guest.with.contains(group)));
        guest.movable && cool && !stuck && !mates
    }

    /// What to ask the others, when help is needed and a domain may leave.
    pub fn ask(&self, host: &Host, now: Mono) -> Option<Request> {
        let pain = self.policy.pain(host, now)?;
        let sums = host.sums();
        let mut wishes: Vec<(f64, &Guest)> = host
            .guests
            .iter()
            .filter(|g| self.may_leave(host, g, now))
            .filter_map(|g| Some((self.policy.relief(host, &sums, g, pain)?, g)))
            .collect();
        // of equal relief the domain with the lower priority bears the move; names make the order total
        wishes.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then(a.1.priority.cmp(&b.1.priority)).then(a.1.name.cmp(&b.1.name))
        });
        wishes.truncate(self.policy.wishes());
        if wishes.is_empty() {
            return None;
        }
        Some(Request {
            asker: host.name.clone(),
            load: sums.demand / host.cpus,
            level: sums.level / host.cpus,
            cpus: host.cpus,
            pain,
            wishes: wishes
                .into_iter()
                .map(|(relief, g)| Wish { guest: Guest { arrived: None, ..g.clone() }, relief })
                .collect(),
        })
    }

    /// Whether `host` may take `wish` at all; its projected load when it may.
    pub fn admit(&self, host: &Host, sums: &Sums, request: &Request, wish: &Wish) -> Result<f64, Refusal> {
        let guest = &wish.guest;
        if !host.accepting || host.name == request.asker {
            return Err(Refusal::Closed);
        }
        if !guest.pin.allows(&host.name) {
            return Err(Refusal::Pinned);
        }
        if !guest.apart.is_empty()
            && host.all().any(|g| g.apart.iter().any(|group| guest.apart.contains(group)))
        {
            return Err(Refusal::Apart);
        }
        if sums.memory.saturating_add(guest.memory) > host.memory {
            return Err(Refusal::Memory);
        }
        // the present load and the usual level: neither may push the server over, whichever is greater
        let usual = (sums.level + guest.habit.level()) / host.cpus;
        let projected = ((sums.demand + guest.load) / host.cpus).max(usual);
        if projected >= self.policy.limit() {
            return Err(Refusal::Load);
        }
        let left = request.load - guest.load / request.cpus;
        if guest.priority > 50 && projected > left.max(request.level) {
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
            let Some(worth) = self.policy.worth(host, &sums, request, index) else {
                why = Refusal::Gain;
                continue;
            };
            if best.as_ref().is_none_or(|b| worth.gain > b.worth.gain) {
                best = Some(Offer { helper: host.name.clone(), wish: index, projected, worth });
            }
        }
        best.ok_or(why)
    }
}
