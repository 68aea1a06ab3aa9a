//! How servers agree on a move, without a master: one pure state machine for both sides. Every message may be lost, late, doubled
//! or out of order, and every agent may stop at any moment.
//!
//! ```text
//!   asker:   Idle --ask--> Asking --first offer--> Accepting --held--> Moving --moved--> Idle (rests)
//!                            |  no offer in time       |  refused or silent
//!                            +----------> Idle <-------+
//!   helper, for each round:   Waiting --delay over, still fits--> Offered --accepted--> Held --done, arrived, lease over--> gone
//!                                |  others accepted                  |  declined, others accepted, expired
//!                                +--------------------> gone <-------+
//! ```
//!
//! | says | who | means |
//! |---|---|---|
//! | REQUEST_HELP | asker → all | the wishes of a round |
//! | OFFER_HELP | helper → asker | one wish would fit, room is reserved; with `held`: it is yours, the lease runs |
//! | ACCEPT_HELP | asker → all | this helper; all others release. Repeated, also while the domain moves: it renews the lease |
//! | DECLINE | asker → helper, helper → asker | no, and the room is free |
//! | DONE | asker → all | the round has ended |
//!
//! Why it is safe. A reservation counts as a domain on board from the moment of its offer, so two askers never get the same room.
//! The asker moves only after `held`, which says that its accept was heard while the room was reserved, and which counts from when
//! that accept was sent: the lease at the helper is never shorter than what the asker believes. Every reservation has an end by the
//! helper's own clock. A round's id is never used again, and a round leaves `Accepting` for `Moving` once: one move a round. Who
//! asks does not offer, and who has reserved does not ask. An agent that was started anew offers nothing for the length of a lease,
//! for it has forgotten what it promised. Only durations are compared, so clocks need not agree. A move that outlives its lease
//! (no renewal came through) is seen by the helper's own hypervisor: the agent counts an arriving domain as on board.

use crate::policy::{Engine, Guest, Host, Offer, Request};
use crate::{DomainName, Mono, ServerName};
use std::collections::BTreeMap;

/// How long an asker waits for offers, in milliseconds: twenty times the longest usual delay of one.
pub const OFFERS_MS: u64 = 2_000;
/// How long an offer's room is kept for an answer.
pub const RESERVE_MS: u64 = 3_000;
/// How long accepted room is kept after the last accept.
pub const LEASE_MS: u64 = 30_000;
/// How often an accept is repeated until it is held.
pub const REPEAT_MS: u64 = 200;
/// How long an asker waits for `held`; far less than [`LEASE_MS`], so that a move begins with most of the lease left.
pub const HELD_MS: u64 = 2_000;
/// How often the lease is renewed while the domain moves.
pub const RENEW_MS: u64 = 5_000;
/// How long an asker rests after a round.
pub const REST_MS: u64 = 5_000;
/// The most rounds that a helper takes part in at once; more requests are not heard.
pub const ROUNDS_MAX: usize = 64;

/// A round's id: `SERVER.BOOT.NUMBER`, never used twice.
pub type Round = Box<str>;

/// What the two sides say.
#[derive(Debug, Clone, PartialEq)]
pub enum Say {
    /// Who can take one of these?
    RequestHelp {
        /// The round that begins.
        round: Round,
        /// The wishes.
        request: Box<Request>,
    },
    /// I can take this one.
    OfferHelp {
        /// The round.
        round: Round,
        /// The wish and the projected load.
        offer: Offer,
        /// The number of the accept that this answers: the room is the asker's. None in a first offer.
        held: Option<u32>,
    },
    /// This helper; nobody else.
    AcceptHelp {
        /// The round.
        round: Round,
        /// Whose offer is accepted.
        helper: ServerName,
        /// Counts the accepts of this round.
        number: u32,
    },
    /// No.
    Decline {
        /// The round.
        round: Round,
        /// Whose offer it is about.
        helper: ServerName,
    },
    /// The round has ended.
    Done {
        /// The round.
        round: Round,
        /// Whether the domain moved.
        moved: bool,
    },
}

/// What happens to an agent's negotiation.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A message of `from`.
    Heard {
        /// Who says it; checked by the bus.
        from: ServerName,
        /// What.
        say: Say,
    },
    /// Time passes.
    Tick,
    /// The engine wants help.
    Ask(Box<Request>),
    /// The move that [`Effect::Move`] began has ended, by what both hypervisors say.
    Moved {
        /// The round.
        round: Round,
        /// Whether the domain is at the helper now.
        moved: bool,
    },
}

/// Why a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The domain moved.
    Moved,
    /// The move failed; the domain is where it was.
    Failed,
    /// Nobody offered in time.
    NoOffer,
    /// The helper took its offer back, or fell silent.
    NotHeld,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Publish this.
    Say(Say),
    /// Begin the one move of this round.
    Move {
        /// The round.
        round: Round,
        /// Which domain.
        domain: DomainName,
        /// Where.
        to: ServerName,
    },
    /// Write down how the own round ended.
    Ended {
        /// The round.
        round: Round,
        /// How.
        end: End,
    },
}

/// The asker's side.
#[derive(Debug, Clone, PartialEq)]
enum Asker {
    Idle { rested: Mono },
    Asking { round: Round, request: Box<Request>, until: Mono },
    Accepting { round: Round, domain: DomainName, helper: ServerName, sent: Vec<Mono>, until: Mono },
    Moving { round: Round, helper: ServerName, number: u32, renewed: Mono },
}

/// The helper's side of one round.
#[derive(Debug, Clone, PartialEq)]
enum Helper {
    Waiting { request: Box<Request>, due: Mono },
    Offered { offer: Offer, guest: Box<Guest>, until: Mono },
    Held { offer: Offer, guest: Box<Guest>, until: Mono },
}

/// The negotiation of one agent.
#[derive(Debug, Clone)]
pub struct Negotiation {
    name: ServerName,
    /// The agent's life, part of each round's id.
    boot: u64,
    /// Rounds begun in this life.
    rounds: u64,
    asker: Asker,
    /// Before it nothing is offered: the life before may have promised room that this one knows nothing of.
    quiet: Mono,
    /// Rounds of others, with who asked.
    helping: BTreeMap<Round, (ServerName, Helper)>,
}

impl Negotiation {
    /// Of the server `name`, in the life `boot` that begins `now`. It offers nothing for the length of a lease.
    pub fn new(name: ServerName, boot: u64, now: Mono) -> Self {
        let asker = Asker::Idle { rested: now };
        Negotiation { name, boot, rounds: 0, asker, quiet: now.plus(LEASE_MS), helping: BTreeMap::new() }
    }

    /// Whether a round may be begun: none runs, the last is [`REST_MS`] ago, and no room is reserved for others.
    pub fn may_ask(&self, now: Mono) -> bool {
        matches!(self.asker, Asker::Idle { rested } if now >= rested) && self.reserved().next().is_none()
    }

    /// The domains that room is reserved for.
    pub fn reserved(&self) -> impl Iterator<Item = &Guest> {
        self.helping.values().filter_map(|(_, h)| match h {
            Helper::Waiting { .. } => None,
            Helper::Offered { guest, .. } | Helper::Held { guest, .. } => Some(&**guest),
        })
    }

    /// When [`Input::Tick`] is due next.
    pub fn due(&self) -> Option<Mono> {
        let own = match &self.asker {
            Asker::Idle { .. } => None,
            Asker::Asking { until, .. } => Some(*until),
            Asker::Accepting { sent, until, .. } => {
                Some(sent.last().map_or(*until, |at| at.plus(REPEAT_MS).min(*until)))
            }
            Asker::Moving { renewed, .. } => Some(renewed.plus(RENEW_MS)),
        };
        let others = self.helping.values().map(|(_, h)| match h {
            Helper::Waiting { due: at, .. }
            | Helper::Offered { until: at, .. }
            | Helper::Held { until: at, .. } => *at,
        });
        others.chain(own).min()
    }

    /// One step. `host` is what the own hypervisor says, without reservations; `chance_ms` spreads the own offer a little.
    pub fn step(
        &mut self,
        input: Input,
        engine: &Engine,
        host: &Host,
        now: Mono,
        chance_ms: u64,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        // a domain that has arrived needs no reservation: it counts by itself
        self.helping.retain(|_, (_, h)| match h {
            Helper::Held { guest, .. } => !host.guests.iter().any(|g| g.name == guest.name),
            _ => true,
        });
        self.expire(engine, host, now, &mut out);
        match input {
            Input::Tick => {}
            Input::Ask(request) => self.ask(request, now, &mut out),
            Input::Moved { round, moved } => {
                if matches!(&self.asker, Asker::Moving { round: own, .. } if *own == round) {
                    self.end(round, if moved { End::Moved } else { End::Failed }, now, &mut out);
                }
            }
            Input::Heard { from, say } if from != self.name => {
                self.heard(from, say, engine, host, now, chance_ms, &mut out);
            }
            Input::Heard { .. } => {}
        }
        out
    }

    fn ask(&mut self, request: Box<Request>, now: Mono, out: &mut Vec<Effect>) {
        if !self.may_ask(now) || request.wishes.is_empty() {
            return;
        }
        // who waits to help others needs help itself now
        self.helping.clear();
        self.rounds += 1;
        let round: Round = format!("{}.{}.{}", self.name, self.boot, self.rounds).into();
        out.push(Effect::Say(Say::RequestHelp { round: round.clone(), request: request.clone() }));
        self.asker = Asker::Asking { round, request, until: now.plus(OFFERS_MS) };
    }

    #[allow(clippy::too_many_arguments)] // the parts of one message and of one moment
    fn heard(
        &mut self,
        from: ServerName,
        say: Say,
        engine: &Engine,
        host: &Host,
        now: Mono,
        chance_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        match say {
            Say::RequestHelp { round, request } => {
                let busy = !matches!(self.asker, Asker::Idle { .. })
                    || now < self.quiet
                    || self.helping.len() >= ROUNDS_MAX;
                if busy || request.asker != from || self.helping.contains_key(&round) {
                    return;
                }
                if let Ok(offer) = engine.offer(&self.full(host), &request) {
                    let delay = offer.worth.delay_ms.clamp(0.0, OFFERS_MS as f64 / 2.0) as u64 + chance_ms;
                    self.helping.insert(round, (from, Helper::Waiting { request, due: now.plus(delay) }));
                }
            }
            Say::OfferHelp { round, offer, held } => self.offered(&from, round, offer, held, now, out),
            Say::AcceptHelp { round, helper, number } if helper == self.name => {
                self.accepted(&from, round, number, now, out);
            }
            Say::AcceptHelp { round, .. } | Say::Done { round, .. } => self.release(&from, &round),
            Say::Decline { round, helper } if helper == self.name => self.release(&from, &round),
            Say::Decline { round, helper } => {
                let own = matches!(&self.asker, Asker::Accepting { round: r, helper: h, .. } if *r == round && *h == from);
                if own && helper == from {
                    self.end(round, End::NotHeld, now, out);
                }
            }
        }
    }

    /// An offer, or the word that room is held.
    fn offered(
        &mut self,
        from: &ServerName,
        round: Round,
        offer: Offer,
        held: Option<u32>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        match &mut self.asker {
            Asker::Asking { round: own, request, .. }
                if *own == round && held.is_none() && offer.helper == *from =>
            {
                if let Some(wish) = request.wishes.get(offer.wish) {
                    let domain = wish.guest.name.clone();
                    out.push(accept(&round, from, 0));
                    self.asker = Asker::Accepting {
                        round,
                        domain,
                        helper: from.clone(),
                        sent: vec![now],
                        until: now.plus(HELD_MS),
                    };
                }
            }
            Asker::Accepting { round: own, helper, domain, sent, .. } if *own == round && helper == from => {
                // a doubled first offer says nothing new
                let Some(number) = held else { return };
                if let Some(&at) = sent.get(number as usize)
                    && now.since(at) < LEASE_MS / 2
                {
                    out.push(Effect::Move { round: round.clone(), domain: domain.clone(), to: from.clone() });
                    let number = sent.len() as u32;
                    self.asker = Asker::Moving { round, helper: from.clone(), number, renewed: at };
                }
            }
            Asker::Moving { round: own, helper, .. } if *own == round && helper == from => {}
            // an offer that came second, or for a round that is over
            _ => out.push(Effect::Say(Say::Decline { round, helper: from.clone() })),
        }
    }

    /// The own offer is accepted, perhaps again.
    fn accepted(&mut self, from: &ServerName, round: Round, number: u32, now: Mono, out: &mut Vec<Effect>) {
        match self.helping.get(&round).cloned() {
            Some((asker, Helper::Offered { offer, guest, .. } | Helper::Held { offer, guest, .. }))
                if asker == *from =>
            {
                let until = now.plus(LEASE_MS);
                let say = Say::OfferHelp { round: round.clone(), offer: offer.clone(), held: Some(number) };
                out.push(Effect::Say(say));
                self.helping.insert(round, (asker, Helper::Held { offer, guest, until }));
            }
            _ => out.push(Effect::Say(Say::Decline { round, helper: self.name.clone() })),
        }
    }

    fn release(&mut self, from: &ServerName, round: &Round) {
        if self.helping.get(round).is_some_and(|(asker, _)| asker == from) {
            self.helping.remove(round);
        }
    }

    fn end(&mut self, round: Round, end: End, now: Mono, out: &mut Vec<Effect>) {
        self.asker = Asker::Idle { rested: now.plus(REST_MS) };
        out.push(Effect::Say(Say::Done { round: round.clone(), moved: end == End::Moved }));
        out.push(Effect::Ended { round, end });
    }

    /// What time alone brings.
    fn expire(&mut self, engine: &Engine, host: &Host, now: Mono, out: &mut Vec<Effect>) {
        match &mut self.asker {
            Asker::Asking { round, until, .. } if now >= *until => {
                let round = round.clone();
                self.end(round, End::NoOffer, now, out);
            }
            Asker::Accepting { round, until, .. } if now >= *until => {
                let round = round.clone();
                self.end(round, End::NotHeld, now, out);
            }
            Asker::Accepting { round, helper, sent, .. }
                if sent.last().is_some_and(|at| now.since(*at) >= REPEAT_MS) =>
            {
                out.push(accept(round, helper, sent.len() as u32));
                sent.push(now);
            }
            Asker::Moving { round, helper, number, renewed } if now.since(*renewed) >= RENEW_MS => {
                out.push(accept(round, helper, *number));
                (*number, *renewed) = (number.saturating_add(1), now);
            }
            _ => {}
        }
        self.helping.retain(|_, (_, h)| match h {
            Helper::Waiting { .. } => true,
            Helper::Offered { until, .. } | Helper::Held { until, .. } => now < *until,
        });
        let due: Vec<Round> = self
            .helping
            .iter()
            .filter(|(_, (_, h))| matches!(h, Helper::Waiting { due, .. } if now >= *due))
            .map(|(round, _)| round.clone())
            .collect();
        for round in due {
            let Some((asker, Helper::Waiting { request, .. })) = self.helping.remove(&round) else {
                continue;
            };
            // what fitted when the request came may not fit now: other room may have been reserved meanwhile
            if let Ok(offer) = engine.offer(&self.full(host), &request) {
                let guest = Box::new(request.wishes[offer.wish].guest.clone());
                out.push(Effect::Say(Say::OfferHelp {
                    round: round.clone(),
                    offer: offer.clone(),
                    held: None,
                }));
                self.helping
                    .insert(round, (asker, Helper::Offered { offer, guest, until: now.plus(RESERVE_MS) }));
            }
        }
    }

    /// The own server with all reservations on board.
    fn full(&self, host: &Host) -> Host {
        let mut full = host.clone();
        full.reserved.extend(self.reserved().cloned());
        full
    }
}

fn accept(round: &Round, helper: &ServerName, number: u32) -> Effect {
    Effect::Say(Say::AcceptHelp { round: round.clone(), helper: helper.clone(), number })
}

#[cfg(test)]
#[path = "negotiation/tests.rs"]
mod tests;
