//! Jobs of the server as a whole: `evacuate` gives all domains away, `restore` takes them back. Both move domains in rounds like any
//! other, one after the other, and go on in the next life of the agent.
//!
//! ```text
//!   evacuate   round for the domains that are left ─▶ one moves ─▶ its group follows ─▶ ... ─▶ none is left: done
//!                └ nobody has room: says who refused and why, asks again after 10 s    └ only such as must stay: failed
//!   restore    recall every 5 s ─▶ whoever runs one begins a round that only this server answers ─▶ ... ─▶ all are here: done
//!                └ none came for 3 minutes: failed, says which; they stay on the list
//!   cancel     ends either where it is
//! ```

use super::Agent;
use crate::driver::agent::commands::Ticket;
use crate::driver::kept::{KeptErrand, Leaving};
use std::collections::BTreeMap;
use xvm_model::negotiation::{self as talk, RECALL_MAX, Say};
use xvm_model::policy::{Host, Need, Request};
use xvm_model::round::{End, Round, RoundId};
use xvm_model::{Code, DomainName, DomainState, Failure, Job, JobKind, Mono, Outcome, ServerName};

/// How often domains are recalled, in milliseconds.
const RECALL_MS: u64 = 5_000;
/// How long a restoration goes on without any domain coming home, in milliseconds.
const PATIENCE_MS: u64 = 180_000;

/// How often a domain is asked for that is to follow its group, unless the one server in question says no.
const TRIES: u8 = 3;

/// What goes on.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) kept: KeptErrand,
    /// Evacuate: whether a domain moves.
    moving: bool,
    /// Evacuate: how often the next one that is to follow was asked for.
    tries: u8,
    /// Evacuate: who could not follow its group, and why.
    left: BTreeMap<DomainName, String>,
    /// Restore: why a domain was not taken back when it was offered.
    refused: BTreeMap<DomainName, String>,
    /// Restore: when to recall next.
    recall: Mono,
    /// When a domain moved last.
    pub(super) progress: Mono,
    /// What is waited for.
    note: String,
}

/// The server's own job.
#[derive(Debug)]
pub(super) struct State {
    pub(super) running: Option<Running>,
    last: Option<Box<Outcome>>,
    /// Domains that left by an evacuation and have not come back.
    pub(super) away: Vec<DomainName>,
    /// Domains that began to leave by an evacuation, and of which it was not yet heard that they have.
    pub(super) leaving: Vec<Leaving>,
}

impl State {
    pub(super) fn new(
        kept: Option<KeptErrand>,
        away: Vec<DomainName>,
        leaving: Vec<Leaving>,
        now: Mono,
    ) -> Self {
        State { running: kept.map(|kept| Running::new(kept, now)), last: None, away, leaving }
    }

    pub(super) fn kept(&self) -> Option<KeptErrand> {
        self.running.as_ref().map(|r| r.kept.clone())
    }

    /// Whether the server is being emptied.
    pub(super) fn evacuates(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.kept.kind == JobKind::Evacuate)
    }

    pub(super) fn wake(&self) -> Option<Mono> {
        let restores = self.running.as_ref().filter(|r| r.kept.kind == JobKind::Restore);
        restores.map(|r| r.recall.min(r.progress.plus(PATIENCE_MS)))
    }
}

impl Running {
    fn new(kept: KeptErrand, now: Mono) -> Self {
        Running {
            kept,
            moving: false,
            tries: 0,
            left: BTreeMap::new(),
            refused: BTreeMap::new(),
            recall: now,
            progress: now,
            note: String::new(),
        }
    }
}

impl Agent {
    /// The server's job as others see it.
    pub(in crate::driver::agent) fn errand_job(&self) -> Option<Box<Job>> {
        let run = self.help.errand.running.as_ref()?;
        let (KeptErrand { id, kind, since, total, .. }, left) = (run.kept.clone(), self.errand_left());
        let done = total.saturating_sub(left);
        let percent = (done * 100).checked_div(total).map_or(0, |p| p.min(100) as u8);
        let phase = if run.moving { "move" } else { "ask" };
        let note = (!run.note.is_empty()).then(|| run.note.as_str().into());
        Some(Box::new(Job { id, kind, phase: phase.into(), percent, to: None, since, note }))
    }

    pub(in crate::driver::agent) fn errand_last(&self) -> Option<Box<Outcome>> {
        self.help.errand.last.clone()
    }

    /// How many domains the job that runs has before it.
    fn errand_left(&self) -> usize {
        if self.help.errand.evacuates() { self.here().count() } else { self.help.errand.away.len() }
    }

    /// The domains that take room here.
    pub(super) fn here(&self) -> impl Iterator<Item = &DomainName> {
        self.records.iter().filter(|d| d.state.is_active()).map(|d| &d.name)
    }

    /// Why no job of the server may begin now.
    pub(in crate::driver::agent) fn errand_busy(&self, word: &str) -> Option<Failure> {
        let run = self.help.errand.running.as_ref()?;
        let (name, kind) = (&self.me.name, run.kept.kind);
        Some(Failure::busy(format!(
            "cannot {word} {name}: its {kind} runs; wait for it (cat wait) or `echo cancel > ctl`"
        )))
    }

    /// Begins an evacuation or a restoration; the settings that it needs are in force.
    pub(in crate::driver::agent) fn begin_errand(&mut self, ticket: &Ticket, kind: JobKind) {
        let total = if kind == JobKind::Evacuate { self.here().count() } else { self.help.errand.away.len() };
        let follow = Vec::new();
        let kept = KeptErrand { id: ticket.id.clone(), kind, since: self.now.wall, total, follow };
        self.help.errand.running = Some(Running::new(kept, self.now.mono));
        self.keep();
        // a round for help is not needed any more, and one that offers help ends by itself
        if kind == JobKind::Evacuate && self.help.log.running_need() == Some(Need::Overload) {
            self.talk(talk::Input::Cancel);
        }
        self.errand_sampled();
        self.consider();
        self.beat_now();
    }

    /// Ends the job that runs where it is.
    pub(in crate::driver::agent) fn cancel_errand(&mut self) -> Result<String, Failure> {
        let name = self.me.name.clone();
        let Some(run) = &self.help.errand.running else {
            return Err(Failure::busy(format!("cannot cancel {name}: neither evacuate nor restore runs")));
        };
        let (kind, left) = (run.kept.kind, self.errand_left());
        let text = match kind {
            JobKind::Evacuate => format!("cancelled; {left} domains are still on it, and it accepts none"),
            _ => format!("cancelled; {left} domains have not come back; `restore` goes on with them"),
        };
        if matches!(self.help.log.running_need(), Some(Need::Evacuate)) {
            self.talk(talk::Input::Cancel);
        }
        self.end_errand(Err(Failure::busy(format!("cannot {kind} {name}: {text}"))));
        Ok(format!("{kind} of {name} {text}"))
    }

    fn end_errand(&mut self, result: Result<Box<str>, Failure>) {
        let Some(run) = self.help.errand.running.take() else { return };
        let KeptErrand { id, kind, .. } = run.kept;
        self.help.errand.last = Some(Box::new(Outcome { id, kind, at: self.now.wall, result }));
        self.keep();
        self.beat_now();
    }

    fn note(&mut self, note: String) {
        if let Some(run) = self.help.errand.running.as_mut().filter(|r| r.note != note) {
            run.note = note;
            self.beat_now();
        }
    }

    /// A whole sample was heard: who came home, and whether all is done.
    pub(super) fn errand_sampled(&mut self) {
        self.leaving_sampled();
        let before = self.help.errand.away.len();
        let home: Vec<DomainName> = self.here().cloned().collect();
        self.help.errand.away.retain(|name| !home.contains(name));
        if self.help.errand.away.len() < before {
            self.keep();
            if let Some(run) = &mut self.help.errand.running {
                run.progress = self.now.mono;
            }
            self.beat_now();
        }
        let Some(run) = &self.help.errand.running else { return };
        let (name, total) = (self.me.name.clone(), run.kept.total);
        if run.kept.kind == JobKind::Restore {
            if self.help.errand.away.is_empty() {
                self.end_errand(Ok(format!("{total} domains are back on {name}").into()));
            }
        } else if home.is_empty() && self.is_empty() {
            self.end_errand(Ok(format!("{name} is empty: {total} domains moved").into()));
        }
    }

    /// Nothing comes, nothing goes, and nothing was promised room before the server was closed.
    fn is_empty(&self) -> bool {
        self.works.values().all(|w| w.job.is_none())
            && self.records.iter().all(|d| d.state != DomainState::Incoming)
            && self.help.talk.reserved().next().is_none()
    }

    pub(super) fn errand_timers(&mut self) {
        let now = self.now.mono;
        let Some(run) = self.help.errand.running.as_mut().filter(|r| r.kept.kind == JobKind::Restore) else {
            return;
        };
        if now.since(run.progress) >= PATIENCE_MS {
            let away = &self.help.errand.away;
            let each = away.iter().map(|d| match run.refused.get(d) {
                Some(why) => format!("{d} ({why})"),
                None => format!("{d} (nobody offers it; domains/{d}/server tells where it is)"),
            });
            let each = each.collect::<Vec<_>>().join(", ");
            let name = &self.me.name;
            let text = format!("cannot restore all of {name}: not back are {each}; `restore` tries again");
            return self.end_errand(Err(Failure::new(Code::NoSpace, text)));
        }
        if run.recall <= now {
            run.recall = now.plus(RECALL_MS);
            let domains: Vec<DomainName> = self.help.errand.away.iter().take(RECALL_MAX).cloned().collect();
            if !domains.is_empty() {
                self.say(Say::Recall { domains });
            }
        }
    }

    /// The round that the job needs next.
    pub(super) fn errand_request(&mut self, host: &Host) -> Option<Request> {
        let held = self.leaving_holds();
        let run = self.help.errand.running.as_mut().filter(|r| r.kept.kind == JobKind::Evacuate)?;
        while let Some((domain, to)) = run.kept.follow.first() {
            let guest = host.guests.iter().find(|g| g.name == *domain);
            if guest.is_some_and(|g| !g.movable) {
                return None; // its job or command will end
            }
            if let Some(request) = self.help.engine.follow(host, domain, to) {
                return Some(request);
            }
            run.kept.follow.remove(0);
        }
        if held {
            return None;
        }
        let left: Vec<DomainName> = run.left.keys().cloned().collect();
        let request = self.help.engine.evacuate(host, &left, self.now.mono);
        if request.is_none() {
            self.only_stayers(host);
        }
        request
    }

    /// Nobody is left who may leave now: when nobody ever will, the evacuation has failed.
    fn only_stayers(&mut self, host: &Host) {
        let Some(run) = &self.help.errand.running else { return };
        let mut stay = Vec::new();
        for guest in &host.guests {
            let why = match run.left.get(&guest.name) {
                Some(why) => why.clone(),
                None => match self.help.engine.stays(host, guest, self.now.mono, Need::Evacuate) {
                    Some(stay) => stay.word().to_owned(),
                    None => return,
                },
            };
            if !guest.movable {
                return self.note(format!("{}: {why}", guest.name)); // its job will end
            }
            stay.push(format!("{} ({why})", guest.name));
        }
        if !stay.is_empty() {
            let (name, each) = (&self.me.name, stay.join(", "));
            let text = format!("cannot evacuate all of {name}: there stay {each}");
            self.end_errand(Err(Failure::new(Code::NoSpace, text)));
        }
    }

    /// A domain begins to leave.
    pub(super) fn errand_moves(&mut self, domain: &DomainName, to: &ServerName) {
        if self.help.log.running_need() != Some(Need::Evacuate) {
            return;
        }
        self.leaving_begins(domain, to);
        if let Some(run) = &mut self.help.errand.running {
            run.moving = true;
            run.note.clear();
        }
        self.beat_now();
    }

    /// A round of this server has ended.
    pub(super) fn errand_ended(&mut self, round: &RoundId, end: End) {
        let Some(round) = self.help.log.get(round).filter(|r| r.need == Need::Evacuate).cloned() else {
            return;
        };
        if let (End::Moved, Some(accepted)) = (end, &round.accepted) {
            self.leaving_gone(&accepted.domain);
        }
        let Some(run) = &mut self.help.errand.running else { return };
        run.moving = false;
        if !matches!(end, End::Moved | End::Cancelled) {
            let why = reasons(&round);
            let front = run.kept.follow.first();
            if front.is_some_and(|(d, _)| round.wishes.iter().any(|w| w.domain == *d)) {
                run.tries += 1;
                // a lost message is no refusal
                if run.tries >= TRIES || !round.refusals.is_empty() {
                    let (domain, to) = run.kept.follow.remove(0);
                    let why = format!("it stays together with those that went to {to}: {why}");
                    run.left.insert(domain, why);
                    run.tries = 0;
                    self.keep();
                }
            }
            self.note(why);
        }
        self.beat_now();
    }

    /// Another server asks; when it would give one of ours back and we cannot take it, that is worth a word.
    pub(super) fn errand_asked(&mut self, request: &Request) {
        if request.need != Need::Restore || request.only.as_ref() != Some(&self.me.name) {
            return;
        }
        let host = self.with_reserved(self.picture());
        let Err(why) = self.help.engine.offer(&host, request) else { return };
        let note = request.wishes.first().map(|w| (w.guest.name.clone(), why.to_string()));
        if let (Some((domain, why)), Some(run)) = (note, &mut self.help.errand.running) {
            let text = format!("{domain}: {why}");
            run.refused.insert(domain, why);
            self.note(text);
        }
    }
}

/// Why nobody took a domain.
fn reasons(round: &Round) -> String {
    let each: Vec<String> = round.refusals.iter().map(|r| format!("{}: {}", r.helper, r.why)).collect();
    match (each.is_empty(), &round.outcome) {
        (false, _) => each.join("; "),
        (true, Some(outcome)) => outcome.sentence.to_string(),
        (true, None) => "nobody offered".to_owned(),
    }
}
