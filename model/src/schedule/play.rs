//! A schedule that is carried out.
//!
//! ```text
//!             its time comes       one a domain at a time         the guest takes it        the guest says how it ended
//!   (planned) ─────────────▶ waiting ───────────────▶ ordered ───────────────▶ running ───────────────▶ done, failed, cancelled
//!                 │             │ cancelled              │ refused                │ guestd started anew, not heard for a minute,
//!                 │ no guest    ▼                        ▼                        ▼ or it has forgotten the test
//!                 └▶ failed   cancelled               failed                   unknown
//! ```
//! Every test ends in one row. One is ordered once and never again: what became of an order that was not answered is unknown.

use super::{Planned, Schedule, TASKS_MAX};
use crate::domain::words;
use crate::{Boot, Code, DomainName, Failure, GuestRuns, Mono, Now, RunState, ServerName, Wall};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How long a guest may not be heard while a test of it runs, in milliseconds: it may be moving, or paused.
pub const SILENCE_MS: u64 = 60_000;
/// How long a guest may say nothing of a test that it has taken, in milliseconds.
pub const UNTOLD_MS: u64 = 10_000;

words! {
    /// What became of one test.
    TaskState {
        /// Others run before it in its guest.
        Waiting = "waiting",
        /// The guest was told.
        Ordered = "ordered",
        /// The guest has it.
        Running = "running",
        /// It ended by itself with status 0.
        Done = "done",
        /// It could not be ordered, or ended otherwise.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

words! {
    /// How far a schedule is.
    PlayState {
        /// Tests run or wait.
        Running = "running",
        /// All have ended.
        Done = "done",
        /// It was cancelled, and all have ended.
        Cancelled = "cancelled",
        /// Who carried it out has gone meanwhile.
        Interrupted = "interrupted",
    }
}

impl TaskState {
    /// Whether it is over.
    pub fn is_over(self) -> bool {
        !matches!(self, TaskState::Waiting | TaskState::Ordered | TaskState::Running)
    }
}

/// One test in one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// When it was to be ordered, in milliseconds from the start.
    pub at_ms: u64,
    /// Where: a domain, or the pattern when no guest was called so.
    pub domain: Box<str>,
    /// The test with its arguments.
    pub test: Box<str>,
    /// What became of it.
    pub state: TaskState,
    /// When it was ordered, by our clock.
    pub begun: Option<Wall>,
    /// Where its domain was then.
    pub from: Option<ServerName>,
    /// Where its domain was at the end.
    pub to: Option<ServerName>,
    /// How long it took, in milliseconds, as the guest says.
    pub wall_ms: u64,
    /// Its CPU time, in milliseconds.
    pub cpu_ms: u64,
    /// From the time that the schedule names until we knew that it ended, in milliseconds.
    pub total_ms: u64,
    /// Its exit status, when it has one.
    pub status: Option<i32>,
    /// Why it has none.
    pub why: Option<Box<str>>,
    /// The order's id, once the guest has taken it.
    pub id: Option<Box<str>>,
    /// What is known of it while it runs.
    #[serde(skip)]
    watch: Watch,
}

/// What is remembered of a test that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Watch {
    /// The guest's life that took it.
    boot: Option<Boot>,
    /// Since when the guest is silent, or says nothing of it.
    silent: Option<Mono>,
    /// It was told to end it.
    ended: bool,
}

/// A schedule that is or was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Play {
    /// How far it is.
    pub state: PlayState,
    /// When it began.
    pub started: Wall,
    /// How long it took, or takes until now, in milliseconds.
    pub took_ms: u64,
    /// Whether servers helped each other when it began: `on`, `off`, `dry-run`.
    pub balance: Box<str>,
    /// How many domains moved meanwhile.
    pub moves: u64,
    /// Its tests, in the order in which their time came.
    pub tasks: Vec<Task>,
    /// The lines whose time is still to come.
    #[serde(skip)]
    ahead: Vec<Planned>,
    #[serde(skip)]
    begun: Mono,
    #[serde(skip)]
    moves_before: u64,
    #[serde(skip)]
    stopped: bool,
}

/// What a schedule sees of the cluster.
pub trait Guests {
    /// The domains whose guestd is heard, sorted.
    fn heard(&self) -> Vec<DomainName>;
    /// The server of a domain.
    fn server(&self, domain: &str) -> Option<ServerName>;
    /// The life of a guest, and the tests that it remembers; none while it is not heard.
    fn runs(&self, domain: &str) -> Option<(Boot, Arc<GuestRuns>)>;
    /// Moves of domains until now.
    fn moves(&self) -> u64;
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Order a test; the answer goes to [`Play::answered`].
    Run {
        /// Its place in [`Play::tasks`].
        task: usize,
        /// Where.
        domain: DomainName,
        /// The test with its arguments.
        test: Box<str>,
    },
    /// End what runs in a domain.
    Cancel {
        /// Where.
        domain: DomainName,
    },
}

impl Play {
    /// Begins; `balance` is the word of whether servers help each other.
    pub fn start(schedule: Schedule, balance: &str, guests: &dyn Guests, now: Now) -> Play {
        Play {
            state: PlayState::Running,
            started: now.wall,
            took_ms: 0,
            balance: balance.into(),
            moves: 0,
            tasks: Vec::new(),
            ahead: schedule.lines,
            begun: now.mono,
            moves_before: guests.moves(),
            stopped: false,
        }
    }

    /// Whether tests run or wait.
    pub fn is_running(&self) -> bool {
        self.state == PlayState::Running
    }

    /// What is to be done now.
    pub fn step(&mut self, guests: &dyn Guests, now: Now) -> Vec<Effect> {
        if !self.is_running() {
            return Vec::new();
        }
        self.took_ms = now.mono.since(self.begun);
        self.moves = guests.moves().saturating_sub(self.moves_before);
        let due = self.ahead.iter().take_while(|l| l.at_ms <= self.took_ms).count();
        let lines: Vec<Planned> = self.ahead.drain(..due).collect();
        lines.into_iter().for_each(|line| self.plan(line, guests));
        let mut effects = Vec::new();
        let mut busy = BTreeSet::new();
        let took = self.took_ms;
        for (i, task) in self.tasks.iter_mut().enumerate().filter(|(_, t)| !t.state.is_over()) {
            let first = busy.insert(task.domain.clone());
            // it was checked when it was planned
            let Ok(domain) = DomainName::parse(&task.domain) else { continue };
            match task.state {
                TaskState::Waiting if first => {
                    task.state = TaskState::Ordered;
                    task.begun = Some(now.wall);
                    task.from = guests.server(&task.domain);
                    effects.push(Effect::Run { task: i, domain, test: task.test.clone() });
                }
                TaskState::Running => {
                    task.watch(guests, now, took);
                    if task.state == TaskState::Running && task.watch.ended && task.watch.silent.is_none() {
                        task.watch.ended = false;
                        effects.push(Effect::Cancel { domain });
                    }
                }
                _ => {}
            }
        }
        if self.ahead.is_empty() && self.tasks.iter().all(|t| t.state.is_over()) {
            self.state = if self.stopped { PlayState::Cancelled } else { PlayState::Done };
        }
        effects
    }

    /// What a guest said to an order: the order's id, or why it does not take it.
    pub fn answered(
        &mut self,
        task: usize,
        answer: Result<Box<str>, Failure>,
        guests: &dyn Guests,
        now: Now,
    ) {
        let took = now.mono.since(self.begun);
        let Some(task) = self.tasks.get_mut(task).filter(|t| t.state == TaskState::Ordered) else { return };
        match answer {
            Ok(id) => {
                task.id = Some(id);
                task.state = TaskState::Running;
                task.watch.boot = guests.runs(&task.domain).map(|(boot, _)| boot);
            }
            Err(failure) => {
                let state = match failure.code {
                    Code::TimedOut => TaskState::Unknown,
                    _ if task.watch.ended => TaskState::Cancelled,
                    _ => TaskState::Failed,
                };
                task.end(state, Some(failure.text.into()), guests, took);
            }
        }
    }

    /// Orders nothing more, and ends what runs; whether there was something to cancel.
    pub fn cancel(&mut self) -> bool {
        if !self.is_running() {
            return false;
        }
        self.ahead.clear();
        self.stopped = true;
        for task in &mut self.tasks {
            match task.state {
                TaskState::Waiting => task.state = TaskState::Cancelled,
                TaskState::Ordered | TaskState::Running => task.watch.ended = true,
                _ => {}
            }
        }
        true
    }

    /// Milliseconds until something is due by the clock alone; none when nothing is.
    pub fn next(&self, now: Now) -> Option<u64> {
        let took = now.mono.since(self.begun);
        self.ahead.first().filter(|_| self.is_running()).map(|l| l.at_ms.saturating_sub(took))
    }

    /// Nobody carries it out any more: what had not ended is unknown.
    pub fn interrupt(&mut self) {
        if !self.is_running() {
            return;
        }
        self.state = PlayState::Interrupted;
        for task in self.tasks.iter_mut().filter(|t| !t.state.is_over()) {
            let was = std::mem::replace(&mut task.state, TaskState::Unknown);
            task.why = Some(match was {
                TaskState::Waiting => "the mount ended before it was ordered".into(),
                _ => "the mount ended while it ran".into(),
            });
        }
    }

    /// A task for each domain that a line names.
    fn plan(&mut self, line: Planned, guests: &dyn Guests) {
        let pattern = line.domains.as_str();
        let mut domains: Vec<DomainName> = guests.heard();
        domains.retain(|d| line.domains.matches(d.as_str()) || d.as_str() == pattern);
        let room = TASKS_MAX.saturating_sub(self.tasks.len());
        if domains.is_empty() || domains.len() > room {
            let why = match domains.len() {
                0 => format!("no guestd is heard in a domain that {pattern:?} names"),
                n => format!(
                    "{pattern:?} names {n} domains, and there is room for {room} of {TASKS_MAX} tests"
                ),
            };
            self.tasks.push(Task { why: Some(why.into()), ..Task::new(&line, pattern, TaskState::Failed) });
            return;
        }
        let tasks = domains.iter().map(|d| Task::new(&line, d.as_str(), TaskState::Waiting));
        self.tasks.extend(tasks);
    }
}

impl Task {
    fn new(line: &Planned, domain: &str, state: TaskState) -> Task {
        Task {
            at_ms: line.at_ms,
            domain: domain.into(),
            test: line.test.clone(),
            state,
            begun: None,
            from: None,
            to: None,
            wall_ms: 0,
            cpu_ms: 0,
            total_ms: 0,
            status: None,
            why: None,
            id: None,
            watch: Watch::default(),
        }
    }

    /// Looks what the guest says of it while it runs.
    fn watch(&mut self, guests: &dyn Guests, now: Now, took: u64) {
        let Some((boot, runs)) = guests.runs(&self.domain) else {
            let since = *self.watch.silent.get_or_insert(now.mono);
            if now.mono.since(since) >= SILENCE_MS {
                let why = format!("its guestd was not heard for {} s", SILENCE_MS / 1000);
                self.end(TaskState::Unknown, Some(why.into()), guests, took);
            }
            return;
        };
        if *self.watch.boot.get_or_insert(boot) != boot {
            return self.end(TaskState::Unknown, Some("its guestd was started anew".into()), guests, took);
        }
        let id = self.id.as_deref().unwrap_or_default();
        let Some(run) = runs.runs.iter().find(|r| &*r.id == id && r.line == self.test) else {
            let since = *self.watch.silent.get_or_insert(now.mono);
            if now.mono.since(since) >= UNTOLD_MS {
                let why = "its guestd has forgotten it";
                self.end(TaskState::Unknown, Some(why.into()), guests, took);
            }
            return;
        };
        self.watch.silent = None;
        (self.wall_ms, self.cpu_ms, self.status) = (run.wall_ms, run.cpu_ms, run.status);
        let state = match run.state {
            RunState::Waiting | RunState::Running => return,
            RunState::Done => TaskState::Done,
            RunState::Failed => TaskState::Failed,
            RunState::Cancelled => TaskState::Cancelled,
        };
        self.end(state, run.why.clone(), guests, took);
    }

    fn end(&mut self, state: TaskState, why: Option<Box<str>>, guests: &dyn Guests, took: u64) {
        self.state = state;
        self.why = why;
        self.to = guests.server(&self.domain);
        self.total_ms = took.saturating_sub(self.at_ms);
    }
}

#[cfg(test)]
mod tests;
