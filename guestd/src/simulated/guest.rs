//! One guest that only reckons: the same [`Agent`] as a real one, over a machine that is simulated.

use super::{wishes::Wishes, work::Work};
use crate::agent::{Agent, Effect, Input, Settings};
use crate::builtin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use xvm_bus::{Incoming, Publisher, Receiver};
use xvm_model::guest::queue::End;
use xvm_model::guest::{GuestMemory, Loading, Pressure, Process};
use xvm_model::{Body, Domain, DomainName, DomainState, GuestBeat, Mono, Now, Ratio, Top, Topic, View};

/// Between two reckonings.
const STEP: Duration = Duration::from_millis(100);
/// So long after a change of what it wants the domain's record does not tell yet what it gets of it, in milliseconds.
const SETTLE_MS: u64 = 2_500;

/// A guest, as long as its domain is there.
pub(super) struct Guest {
    name: DomainName,
    interval_ms: u32,
    publisher: Publisher,
    agent: Agent,
    view: watch::Receiver<Arc<View>>,
    wanted: watch::Sender<Ratio>,
    wishes: Wishes,
    /// When that changed last.
    changed: Mono,
    born: Mono,
    work: Option<Work>,
    loading: Option<Ratio>,
    /// What happened meanwhile.
    ended: Option<End>,
    looked: Option<Option<Box<Top>>>,
}

impl Guest {
    /// The guest of the domain that `settings` name.
    pub(super) fn new(
        settings: Settings,
        publisher: Publisher,
        view: watch::Receiver<Arc<View>>,
        wanted: watch::Sender<Ratio>,
        wishes: Wishes,
    ) -> Self {
        let now = publisher.clock().now();
        Guest {
            name: settings.name.clone(),
            interval_ms: settings.interval_ms,
            agent: Agent::new(settings, publisher.boot(), now),
            publisher,
            view,
            wanted,
            wishes,
            changed: now.mono,
            born: now.mono,
            work: None,
            loading: None,
            ended: None,
            looked: None,
        }
    }

    /// Lives until the bus ends. While the domain does not run it neither hears nor speaks.
    pub(super) async fn live(mut self, mut receiver: Receiver) {
        let mut step = tokio::time::interval(STEP);
        step.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                _ = step.tick() => Input::Tick,
                incoming = receiver.recv() => match incoming {
                    None => return,
                    Some(Incoming::Link(link)) if link.is_up() => Input::Joined,
                    Some(Incoming::Message { envelope, .. }) => match envelope.body {
                        Body::Command(command) => Input::Command(command),
                        Body::RollCall => Input::Joined,
                        _ => Input::Tick,
                    },
                    Some(Incoming::Link(_) | Incoming::Flood(_) | Incoming::Forged(_)) => Input::Tick,
                },
            };
            let now = self.publisher.clock().now();
            let record = self.record(now.mono);
            let runs = record.as_ref().is_some_and(|d| d.state == DomainState::Running);
            let share = match &record {
                Some(record) if runs && self.work.is_some() => self.work_share(record, now.mono),
                _ => 0.0,
            };
            if let Some(work) = &mut self.work
                && let Some(end) = work.advance(share, now.mono)
            {
                self.work = None;
                self.ended = Some(end);
            }
            let Some(record) = record.filter(|_| runs) else { continue };
            self.step(input, &record, now);
            while let Some(input) = self.next() {
                self.step(input, &record, now);
            }
            self.want(record.vcpus.len(), now.mono);
        }
    }

    fn next(&mut self) -> Option<Input> {
        let ended = self.ended.take().map(Input::Ended);
        ended.or_else(|| self.looked.take().map(Input::Looked))
    }

    fn record(&self, now: Mono) -> Option<Arc<Domain>> {
        self.view.borrow().domain(self.name.as_str(), now).map(|d| d.domain)
    }

    fn step(&mut self, input: Input, record: &Domain, now: Now) {
        for effect in self.agent.step(input, now) {
            match effect {
                Effect::Publish(topic, body) => self.publisher.publish(topic, *body),
                Effect::Beat(loading) => {
                    let body = Body::Guest(Box::new(self.beat(record, loading, now.mono)));
                    self.publisher.publish(Topic::Guest(self.name.clone()), body);
                }
                Effect::Begin(program) => {
                    // `test`, its name, its arguments
                    let words: Vec<String> =
                        program.args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
                    match builtin::cost(&words) {
                        Ok(cost) => self.work = Some(Work::new(words.join(" "), cost, now.mono)),
                        Err((status, said)) => {
                            let output = format!("{said}\n").into();
                            self.ended =
                                Some(End { wall_ms: 0, cpu_ms: 0, status: Ok(status.into()), output });
                        }
                    }
                }
                Effect::Kill => self.ended = self.work.take().map(|w| w.killed()),
                Effect::Load(load) => self.loading = load.map(|(share, _)| share),
                Effect::Look { tell } => {
                    self.looked = Some(tell.then(|| Box::new(self.top(record, now))));
                }
            }
        }
    }

    /// Tells what it wants, when that is something else.
    fn want(&mut self, vcpus: usize, now: Mono) {
        let one = self.work.as_ref().map_or(0.0, |_| 1.0 / vcpus.max(1) as f64);
        let wanted = Ratio::new(one).max(self.loading.unwrap_or(Ratio::ZERO));
        let changed = self.wanted.send_if_modified(|old| {
            let differs = *old != wanted;
            *old = wanted;
            differs
        });
        if changed {
            self.changed = now;
            self.wishes.set(&self.name, wanted.get() * vcpus as f64);
        }
    }

    fn beat(&self, record: &Domain, loading: Option<Loading>, now: Mono) -> GuestBeat {
        let missing = self.wanted.borrow().get() - record.load.get();
        let steal = Ratio::new(if now.since(self.changed) < SETTLE_MS { 0.0 } else { missing.max(0.0) });
        let total = record.memory.current.max(1);
        let average = (self.wanted.borrow().get() * record.vcpus.len() as f64 * 100.0) as u32;
        GuestBeat {
            interval_ms: self.interval_ms,
            version: concat!(env!("CARGO_PKG_VERSION"), " (simulated)").into(),
            uptime: now.since(self.born) / 1000,
            cpus: u16::try_from(record.vcpus.len()).unwrap_or(u16::MAX),
            load: record.load,
            steal,
            average: [average; 3],
            pressure: Some(Pressure { cpu: steal, memory: Ratio::ZERO, io: Ratio::ZERO }),
            memory: GuestMemory { total, available: total / 2, swap: 0, swap_free: 0 },
            tests: builtin::TESTS.iter().map(|t| t.name.into()).collect(),
            loading,
        }
    }

    fn top(&self, record: &Domain, now: Now) -> Top {
        let process = |pid, cpu: f64, time_ms, command: &str| Process {
            pid,
            user: "root".into(),
            cpu: (cpu * 100.0) as u32,
            memory: 2_048,
            time_ms,
            command: command.into(),
        };
        let mut processes = Vec::new();
        let got = record.load.get() * record.vcpus.len() as f64;
        if let Some(work) = &self.work {
            let share = self.work_share(record, now.mono);
            processes.push(process(200, share, work.cpu_ms(), &format!("guestd test {}", work.line)));
        }
        if self.loading.is_some() {
            processes.push(process(201, got, 0, "guestd load"));
        }
        processes.push(process(1, 0.0, 500, "init"));
        processes.push(process(100, 0.0, 50, "guestd"));
        processes.sort_by_key(|p| std::cmp::Reverse(p.cpu));
        let total = processes.len() as u32;
        Top { at: now.wall, cpus: record.vcpus.len() as u16, load: record.load, total, processes }
    }

    /// The share of one CPU that a test gets: of what the domain gets, beside the load that was ordered.
    fn work_share(&self, record: &Domain, now: Mono) -> f64 {
        let vcpus = record.vcpus.len().max(1) as f64;
        let settled = now.since(self.changed) >= SETTLE_MS;
        let part = if settled {
            record.load.get()
        } else {
            self.wanted.borrow().get() * self.wishes.share(&self.name, &self.view.borrow(), now)
        };
        let beside = self.loading.map_or(0.0, Ratio::get);
        // one thread among as many as there are CPUs, each of which wants `beside` of one
        (part * vcpus / (1.0 + beside * vcpus)).min(1.0)
    }
}
