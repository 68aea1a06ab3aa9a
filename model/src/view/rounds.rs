//! The rounds of help that servers tell of, and which events tell of their changes.
//!
//! A server says all rounds that it keeps each time, so the newest message is all that counts. Its place is among the other messages of
//! rounds, not among heartbeats: neither drops the other when they come in another order than they were said.

use super::{Thing, View};
use crate::event::{About, Event, word};
use crate::round::{Ending, KEPT, Round, Verdict};
use crate::{Mono, Now, ServerName, Stamp, Wall};
use std::sync::Arc;

/// What one server said last of its rounds.
#[derive(Debug, Clone)]
pub(super) struct Told {
    stamp: Stamp,
    heard: Mono,
    rounds: Vec<Arc<Round>>,
}

impl View {
    /// All rounds that are kept, by server, each server's latest last.
    pub fn rounds(&self) -> impl Iterator<Item = &Arc<Round>> {
        self.rounds.values().flat_map(|told| &told.rounds)
    }

    /// One round by its id.
    pub fn round(&self, id: &str) -> Option<&Arc<Round>> {
        let told = self.rounds.get(asker_of(id)?)?;
        told.rounds.iter().find(|r| *r.id == *id)
    }

    /// When a round changed last, by its asker's clock.
    pub fn round_changed(round: &Round) -> Wall {
        let accepted = round.accepted.as_ref().map_or(round.at, |a| a.at);
        round.outcome.as_ref().map_or(accepted, |o| o.at.max(accepted)).max(round.at)
    }

    /// How many rounds ended with each word of [`crate::round::End`] while this view listened.
    pub fn rounds_ended(&self) -> &[u64; crate::round::End::ALL.len()] {
        &self.ended
    }

    pub(super) fn hear_rounds(
        &mut self,
        server: ServerName,
        stamp: Stamp,
        at: Wall,
        mut said: Vec<Round>,
        now: Now,
    ) -> Vec<Event> {
        let old = self.rounds.get(&server).cloned();
        if old.as_ref().is_some_and(|old| !self.replaces(&server, stamp, old)) {
            return Vec::new();
        }
        // an id becomes the name of a directory
        said.retain(|r| r.asker == server && asker_of(&r.id) == Some(server.as_str()));
        said.drain(..said.len().saturating_sub(KEPT));
        let known = old.as_ref().map_or(&[][..], |old| &old.rounds);
        let mut rounds: Vec<Arc<Round>> = Vec::with_capacity(said.len());
        let mut events = Vec::new();
        for round in said {
            if rounds.iter().any(|r| r.id == round.id) {
                continue;
            }
            let before = known.iter().find(|r| r.id == round.id);
            if before.is_some() || !self.ended_before_we_joined(&round, at, now) {
                self.tell_round(before.map(|r| &**r), &round, now, &mut events);
            }
            if before.is_none() {
                self.remember(Thing::Round(round.id.clone()));
            }
            rounds.push(match before {
                Some(same) if **same == round => same.clone(),
                _ => Arc::new(round),
            });
        }
        for gone in known.iter().filter(|k| rounds.iter().all(|r| r.id != k.id)) {
            self.forget(&Thing::Round(gone.id.clone()));
        }
        self.rounds.insert(server, Arc::new(Told { stamp, heard: now.mono, rounds }));
        events
    }

    /// The newer one, or that of a life with a lower number (a clock that was set back) which by its heartbeats goes on.
    fn replaces(&self, server: &ServerName, stamp: Stamp, old: &Told) -> bool {
        let set_back = || {
            let server = self.servers.get(server);
            server.is_some_and(|s| s.stamp.boot == stamp.boot && s.heard.mono > old.heard)
        };
        stamp > old.stamp || stamp.boot < old.stamp.boot && set_back()
    }

    /// By the asker's clock alone: how long ago, when it said so, the round had ended.
    fn ended_before_we_joined(&self, round: &Round, said: Wall, now: Now) -> bool {
        let Some(ending) = &round.outcome else { return false };
        let age = said.0.saturating_sub(ending.at.0);
        self.joined.is_none_or(|joined| now.mono.since(joined) < age)
    }

    /// What is in `new` and was not in `old`, a line each, in the order in which it happens.
    fn tell_round(&mut self, old: Option<&Round>, new: &Round, now: Now, events: &mut Vec<Event>) {
        let about = About::Server(new.asker.clone());
        let mut tell = |text: String| {
            // a sentence of others must not make a second line
            let text = format!("help {} {}", new.id, text.replace(char::is_control, " "));
            events.push(Event { at: now.wall, about: about.clone(), server: None, text });
        };
        if old.is_none() {
            tell(format!("asks: {}", new.why));
        }
        let bid_of = |helper: &ServerName| old.and_then(|o| o.offers.iter().find(|b| b.helper == *helper));
        for bid in new.offers.iter().filter(|b| bid_of(&b.helper).is_none()) {
            let domain = word(bid.domain.as_str());
            tell(format!("offer {} {domain} projected {:.2}", bid.helper, bid.projected));
        }
        let refused =
            |helper: &ServerName| old.is_some_and(|o| o.refusals.iter().any(|r| r.helper == *helper));
        for refusal in new.refusals.iter().filter(|r| !refused(&r.helper)) {
            tell(format!("refused by {}: {}", refusal.helper, refusal.why));
        }
        if let Some(a) = new.accepted.as_ref().filter(|_| old.is_none_or(|o| o.accepted.is_none())) {
            tell(format!("accepts {} for {}", a.helper, word(a.domain.as_str())));
        }
        for bid in &new.offers {
            if let Verdict::Declined { why } = &bid.verdict
                && !bid_of(&bid.helper).is_some_and(|b| matches!(b.verdict, Verdict::Declined { .. }))
            {
                tell(format!("declined {}: {why}", bid.helper));
            }
        }
        if let Some(ending) = new.outcome.as_ref().filter(|_| old.is_none_or(|o| o.outcome.is_none())) {
            tell(format!("ended: {}", ending.sentence));
            self.count_end(ending);
        }
        if let Some(e) = new.effect.as_ref().filter(|_| old.is_none_or(|o| o.effect.is_none())) {
            tell(format!(
                "brought: load {:.2} (was {:.2}), points {} (was {})",
                e.after, e.before, e.points_after, e.points_before
            ));
        }
    }

    fn count_end(&mut self, ending: &Ending) {
        if let Some(n) = self.ended.get_mut(ending.end as usize) {
            *n += 1;
        }
    }
}

/// The server in a round's id, `SERVER.BOOT.NUMBER`; none when it is no such id.
fn asker_of(id: &str) -> Option<&str> {
    let (rest, number) = id.rsplit_once('.')?;
    let (server, boot) = rest.rsplit_once('.')?;
    let digits = |text: &str| (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    (digits(number) && digits(boot) && !server.is_empty()).then_some(server)
}
