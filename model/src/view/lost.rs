//! Jobs of which nobody told the end: the agent that ran one was started anew, or does not come back. Whoever waits for the job must
//! not be told how an older one ended.

use super::View;
use super::tell::Telling;
use crate::{Code, DomainName, Failure, Job, Now, Outcome, ServerName};
use std::sync::Arc;

impl View {
    /// Gives an outcome to each job that was there before and is gone without one.
    pub(super) fn end_lost_jobs(&mut self, before: &[(DomainName, Option<Telling>)], now: Now) {
        for (name, old) in before {
            let Some(job) = old.as_ref().and_then(|o| o.job.as_ref()) else { continue };
            let Some(new) = self.telling_of(name, now) else { continue };
            let goes_on = new.job.is_some_and(|j| j.id == job.id);
            if !goes_on && new.last.as_ref() != Some(&job.id) {
                self.end_lost_job(name, job, now);
            }
        }
    }

    /// The server `dead` is down: when the domain is elsewhere by now, the job that it ran is told as lost.
    pub(super) fn end_job_of_the_dead(&mut self, dead: &ServerName, name: &DomainName, now: Now) {
        let record = self.servers.get(dead).and_then(|s| s.domain(name)).cloned();
        let elsewhere = self.domain(name.as_str(), now.mono).is_some_and(|d| d.server != *dead);
        if let Some(job) = record.as_ref().and_then(|d| d.job.as_ref()).filter(|_| elsewhere) {
            self.end_lost_job(name, job, now);
        }
    }

    fn end_lost_job(&mut self, name: &DomainName, job: &Job, now: Now) {
        let Some(view) = self.domain(name.as_str(), now.mono) else { return };
        let text = format!(
            "cannot tell how the {} of {name} ended: the agent that ran it was lost meanwhile; now it is {} on {}",
            job.kind, view.shown, view.server
        );
        let result = Err(Failure::new(Code::TimedOut, text));
        // in the time of that agent, so that whatever it tells of a later job is newer
        let outcome = Outcome { id: job.id.clone(), kind: job.kind, at: job.since, result };
        self.outcomes.insert(name.clone(), Arc::new(outcome));
    }
}
