//! The rounds of this server: kept on disk, told at each change, and what they brought is measured some seconds after.

use super::Agent;
use std::collections::VecDeque;
use xvm_model::message::Rounds;
use xvm_model::policy::Need;
use xvm_model::round::{Brought, End, Ending, KEPT, Round, RoundId};
use xvm_model::{Body, Mono, Now, Topic};

/// How long after a move its effect is measured, in milliseconds: the counter has seen ten samples without the domain.
const MEASURE_MS: u64 = 10_000;
/// How often the rounds are told while there are any, in milliseconds: who missed a change learns it then.
const TELL_MS: u64 = 60_000;

/// A move whose effect is to be measured.
#[derive(Debug)]
struct Measure {
    round: RoundId,
    at: Mono,
}

/// The rounds, the latest last.
#[derive(Debug)]
pub(super) struct Log {
    rounds: VecDeque<Round>,
    /// What the server was like when its present round began: load and points.
    before: (f64, u16),
    measure: Option<Measure>,
    /// When to tell them.
    next: Option<Mono>,
}

impl Log {
    /// With the rounds of the lives before; one that had not ended is lost.
    pub(super) fn new(kept: Vec<Round>, now: Now) -> Self {
        let mut rounds: VecDeque<Round> = kept.into();
        while rounds.len() > KEPT {
            rounds.pop_front();
        }
        for round in rounds.iter_mut().filter(|r| r.outcome.is_none()) {
            let sentence = match &round.accepted {
                Some(a) => format!(
                    "{}'s agent stopped before it ended; domains/{}/server tells where {} is",
                    round.asker, a.domain, a.domain
                ),
                None => format!("{}'s agent stopped before it ended; nothing moved", round.asker),
            };
            round.outcome = Some(Ending { at: now.wall, end: End::Lost, sentence: sentence.into() });
        }
        let next = (!rounds.is_empty()).then_some(now.mono);
        Log { rounds, before: (0.0, 0), measure: None, next }
    }

    pub(super) fn all(&self) -> Vec<Round> {
        self.rounds.iter().cloned().collect()
    }

    pub(super) fn wake(&self) -> Option<Mono> {
        self.next.into_iter().chain(self.measure.as_ref().map(|m| m.at)).min()
    }

    /// Tells them at this time at the latest.
    pub(super) fn soon(&mut self, at: Mono) {
        if !self.rounds.is_empty() {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }

    /// Whether this is the round that runs.
    pub(super) fn runs(&self, id: &str) -> bool {
        self.running().is_some_and(|r| &*r.id == id)
    }

    /// What the round that runs is for.
    pub(super) fn running_need(&self) -> Option<Need> {
        self.running().map(|r| r.need)
    }

    /// Whether the last round was not for this server's own need, and moved nothing.
    pub(super) fn vain(&self) -> bool {
        let last = self.rounds.back().filter(|r| r.need != Need::Overload);
        last.and_then(|r| r.outcome.as_ref()).is_some_and(|o| o.end != End::Moved)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Round> {
        self.rounds.iter().find(|r| &*r.id == id)
    }

    fn running(&self) -> Option<&Round> {
        self.rounds.back().filter(|r| r.outcome.is_none())
    }
}

impl Agent {
    /// The own round has changed.
    pub(super) fn record_round(&mut self, round: Round) {
        let before = (self.host_load(), self.points.value());
        let log = &mut self.help.log;
        match log.rounds.iter_mut().find(|r| r.id == round.id) {
            Some(known) => *known = round,
            None => {
                log.rounds.push_back(round);
                if log.rounds.len() > KEPT {
                    log.rounds.pop_front();
                }
                log.measure = None;
                log.before = before;
            }
        }
        log.next = Some(self.now.mono);
        self.keep();
    }

    pub(super) fn log_ended(&mut self, round: &RoundId, end: End) {
        if end == End::Moved {
            let at = self.now.mono.plus(MEASURE_MS);
            self.help.log.measure = Some(Measure { round: round.clone(), at });
        }
    }

    pub(super) fn log_timers(&mut self) {
        let now = self.now.mono;
        if let Some(measure) = self.help.log.measure.take_if(|m| m.at <= now) {
            let (before, points_before) = self.help.log.before;
            let (after, points_after) = (self.host_load(), self.points.value());
            if let Some(round) = self.help.log.rounds.iter_mut().find(|r| r.id == measure.round) {
                round.effect = Some(Brought { before, after, points_before, points_after });
                self.help.log.next = Some(now);
                self.keep();
            }
        }
        if self.help.log.next.is_some_and(|at| at <= now) {
            let rounds = self.help.log.all();
            self.help.log.next = (!rounds.is_empty()).then(|| now.plus(TELL_MS));
            let body = Body::Rounds(Box::new(Rounds { rounds }));
            self.publish(Topic::Rounds(self.me.name.clone()), body);
        }
    }

    /// The share of the CPUs that is wanted; over 1 when they are too few.
    fn host_load(&self) -> f64 {
        self.picture().load()
    }
}
