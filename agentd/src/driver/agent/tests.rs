//! The step, input by input: here the rig, the tests beside it by idea.

mod beat;
mod create;
mod help;
mod imported;
mod jobs;
mod lease;
mod migration;
mod prepare;
mod resume;
mod shorts;

use super::*;
use crate::hypervisor::{HvError, Moved, Progress};
use uuid::Uuid;
use xvm_model::{
    Answer, Code, Command, DomainCommand, DomainState, Failure, JobKind, News, Order, Pin, Reply,
    ServerCommand, Wall,
};

/// An agent, its clock, and what it said.
struct Rig {
    agent: Agent,
    now: Now,
    /// Effects that no test took yet.
    out: Vec<Effect>,
    orders: u64,
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("valid")
}

fn server(text: &str) -> ServerName {
    ServerName::parse(text).expect("valid")
}

fn domain(text: &str, state: DomainState) -> Domain {
    let mut d = Domain::new(name(text), Uuid::from_u128(7));
    d.state = state;
    d
}

impl Rig {
    /// On ferby, with small-1 in `state`.
    fn new(state: DomainState) -> Rig {
        let mut rig = Rig::silent();
        let query = rig.sample().expect("the first step samples");
        rig.input(Input::Sampled {
            query,
            host: Ok(Host::default()),
            domains: Ok(vec![domain("small-1", state)]),
        });
        rig.out.clear();
        rig
    }

    /// Its hypervisor was not heard yet.
    fn silent() -> Rig {
        let me = Identity {
            name: server("ferby"),
            boot: Boot(5),
            hypervisor: HypervisorKind::Sim,
            address: "here:1".into(),
            imports: false,
        };
        let now = Now { mono: Mono(10_000), wall: Wall(1_000_000) };
        let agent =
            Agent::new(me, ServerSettings::default(), Some(Kept::default()), Receipts::new(Boot(5)), now);
        let mut rig = Rig { agent, now, out: Vec::new(), orders: 0 };
        rig.input(Input::Tick);
        rig
    }

    fn input(&mut self, input: Input) {
        let effects = self.agent.step(input, self.now);
        self.out.extend(effects);
    }

    /// Lets time pass as the shell would: a tick at each moment that the agent asked for. Samples answer at once with what is known.
    fn pass(&mut self, ms: u64) {
        let end = self.now.mono.plus(ms);
        loop {
            let wake = self.agent.wake().max(self.now.mono.plus(1)).min(end);
            self.now = Now { wall: Wall(self.now.wall.0 + wake.since(self.now.mono)), mono: wake };
            self.input(Input::Tick);
            if let Some(query) = self.sample() {
                let domains = self.agent.records.iter().cloned().collect();
                self.input(Input::Sampled { query, host: Ok(Host::default()), domains: Ok(domains) });
            }
            if wake == end {
                return;
            }
        }
    }

    fn order(&mut self, order: Order) -> Box<str> {
        self.orders += 1;
        let id: Box<str> = format!("c.1.{}", self.orders).into();
        self.send(&id, order);
        id
    }

    fn send(&mut self, id: &str, order: Order) {
        let client = xvm_model::ClientName::parse("c").expect("valid");
        let deadline = Wall(1_000_000 + 30_000);
        let command = Command { id: id.into(), client, boot: Boot(5), deadline, order };
        self.input(Input::Command(Box::new(command)));
    }

    fn tell(&mut self, command: DomainCommand) -> Box<str> {
        self.order(Order::Domain { name: name("small-1"), command })
    }

    /// Orders a migration and lets the domain be marked; gives the operation that moves it.
    fn migrate(&mut self) -> Id {
        self.tell(DomainCommand::Migrate {
            to: Some(server("gerby")),
            address: "there:1".into(),
            paused: false,
        });
        let (op, what) = self.begun();
        let Op::Set(settings) = what else { panic!("not marked before it leaves: {what:?}") };
        assert_eq!(settings.came.expect("a mark").from, server("ferby"));
        self.ended(op, Ok(None));
        self.begun().0
    }

    fn take<T>(&mut self, pick: impl Fn(&Effect) -> Option<T>) -> Option<T> {
        let at = self.out.iter().position(|e| pick(e).is_some())?;
        pick(&self.out.remove(at))
    }

    fn sample(&mut self) -> Option<Id> {
        self.take(|e| if let Effect::Sample { query } = e { Some(*query) } else { None })
    }

    fn begun(&mut self) -> (Id, Op) {
        let pick = |e: &Effect| match e {
            Effect::Begin { op, what, .. } => Some((*op, what.clone())),
            _ => None,
        };
        self.take(pick).expect("an operation began")
    }

    fn asked(&mut self) -> Option<Id> {
        self.take(|e| if let Effect::Ask { query, .. } = e { Some(*query) } else { None })
    }

    fn locate(&mut self) -> Option<Id> {
        self.take(|e| if let Effect::Locate { query, .. } = e { Some(*query) } else { None })
    }

    /// Answers the question for small-1 that is under way.
    fn is(&mut self, state: Option<DomainState>) {
        let query = self.asked().expect("a question is under way");
        let result = Ok(state.map(|s| domain("small-1", s)));
        self.input(Input::Asked { query, name: name("small-1"), result });
    }

    fn there(&mut self, result: HvResult<Option<DomainState>>) {
        let query = self.locate().expect("the other side is asked");
        let result = result.map(|s| s.map(|s| domain("small-1", s)));
        self.input(Input::Located { query, name: name("small-1"), result });
    }

    fn ended(&mut self, op: Id, result: HvResult<Option<Moved>>) {
        self.input(Input::Finished { op, name: name("small-1"), result });
    }

    fn replies(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        let pick = |e: &Effect| match e {
            Effect::Publish(_, body) => match &**body {
                Body::Reply(reply) => Some((**reply).clone()),
                _ => None,
            },
            _ => None,
        };
        while let Some(reply) = self.take(pick) {
            replies.push(reply);
        }
        replies
    }

    fn failure(&mut self) -> Failure {
        let last = self.replies().pop().expect("a reply");
        match last.answer {
            Answer::Failed { failure } => failure,
            other => panic!("{other:?}"),
        }
    }

    fn done(&mut self) -> String {
        let last = self.replies().pop().expect("a reply");
        match last.answer {
            Answer::Done { text } => text.into(),
            other => panic!("{other:?}"),
        }
    }

    fn changes(&mut self) -> Vec<DomainChange> {
        let mut changes = Vec::new();
        let pick = |e: &Effect| match e {
            Effect::Publish(Topic::Domain(_), body) => match &**body {
                Body::Domain(change) => Some((**change).clone()),
                _ => None,
            },
            _ => None,
        };
        while let Some(change) = self.take(pick) {
            changes.push(change);
        }
        changes
    }

    fn beats(&mut self) -> usize {
        let mut n = 0;
        let pick = |e: &Effect| matches!(e, Effect::Publish(Topic::Heartbeat(_), _)).then_some(());
        while self.take(pick).is_some() {
            n += 1;
        }
        n
    }

    fn outcome(&self) -> Result<String, Failure> {
        let shown = self.agent.shown(&name("small-1")).expect("known");
        assert_eq!(shown.job, None, "the job has ended");
        shown.last.expect("an outcome").result.map(Into::into)
    }

    fn job(&self) -> Option<String> {
        let shown = self.agent.shown(&name("small-1"))?;
        shown.job.map(|j| format!("{} {} {}", j.kind, j.phase, j.percent))
    }
}
