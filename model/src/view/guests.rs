//! What guests say: which domains have a guestd that is heard, and the events of that.
//!
//! A guest is not trusted: it is known only as long as a server has its domain, so guests that nobody runs fill no memory.

use super::{Reach, View};
use crate::event::{About, Event};
use crate::{Body, DomainName, GuestBeat, GuestRuns, Mono, News, Now, PublicKey, Stamp, Wall};
use std::sync::Arc;

/// guestd of a domain as it was heard last.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The last message that was applied.
    pub stamp: Stamp,
    /// When that came, by our clocks.
    pub heard: Now,
    /// When its last message was said, by its own clock, which may be wrong.
    pub at: Wall,
    /// Its last heartbeat.
    pub beat: Arc<GuestBeat>,
    /// The tests that it remembers.
    pub runs: Arc<GuestRuns>,
    /// With which key its last message was signed; none: with none.
    key: Option<PublicKey>,
    /// Whether it was last told as heard.
    told: bool,
}

impl View {
    /// guestd of a domain, while it is heard: not when ten of its heartbeats are missing.
    pub fn guest(&self, name: &str, now: Mono) -> Option<&Arc<Guest>> {
        self.guests.get(name).filter(|g| self.hears(g, now))
    }

    /// The domains whose guestd is heard, sorted.
    pub fn guests(&self, now: Mono) -> impl Iterator<Item = &DomainName> {
        self.guests.iter().filter(move |(_, g)| self.hears(g, now)).map(|(name, _)| name)
    }

    /// How many guests are heard.
    pub fn guest_count(&self) -> usize {
        self.guests.values().filter(|g| g.told).count()
    }

    /// How well it is heard, see [`View::reach`]: never [`Reach::Maintenance`].
    pub fn guest_reach(&self, guest: &Guest, now: Mono) -> Reach {
        match self.missed(guest.heard.mono, guest.beat.interval_ms, now) {
            super::DOWN_AFTER.. if self.link_up() => Reach::Down,
            super::STALE_AFTER.. => Reach::Stale,
            _ => Reach::Up,
        }
    }

    /// The key with which a guest must sign; none: it need not.
    pub fn guest_key(&self, name: &str) -> Option<PublicKey> {
        self.config(name)?.record.guest_key
    }

    /// Forgets guests that were believed without the key that they are known to have now.
    pub(super) fn doubt_guests(&mut self) {
        let doubted = |name: &DomainName, g: &Guest| {
            let key = self.guest_key(name.as_str());
            key.is_some() && key != g.key
        };
        let all: Vec<DomainName> =
            self.guests.iter().filter(|(n, g)| doubted(n, g)).map(|(n, _)| n.clone()).collect();
        all.iter().for_each(|name| drop(self.guests.remove(name)));
    }

    fn hears(&self, guest: &Guest, now: Mono) -> bool {
        self.guest_reach(guest, now) != Reach::Down
    }

    /// What a guest says.
    pub(super) fn apply_guest(
        &mut self,
        name: DomainName,
        stamp: Stamp,
        at: Wall,
        body: Body,
        now: Now,
    ) -> Vec<Event> {
        let old = self.guests.get(&name).cloned();
        let newer = old
            .as_ref()
            .is_none_or(|g| stamp > g.stamp || stamp.boot < g.stamp.boot && !self.hears(g, now.mono));
        if !newer || !self.domains.contains_key(&name) {
            return Vec::new();
        }
        let (beat, runs) = match (body, &old) {
            (Body::Guest(beat), _) => (Some(beat), None),
            // known from its first heartbeat on, and so is each life of it
            (_, None) => return Vec::new(),
            (_, Some(old)) if old.stamp.boot != stamp.boot => return Vec::new(),
            (Body::GuestRuns(runs), _) => (None, Some(runs)),
            (Body::Reply(reply), _) => match reply.news {
                Some(News::Guest { runs }) => (None, Some(runs)),
                _ => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        let same_life = old.as_ref().filter(|o| o.stamp.boot == stamp.boot);
        let kept = same_life.map(|o| o.runs.clone()).unwrap_or_default();
        let (Some(beat), runs) = (
            beat.map(Arc::from).or_else(|| old.as_ref().map(|o| o.beat.clone())),
            runs.map_or(kept, Arc::from),
        ) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        let mut tell = |text: String| {
            let server = self.domain(name.as_str(), now.mono).map(|d| d.server);
            events.push(Event { at: now.wall, about: About::Domain(name.clone()), server, text });
        };
        match &old {
            Some(old) if old.stamp.boot != stamp.boot => tell("guest started anew".into()),
            Some(old) if old.told => {}
            _ => tell("guest up".into()),
        }
        if let Some(old) = same_life {
            run_events(&old.runs, &runs, &mut tell);
        }
        let key = self.guest_key(name.as_str());
        self.guests.insert(name, Arc::new(Guest { stamp, heard: now, at, beat, runs, key, told: true }));
        events
    }

    /// A guest says more than is read; what it says beyond that is dropped.
    pub fn guest_floods(&self, name: &DomainName, now: Now) -> Vec<Event> {
        let server = self.domain(name.as_str(), now.mono).map(|d| d.server);
        let text = "guest floods the bus: what it says too much is dropped".into();
        vec![Event { at: now.wall, about: About::Domain(name.clone()), server, text }]
    }

    /// Somebody speaks as a guest without its key; what it says is dropped.
    pub fn guest_forged(&self, name: &DomainName, now: Now) -> Vec<Event> {
        let server = self.domain(name.as_str(), now.mono).map(|d| d.server);
        let text = "guest is not believed: what comes under its name is not signed with its key".into();
        vec![Event { at: now.wall, about: About::Domain(name.clone()), server, text }]
    }

    /// Tells of guests that are not heard any more, and forgets those whose domain is gone.
    pub(super) fn guests_tick(&mut self, now: Now) -> Vec<Event> {
        let gone: Vec<DomainName> =
            self.guests.keys().filter(|n| !self.domains.contains_key(*n)).cloned().collect();
        gone.iter().for_each(|name| drop(self.guests.remove(name)));
        let silent: Vec<DomainName> = self
            .guests
            .iter()
            .filter(|(_, g)| g.told && !self.hears(g, now.mono))
            .map(|(name, _)| name.clone())
            .collect();
        let mut events = Vec::new();
        for name in silent {
            let server = self.domain(name.as_str(), now.mono).map(|d| d.server);
            if let Some(guest) = self.guests.get_mut(&name) {
                Arc::make_mut(guest).told = false;
            }
            events.push(Event {
                at: now.wall,
                about: About::Domain(name),
                server,
                text: "guest down".into(),
            });
        }
        events
    }
}

/// Tests that have ended meanwhile.
fn run_events(old: &GuestRuns, new: &GuestRuns, tell: &mut dyn FnMut(String)) {
    for run in new.runs.iter().filter(|r| r.state.is_over()) {
        let open = |r: &crate::Run| r.id == run.id && r.line == run.line && !r.state.is_over();
        if old.runs.iter().any(open) {
            let ms = run.wall_ms;
            // what a guest says must not look like another's event
            let line = run.line.replace(char::is_control, " ");
            tell(format!("guest run {} {line}: {}.{:03} s", run.state, ms / 1000, ms % 1000));
        }
    }
}
