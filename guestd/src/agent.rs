//! The guest's state and what follows from what happens: pure, without clock and processes.
//!
//! ```text
//!   orders, link, roll-calls, ends of tests, samples, time ──▶ Agent::step ──▶ effects: say, begin, kill, load, look
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | state, time, what is said when |
//! | `orders` | orders: at most once, checked, answered |

mod orders;

use crate::allowed::{Allowed, Program};
use orders::Ticket;
use xvm_model::guest::queue::{End, Queue};
use xvm_model::guest::{Loading, RunState};
use xvm_model::{
    Body, Boot, Command, DomainName, GuestRuns, Mono, Now, Ratio, Top, Topic, receipts::Receipts,
};

/// Tests that change by themselves are told so often at most, in milliseconds: receivers read 20 messages a second of a guest.
const PACE_MS: u64 = 100;
/// After the last change the tests are told once more, in milliseconds: the bus may have lost the first copy.
const TWICE_MS: u64 = 2_000;
/// While there are any, the tests are told so often, in milliseconds.
const REPEAT_MS: u64 = 60_000;
/// Between two samples of the processes, in milliseconds.
const TOP_MS: u64 = 1_000;
/// From the look that a first sample is compared with to that sample, in milliseconds.
const FIRST_TOP_MS: u64 = 150;
/// A cancel is answered when the test has ended, or after so long, in milliseconds.
const CANCEL_MS: u64 = 2_000;

/// What happens.
#[derive(Debug, Clone)]
pub enum Input {
    /// An order came.
    Command(Box<Command>),
    /// The forwarder is heard (again): what was said before is lost.
    Linked,
    /// Somebody joined.
    Joined,
    /// The test that ran has ended.
    Ended(End),
    /// The processes were looked at; they are here when they were to be told.
    Looked(Option<Box<Top>>),
    /// Time went on.
    Tick,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say this.
    Publish(Topic, Box<Body>),
    /// Say how the guest is, with the load that it makes.
    Beat(Option<Loading>),
    /// Start a test. Its end comes as [`Input::Ended`].
    Begin(Program),
    /// Kill the test that runs. Its end comes all the same.
    Kill,
    /// Load each CPU, for so many milliseconds; none ends it.
    Load(Option<(Ratio, u64)>),
    /// Look at the processes: to tell them, or that the next look has something to compare with. It ends with [`Input::Looked`].
    Look {
        /// Whether they are told.
        tell: bool,
    },
}

/// How the guest is told to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The domain.
    pub name: DomainName,
    /// Between two heartbeats, in milliseconds: 100 to 60,000.
    pub interval_ms: u32,
    /// Its tests.
    pub allowed: Allowed,
}

/// The state.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    receipts: Receipts,
    queue: Queue,
    /// The load that it makes, and until when.
    loading: Option<(Ratio, Mono)>,
    /// Until when its processes are read.
    watched: Mono,
    /// When they are looked at next, while they are read.
    next_top: Mono,
    /// They are being looked at.
    looking: bool,
    next_beat: Mono,
    /// When it last said how it is.
    told_beat: Option<Mono>,
    /// When the tests are told next; none when there are none.
    next_runs: Option<Mono>,
    /// When they were told last.
    told_runs: Option<Mono>,
    /// They have changed since then.
    untold: bool,
    /// Who waits for the end of a test that is killed: the answer, and how long to wait.
    ending: Vec<(Ticket, Box<str>, Mono)>,
    now: Now,
    effects: Vec<Effect>,
}

impl Agent {
    /// A guest in its life `boot`.
    pub fn new(settings: Settings, boot: Boot, now: Now) -> Self {
        Agent {
            settings,
            receipts: Receipts::new(boot),
            queue: Queue::default(),
            loading: None,
            watched: now.mono,
            next_top: now.mono,
            looking: false,
            next_beat: now.mono,
            told_beat: None,
            next_runs: None,
            told_runs: None,
            untold: false,
            ending: Vec::new(),
            now,
            effects: Vec::new(),
        }
    }

    /// What follows from `input`, in this order.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.now = now;
        match input {
            Input::Command(command) => self.command(*command),
            Input::Linked => {
                self.beat();
                if !self.queue.runs().runs.is_empty() {
                    self.tell_runs();
                }
            }
            Input::Joined => {
                let due = self.told_beat.map_or(now.mono, |told| told.plus(PACE_MS));
                self.next_beat = self.next_beat.min(due);
                if !self.queue.runs().runs.is_empty() {
                    self.tell_runs_soon();
                }
            }
            Input::Ended(end) => {
                self.queue.ended(end);
                self.begin();
                self.tell_runs_soon();
                self.answer_cancels(true);
            }
            Input::Looked(None) => {
                self.looking = false;
                self.next_top = now.mono.plus(FIRST_TOP_MS);
            }
            Input::Looked(Some(top)) => {
                self.looking = false;
                if self.is_watched() {
                    let topic = Topic::GuestTop(self.settings.name.clone());
                    self.publish(topic, Body::GuestTop(top));
                }
            }
            Input::Tick => {}
        }
        self.time();
        std::mem::take(&mut self.effects)
    }

    /// When the next [`Input::Tick`] is due.
    pub fn wake(&self) -> Mono {
        let top = (self.is_watched() && !self.looking).then_some(self.next_top);
        let load = self.loading.map(|(_, until)| until);
        let cancels = self.ending.iter().map(|(_, _, until)| *until);
        let all = [top, load, self.next_runs].into_iter().flatten().chain(cancels);
        all.fold(self.next_beat, Mono::min)
    }

    /// What is due.
    fn time(&mut self) {
        let now = self.now.mono;
        if self.loading.is_some_and(|(_, until)| until <= now) {
            self.loading = None;
            self.effects.push(Effect::Load(None));
            self.beat();
        }
        self.answer_cancels(false);
        if self.next_runs.is_some_and(|due| due <= now) {
            let changed = self.untold;
            self.tell_runs();
            if !changed {
                self.next_runs = Some(now.plus(REPEAT_MS));
            }
        }
        if self.is_watched() && !self.looking && self.next_top <= now {
            self.looking = true;
            self.next_top = now.plus(TOP_MS);
            self.effects.push(Effect::Look { tell: true });
        }
        if self.next_beat <= now {
            self.beat();
        }
    }

    fn is_watched(&self) -> bool {
        self.watched > self.now.mono
    }

    fn publish(&mut self, topic: Topic, body: Body) {
        self.effects.push(Effect::Publish(topic, Box::new(body)));
    }

    /// How the guest is; the next time counts from here.
    fn beat(&mut self) {
        self.told_beat = Some(self.now.mono);
        self.next_beat = self.now.mono.plus(u64::from(self.settings.interval_ms));
        let loading = self.loading.map(|(share, until)| {
            let left = until.since(self.now.mono).div_ceil(1000);
            Loading { share, left: u32::try_from(left).unwrap_or(u32::MAX) }
        });
        self.effects.push(Effect::Beat(loading));
    }

    /// All tests, now; they are told once more a little later.
    fn tell_runs(&mut self) {
        self.untold = false;
        self.told_runs = Some(self.now.mono);
        self.next_runs = Some(self.now.mono.plus(TWICE_MS));
        let topic = Topic::GuestReturn(self.settings.name.clone());
        let runs = self.runs();
        self.publish(topic, Body::GuestRuns(Box::new(runs)));
    }

    /// The tests changed by themselves, or somebody joined: they are told now, or as soon as the pace allows.
    fn tell_runs_soon(&mut self) {
        let due = self.told_runs.map_or(self.now.mono, |told| told.plus(PACE_MS));
        self.untold = true;
        self.next_runs = Some(due);
    }

    fn runs(&self) -> GuestRuns {
        self.queue.runs().clone()
    }

    /// Begins the test whose turn it is.
    fn begin(&mut self) {
        while let Some(line) = self.queue.begin(self.now.wall) {
            match self.settings.allowed.resolve(&line) {
                Ok(program) => return self.effects.push(Effect::Begin(program)),
                // it was resolved when it was ordered, so this does not come
                Err(why) => {
                    let status = Err(crate::machine::process::shown(&why, 200));
                    self.queue.ended(End { wall_ms: 0, cpu_ms: 0, status, output: "".into() });
                }
            }
        }
    }

    /// Answers those who wait for the end of a test: all when it has `ended`, else those who have waited long enough.
    fn answer_cancels(&mut self, ended: bool) {
        let now = self.now.mono;
        let is_over = |(_, _, until): &mut (Ticket, Box<str>, Mono)| ended || *until <= now;
        let over: Vec<_> = self.ending.extract_if(.., is_over).collect();
        if over.is_empty() {
            return;
        }
        self.tell_runs();
        for (ticket, text, _) in over {
            self.done(&ticket, &text);
        }
    }

    fn running_line(&self) -> Option<Box<str>> {
        self.queue.runs().runs.iter().find(|r| r.state == RunState::Running).map(|r| r.line.clone())
    }
}

#[cfg(test)]
mod tests;
