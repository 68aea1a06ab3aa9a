//! Domains that left by migration. Heartbeats say so for a minute, so that nobody misses how the job ended nor where the domain is.

use xvm_model::{Departed, DomainName, Mono};

/// How long a departure is told, in milliseconds.
const TOLD_MS: u64 = 60_000;
/// The most departures that are told; an evacuation of more forgets the oldest.
const MOST: usize = 1000;

/// Who left, and until when it is told; the oldest first.
#[derive(Debug, Default)]
pub(super) struct List(Vec<(Mono, Departed)>);

impl List {
    /// A domain left.
    pub(super) fn add(&mut self, departed: Departed, now: Mono) {
        self.returned(&departed.domain.name);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push((now.plus(TOLD_MS), departed));
    }

    /// A domain is here (again): that it left is not the last word any more.
    pub(super) fn returned(&mut self, name: &DomainName) {
        self.0.retain(|(_, d)| d.domain.name != *name);
    }

    /// Forgets who left more than a minute ago.
    pub(super) fn expire(&mut self, now: Mono) {
        self.0.retain(|(until, _)| *until > now);
    }

    /// When the next departure is to be forgotten.
    pub(super) fn wake(&self) -> Option<Mono> {
        self.0.first().map(|(until, _)| *until)
    }

    /// For a heartbeat.
    pub(super) fn told(&self) -> Vec<Departed> {
        self.0.iter().map(|(_, d)| d.clone()).collect()
    }
}
