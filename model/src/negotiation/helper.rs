//! The helper's side of the rounds of others.

use super::{Effect, LEASE_MS, Moment, Negotiation, OFFERS_MS, REFUSERS, RESERVE_MS, ROUNDS_MAX, Say};
use crate::policy::{Guest, Host, Offer, Refusal, Request};
use crate::round::RoundId;
use crate::{Mono, ServerName};
use std::borrow::Cow;
use std::sync::Arc;

/// Who draws less chance than this may say no: some thirty of any number of servers, see [`super::spread_ms`].
const REFUSE_BELOW_MS: u64 = 16;

/// Where a round of another server is here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Helper {
    /// It could help, and waits for those that can help better.
    Waiting { request: Arc<Request>, due: Mono },
    /// Room is reserved.
    Offered { request: Arc<Request>, offer: Offer, until: Mono },
    /// Room is the asker's.
    Held { request: Arc<Request>, offer: Offer, until: Mono },
    /// It cannot help, and says so when nobody else can either; `heard` others have said so.
    Refusing { why: Refusal, due: Mono, heard: usize },
}

impl Helper {
    pub(super) fn due(&self) -> Mono {
        match self {
            Helper::Waiting { due: at, .. }
            | Helper::Refusing { due: at, .. }
            | Helper::Offered { until: at, .. }
            | Helper::Held { until: at, .. } => *at,
        }
    }

    /// The domain that room is reserved for.
    pub(super) fn guest(&self) -> Option<&Guest> {
        match self {
            Helper::Waiting { .. } | Helper::Refusing { .. } => None,
            Helper::Offered { request, offer, .. } | Helper::Held { request, offer, .. } => {
                request.wishes.get(offer.wish).map(|wish| &wish.guest)
            }
        }
    }
}

impl Negotiation {
    /// Somebody asks.
    pub(super) fn requested(&mut self, from: ServerName, round: RoundId, request: Arc<Request>, at: &Moment) {
        let meant = request.only.as_ref().is_none_or(|only| *only == self.name);
        if !meant || request.asker != from || self.helping.contains_key(&round) {
            return;
        }
        let now = at.now.mono;
        let answer = if self.asker.round().is_some() {
            Err(Refusal::Asks)
        } else if now < self.quiet {
            Err(Refusal::Young)
        } else {
            at.engine.offer(&self.full(at.host), &request)
        };
        match answer {
            Ok(offer) if self.helping.len() < ROUNDS_MAX => {
                let delay = offer.worth.delay_ms.clamp(0.0, OFFERS_MS as f64 / 2.0) as u64;
                let due = now.plus((delay + at.chance_ms).min(OFFERS_MS - 100));
                self.helping.insert(round, (from, Helper::Waiting { request, due }));
            }
            // of many servers only some thirty think of saying no
            Err(why) if self.helping.len() < ROUNDS_MAX / 2 && at.chance_ms < REFUSE_BELOW_MS => {
                // whoever could help has spoken by then; who is asked alone need not wait for others
                let wait = if request.only.is_some() { 0 } else { OFFERS_MS * 2 / 3 + at.chance_ms * 35 };
                let due = now.plus(wait.min(OFFERS_MS - 100));
                self.helping.insert(round, (from, Helper::Refusing { why, due, heard: 0 }));
            }
            _ => {}
        }
    }

    /// The own offer is accepted, perhaps again.
    pub(super) fn accepted(
        &mut self,
        from: &ServerName,
        round: RoundId,
        number: u32,
        at: &Moment,
        out: &mut Vec<Effect>,
    ) {
        let refused = |round: RoundId, why: &str| {
            Effect::Say(Say::Decline { round, helper: self.name.clone(), why: Some(why.into()) })
        };
        let (request, offer, fresh) = match self.helping.get(&round) {
            Some((asker, Helper::Offered { request, offer, .. })) if asker == from => (request, offer, true),
            Some((asker, Helper::Held { request, offer, .. })) if asker == from => (request, offer, false),
            _ => return out.push(refused(round, "the room is not reserved any more")),
        };
        let (request, offer) = (request.clone(), offer.clone());
        if fresh {
            // the own domains may want more now than when it was offered; once it is held the word is kept
            let mut full = self.full(at.host).into_owned();
            if let Some(wish) = request.wishes.get(offer.wish) {
                full.reserved.retain(|g| g.name != wish.guest.name);
                if let Err(why) = at.engine.admit(&full, &full.sums(), &request, wish) {
                    out.push(refused(round.clone(), &why.to_string()));
                    self.helping.remove(&round);
                    return;
                }
            }
        }
        let until = at.now.mono.plus(LEASE_MS);
        out.push(Effect::Say(Say::OfferHelp {
            round: round.clone(),
            offer: offer.clone(),
            held: Some(number),
        }));
        self.helping.insert(round, (from.clone(), Helper::Held { request, offer, until }));
    }

    /// The asker needs nothing of this server.
    pub(super) fn release(&mut self, from: &ServerName, round: &RoundId) {
        if self.helping.get(round).is_some_and(|(asker, _)| asker == from) {
            self.helping.remove(round);
        }
    }

    /// The domain is here. The own hypervisor may not have shown it yet: until it has, the room stays reserved for a moment more.
    pub(super) fn arrives(&mut self, from: &ServerName, round: &RoundId, at: &Moment) {
        match self.helping.get_mut(round) {
            Some((asker, Helper::Held { until, .. })) if asker == from => {
                *until = (*until).min(at.now.mono.plus(RESERVE_MS));
            }
            _ => self.release(from, round),
        }
    }

    /// Another server could help (`helps`) or not: it makes the own refusal needless, at once or when enough have said so.
    pub(super) fn overheard(&mut self, round: &RoundId, helps: bool) {
        if let Some((_, Helper::Refusing { heard, .. })) = self.helping.get_mut(round) {
            *heard += 1;
            if helps || *heard >= REFUSERS {
                self.helping.remove(round);
            }
        }
    }

    /// What time alone brings to the rounds of others.
    pub(super) fn expire(&mut self, at: &Moment, out: &mut Vec<Effect>) {
        if self.helping.is_empty() {
            return;
        }
        let now = at.now.mono;
        self.helping.retain(|_, (_, h)| match h {
            // a domain that has arrived needs no reservation: it counts by itself
            Helper::Held { until, .. } => {
                now < *until && !h.guest().is_some_and(|own| at.host.all().any(|g| g.name == own.name))
            }
            Helper::Offered { until, .. } => now < *until,
            Helper::Waiting { .. } | Helper::Refusing { .. } => true,
        });
        let due: Vec<RoundId> = self
            .helping
            .iter()
            .filter(|(_, (_, h))| h.guest().is_none() && now >= h.due())
            .map(|(round, _)| round.clone())
            .collect();
        for round in due {
            match self.helping.remove(&round) {
                Some((asker, Helper::Waiting { request, .. })) => self.offer(asker, round, request, at, out),
                Some((_, Helper::Refusing { why, .. })) => out.push(Effect::Say(Say::Decline {
                    round,
                    helper: self.name.clone(),
                    why: Some(why.to_string().into()),
                })),
                _ => {}
            }
        }
    }

    fn offer(
        &mut self,
        asker: ServerName,
        round: RoundId,
        request: Arc<Request>,
        at: &Moment,
        out: &mut Vec<Effect>,
    ) {
        // what fitted when the request came may not fit now: other room may have been reserved meanwhile
        let Ok(offer) = at.engine.offer(&self.full(at.host), &request) else { return };
        out.push(Effect::Say(Say::OfferHelp { round: round.clone(), offer: offer.clone(), held: None }));
        // in a dry run nothing will come
        if !request.dry {
            let until = at.now.mono.plus(RESERVE_MS);
            self.helping.insert(round, (asker, Helper::Offered { request, offer, until }));
        }
    }

    /// The own server with all reservations on board.
    fn full<'a>(&self, host: &'a Host) -> Cow<'a, Host> {
        let mut full = Cow::Borrowed(host);
        for guest in self.reserved() {
            full.to_mut().reserved.push(guest.clone());
        }
        full
    }
}
