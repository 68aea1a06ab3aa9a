//! The step, input by input.

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
        };
        let now = Now { mono: Mono(10_000), wall: Wall(1_000_000) };
        let agent = Agent::new(me, ServerSettings::default(), Receipts::new(Boot(5)), now);
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

    fn migrate(&mut self) -> Id {
        self.tell(DomainCommand::Migrate { to: Some(server("gerby")), address: "there:1".into() });
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

#[test]
fn nothing_is_said_before_the_hypervisor_answered() {
    let mut rig = Rig::silent();
    rig.input(Input::Link(true));
    rig.input(Input::RollCall);
    assert_eq!(rig.beats(), 0);
    rig.tell(DomainCommand::Pause);
    let failure = rig.failure();
    assert_eq!(failure.code, Code::Io);
    assert!(failure.text.contains("the hypervisor of ferby is not heard"), "{}", failure.text);
}

#[test]
fn a_pause_is_answered_by_what_the_domain_is() {
    let mut rig = Rig::new(DomainState::Running);
    let id = rig.tell(DomainCommand::Pause);
    assert_eq!(rig.replies()[0].answer, Answer::Working);
    let (op, what) = rig.begun();
    assert_eq!(what, Op::Pause);
    // the call failed, and the domain is paused all the same
    rig.ended(op, Err(HvError::Refused("job lock".into())));
    rig.is(Some(DomainState::Paused));
    let at = |rig: &Rig, topic: &str| {
        rig.out.iter().position(|e| matches!(e, Effect::Publish(t, _) if t.to_string().starts_with(topic)))
    };
    assert!(at(&rig, "domain.") < at(&rig, "reply."), "the change is told before the reply");
    let reply = rig.replies().pop().expect("answered");
    assert_eq!(reply.answer, Answer::Done { text: "small-1 is paused".into() });
    let Some(News::Domain { change }) = reply.news else { panic!("no news") };
    assert!(matches!(*change, DomainChange::Is { domain } if domain.state == DomainState::Paused));
    // a copy of the order gets the same answer, with the news of now, and nothing begins
    rig.send(&id, Order::Domain { name: name("small-1"), command: DomainCommand::Pause });
    let again = rig.replies().pop().expect("answered again");
    assert_eq!(again.answer, reply.answer);
    assert!(again.news.is_some());
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none());
}

#[test]
fn a_call_that_lies_or_fails_is_told() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Pause);
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    rig.is(Some(DomainState::Running));
    assert!(rig.failure().text.contains("says that it was done, but it is running"));
    rig.tell(DomainCommand::Destroy);
    let (op, _) = rig.begun();
    rig.ended(op, Err(HvError::NotSupported("no".into())));
    rig.is(Some(DomainState::Running));
    assert_eq!(rig.failure().code, Code::NotSupported);
    // a transient domain vanishes when it is destroyed
    rig.tell(DomainCommand::Destroy);
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    rig.is(None);
    assert_eq!(rig.done(), "small-1 is off");
    assert!(matches!(rig.changes().pop(), Some(DomainChange::Gone { .. })));
    assert!(rig.agent.works.is_empty());
}

#[test]
fn a_call_that_hangs_is_unknown_after_four_seconds_and_busy_until_it_ends() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Pause);
    let (op, _) = rig.begun();
    rig.pass(3_999);
    assert_eq!(rig.replies().len(), 1, "only working");
    rig.pass(1);
    assert_eq!(rig.failure().code, Code::TimedOut);
    rig.tell(DomainCommand::Unpause);
    let busy = rig.failure();
    assert_eq!(busy.code, Code::Busy);
    assert!(busy.text.contains("its pause has not ended after 4 s"), "{}", busy.text);
    rig.ended(op, Ok(None));
    rig.is(Some(DomainState::Paused));
    assert!(rig.replies().is_empty(), "it was answered before");
    assert!(matches!(&rig.changes()[..], [DomainChange::Is { .. }]));
    rig.tell(DomainCommand::Unpause);
    assert_eq!(rig.begun().1, Op::Unpause);
}

#[test]
fn wrong_orders_are_refused_with_code_and_sentence() {
    let mut rig = Rig::new(DomainState::Paused);
    let to =
        |to: &str, address: &str| DomainCommand::Migrate { to: Some(server(to)), address: address.into() };
    for (command, code, text) in [
        (DomainCommand::Pause, Code::Busy, "it is paused; it must be running"),
        (DomainCommand::Cancel, Code::Busy, "no job runs"),
        (to("ferby", "x:1"), Code::Exists, "it is on ferby already"),
        (to("gerby", "here:1"), Code::Exists, "it is on ferby already"),
        (to("gerby", ""), Code::Invalid, "does not say where its hypervisor is"),
        (DomainCommand::Migrate { to: None, address: "".into() }, Code::Invalid, "names no server"),
        (DomainCommand::Priority { value: 101 }, Code::Invalid, "0 to 100"),
    ] {
        rig.tell(command);
        let failure = rig.failure();
        assert_eq!(failure.code, code, "{}", failure.text);
        assert!(failure.text.contains(text), "{}", failure.text);
    }
    rig.order(Order::Domain { name: name("nobody"), command: DomainCommand::Pause });
    assert_eq!(rig.failure().code, Code::NoEntry);
    // a pin holds
    let mut pinned = domain("small-1", DomainState::Running);
    pinned.settings.pin = Pin(vec![server("ferby")]);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    let query = rig.asked().expect("asked");
    rig.input(Input::Asked { query, name: name("small-1"), result: Ok(Some(pinned)) });
    rig.tell(to("gerby", "x:1"));
    assert_eq!(rig.failure().code, Code::Permission);
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none(), "nothing began");
}

#[test]
fn news_are_told_at_once_and_older_answers_do_not_count() {
    let mut rig = Rig::new(DomainState::Running);
    rig.pass(1_000);
    rig.now.mono = rig.now.mono.plus(1_000);
    rig.input(Input::Tick);
    let sample = rig.sample().expect("a sample is under way");
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(Some(DomainState::Paused));
    assert!(
        matches!(&rig.changes()[..], [DomainChange::Is { domain }] if domain.state == DomainState::Paused)
    );
    let domains = Ok(vec![domain("small-1", DomainState::Running)]);
    rig.input(Input::Sampled { query: sample, host: Ok(Host::default()), domains });
    assert_eq!(rig.agent.shown(&name("small-1")).expect("known").state, DomainState::Paused);
    // news during a question: one more question follows, never two at a time
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    let first = rig.asked().expect("asked");
    for _ in 0..10 {
        rig.input(Input::News(HvEvent::Changed(name("small-1"))));
        assert!(rig.asked().is_none());
    }
    let result = Ok(Some(domain("small-1", DomainState::Paused)));
    rig.input(Input::Asked { query: first, name: name("small-1"), result });
    assert!(rig.asked().is_some());
}

#[test]
fn a_hypervisor_that_hangs_is_stale_while_heartbeats_go_on() {
    let mut rig = Rig::new(DomainState::Running);
    rig.now.mono = rig.now.mono.plus(1_000);
    rig.input(Input::Tick);
    let query = rig.sample().expect("a sample is under way");
    for _ in 0..100 {
        rig.now.mono = rig.now.mono.plus(100);
        rig.input(Input::Tick);
        assert!(rig.sample().is_none(), "one sample at a time");
    }
    assert!(rig.beats() >= 5);
    let beat = rig.agent.heartbeat();
    assert!(beat.stale.expect("stale").contains("has not answered for 4 s"));
    assert_eq!(beat.domains.len(), 1, "what was heard last is told on");
    rig.tell(DomainCommand::Pause);
    assert_eq!(rig.failure().code, Code::Io);
    rig.input(Input::Sampled {
        query,
        host: Ok(Host::default()),
        domains: Ok(vec![domain("small-1", DomainState::Running)]),
    });
    assert_eq!(rig.agent.heartbeat().stale, None);
    assert_eq!(rig.beats(), 1, "everybody learns at once");
    rig.input(Input::News(HvEvent::Down("no libvirtd".into())));
    assert_eq!(rig.agent.heartbeat().stale.as_deref(), Some("no libvirtd"));
    rig.out.clear();
    rig.input(Input::News(HvEvent::Up));
    rig.pass(1);
    assert_eq!(rig.agent.heartbeat().stale, None);
}

#[test]
fn roll_calls_are_answered_five_times_a_second_at_most() {
    let mut rig = Rig::new(DomainState::Running);
    rig.beats();
    for _ in 0..1000 {
        rig.now.mono = rig.now.mono.plus(1);
        rig.input(Input::RollCall);
    }
    assert_eq!(rig.beats(), 5);
    rig.input(Input::Link(true));
    assert_eq!(rig.beats(), 1);
}

#[test]
fn a_shutdown_asks_again_and_gives_up_after_two_minutes() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    assert_eq!(rig.replies()[0].answer, Answer::Accepted);
    let mut asked = 0;
    for _ in 0..130 {
        if let Some((op, Op::Shutdown)) = rig.take(|e| match e {
            Effect::Begin { op, what, .. } => Some((*op, what.clone())),
            _ => None,
        }) {
            asked += 1;
            rig.ended(op, Ok(None));
            rig.is(Some(DomainState::Running));
        }
        rig.pass(1_000);
    }
    assert_eq!(asked, 40);
    let failure = rig.outcome().expect_err("gave up");
    assert!(failure.text.contains("`echo destroy > ctl` pulls the plug"), "{}", failure.text);
}

#[test]
fn a_shutdown_ends_when_the_domain_is_off_or_by_cancel() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    rig.is(Some(DomainState::Shutoff));
    assert_eq!(rig.outcome().expect("done"), "small-1 is shut off");

    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    let (op, _) = rig.begun();
    rig.tell(DomainCommand::Pause);
    assert_eq!(rig.failure().code, Code::Busy, "a job runs");
    rig.tell(DomainCommand::Cancel);
    assert_eq!(rig.done(), "small-1 is not asked to power off any more");
    assert_eq!(rig.outcome().expect_err("cancelled").code, Code::Busy);
    rig.ended(op, Ok(None));
    rig.pass(10_000);
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none());
}

#[test]
fn a_start_is_judged_by_the_domain() {
    let mut rig = Rig::new(DomainState::Shutoff);
    rig.tell(DomainCommand::Start);
    let (op, _) = rig.begun();
    assert_eq!(rig.job().as_deref(), Some("start begin 0"));
    rig.tell(DomainCommand::Cancel);
    assert!(rig.failure().text.contains("cannot cancel the start of small-1"));
    rig.ended(op, Ok(None));
    // the answer fails; it is asked again
    let query = rig.asked().expect("asked");
    let result = Err(HvError::Unreachable("gone".into()));
    rig.input(Input::Asked { query, name: name("small-1"), result });
    rig.now.mono = rig.now.mono.plus(1_000);
    rig.input(Input::Tick);
    rig.is(Some(DomainState::Running));
    assert_eq!(rig.outcome().expect("done"), "small-1 is running");
    let mut rig = Rig::new(DomainState::Shutoff);
    rig.tell(DomainCommand::Start);
    let (op, _) = rig.begun();
    rig.ended(op, Err(HvError::NoRoom("no memory".into())));
    rig.is(Some(DomainState::Shutoff));
    assert_eq!(rig.outcome().expect_err("no room").code, Code::NoSpace);
}

#[test]
fn a_migration_ends_when_both_sides_told_where_the_domain_is() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.changes();
    for percent in 0..=100 {
        rig.now.mono = rig.now.mono.plus(10);
        let progress = Progress { percent, sent: 0, remaining: u64::from(100 - percent) };
        rig.input(Input::Progress { op, name: name("small-1"), progress });
    }
    assert!(rig.changes().len() <= 6, "five a second at most");
    rig.pass(200);
    assert_eq!(rig.job().as_deref(), Some("migrate switch 100"));
    assert_eq!(rig.changes().len(), 1, "the last is told late, but told");
    // the source loses it before the call returns: nobody sees a gap
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(None);
    assert_eq!(rig.agent.heartbeat().domains.len(), 1);
    assert!(
        rig.changes().iter().all(|c| matches!(c, DomainChange::Is { domain } if domain.state.is_active()))
    );
    rig.ended(op, Ok(Some(Moved { total_ms: 612, down_ms: Some(41) })));
    assert_eq!(rig.job().as_deref(), Some("migrate ask 100"));
    rig.there(Ok(Some(DomainState::Running)));
    assert!(rig.job().is_some(), "only one side told");
    rig.is(None);
    let Some(DomainChange::Departed { departed }) = rig.changes().pop() else { panic!("not told") };
    assert_eq!(departed.to, server("gerby"));
    let outcome = departed.domain.last.expect("the outcome comes along");
    assert_eq!(outcome.result, Ok("small-1 runs on gerby: 612 ms, down 41 ms".into()));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.pass(59_000);
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.pass(1_001);
    assert!(rig.agent.heartbeat().departed.is_empty());
    assert!(rig.agent.works.is_empty());
}

#[test]
fn a_migration_that_failed_says_why_and_where_the_domain_is() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Err(HvError::NoRoom("gerby is full".into())));
    rig.is(Some(DomainState::Running));
    rig.there(Ok(None));
    let failure = rig.outcome().expect_err("failed");
    assert_eq!(failure.code, Code::NoSpace);
    assert_eq!(failure.text, "cannot migrate small-1 to gerby: gerby is full; it is running on ferby");
}

#[test]
fn a_migration_whose_call_failed_but_that_moved_is_a_success() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Err(HvError::Unreachable("connection broke".into())));
    rig.is(None);
    rig.there(Ok(Some(DomainState::Running)));
    let Some(DomainChange::Departed { departed }) = rig.changes().pop() else { panic!("not told") };
    let text = departed.domain.last.expect("outcome").result.expect("moved");
    assert_eq!(&*text, "small-1 runs on gerby (the call said: connection broke)");
}

/// Answers all questions the same way for `ms` milliseconds.
fn answer_for(rig: &mut Rig, ms: u64, here: Option<DomainState>, there: &HvResult<Option<DomainState>>) {
    for _ in 0..ms / 500 {
        if let Some(query) = rig.asked() {
            let result = Ok(here.map(|s| domain("small-1", s)));
            rig.input(Input::Asked { query, name: name("small-1"), result });
        }
        if let Some(query) = rig.locate() {
            let result = there.clone().map(|s| s.map(|s| domain("small-1", s)));
            rig.input(Input::Located { query, name: name("small-1"), result });
        }
        rig.pass(500);
    }
}

#[test]
fn a_silent_destination_ends_the_job_only_while_the_domain_is_active_here() {
    let dead = Err(HvError::Unreachable("no route".into()));
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Err(HvError::Unreachable("keepalive".into())));
    answer_for(&mut rig, 29_000, Some(DomainState::Running), &dead);
    assert_eq!(rig.job().as_deref(), Some("migrate ask 0"));
    answer_for(&mut rig, 3_000, Some(DomainState::Running), &dead);
    let failure = rig.outcome().expect_err("failed");
    assert!(failure.text.contains("gerby does not answer; it is running on ferby"), "{}", failure.text);

    // it left, and the destination is silent: asked without end, and not shown as running here
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(Some(Moved::default())));
    answer_for(&mut rig, 600_000, None, &dead);
    assert_eq!(rig.job().as_deref(), Some("migrate ask 0"));
    assert_eq!(rig.agent.heartbeat().domains[0].state, DomainState::Shutoff);
    answer_for(&mut rig, 2_000, None, &Ok(Some(DomainState::Running)));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    assert!(rig.agent.heartbeat().domains.is_empty());
}

#[test]
fn both_and_neither_are_told() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    answer_for(&mut rig, 9_000, Some(DomainState::Running), &Ok(Some(DomainState::Running)));
    assert!(rig.job().is_some());
    answer_for(&mut rig, 3_000, Some(DomainState::Running), &Ok(Some(DomainState::Running)));
    assert!(rig.outcome().expect_err("both").text.contains("it runs on both ferby and gerby"));

    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    answer_for(&mut rig, 8_000, Some(DomainState::Shutoff), &Ok(None));
    assert!(rig.outcome().expect_err("neither").text.contains("neither on ferby nor on gerby"));

    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    answer_for(&mut rig, 8_000, None, &Ok(None));
    let told = rig.changes();
    let told: Vec<_> = told.iter().rev().take(2).collect();
    let [DomainChange::Gone { .. }, DomainChange::Is { domain }] = told[..] else { panic!("{told:?}") };
    assert!(domain.last.as_ref().is_some_and(|o| o.kind == JobKind::Migrate && o.result.is_err()));
}

#[test]
fn a_migration_can_be_cancelled_until_it_switches() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.tell(DomainCommand::Pause);
    assert_eq!(rig.failure().code, Code::Busy);
    rig.tell(DomainCommand::Cancel);
    let (cancel, what) = rig.begun();
    assert_eq!(what, Op::CancelMigration);
    rig.ended(cancel, Ok(None));
    assert_eq!(rig.done(), "the migration of small-1 is being cancelled");
    rig.ended(op, Err(HvError::Cancelled));
    rig.is(Some(DomainState::Running));
    rig.there(Ok(None));
    let text = rig.outcome().expect_err("cancelled").text;
    assert_eq!(text, "cannot migrate small-1 to gerby: cancelled; it is running on ferby");
}

#[test]
fn a_domain_that_comes_back_has_not_departed() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    rig.is(None);
    rig.there(Ok(Some(DomainState::Running)));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(Some(DomainState::Incoming));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(Some(DomainState::Running));
    assert!(rig.agent.heartbeat().departed.is_empty());
}

#[test]
fn settings_are_in_force_once_they_are_on_disk() {
    let mut rig = Rig::new(DomainState::Running);
    rig.order(Order::Server { command: ServerCommand::Accept { on: false } });
    rig.order(Order::Server { command: ServerCommand::Heartbeat { ms: 500 } });
    assert!(rig.agent.settings.accepting);
    let saves: Vec<_> = rig.out.iter().filter(|e| matches!(e, Effect::Save(_))).cloned().collect();
    assert!(matches!(saves[..], [_, Effect::Save(s)] if !s.accepting && s.heartbeat_ms == 500));
    rig.input(Input::Saved(Ok(())));
    rig.input(Input::Saved(Err("disk full".into())));
    assert!(!rig.agent.settings.accepting);
    assert_eq!(rig.agent.settings.heartbeat_ms, 2_000);
    let replies = rig.replies();
    let Some(News::Server { heartbeat }) = &replies[0].news else { panic!("no news") };
    assert!(!heartbeat.settings.accepting);
    assert!(matches!(&replies[1].answer, Answer::Failed { failure } if failure.text.contains("disk full")));
    for bad in [
        ServerCommand::Heartbeat { ms: 99 },
        ServerCommand::Watchdog { points: None, threshold: None, limit: Some(0), unit: None },
        ServerCommand::Watchdog { points: Some(1001), threshold: None, limit: None, unit: None },
    ] {
        rig.order(Order::Server { command: bad });
        assert_eq!(rig.failure().code, Code::Invalid);
    }
}

#[test]
fn an_order_to_another_life_or_too_late_does_nothing() {
    let mut rig = Rig::new(DomainState::Running);
    let client = xvm_model::ClientName::parse("c").expect("valid");
    let order = Order::Domain { name: name("small-1"), command: DomainCommand::Destroy };
    for (boot, deadline) in [(Boot(4), Wall(1_010_000)), (Boot(5), Wall(999_999))] {
        let command =
            Command { id: "c.1.9".into(), client: client.clone(), boot, deadline, order: order.clone() };
        rig.input(Input::Command(Box::new(command)));
        assert_eq!(rig.failure().code, Code::TimedOut);
    }
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none());
}
