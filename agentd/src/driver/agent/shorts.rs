//! Commands that end within seconds. The hypervisor's call may say what it likes: whether it succeeded is what the domain is
//! afterwards.
//!
//! ```text
//!   called ── call ends ──▶ asked ── the domain's record is newer than that ──▶ answered, free
//!     │                       └── 4 s since the begin, or no answer ──▶ answered ETIMEDOUT, free
//!     └── 4 s ──▶ answered ETIMEDOUT, and busy until the call ends
//! ```

use super::{
    Agent,
    commands::{About, Ticket},
};
use crate::driver::step::{Id, Op};
use crate::hypervisor::{HvError, HvResult};
use xvm_model::{
    Answer, Code, Domain, DomainCommand, DomainName, DomainSettings, DomainState, DomainWord, Failure, Mono,
};

/// How long a short command may take, its question included, in milliseconds.
const SHORT_MS: u64 = 4000;

/// A short command that is under way.
#[derive(Debug)]
pub(super) struct Short {
    ticket: Ticket,
    command: DomainCommand,
    op: Id,
    since: Mono,
    /// Its sender knows already that it took too long.
    answered: bool,
    /// Once the call has ended: what it said, and the mark after which a record counts.
    ended: Option<(HvResult<()>, Id)>,
}

impl Short {
    /// When its time is over.
    pub(super) fn wake(&self) -> Option<Mono> {
        (!self.answered).then(|| self.since.plus(SHORT_MS))
    }

    /// Why another command has to wait.
    pub(super) fn busy(&self, word: DomainWord, name: &DomainName, now: Mono) -> Failure {
        let age = now.since(self.since) / 1000;
        Failure::busy(format!(
            "cannot {word} {name}: its {} has not ended after {age} s; try again when it has",
            self.command.word()
        ))
    }
}

impl Agent {
    pub(super) fn begin_short(&mut self, ticket: Ticket, domain: Domain, command: DomainCommand) {
        let name = domain.name;
        let set = |settings: DomainSettings| Op::Set(settings);
        let what = match &command {
            DomainCommand::Pause => Op::Pause,
            DomainCommand::Unpause => Op::Unpause,
            DomainCommand::Destroy | DomainCommand::Fence { .. } => Op::Destroy,
            DomainCommand::Load { share, seconds } => Op::Load { share: *share, seconds: *seconds },
            DomainCommand::Priority { value } => set(DomainSettings { priority: *value, ..domain.settings }),
            DomainCommand::Pin { value } => set(DomainSettings { pin: value.clone(), ..domain.settings }),
            DomainCommand::With { value } => set(DomainSettings { with: value.clone(), ..domain.settings }),
            DomainCommand::Apart { value } => set(DomainSettings { apart: value.clone(), ..domain.settings }),
            DomainCommand::Cancel => Op::CancelMigration,
            DomainCommand::Start
            | DomainCommand::Create { .. }
            | DomainCommand::Prepare { .. }
            | DomainCommand::Shutdown
            | DomainCommand::Reboot
            | DomainCommand::Migrate { .. } => {
                let text = format!("cannot {} {name}: it is a job", command.word());
                return self.refuse(&ticket, About::Domain(&name), Failure::invalid(text));
            }
        };
        self.send(&ticket, Answer::Working, None);
        let op = self.begin(&name, what);
        let since = self.now.mono;
        self.work(&name).short = Some(Short { ticket, command, op, since, answered: false, ended: None });
    }

    pub(super) fn short_finished(&mut self, op: Id, name: &DomainName, result: HvResult<()>) {
        let mark = self.mark();
        let Some(work) = self.works.get_mut(name) else { return };
        let Some(short) = work.short.as_mut().filter(|s| s.op == op && s.ended.is_none()) else { return };
        if short.command == DomainCommand::Cancel {
            // nothing to see in the domain: the migration's own end tells
            let answer = match &result {
                Ok(()) => Answer::Done { text: format!("the migration of {name} is being cancelled").into() },
                Err(error) => Answer::Failed { failure: error.failure(&format!("cancel {name}")) },
            };
            return self.end_short(name, answer);
        }
        short.ended = Some((result, mark));
        self.ask(name);
    }

    /// The record of the domain is as of `query` or later.
    pub(super) fn short_heard(&mut self, name: &DomainName, query: Id) {
        let Some(short) = self.works.get(name).and_then(|w| w.short.as_ref()) else { return };
        let Some((result, mark)) = &short.ended else { return };
        if query > *mark {
            let answer = judge(name, &short.command, result, self.records.get(name));
            self.end_short(name, answer);
        }
    }

    /// The question after the command was not answered: nobody knows.
    pub(super) fn short_unheard(&mut self, name: &DomainName, query: Id, error: &HvError) {
        let Some(short) = self.works.get(name).and_then(|w| w.short.as_ref()) else { return };
        if short.ended.as_ref().is_some_and(|(_, mark)| query > *mark) {
            let failure = Failure::new(
                Code::TimedOut,
                format!(
                    "cannot tell whether {} {name} was done: {error}; its state tells when the hypervisor answers",
                    short.command.word()
                ),
            );
            self.end_short(name, Answer::Failed { failure });
        }
    }

    pub(super) fn short_timers(&mut self) {
        let now = self.now.mono;
        let due: Vec<DomainName> = self
            .works
            .iter()
            .filter(|(_, w)| w.short.as_ref().and_then(Short::wake).is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(short) = self.work(&name).short.as_mut() else { continue };
            let failure = Failure::new(
                Code::TimedOut,
                format!(
                    "cannot tell whether {} {name} was done: the hypervisor has not answered for {} s; its state tells when it does",
                    short.command.word(),
                    SHORT_MS / 1000
                ),
            );
            if short.ended.is_some() {
                self.end_short(&name, Answer::Failed { failure });
            } else {
                short.answered = true;
                let ticket = short.ticket.clone();
                self.refuse(&ticket, About::Domain(&name), failure);
            }
        }
    }

    fn end_short(&mut self, name: &DomainName, answer: Answer) {
        let Some(short) = self.works.get_mut(name).and_then(|w| w.short.take()) else { return };
        if !short.answered {
            self.answer(&short.ticket, About::Domain(name), answer);
        }
        self.drop_idle(name);
    }
}

/// Whether the command was carried out, by what the domain is after it.
fn judge(name: &DomainName, command: &DomainCommand, call: &HvResult<()>, record: Option<&Domain>) -> Answer {
    let word = command.word();
    let state = record.map(|d| d.state);
    let settings = record.map(|d| &d.settings);
    let (reached, text) = match command {
        DomainCommand::Pause => (state == Some(DomainState::Paused), format!("{name} is paused")),
        DomainCommand::Unpause => (state == Some(DomainState::Running), format!("{name} is running")),
        DomainCommand::Destroy | DomainCommand::Fence { .. } => {
            (!state.is_some_and(DomainState::is_active), format!("{name} is off"))
        }
        DomainCommand::Priority { value } => {
            (settings.is_some_and(|s| s.priority == *value), format!("the priority of {name} is {value}"))
        }
        DomainCommand::Pin { value } => {
            (settings.is_some_and(|s| s.pin == *value), format!("the pin of {name} is {value}"))
        }
        DomainCommand::With { value } => {
            (settings.is_some_and(|s| s.with == *value), format!("{name} stays with {value}"))
        }
        DomainCommand::Apart { value } => {
            (settings.is_some_and(|s| s.apart == *value), format!("{name} stays apart from {value}"))
        }
        DomainCommand::Load { share, seconds } => {
            (call.is_ok(), format!("{name} works {} % for {seconds} s", share.percent()))
        }
        _ => (call.is_ok(), format!("{word} {name} was done")),
    };
    if reached {
        return Answer::Done { text: text.into() };
    }
    let failure = match (call, state) {
        (Err(error), _) => error.failure(&format!("{word} {name}")),
        (Ok(()), None) => {
            Failure::no_entry(format!("cannot {word} {name}: it is not on this server any more"))
        }
        (Ok(()), Some(state)) => Failure::new(
            Code::Io,
            format!("cannot {word} {name}: the hypervisor says that it was done, but it is {state}"),
        ),
    };
    Answer::Failed { failure }
}
