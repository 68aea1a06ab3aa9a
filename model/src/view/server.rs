//! What is told of a server as a whole besides how well it is heard: its own jobs, and the cluster's balance.

use super::{Server, View};
use crate::event::{About, Event};
use crate::{Balance, Code, Failure, Heartbeat, Job, Now, Outcome, ServerName};
use std::sync::Arc;

/// Whoever joins hears what was decided before it came for so long, in milliseconds: that is no news.
const JOINING_MS: u64 = 3_000;

impl Server {
    /// How its last own job ended, an evacuation or a restoration.
    pub fn last(&self) -> Option<&Outcome> {
        match (self.beat.last.as_deref(), self.lost.as_deref()) {
            (Some(own), Some(lost)) if own.at >= lost.at => Some(own),
            (own, lost) => lost.or(own),
        }
    }

    /// Its last lost job, once `beat` is applied. Whoever waits for a job must not be told how an older one ended.
    pub(super) fn lost_job(&self, beat: &Heartbeat) -> Option<Arc<Outcome>> {
        let vanished = |job: &&Job| {
            beat.job.as_ref().is_none_or(|j| j.id != job.id)
                && beat.last.as_ref().is_none_or(|o| o.id != job.id)
        };
        let Some(job) = self.beat.job.as_deref().filter(vanished) else { return self.lost.clone() };
        let text = format!(
            "cannot tell how the {} of {} ended: the agent that ran it was lost meanwhile",
            job.kind, self.name
        );
        let result = Err(Failure::new(Code::TimedOut, text));
        Some(Arc::new(Outcome { id: job.id.clone(), kind: job.kind, at: job.since, result }))
    }
}

impl View {
    /// What the cluster was told about balancing, as of all its servers.
    pub fn balance(&self) -> Balance {
        let all = self.servers().map(|s| s.beat.settings.balance);
        all.reduce(|a, b| if b.wins(&a) { b } else { a }).unwrap_or_default()
    }

    /// What the heartbeat that was just applied to `name` changed.
    pub(super) fn server_events(&mut self, name: &ServerName, old: Option<&Server>, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(new) = self.servers.get(name).cloned() else { return events };
        if let Some(old) = old {
            let mut tell = |text: String| {
                let about = About::Server(name.clone());
                events.push(Event { at: now.wall, about, server: None, text });
            };
            let job = new.beat.job.as_ref();
            if let Some(job) = job.filter(|j| old.beat.job.as_ref().is_none_or(|o| o.id != j.id)) {
                tell(format!("job {}", job.kind));
            }
            if let Some(last) = new.last().filter(|l| old.last().is_none_or(|o| o.id != l.id)) {
                match &last.result {
                    Ok(text) => tell(format!("done {}: {text}", last.kind)),
                    Err(f) => tell(format!("failed {}: {} {}", last.kind, f.code, f.text)),
                }
            }
        }
        if old.is_none_or(|o| o.beat.settings.balance != new.beat.settings.balance) {
            events.extend(self.balance_event(old.is_none(), now));
        }
        events
    }

    fn balance_event(&mut self, first: bool, now: Now) -> Option<Event> {
        let mode = self.balance().mode;
        let was = self.balance.replace(mode).filter(|was| *was != mode)?;
        let joining = first && self.joined.is_none_or(|joined| now.mono.since(joined) < JOINING_MS);
        let text = format!("balance {mode} (was {was})");
        (!joining).then_some(Event { at: now.wall, about: About::Cluster, server: None, text })
    }
}
