//! Which events tell of imaged and of configs.

use super::ConfigView;
use crate::event::{About, Event, WRONG};
use crate::{Code, ConfigName, ConfigRecord, Failure, Lease, Now, Outcome, ServerName};
use std::sync::Arc;

impl ConfigView {
    /// What is known once `record` is applied. A job that is gone without an outcome was lost with the imaged that ran it: whoever
    /// waits for it must not be told how an older one ended.
    pub(super) fn after(before: Option<&Arc<ConfigView>>, record: ConfigRecord) -> Self {
        let lost = before.and_then(|before| {
            let vanished = before.record.job.as_ref().filter(|job| {
                record.job.as_ref().is_none_or(|j| j.id != job.id)
                    && record.last.as_ref().is_none_or(|o| o.id != job.id)
            });
            let Some(job) = vanished else { return before.lost.clone() };
            let text = format!(
                "cannot tell how the {} of {} ended: the imaged that ran it was lost meanwhile; now it is {}",
                job.kind, record.name, record.state
            );
            let result = Err(Failure::new(Code::TimedOut, text));
            // in the time of that imaged, so that whatever it tells of a later job is newer
            Some(Arc::new(Outcome { id: job.id.clone(), kind: job.kind, at: job.since, result }))
        });
        ConfigView { record, lost }
    }
}

/// What is different in `new`, a line each.
pub(super) fn changes(
    name: &ConfigName,
    old: Option<&Arc<ConfigView>>,
    new: Option<&Arc<ConfigView>>,
    now: Now,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut tell = |server: Option<&ServerName>, text: String| {
        // a sentence of others must not make a second line
        let text = text.replace(char::is_control, " ");
        events.push(Event {
            at: now.wall,
            about: About::Config(name.clone()),
            server: server.cloned(),
            text,
        });
    };
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) => return events,
        (old, new) => (old.map(|o| &**o), new.map(|n| &**n)),
    };
    let Some(now_is) = new else {
        if old.is_some() {
            tell(None, "gone".into());
        }
        return events;
    };
    let (was, is) = (old.map(|o| &o.record), &now_is.record);
    if was.is_none() {
        tell(None, format!("appeared: {}", is.state));
    }
    if let Some(job) = is.job.as_ref()
        && was.and_then(|w| w.job.as_ref()).is_none_or(|j| j.id != job.id)
    {
        let to = job.to.as_ref().map(|t| format!(" on {t}")).unwrap_or_default();
        tell(job.to.as_ref(), format!("job {}{to}", job.kind));
    }
    let none: &[Lease] = &[];
    let (before, after) = (was.map_or(none, |w| &w.leases), &is.leases[..]);
    let lacks = |all: &[Lease], l: &Lease| all.iter().all(|o| o.grant.stem() != l.grant.stem());
    for lease in after.iter().filter(|l| lacks(before, l)) {
        tell(Some(&lease.grant.server), format!("lease {} {}", lease.grant.server, lease.grant.epoch));
    }
    for lease in before.iter().filter(|l| lacks(after, l)) {
        tell(Some(&lease.grant.server), format!("lease {} {} ended", lease.grant.server, lease.grant.epoch));
    }
    if let Some(was) = was.filter(|w| w.state != is.state) {
        tell(None, format!("state {} (was {})", is.state, was.state));
    }
    match (was.and_then(|w| w.wrong.as_deref()), is.wrong.as_deref()) {
        (was, Some(why)) if was != Some(why) => tell(None, format!("{WRONG}{why}")),
        (Some(_), None) => tell(None, "no longer wrong".into()),
        _ => {}
    }
    // what ended before we knew the config is no news
    if let Some(last) = now_is.last().filter(|l| old.is_some_and(|o| o.last().is_none_or(|o| o.id != l.id))) {
        match &last.result {
            Ok(text) => tell(None, format!("done {}: {text}", last.kind)),
            Err(f) => tell(None, format!("failed {}: {} {}", last.kind, f.code, f.text)),
        }
    }
    events
}

/// `imaged up on kerby`
pub(super) fn imaged(name: &ServerName, what: &str, now: Now) -> Event {
    let text = format!("imaged {what} on {name}");
    Event { at: now.wall, about: About::Cluster, server: Some(name.clone()), text }
}

/// Somebody else says to be imaged.
pub(super) fn rival(first: &ServerName, other: &ServerName, now: Now) -> Event {
    let text =
        format!("imaged on {other} is not heeded: the one on {first} was heard first; stop one of them");
    Event { at: now.wall, about: About::Cluster, server: Some(other.clone()), text }
}
