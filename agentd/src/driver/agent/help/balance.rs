//! What the cluster was told about balancing, passed on from agent to agent: whoever was away learns it from the others, also when
//! nobody mounts the cluster.
//!
//! Each agent says its value when it joins and each minute; whoever knows a later one answers with it after a short random time, and
//! stays silent when somebody else was faster. The later value wins wherever two meet, so all agents end with the latest. How full its
//! server is is said along with it.

use super::{Agent, Say};
use xvm_model::{Mono, ServerSettings, server::Balance};

/// When it is said after the forwarder was found, in milliseconds: the side that speaks may connect later than the side that hears.
const JOINED_MS: [u64; 4] = [0, 500, 2_000, 8_000];
/// How often it is said, in milliseconds.
const EVERY_MS: u64 = 60_000;
/// An answer is sent within so many milliseconds.
const ANSWER_MS: u64 = 300;

/// When to say it.
#[derive(Debug, Default)]
pub(super) struct Gossip {
    /// The times that are left of joining.
    joining: Vec<Mono>,
    next: Option<Mono>,
    /// Somebody knows an older one.
    answer: Option<Mono>,
}

impl Gossip {
    pub(super) fn wake(&self) -> Option<Mono> {
        self.joining.iter().copied().chain(self.next).chain(self.answer).min()
    }

    pub(super) fn joined(&mut self, now: Mono) {
        self.joining = JOINED_MS.iter().map(|ms| now.plus(*ms)).collect();
    }

    pub(super) fn soon(&mut self, now: Mono) {
        self.next = Some(now);
    }
}

impl Agent {
    pub(super) fn balance_heard(&mut self, theirs: Balance) {
        let coming = self.coming_settings();
        let own = coming.balance;
        if theirs.wins(&own) {
            self.save(None, ServerSettings { balance: theirs, ..coming });
        } else if own.wins(&theirs) {
            let at = self.now.mono.plus(self.help.roll(ANSWER_MS));
            self.help.gossip.answer.get_or_insert(at);
        } else {
            // somebody else has answered
            self.help.gossip.answer = None;
        }
    }

    /// Says what this agent knows of the balance, and how full its server is: others compare themselves with the mean.
    pub(super) fn say_standing(&mut self) {
        let score = self.picture().score().clamp(0.0, 1.0);
        self.say(Say::Balance { balance: self.settings.balance, score });
    }

    pub(super) fn balance_timers(&mut self) {
        let now = self.now.mono;
        let gossip = &mut self.help.gossip;
        if gossip.wake().is_none_or(|at| at > now) {
            return;
        }
        gossip.joining.retain(|at| *at > now);
        (gossip.next, gossip.answer) = (Some(now.plus(EVERY_MS)), None);
        self.say_standing();
    }
}
