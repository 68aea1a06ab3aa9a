//! Whether libvirt is heard, and the stream of [`HvEvent`]s.
//!
//! ```text
//!   not tried ──▶ up ◀──▶ down (no connection, or statistics overdue)
//! ```
//!
//! Libvirt's callbacks only leave a name here and never wait: a thread hands the names on, each once however often it was left. So
//! memory is bounded by the number of domains however slow the receiver is.

use crate::hypervisor::HvEvent;
use std::{
    collections::{HashSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;
use xvm_model::DomainName;

/// How often overdue calls are looked for.
const TURN: Duration = Duration::from_millis(100);

struct State {
    /// Why there is no connection for events; none when there is one.
    link: Option<String>,
    /// Whether a connection was tried at all; nothing is told before.
    tried: bool,
    /// Counts connections, so that a short break is told too.
    epoch: u64,
    /// Which connection was told as up; 0 when down was told last.
    told: Option<u64>,
    /// Names that changed, in the order in which they did.
    queue: VecDeque<DomainName>,
    /// The same names, to find one fast.
    queued: HashSet<DomainName>,
    /// The statistics' own trouble.
    overdue: Option<String>,
    closed: bool,
}

/// See above.
pub struct News {
    state: Mutex<State>,
    wake: Condvar,
}

impl Default for News {
    /// Before the first try to connect.
    fn default() -> Self {
        let state = State {
            link: Some("libvirt was not reached yet".into()),
            tried: false,
            epoch: 0,
            told: None,
            queue: VecDeque::new(),
            queued: HashSet::new(),
            overdue: None,
            closed: false,
        };
        News { state: Mutex::new(state), wake: Condvar::new() }
    }
}

impl News {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why libvirt is not heard; none when it is. Overdue statistics are the statistics' concern: other calls are still tried.
    pub fn down(&self) -> Option<String> {
        self.lock().link.clone()
    }

    /// A connection is there.
    pub fn linked(&self) {
        let mut state = self.lock();
        (state.link, state.tried) = (None, true);
        state.epoch += 1;
        self.wake.notify_all();
    }

    /// A connection broke or could not be made.
    pub fn unlinked(&self, why: String) {
        let mut state = self.lock();
        (state.link, state.tried) = (Some(why), true);
        self.wake.notify_all();
    }

    /// A domain changed.
    pub fn changed(&self, name: DomainName) {
        let mut state = self.lock();
        if state.queued.insert(name.clone()) {
            state.queue.push_back(name);
            self.wake.notify_all();
        }
    }

    /// Ends all threads that wait here.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Waits at most `time`; true when it is closed.
    pub fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let (state, _) =
            self.wake.wait_timeout_while(state, time, |s| !s.closed).unwrap_or_else(PoisonError::into_inner);
        state.closed
    }

    fn next(&self, overdue: &dyn Fn() -> Option<String>) -> Option<HvEvent> {
        loop {
            let late = overdue();
            let mut state = self.lock();
            if state.closed {
                return None;
            }
            state.overdue = late;
            if let Some(event) = state.event() {
                return Some(event);
            }
            drop(self.wake.wait_timeout(state, TURN));
        }
    }

    /// Hands news to `to` until closed; `overdue` says what of the statistics is overdue.
    pub fn pump(&self, to: &mpsc::Sender<HvEvent>, overdue: &dyn Fn() -> Option<String>) {
        while let Some(mut event) = self.next(overdue) {
            while let Err(mpsc::error::TrySendError::Full(back)) = to.try_send(event) {
                event = back;
                if self.pause(Duration::from_millis(5)) {
                    return;
                }
            }
        }
    }
}

impl State {
    /// The next one. Whether libvirt is there is the first of all: a domain's change is kept until that is known.
    fn event(&mut self) -> Option<HvEvent> {
        if !self.tried {
            return None;
        }
        let why = self.link.as_ref().or(self.overdue.as_ref());
        match (why, self.told) {
            (Some(why), told) if told != Some(0) => {
                self.told = Some(0);
                return Some(HvEvent::Down(why.clone()));
            }
            (None, told) if told != Some(self.epoch) => {
                self.told = Some(self.epoch);
                return Some(HvEvent::Up);
            }
            _ => {}
        }
        let name = self.queue.pop_front()?;
        self.queued.remove(&name);
        Some(HvEvent::Changed(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_once_and_health_first() {
        let (news, name) = (News::default(), |n: &str| DomainName::parse(n).expect("valid"));
        let take = |late: Option<&str>| {
            let mut state = news.lock();
            state.overdue = late.map(str::to_owned);
            state.event()
        };
        news.changed(name("early"));
        assert_eq!(take(None), None);
        news.unlinked("no".into());
        assert_eq!(take(None), Some(HvEvent::Down("no".into())));
        assert_eq!(take(None), Some(HvEvent::Changed(name("early"))));
        assert_eq!(take(None), None);
        news.changed(name("b"));
        news.changed(name("a"));
        news.changed(name("b"));
        news.linked();
        assert_eq!(take(None), Some(HvEvent::Up));
        assert_eq!(take(Some("late")), Some(HvEvent::Down("late".into())));
        assert_eq!(take(None), Some(HvEvent::Up));
        assert_eq!(take(None), Some(HvEvent::Changed(name("b"))));
        assert_eq!(take(None), Some(HvEvent::Changed(name("a"))));
        assert_eq!(take(None), None);
        news.linked(); // a break that was too short to be seen
        assert_eq!(take(None), Some(HvEvent::Up));
    }
}
