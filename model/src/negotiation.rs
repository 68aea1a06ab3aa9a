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
//!                             Refusing --nobody spoke for long--> gone
//! ```
//!
//! | says | who | means |
//! |---|---|---|
//! | REQUEST_HELP | asker → all | the wishes of a round |
//! | OFFER_HELP | helper → asker | one wish would fit, room is reserved; with `held`: it is yours, the lease runs |
//! | ACCEPT_HELP | asker → all | this helper; all others release. Repeated, also while the domain moves: it renews the lease |
//! | DECLINE | asker → helper, helper → asker | no, and the room is free; a helper that cannot help says so when nobody else can |
//! | DONE | asker → all | the round has ended |
//!
//! Why it is safe. A reservation counts as a domain on board from the moment of its offer, so two askers never get the same room.
//! The asker moves only after `held`, which says that its accept was heard while the room was reserved, and which counts from when
//! that accept was sent: the lease at the helper is never shorter than what the asker believes. Every reservation has an end by the
//! helper's own clock. A round's id is never used again, and a round leaves `Accepting` for `Moving` once: one move a round. Who
//! asks does not offer, and who has reserved does not ask. An agent that was started anew offers nothing for the length of a lease,
//! for it has forgotten what it promised. Only durations are compared, so clocks need not agree. A move that outlives its lease
//! (no renewal came through) is seen by the helper's own hypervisor: the agent counts an arriving domain as on board. In a dry run
//! nothing is reserved and nothing moves.
//!
//! Why it is quiet. Everybody hears everything. An offer waits for the rule's delay and for chance, see [`spread_ms`], and is not
//! made when an accept is heard first; a refusal is left to some thirty servers, waits for two thirds of [`OFFERS_MS`] and for chance,
//! and is not said when anybody offers or when [`REFUSERS`] others have said it. So a round's messages do not grow with the number of servers. A server whose
//! rounds bring nothing asks ever more seldom, up to [`REST_MAX_MS`].

mod asker;
mod helper;
mod say;

pub use say::{RECALL_MAX, Say};

use crate::policy::{Engine, Guest, Host, Request};
pub use crate::round::{End, Round, RoundId};
use crate::{DomainName, Mono, Now, ServerName};
use asker::Asker;
use helper::Helper;
use std::collections::BTreeMap;

/// How long an asker waits for offers, in milliseconds: twenty times the longest usual delay of one.
pub const OFFERS_MS: u64 = 2_000;
/// How long an offer's room is kept for an answer.
pub const RESERVE_MS: u64 = 6_000;
/// How long accepted room is kept after the last accept.
pub const LEASE_MS: u64 = 30_000;
/// How often an accept is repeated until it is held.
pub const REPEAT_MS: u64 = 200;
/// How long an asker waits for `held`; far less than [`LEASE_MS`], so that a move begins with most of the lease left.
pub const HELD_MS: u64 = 5_000;
/// How often the lease is renewed while the domain moves: two may be lost.
pub const RENEW_MS: u64 = 10_000;
/// How long an asker rests after a round; after each that brought nothing twice as long as before.
pub const REST_MS: u64 = 5_000;
/// The longest rest.
pub const REST_MAX_MS: u64 = 300_000;
/// How many refusals are said in a round in which nobody offers, but for those that cross on their way.
pub const REFUSERS: usize = 3;
/// The most rounds that a helper takes part in at once; more requests are not heard.
pub const ROUNDS_MAX: usize = 64;
/// The longest part of chance in an offer's delay.
pub const SPREAD_MAX_MS: u64 = 600;

/// How much chance an agent that knows of `servers` servers puts into its offers: the `chance_ms` of each [`Negotiation::step`] is
/// drawn evenly from 0 to this. Half a millisecond for each server: a message takes about one, so while the first offer and its
/// accept are on their way, some two to four of those that could help as well speak too, however many they are.
pub fn spread_ms(servers: usize) -> u64 {
    (servers as u64 / 2).clamp(2, SPREAD_MAX_MS)
}

/// What happens to an agent's negotiation.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A message of `from`.
    Heard {
        /// Who says it; checked by the bus.
        from: ServerName,
        /// What; checked by [`Say::check`].
        say: Say,
    },
    /// Time passes.
    Tick,
    /// The engine wants help.
    Ask(Box<Request>),
    /// The move that [`Effect::Move`] began has ended, by what both hypervisors say.
    Moved {
        /// The round.
        round: RoundId,
        /// The job's sentence: the domain is at the helper now, or it is where it was.
        result: Result<Box<str>, Box<str>>,
    },
    /// The own round is to end; one whose domain moves already goes on.
    Cancel,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Publish this.
    Say(Say),
    /// Begin the one move of this round.
    Move {
        /// The round.
        round: RoundId,
        /// Which domain.
        domain: DomainName,
        /// Where.
        to: ServerName,
        /// Where its hypervisor is reached.
        address: Box<str>,
    },
    /// The own round has ended.
    Ended {
        /// The round.
        round: RoundId,
        /// How.
        end: End,
    },
    /// What is known of the own round has changed: keep and publish it. An offer that comes late changes also one that is over.
    Record(Box<Round>),
}

/// One moment of an agent, as a step sees it.
struct Moment<'a> {
    engine: &'a Engine,
    host: &'a Host,
    now: Now,
    chance_ms: u64,
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
    /// How long it rests after the next round that brings nothing, in milliseconds.
    patience: u64,
    /// The own round, also when it is over: the last one.
    record: Option<Box<Round>>,
    /// Whether the record has changed in this step.
    changed: bool,
    /// Before it nothing is offered: the life before may have promised room that this one knows nothing of.
    quiet: Mono,
    /// Rounds of others, with who asked.
    helping: BTreeMap<RoundId, (ServerName, Helper)>,
}

impl Negotiation {
    /// Of the server `name`, in the life `boot` that begins `now`. It offers nothing for the length of a lease when it is `quiet`;
    /// that is needed unless no earlier life can have promised anything.
    pub fn new(name: ServerName, boot: u64, now: Mono, quiet: bool) -> Self {
        Negotiation {
            name,
            boot,
            rounds: 0,
            asker: Asker::Idle { ended: now, rest: 0 },
            patience: REST_MS,
            record: None,
            changed: false,
            quiet: if quiet { now.plus(LEASE_MS) } else { now },
            helping: BTreeMap::new(),
        }
    }

    /// Whether a round may be begun: none runs, the rest after the last is over, and no room is reserved for others.
    pub fn may_ask(&self, now: Mono) -> bool {
        matches!(self.asker, Asker::Idle { ended, rest } if now.since(ended) >= rest)
            && self.reserved().next().is_none()
    }

    /// No help is needed, or it is needed for something new: what did not help before does not count any more.
    pub fn calm(&mut self) {
        self.patience = REST_MS;
        if let Asker::Idle { rest, .. } = &mut self.asker {
            *rest = (*rest).min(REST_MS);
        }
    }

    /// The own round, while one runs.
    pub fn round(&self) -> Option<&Round> {
        self.record.as_deref().filter(|_| self.asker.round().is_some())
    }

    /// The domains that room is reserved for.
    pub fn reserved(&self) -> impl Iterator<Item = &Guest> {
        self.helping.values().filter_map(|(_, h)| h.guest())
    }

    /// When [`Input::Tick`] is due next.
    pub fn due(&self) -> Option<Mono> {
        self.helping.values().map(|(_, h)| h.due()).chain(self.asker.due()).min()
    }

    /// One step. `host` is what the own hypervisor says, with domains on their way here, without reservations; `chance_ms` is drawn
    /// evenly from 0 to [`spread_ms`].
    pub fn step(
        &mut self,
        input: Input,
        engine: &Engine,
        host: &Host,
        now: Now,
        chance_ms: u64,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        let at = &Moment { engine, host, now, chance_ms: chance_ms.min(SPREAD_MAX_MS) };
        self.expire(at, &mut out);
        self.hurry(at, &mut out);
        match input {
            Input::Tick => {}
            Input::Ask(request) => self.ask(request, at, &mut out),
            Input::Moved { round, result } => self.moved(&round, result, at, &mut out),
            Input::Cancel => self.cancel(at, &mut out),
            Input::Heard { from, say } if from != self.name && self.minds(&say) => {
                self.heard(from, say, at, &mut out);
            }
            Input::Heard { .. } => {}
        }
        if std::mem::take(&mut self.changed) {
            out.extend(self.record.clone().map(Effect::Record));
        }
        out
    }

    /// Whether `say` means anything here now. A step with one that does not changes nothing but what time alone would.
    pub fn minds(&self, say: &Say) -> bool {
        match say {
            Say::RequestHelp { request, .. } => request.only.as_ref().is_none_or(|only| *only == self.name),
            Say::AcceptHelp { helper, .. } if *helper == self.name => true,
            Say::Recall { .. } | Say::Balance { .. } => false,
            _ => say.round().is_some_and(|round| {
                (!self.helping.is_empty() && self.helping.contains_key(round)) || self.owns(round)
            }),
        }
    }

    fn heard(&mut self, from: ServerName, say: Say, at: &Moment, out: &mut Vec<Effect>) {
        match say {
            Say::RequestHelp { round, request } => self.requested(from, round, request, at),
            Say::OfferHelp { round, offer, held } => {
                self.overheard(&round, true);
                // everybody hears it; it is for the asker
                if self.owns(&round) {
                    self.offered(&from, round, offer, held, at, out);
                }
            }
            Say::AcceptHelp { round, helper, number } if helper == self.name => {
                self.accepted(&from, round, number, at, out);
            }
            Say::Done { round, moved: true } => self.arrives(&from, &round, at),
            Say::AcceptHelp { round, .. } | Say::Done { round, .. } => self.release(&from, &round),
            // the asker does not want the own offer
            Say::Decline { round, helper, .. } if helper == self.name => self.release(&from, &round),
            // a helper speaks of itself
            Say::Decline { round, helper, why } if helper == from => {
                self.overheard(&round, false);
                self.declined(&from, &round, why.as_deref(), at, out);
            }
            Say::Decline { .. } | Say::Recall { .. } | Say::Balance { .. } => {}
        }
    }

    /// Whether `round` is one of this server, of this life or one before.
    fn owns(&self, round: &str) -> bool {
        round.strip_prefix(self.name.as_str()).is_some_and(|rest| rest.starts_with('.'))
            && round.matches('.').count() == self.name.as_str().matches('.').count() + 2
    }
}

#[cfg(test)]
mod tests;
