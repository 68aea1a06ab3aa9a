//! Help between servers: the rule that watches this one, the rounds in which domains move, and the jobs of the server as a whole.
//!
//! ```text
//!   sample ─▶ habits, points ─▶ rule ── pain ─▶ round: request ─ offers ─ accept ─▶ migration (a job like any other) ─▶ done
//!                                 ▲                  │  the same rounds serve
//!   recall of another server ─────┤                  ├── evacuate: until no domain is left
//!   evacuate, restore ────────────┘                  └── recall: a domain goes home
//! ```
//!
//! What may move and who may take it is decided by [`xvm_model::policy::Engine`] alone, who moves by [`xvm_model::negotiation`]; here
//! they are fed with what the hypervisor says, and their effects are carried out.
//!
//! | file | what |
//! |---|---|
//! | `picture` | this server as the rules see it |
//! | `rounds` | the rounds that are kept and told |
//! | `balance` | what the cluster was told about balancing, passed on from agent to agent |
//! | `errand` | evacuate and restore |
//! | `leaving` | domains that leave by evacuate |
//! | `recall` | domains that other servers want back |

mod balance;
mod errand;
mod leaving;
mod picture;
mod recall;
mod rounds;

use super::{Agent, beat::one_line, jobs::By};
use crate::driver::kept::Kept;
use crate::driver::step::Effect;
use crate::hypervisor::Way;
use std::collections::BTreeMap;
use xvm_model::negotiation::{self as talk, Negotiation, Say};
use xvm_model::policy::{self, Engine, Guest, Habit, Host, Need, Peers, Policy, Request};
use xvm_model::round::{End, RoundId};
use xvm_model::{
    BalanceMode, Body, DomainCommand, DomainName, Failure, Mono, Now, PolicyName, ServerName, ServerSettings,
    Topic,
};

/// A server that was silent so long, in milliseconds, is not counted as one that may offer; all say something each minute.
const PEER_MS: u64 = 180_000;
/// How long it is remembered what a domain was like for which room was reserved, in milliseconds: longer than most migrations.
const EXPECTED_MS: u64 = 600_000;
/// Seconds between two samples.
const UNIT_S: f64 = 1.0;

/// The most servers that are counted.
const PEERS_MAX: usize = 10_000;

/// Another server.
#[derive(Debug)]
struct Peer {
    /// When it was heard last.
    heard: Mono,
    /// How full it said that it is.
    score: Option<f64>,
}

/// What the agent knows and does about help.
#[derive(Debug)]
pub(super) struct Help {
    engine: Engine,
    talk: Negotiation,
    /// The past of each domain that is here.
    habits: BTreeMap<DomainName, Habit>,
    /// Domains that room is or was reserved for, as their last server described them, and when: they bring their past along.
    expected: BTreeMap<DomainName, (Guest, Mono)>,
    log: rounds::Log,
    gossip: balance::Gossip,
    errand: errand::State,
    recalls: recall::Queue,
    /// Servers that were heard under the topic.
    peers: BTreeMap<ServerName, Peer>,
    /// Whether there is a forwarder.
    linked: bool,
    /// What chance is made of.
    dice: u64,
    /// What is kept has changed in this step.
    changed: bool,
}

impl Help {
    /// Of a server whose life before left `kept`; `first` when there was none, so that nothing can have been promised.
    pub(super) fn new(
        name: &ServerName,
        boot: u64,
        settings: &ServerSettings,
        kept: Kept,
        first: bool,
        now: Now,
    ) -> Self {
        Help {
            engine: Engine::new(rule(settings)),
            talk: Negotiation::new(name.clone(), boot, now.mono, !first),
            habits: BTreeMap::new(),
            expected: BTreeMap::new(),
            log: rounds::Log::new(kept.rounds, now),
            gossip: balance::Gossip::default(),
            errand: errand::State::new(kept.errand, kept.away, kept.leaving, now.mono),
            recalls: recall::Queue::default(),
            peers: BTreeMap::new(),
            linked: false,
            // the next life must know that this one was there, for it may promise room
            changed: first,
            dice: name.as_str().bytes().fold(boot | 1, |d, b| d.wrapping_mul(31).wrapping_add(b.into())),
        }
    }

    pub(super) fn wake(&self) -> Mono {
        let all = [self.talk.due(), self.gossip.wake(), self.log.wake(), self.errand.wake()];
        all.into_iter().flatten().min().unwrap_or(Mono(u64::MAX))
    }

    /// Whether an own round runs.
    #[cfg(test)]
    pub(super) fn runs(&self) -> bool {
        self.log.running_need().is_some() || self.talk.round().is_some()
    }

    /// For how many domains room is reserved.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.talk.reserved().count()
    }

    /// Who was given away.
    #[cfg(test)]
    pub(super) fn away(&self) -> &[DomainName] {
        &self.errand.away
    }

    /// A number below `n` (Knuth's MMIX generator): it only spreads messages over time.
    fn roll(&mut self, n: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % n.max(1)
    }

    /// The random part of an offer's delay: the more servers there are, the wider.
    fn chance(&mut self) -> u64 {
        let spread = talk::spread_ms(self.peers.len() + 1);
        self.roll(spread)
    }
}

/// The rule that the settings name.
fn rule(settings: &ServerSettings) -> Box<dyn Policy> {
    match settings.policy {
        PolicyName::Points => Box::new(policy::counter::Counter::default()),
        PolicyName::Adaptive => {
            let mut rule = policy::adaptive::Adaptive::new(UNIT_S);
            rule.even = settings.even;
            Box::new(rule)
        }
    }
}

impl Agent {
    /// The settings have changed from `old`.
    pub(super) fn help_set(&mut self, old: &ServerSettings) {
        let new = self.settings;
        if (old.policy, old.even) != (new.policy, new.even) {
            self.help.engine.policy = rule(&new);
        }
        if old.balance != new.balance {
            self.help.gossip.soon(self.now.mono);
            if new.balance.mode != BalanceMode::On && self.help.log.running_need() == Some(Need::Overload) {
                self.talk(talk::Input::Cancel);
            }
        }
    }

    /// A whole sample was heard.
    pub(super) fn help_sampled(&mut self) {
        let now = self.now.mono;
        self.help.peers.retain(|_, peer| now.since(peer.heard) < PEER_MS);
        let mut host = self.picture();
        self.note_habits(&mut host);
        self.help.engine.policy.counted(self.settings.watchdog, self.points.value());
        let full = self.with_reserved(host.clone());
        let scores = self.help.peers.values().filter_map(|p| p.score).chain([full.score()]);
        let (sum, count) = scores.fold((0.0, 0.0), |(sum, count), score| (sum + score, count + 1.0));
        self.help.engine.sample(&full, &Peers { score: sum / count }, now);
        self.errand_sampled();
        self.consider_with(&host);
    }

    pub(super) fn help_link(&mut self, up: bool) {
        self.help.linked = up;
        if up {
            self.help.gossip.joined(self.now.mono);
            self.help.log.soon(self.now.mono);
        }
    }

    pub(super) fn help_roll_call(&mut self, soon: Mono) {
        self.help.log.soon(soon);
    }

    pub(super) fn help_timers(&mut self) {
        let now = self.now.mono;
        if self.help.talk.due().is_some_and(|at| at <= now) {
            self.talk(talk::Input::Tick);
        }
        self.balance_timers();
        self.errand_timers();
        self.log_timers();
    }

    /// Another agent said something in a round; its values were checked.
    pub(super) fn help_heard(&mut self, from: ServerName, say: Say) {
        if from == self.me.name {
            return; // a life before ours
        }
        let now = self.now.mono;
        if self.help.peers.len() < PEERS_MAX || self.help.peers.contains_key(&from) {
            let peer = self.help.peers.entry(from.clone()).or_insert(Peer { heard: now, score: None });
            peer.heard = now;
            if let Say::Balance { score, .. } = &say {
                peer.score = Some(*score);
            }
        }
        match say {
            Say::Balance { balance, .. } => self.balance_heard(balance),
            Say::Recall { domains } => self.recall_heard(&from, domains),
            Say::RequestHelp { ref request, .. } if !self.helps(request) => {}
            say => {
                if let Say::RequestHelp { request, .. } = &say {
                    self.errand_asked(request);
                }
                // most of what is said is for others: nothing is looked at for that
                if self.help.talk.minds(&say) {
                    self.talk(talk::Input::Heard { from, say });
                }
            }
        }
    }

    /// Whether a request is answered at all: what the cluster was told about balancing goes before every rule.
    fn helps(&self, request: &Request) -> bool {
        let mode = self.settings.balance.mode;
        let told = match (request.need, request.dry) {
            (Need::Overload, false) => mode == BalanceMode::On,
            (Need::Overload, true) => mode != BalanceMode::Off,
            _ => true,
        };
        told && self.stale().is_none()
    }

    /// Begins a round when one is needed: for another server first, then for the server's own job, then for itself.
    fn consider(&mut self) {
        let host = self.picture();
        self.consider_with(&host);
    }

    fn consider_with(&mut self, host: &Host) {
        let now = self.now.mono;
        if self.stale().is_some() || !self.help.linked || !self.help.talk.may_ask(now) {
            return;
        }
        let mode = self.settings.balance.mode;
        let own = match mode == BalanceMode::Off || self.help.errand.evacuates() {
            true => None,
            false => self.help.engine.ask(host, now),
        };
        // what could not be done for others does not keep this server from being helped
        if own.is_none() || !self.help.log.vain() {
            let request = self.recall_request(host).or_else(|| self.errand_request(host));
            if let Some(request) = request {
                return self.talk(talk::Input::Ask(Box::new(request)));
            }
        }
        match own {
            Some(mut request) => {
                request.dry = mode == BalanceMode::DryRun;
                if self.settings.policy == PolicyName::Points {
                    let (w, n) = (&self.settings.watchdog, host.cpus);
                    let points = self.points.value();
                    request.why = format!(
                        "all {n} CPUs at {} or more and shared by busy domains: {points} points, the limit is {}",
                        w.threshold, w.limit
                    )
                    .into();
                }
                // who knows something newer says so, and nobody who was told `off` offers
                self.say_standing();
                self.talk(talk::Input::Ask(Box::new(request)));
            }
            None if self.help.engine.policy.pain(host, now).is_none() => self.help.talk.calm(),
            None => {}
        }
    }

    /// One step of the negotiation, and what comes of it.
    fn talk(&mut self, input: talk::Input) {
        let host = self.picture();
        let chance = self.help.chance();
        let now = self.now.mono;
        self.help.expected.retain(|_, (_, at)| now.since(*at) < EXPECTED_MS);
        self.help.expected.extend(self.help.talk.reserved().map(|g| (g.name.clone(), (g.clone(), now))));
        let mut effects = self.help.talk.step(input, &self.help.engine, &host, self.now, chance);
        // what comes of the others looks at the record, and may change it again
        effects.sort_by_key(|effect| !matches!(effect, talk::Effect::Record(_)));
        for effect in effects {
            match effect {
                talk::Effect::Say(say) => self.say(say),
                talk::Effect::Record(round) => self.record_round(*round),
                talk::Effect::Move { round, domain, to, address } => {
                    self.help_move(round, &domain, to, address);
                }
                talk::Effect::Ended { round, end } => self.round_ended(&round, end),
            }
        }
    }

    fn say(&mut self, say: Say) {
        self.publish(Topic::Watchdog(self.me.name.clone()), Body::Watchdog(Box::new(say)));
    }

    /// The one move of a round: a migration like one that is ordered, with the same checks.
    fn help_move(&mut self, round: RoundId, domain: &DomainName, to: ServerName, address: Box<str>) {
        let command =
            DomainCommand::Migrate { to: Some(to.clone()), address: address.clone(), paused: false };
        match self.check(domain, &command) {
            Ok(record) => {
                self.errand_moves(domain, &to);
                let why = self.help.log.running_need().unwrap_or(Need::Overload).word();
                self.begin_migration(
                    By::Round { id: &round, why },
                    record,
                    to,
                    Way { address, paused: false },
                );
            }
            Err(failure) => self.help_moved(&round, &Err(failure)),
        }
    }

    /// A job has ended; when a round began it, so has the round.
    pub(super) fn help_moved(&mut self, id: &str, result: &Result<Box<str>, Failure>) {
        if !self.help.log.runs(id) {
            return;
        }
        let result = match result {
            Ok(sentence) => Ok(sentence.clone()),
            Err(failure) => Err(one_line(&failure.text, 400).into()),
        };
        self.talk(talk::Input::Moved { round: id.into(), result });
    }

    fn round_ended(&mut self, round: &RoundId, end: End) {
        if end == End::Moved {
            self.help.engine.policy.gave(self.now.mono);
        }
        self.errand_ended(round, end);
        self.log_ended(round, end);
    }

    /// What must outlive this life has changed.
    fn keep(&mut self) {
        self.help.changed = true;
    }

    /// Keeps it, once a step however often it has changed, and before anything that the step begins.
    pub(super) fn keep_changes(&mut self) {
        if !std::mem::take(&mut self.help.changed) {
            return;
        }
        let kept = Kept {
            rounds: self.help.log.all(),
            away: self.help.errand.away.clone(),
            leaving: self.help.errand.leaving.clone(),
            errand: self.help.errand.kept(),
        };
        self.out.insert(0, Effect::Keep(Box::new(kept)));
    }
}
