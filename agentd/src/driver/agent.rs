//! The agent of one server as a pure value: [`Agent::step`] takes an input and gives effects; it has no clock, no task, no I/O.
//!
//! ```text
//!                        ┌ refused: Failed
//!   order ── receipts ── check ── short ─▶ Working ─▶ call ─▶ ask the domain ─▶ Done | Failed (judged by what the domain IS)
//!             │ (once)      │                            └── 4 s ──▶ Failed ETIMEDOUT; the slot is free when the call ends
//!             │             └── job ───▶ Accepted ─▶ job in the record ─▶ ... ─▶ outcome in `last`
//!             └ a known id: the same answer again, with fresh news
//!
//!   start     begin ── call ends ─▶ ask the domain ─▶ outcome
//!   create    fetch (what it boots from) ─▶ import (its disks, where the hypervisor does not open them) ─▶ begin ─▶ as start
//!   reboot    begin ── call ends ─▶ outcome
//!   shutdown  wait  ── asked every 3 s ─▶ it is off: done | 120 s: failed | cancel
//!   migrate   lease (made from a config: imaged lends it to the destination too) ─▶ begin
//!                 ─▶ copy ─▶ switch ─▶ ask (both hypervisors) ─▶ departed | failed
//! ```
//!
//! | file | what |
//! |---|---|
//! | `commands` | orders: once, checked, answered |
//! | `shorts` | commands that end within 4 s |
//! | `jobs` | commands that go on |
//! | `create` | domains that are made from a config |
//! | `prepare` | what domains boot from: for one that is about to come, and for all |
//! | `imported` | devices that are made of exports: who uses them |
//! | `lease` | a second lease for a migration |
//! | `migration` | where a domain is after its migration: both hypervisors are asked |
//! | `resume` | domains that stand still because their disk did not answer |
//! | `beat` | samples, heartbeats, whether the hypervisor is heard |
//! | `settings` | what users set of the server |
//! | `help` | rounds of help, evacuate and restore |
//! | `departed` | domains that left, told for a minute |

mod beat;
mod commands;
mod create;
mod departed;
mod help;
mod imported;
mod jobs;
mod lease;
mod migration;
mod prepare;
mod resume;
mod settings;
mod shorts;
#[cfg(test)]
mod tests;

pub(crate) use settings::check as check_settings;

use super::kept::Kept;
use super::records::Records;
use super::step::{Effect, Id, Input, Op};
use crate::hypervisor::{Host, HvEvent, HvResult};
use std::collections::{BTreeMap, VecDeque};
use xvm_model::receipts::Receipts;
use xvm_model::{
    Body, Boot, Domain, DomainChange, DomainName, HypervisorKind, Mono, Now, Outcome, Points, ServerName,
    ServerSettings, Topic,
};

/// The most domains that are asked for one by one at a time; beyond it one sample asks for all.
const ASKS: usize = 64;

/// Who an agent is; does not change while it lives.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The server's name.
    pub name: ServerName,
    /// The agent's life; orders to another are refused.
    pub boot: Boot,
    /// Its hypervisor.
    pub hypervisor: HypervisorKind,
    /// Where other hypervisors reach it.
    pub address: Box<str>,
    /// Whether it needs devices made of exports.
    pub imports: bool,
}

/// What goes on with a domain, apart from what its hypervisor says of it.
#[derive(Debug, Default)]
struct Work {
    /// The short command that is under way.
    short: Option<shorts::Short>,
    /// The job that runs.
    job: Option<jobs::Running>,
    /// How the last job ended.
    last: Option<Box<Outcome>>,
}

/// A question for one domain that is under way.
#[derive(Debug)]
struct Asking {
    query: Id,
    /// Something happened since it began: ask once more when it ends.
    again: bool,
}

/// The state of one server's agent.
#[derive(Debug)]
pub struct Agent {
    /// Who we are.
    me: Identity,
    /// What users set.
    settings: ServerSettings,
    /// Orders to the server whose settings are being saved.
    saving: VecDeque<settings::Saving>,
    /// The overload counter.
    points: Points,
    /// Rounds of help.
    help: help::Help,
    /// The machine as it was heard last.
    host: Host,
    /// Whether the hypervisor is heard, samples and heartbeats.
    beat: beat::Beat,
    /// What the hypervisor says.
    records: Records,
    /// What goes on.
    works: BTreeMap<DomainName, Work>,
    /// Questions for one domain that are under way.
    asking: BTreeMap<DomainName, Asking>,
    /// Who left.
    departed: departed::List,
    /// Domains that are about to come, and the order to look after what they boot from.
    prepare: prepare::State,
    /// Devices that are made of exports.
    imported: imported::State,
    /// Domains that stand still because their disk did not answer.
    resume: resume::State,
    /// Which orders were seen, and how they were answered.
    receipts: Receipts,
    /// The last number given to a query or an operation.
    ids: u64,
    /// The time of this step.
    now: Now,
    /// The effects of this step.
    out: Vec<Effect>,
}

impl Agent {
    /// An agent that knows nothing yet but what its last life left, if there was one; its first effects come with its first step.
    pub fn new(
        me: Identity,
        settings: ServerSettings,
        kept: Option<Kept>,
        receipts: Receipts,
        now: Now,
    ) -> Self {
        let first = kept.is_none();
        let help = help::Help::new(&me.name, me.boot.0, &settings, kept.unwrap_or_default(), first, now);
        Agent {
            help,
            me,
            settings,
            saving: VecDeque::new(),
            points: Points::default(),
            host: Host::default(),
            beat: beat::Beat::new(now.mono),
            records: Records::default(),
            works: BTreeMap::new(),
            asking: BTreeMap::new(),
            departed: departed::List::default(),
            prepare: prepare::State::default(),
            imported: imported::State::default(),
            resume: resume::State::default(),
            receipts,
            ids: 0,
            now,
            out: Vec::new(),
        }
    }

    /// Takes one input; gives what is to be done now, in this order.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.now = now;
        match input {
            Input::Command(command) => self.command(*command),
            Input::RollCall => self.roll_call(),
            Input::Link(up) => {
                if up {
                    self.beat_now();
                }
                self.help_link(up);
            }
            Input::Watchdog { from, say } => self.help_heard(from, *say),
            Input::News(HvEvent::Changed(name)) => self.ask(&name),
            Input::News(HvEvent::Up) => self.hypervisor_up(),
            Input::News(HvEvent::Down(why)) => self.hypervisor_down(&why),
            Input::Sampled { query, host, domains } => self.sampled(query, host, domains),
            Input::Asked { query, name, result } => self.asked(query, &name, result),
            Input::Located { query, name, result } => self.located(query, &name, result),
            Input::Finished { op, name, result } => self.finished(op, &name, result),
            Input::Progress { op, name, progress } => self.progressed(op, &name, progress),
            Input::Lent { op, name, result } => self.lent(op, &name, result),
            Input::Waiting(waiting) => self.imported_waiting(waiting),
            Input::Updated(result) => self.updated(result),
            Input::Saved(result) => self.saved(result),
            Input::Tick => {}
        }
        self.beat_timers();
        self.short_timers();
        self.job_timers();
        self.prepare_timers();
        self.imported_timers();
        self.resume_timers();
        self.help_timers();
        self.departed.expire(now.mono);
        self.keep_changes();
        std::mem::take(&mut self.out)
    }

    /// When the next [`Input::Tick`] is needed at the latest.
    pub fn wake(&self) -> Mono {
        let works = self.works.values().flat_map(|w| {
            let short = w.short.as_ref().and_then(shorts::Short::wake);
            short.into_iter().chain(w.job.as_ref().and_then(jobs::Running::wake))
        });
        works
            .chain(self.departed.wake())
            .chain(self.prepare.wake())
            .chain(self.imported.wake())
            .chain(self.resume.wake())
            .fold(self.beat.wake().min(self.help.wake()), Mono::min)
    }

    /// The numbers of queries and operations that start from now on are greater than this.
    fn mark(&self) -> Id {
        Id(self.ids)
    }

    fn next_id(&mut self) -> Id {
        self.ids += 1;
        Id(self.ids)
    }

    fn publish(&mut self, topic: Topic, body: Body) {
        self.out.push(Effect::Publish(topic, Box::new(body)));
    }

    fn begin(&mut self, name: &DomainName, what: Op) -> Id {
        let op = self.next_id();
        self.out.push(Effect::Begin { op, name: name.clone(), what });
        op
    }

    /// Asks for one domain now, or once more after the question that is under way.
    fn ask(&mut self, name: &DomainName) {
        if let Some(asking) = self.asking.get_mut(name) {
            asking.again = true;
        } else if self.asking.len() >= ASKS {
            self.beat.sample_soon(self.now.mono);
        } else {
            let query = self.next_id();
            self.asking.insert(name.clone(), Asking { query, again: false });
            self.out.push(Effect::Ask { query, name: name.clone() });
        }
    }

    fn asked(&mut self, query: Id, name: &DomainName, result: HvResult<Option<Domain>>) {
        // an answer from before the hypervisor was lost is not the one that is waited for, but may still tell something
        if self.asking.get(name).is_some_and(|a| a.query == query)
            && self.asking.remove(name).is_some_and(|a| a.again)
        {
            self.ask(name);
        }
        match result {
            Ok(answer) => {
                let tells = self.records.one(query, name, answer);
                self.heard(name, query, tells);
            }
            Err(error) => self.unheard(name, query, &error),
        }
    }

    /// A domain's record is as of `query` (or later).
    fn heard(&mut self, name: &DomainName, query: Id, tells: bool) {
        if self.records.get(name).is_some_and(|d| d.state.is_active()) {
            self.departed.returned(name);
        }
        let job_runs = |agent: &Agent| agent.works.get(name).is_some_and(|w| w.job.is_some());
        let ran = job_runs(self);
        self.job_heard(name, query);
        // the end of a job tells the domain too
        if tells && ran == job_runs(self) {
            self.publish_domain(name);
        }
        self.short_heard(name, query);
        self.resume_heard(name);
        self.drop_idle(name);
    }

    /// The question `query` for a domain was not answered.
    fn unheard(&mut self, name: &DomainName, query: Id, error: &crate::hypervisor::HvError) {
        self.short_unheard(name, query, error);
        self.job_unheard(name, query);
    }

    fn finished(&mut self, op: Id, name: &DomainName, result: HvResult<Option<crate::hypervisor::Moved>>) {
        let job = self.works.get(name).and_then(|w| w.job.as_ref()).and_then(jobs::Running::op);
        if job == Some(op) {
            self.job_finished(name, result);
        } else if self.prepare.is(op) {
            self.prepared(op, name, result.map(|_| ()));
        } else if self.resume.is(op) {
            self.resumed(op, name, &result.map(|_| ()));
        } else {
            self.short_finished(op, name, result.map(|_| ()));
        }
    }

    /// Forgets what is kept of a domain that is gone.
    fn drop_idle(&mut self, name: &DomainName) {
        let idle = self.works.get(name).is_some_and(|w| w.short.is_none() && w.job.is_none());
        if idle && self.records.get(name).is_none() {
            self.works.remove(name);
        }
    }

    /// A domain as others should see it: what the hypervisor says, with what goes on.
    fn shown(&self, name: &DomainName) -> Option<Domain> {
        let work = self.works.get(name);
        let record = self.records.get(name);
        let mut domain = match work.and_then(|w| w.job.as_ref()) {
            Some(job) => job.shown(record, self.now.mono)?,
            None => record?.clone(),
        };
        domain.job = work.and_then(|w| w.job.as_ref()).map(|j| Box::new(j.job.clone()));
        domain.last = work.and_then(|w| w.last.clone());
        domain.reason = domain.reason.or_else(|| self.imported.reason(name, domain.state));
        Some(domain)
    }

    /// All domains as others should see them.
    fn all_shown(&self) -> Vec<Domain> {
        let mut names: Vec<&DomainName> = self.records.iter().map(|d| &d.name).collect();
        names.extend(self.works.keys().filter(|n| self.records.get(n).is_none()));
        names.into_iter().filter_map(|name| self.shown(name)).collect()
    }

    fn change(&self, name: &DomainName) -> DomainChange {
        match self.shown(name) {
            Some(domain) => DomainChange::Is { domain },
            None => DomainChange::Gone { name: name.clone() },
        }
    }

    fn publish_domain(&mut self, name: &DomainName) {
        let change = self.change(name);
        self.publish(Topic::Domain(self.me.name.clone()), Body::Domain(Box::new(change)));
    }
}
