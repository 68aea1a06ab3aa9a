//! Samples each second, heartbeats, and whether the hypervisor is heard.
//!
//! ```text
//!            first sample                 a sample fails, takes 4 s, or Down
//!   silent ───────────────▶ heard ◀─────────────────────────────────────────▶ stale (heartbeats go on, with what was heard last)
//!                                              a sample succeeds
//! ```
//!
//! Nothing is said before the first answer: a heartbeat without domains would tell everybody that they are gone.

use super::Agent;
use crate::driver::step::{Effect, Id};
use crate::hypervisor::{Host, HvError, HvResult};
use xvm_model::{Body, Domain, DomainState, Heartbeat, Mono, Topic};

/// Milliseconds between two samples.
const SAMPLE_MS: u64 = 1000;
/// A sample that takes longer makes the hypervisor stale.
const ANSWER_MS: u64 = 4000;
/// Roll-calls are answered at most this often: 5 a second.
const ROLL_CALL_MS: u64 = 200;

/// A sample that is under way.
#[derive(Debug)]
struct Sampling {
    query: Id,
    since: Mono,
}

/// When to sample and to speak.
#[derive(Debug)]
pub(super) struct Beat {
    sampling: Option<Sampling>,
    next_sample: Mono,
    /// Why the hypervisor is not heard.
    stale: Option<Box<str>>,
    /// Answers to questions up to here do not mean that the hypervisor is heard again.
    lost: Id,
    /// None until the hypervisor answered, or did not, for the first time.
    next: Option<Mono>,
    last: Mono,
}

impl Beat {
    pub(super) fn new(now: Mono) -> Self {
        Beat { sampling: None, next_sample: now, stale: None, lost: Id(0), next: None, last: Mono(0) }
    }

    /// Asks for everything as soon as no sample is under way.
    pub(super) fn sample_soon(&mut self, now: Mono) {
        self.next_sample = self.next_sample.min(now);
    }

    /// Whether nothing was heard of the hypervisor yet, so that nothing may be told.
    pub(super) fn silent(&self) -> bool {
        self.next.is_none()
    }

    pub(super) fn wake(&self) -> Mono {
        let sample = match &self.sampling {
            None => self.next_sample,
            Some(s) if self.stale.is_none() => s.since.plus(ANSWER_MS),
            Some(_) => Mono(u64::MAX),
        };
        sample.min(self.next.unwrap_or(Mono(u64::MAX)))
    }
}

impl Agent {
    /// Why the hypervisor is not heard, when it is not.
    pub(super) fn stale(&self) -> Option<&str> {
        match self.beat.next {
            None => Some("it was not asked yet"),
            Some(_) => self.beat.stale.as_deref(),
        }
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            settings: self.settings,
            points: self.points.value(),
            hypervisor: self.me.hypervisor,
            cpu: self.host.cpu.clone(),
            address: self.me.address.clone(),
            stale: self.stale().map(Into::into),
            cpus: self.host.cpus.clone(),
            memory: self.host.memory,
            domains: self.all_shown(),
            job: self.errand_job(),
            last: self.errand_last(),
            departed: self.departed.told(),
        }
    }

    /// A heartbeat within this step.
    pub(super) fn beat_now(&mut self) {
        if self.beat.next.is_some() {
            self.beat.next = Some(self.now.mono);
        }
    }

    pub(super) fn roll_call(&mut self) {
        let soon = self.now.mono.max(self.beat.last.plus(ROLL_CALL_MS));
        self.beat.next = self.beat.next.map(|next| next.min(soon));
        self.help_roll_call(soon);
    }

    pub(super) fn hypervisor_down(&mut self, why: &str) {
        self.beat.lost = self.mark();
        self.set_stale(Some(why));
    }

    /// Questions that hang since before it was lost are given up; everything is asked anew.
    pub(super) fn hypervisor_up(&mut self) {
        self.beat.sampling = None;
        self.beat.sample_soon(self.now.mono);
        let names: Vec<_> = std::mem::take(&mut self.asking).into_keys().collect();
        for name in names {
            self.ask(&name);
        }
    }

    pub(super) fn sampled(&mut self, query: Id, host: HvResult<Host>, domains: HvResult<Vec<Domain>>) {
        if self.beat.sampling.as_ref().is_none_or(|s| s.query != query) {
            return; // given up when the hypervisor came back
        }
        self.beat.sampling = None;
        let mut heard_all = false;
        let failed: Option<HvError> = host.as_ref().err().or(domains.as_ref().err()).cloned();
        if let Ok(host) = host {
            self.host = host;
        }
        if let Ok(domains) = domains {
            let changed = self.records.all(query, domains);
            let mut names: Vec<_> = self.works.keys().cloned().collect();
            names.extend(changed.iter().filter(|n| !self.works.contains_key(*n)).cloned());
            for name in names {
                self.heard(&name, query, changed.contains(&name));
            }
            if failed.is_none() {
                let running = self.records.iter().filter(|d| d.state == DomainState::Running);
                self.points.sample(&self.settings.watchdog, &self.host.cpus, running);
                heard_all = true;
            }
        }
        match failed {
            Some(error) => self.set_stale(Some(&error.to_string())),
            None if query > self.beat.lost => self.set_stale(None),
            None => {}
        }
        if self.beat.next.is_none() {
            self.beat.next = Some(self.now.mono);
        }
        if heard_all {
            self.help_sampled();
            self.imported_sampled();
        }
    }

    /// Everybody learns at once that the hypervisor is heard or not.
    fn set_stale(&mut self, why: Option<&str>) {
        let why: Option<Box<str>> = why.map(|w| one_line(w, 200).into());
        if self.beat.stale.is_some() != why.is_some() || self.beat.next.is_none() {
            self.beat.next = Some(self.now.mono);
        }
        self.beat.stale = why;
    }

    pub(super) fn beat_timers(&mut self) {
        let now = self.now.mono;
        let late = self.beat.sampling.as_ref().is_some_and(|s| now.since(s.since) >= ANSWER_MS);
        if late && self.beat.stale.is_none() {
            // a late answer is still an answer: it ends this, see `sampled`
            self.set_stale(Some(&format!("the hypervisor has not answered for {} s", ANSWER_MS / 1000)));
        }
        if self.beat.sampling.is_none() && self.beat.next_sample <= now {
            let query = self.next_id();
            self.beat.sampling = Some(Sampling { query, since: now });
            // the grid is kept, so that a second is a second; what was missed is not made up for
            let next = self.beat.next_sample.plus(SAMPLE_MS);
            self.beat.next_sample = if next > now { next } else { now.plus(SAMPLE_MS) };
            self.out.push(Effect::Sample { query });
        }
        if self.beat.next.is_some_and(|next| next <= now) {
            self.beat.last = now;
            self.beat.next = Some(now.plus(u64::from(self.settings.heartbeat_ms)));
            let body = Body::Heartbeat(Box::new(self.heartbeat()));
            self.publish(Topic::Heartbeat(self.me.name.clone()), body);
        }
    }
}

/// The first `most` characters, on one line.
pub(super) fn one_line(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}
