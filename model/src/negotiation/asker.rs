//! The asker's side of a round.

use super::{
    Effect, HELD_MS, Moment, Negotiation, OFFERS_MS, RENEW_MS, REPEAT_MS, REST_MAX_MS, REST_MS, Say,
};
use crate::policy::{Guest, Need, Offer, Request};
use crate::round::{Accepted, Bid, End, Ending, Round, RoundId, Verdict, WISHED_MAX, Wished};
use crate::{DomainName, Mono, ServerName};
use std::sync::Arc;

/// Where the own round is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asker {
    /// None runs since `ended`; it rests for `rest` milliseconds.
    Idle {
        ended: Mono,
        rest: u64,
    },
    Asking {
        round: RoundId,
        request: Arc<Request>,
        until: Mono,
    },
    Accepting {
        round: RoundId,
        request: Arc<Request>,
        offer: Box<Offer>,
        sent: Vec<Mono>,
        until: Mono,
    },
    Moving {
        round: RoundId,
        domain: DomainName,
        helper: ServerName,
        number: u32,
        renewed: Mono,
    },
}

impl Asker {
    pub(super) fn due(&self) -> Option<Mono> {
        match self {
            Asker::Idle { .. } => None,
            Asker::Asking { until, .. } => Some(*until),
            Asker::Accepting { sent, until, .. } => {
                Some(sent.last().map_or(*until, |at| at.plus(REPEAT_MS).min(*until)))
            }
            Asker::Moving { renewed, .. } => Some(renewed.plus(RENEW_MS)),
        }
    }

    /// The round that runs.
    pub(super) fn round(&self) -> Option<&RoundId> {
        match self {
            Asker::Idle { .. } => None,
            Asker::Asking { round, .. } | Asker::Accepting { round, .. } | Asker::Moving { round, .. } => {
                Some(round)
            }
        }
    }
}

impl Negotiation {
    pub(super) fn ask(&mut self, request: Box<Request>, at: &Moment, out: &mut Vec<Effect>) {
        if !self.may_ask(at.now.mono) || request.wishes.is_empty() {
            return;
        }
        // who waits to help others needs help itself now
        self.helping.clear();
        let request: Arc<Request> = Arc::from(request);
        self.rounds += 1;
        let round: RoundId = format!("{}.{}.{}", self.name, self.boot, self.rounds).into();
        out.push(Effect::Say(Say::RequestHelp { round: round.clone(), request: request.clone() }));
        let wished = |w: &crate::policy::Wish| Wished {
            domain: w.guest.name.clone(),
            load: w.guest.load,
            memory: w.guest.memory,
            relief: w.relief,
        };
        self.record = Some(Box::new(Round {
            id: round.clone(),
            asker: self.name.clone(),
            need: request.need,
            policy: request.policy.clone(),
            dry: request.dry,
            at: at.now.wall,
            load: request.load,
            why: request.why.clone(),
            wishes: request.wishes.iter().take(WISHED_MAX).map(wished).collect(),
            offers: Vec::new(),
            refusals: Vec::new(),
            accepted: None,
            outcome: None,
            effect: None,
        }));
        self.changed = true;
        self.asker = Asker::Asking { round, request, until: at.now.mono.plus(OFFERS_MS) };
    }

    /// An offer, or the word that room is held.
    pub(super) fn offered(
        &mut self,
        from: &ServerName,
        round: RoundId,
        offer: Offer,
        held: Option<u32>,
        at: &Moment,
        out: &mut Vec<Effect>,
    ) {
        let now = at.now.mono;
        match &mut self.asker {
            Asker::Asking { round: own, request, .. }
                if *own == round && held.is_none() && offer.helper == *from =>
            {
                let asked = request.only.as_ref().is_none_or(|only| only == from);
                let Some(wish) = request.wishes.get(offer.wish).filter(|_| asked) else { return };
                let (domain, request) = (wish.guest.name.clone(), request.clone());
                self.note(|record| {
                    record.accepted =
                        Some(Accepted { helper: from.clone(), domain: domain.clone(), at: at.now.wall });
                    record.bid(bid(from, &domain, &offer, Verdict::Accepted))
                });
                if request.dry {
                    let would = format!("nothing was to move; {domain} would have gone to {from}");
                    return self.end(End::Dry, &would, at, out);
                }
                out.push(accept(&round, from, 0));
                let until = now.plus(HELD_MS);
                self.asker =
                    Asker::Accepting { round, request, offer: Box::new(offer), sent: vec![now], until };
            }
            Asker::Accepting { round: own, offer: first, sent, .. } if *own == round => {
                if first.helper != *from {
                    // the accept is on its way to all and says it; while it is repeated, so does each repetition
                    return self.second(from, &round, &offer);
                }
                // a doubled first offer says nothing new
                let Some(number) = held else { return };
                // that accept is at most HELD_MS old, so most of the lease that it began is left
                if let Some(&accepted) = sent.get(number as usize) {
                    self.depart(accepted, at, out);
                }
            }
            Asker::Moving { round: own, helper, .. } if *own == round && helper == from => {}
            // an offer that came second, or for a round that is over
            _ => {
                self.second(from, &round, &offer);
                out.push(Effect::Say(Say::Decline { round, helper: from.clone(), why: None }));
            }
        }
    }

    /// Room is held since `accepted`: the domain leaves, unless users have changed their mind about it meanwhile.
    fn depart(&mut self, accepted: Mono, at: &Moment, out: &mut Vec<Effect>) {
        let Asker::Accepting { round, request, offer, sent, .. } = &self.asker else { return };
        let Some(wish) = request.wishes.get(offer.wish) else { return };
        let (domain, to) = (wish.guest.name.clone(), offer.helper.clone());
        if !unchanged(&wish.guest, request.need, at) {
            return self.end(End::Cancelled, &format!("{domain} may not leave any more"), at, out);
        }
        let (round, number, address) = (round.clone(), sent.len() as u32, offer.address.clone());
        out.push(Effect::Move { round: round.clone(), domain: domain.clone(), to: to.clone(), address });
        self.changed = true;
        self.asker = Asker::Moving { round, domain, helper: to, number, renewed: accepted };
    }

    /// An offer that is not taken is written down.
    fn second(&mut self, from: &ServerName, round: &RoundId, offer: &Offer) {
        let known = self.record.as_ref().filter(|r| r.id == *round);
        let domain = known.and_then(|r| r.wishes.get(offer.wish)).map(|w| w.domain.clone());
        let Some(domain) = domain.filter(|_| offer.helper == *from) else { return };
        self.note(|record| {
            let why: Box<str> = match &record.accepted {
                Some(first) => format!("{} was first", first.helper).into(),
                None => "it came too late".into(),
            };
            record.bid(bid(from, &domain, offer, Verdict::Declined { why }))
        });
    }

    /// A helper says no.
    pub(super) fn declined(
        &mut self,
        from: &ServerName,
        round: &RoundId,
        why: Option<&str>,
        at: &Moment,
        out: &mut Vec<Effect>,
    ) {
        if self.asker.round() != Some(round) {
            return;
        }
        let why = why.unwrap_or("it does not say why");
        match &self.asker {
            Asker::Accepting { offer, .. } if offer.helper == *from => {
                self.end(End::NotHeld, &format!("{from} took its offer back: {why}"), at, out);
            }
            Asker::Asking { request, .. } if request.only.as_ref() == Some(from) => {
                self.note(|record| record.refuse(from, why));
                self.end(End::NoOffer, &format!("{from} cannot help: {why}"), at, out);
            }
            _ => self.note(|record| record.refuse(from, why)),
        }
    }

    /// The job has ended.
    pub(super) fn moved(
        &mut self,
        round: &RoundId,
        result: Result<Box<str>, Box<str>>,
        at: &Moment,
        out: &mut Vec<Effect>,
    ) {
        if let Asker::Moving { round: own, .. } = &self.asker
            && own == round
        {
            match result {
                Ok(text) => self.end(End::Moved, &text, at, out),
                Err(text) => self.end(End::Failed, &text, at, out),
            }
        }
    }

    /// Ends the own round; one whose domain moves goes on.
    pub(super) fn cancel(&mut self, at: &Moment, out: &mut Vec<Effect>) {
        if matches!(self.asker, Asker::Asking { .. } | Asker::Accepting { .. }) {
            self.end(End::Cancelled, "it was cancelled", at, out);
        }
    }

    fn end(&mut self, end: End, sentence: &str, at: &Moment, out: &mut Vec<Effect>) {
        let Some(round) = self.asker.round().cloned() else { return };
        let need = self.record.as_ref().map_or(Need::Overload, |r| r.need);
        let rest = match end {
            // the load must be seen anew before the next is asked for; who empties a server need not wait for that
            End::Moved if need == Need::Overload => REST_MS,
            End::Moved => 0,
            End::Cancelled => REST_MS,
            // somebody waits for it, and makes room meanwhile
            _ if need != Need::Overload => 2 * REST_MS,
            // somebody could help: the machines or the network are slow, and the next may do
            End::NotHeld => REST_MS,
            // what nobody could give now, they will hardly be able to give at once
            _ => self.patience,
        };
        self.patience = match end {
            End::Moved => REST_MS,
            End::Cancelled => self.patience,
            End::NotHeld => self.patience,
            _ if need != Need::Overload => self.patience,
            _ => (self.patience * 2).min(REST_MAX_MS),
        };
        self.asker = Asker::Idle { ended: at.now.mono, rest };
        self.note(|record| {
            record.outcome = Some(Ending { at: at.now.wall, end, sentence: sentence.into() });
            true
        });
        out.push(Effect::Say(Say::Done { round: round.clone(), moved: end == End::Moved }));
        out.push(Effect::Ended { round, end });
    }

    /// What time alone brings to the own round.
    pub(super) fn hurry(&mut self, at: &Moment, out: &mut Vec<Effect>) {
        let now = at.now.mono;
        match &mut self.asker {
            Asker::Asking { until, .. } if now >= *until => {
                self.end(End::NoOffer, "nobody offered to help", at, out);
            }
            Asker::Accepting { until, offer, .. } if now >= *until => {
                let silent = format!("{} offered, and fell silent", offer.helper);
                self.end(End::NotHeld, &silent, at, out);
            }
            Asker::Accepting { round, offer, sent, .. }
                if sent.last().is_some_and(|last| now.since(*last) >= REPEAT_MS) =>
            {
                out.push(accept(round, &offer.helper, sent.len() as u32));
                sent.push(now);
            }
            Asker::Moving { round, helper, number, renewed, .. } if now.since(*renewed) >= RENEW_MS => {
                out.push(accept(round, helper, *number));
                (*number, *renewed) = (number.saturating_add(1), now);
            }
            _ => {}
        }
    }

    /// Changes the record; `change` says whether it did.
    fn note(&mut self, change: impl FnOnce(&mut Round) -> bool) {
        if let Some(record) = &mut self.record {
            self.changed |= change(record);
        }
    }
}

/// Whether what was wished for is still so: here, running, with the settings that the helper looked at.
fn unchanged(wished: &Guest, need: Need, at: &Moment) -> bool {
    at.host.guests.iter().find(|g| g.name == wished.name).is_some_and(|g| {
        let same = (&g.pin, &g.with, &g.apart) == (&wished.pin, &wished.with, &wished.apart);
        let stays = need == Need::Overload && at.engine.stays(at.host, g, at.now.mono, need).is_some();
        g.movable && same && !stays
    })
}

fn bid(helper: &ServerName, domain: &DomainName, offer: &Offer, verdict: Verdict) -> Bid {
    let (projected, gain) = (offer.projected, offer.worth.gain);
    Bid {
        helper: helper.clone(),
        platform: offer.platform.clone(),
        domain: domain.clone(),
        projected,
        gain,
        verdict,
    }
}

fn accept(round: &RoundId, helper: &ServerName, number: u32) -> Effect {
    Effect::Say(Say::AcceptHelp { round: round.clone(), helper: helper.clone(), number })
}
