//! The guest's state in chosen time.

use super::*;
use crate::allowed::Allowed;
use proptest::prelude::*;
use xvm_model::guest::RUNS_MAX;
use xvm_model::{Answer, ClientName, Code, GuestCommand, Order, Reply, Wall};

const DAY: u64 = 86_400_000;

struct Guest {
    agent: Agent,
    now: u64,
    orders: u64,
}

fn guest() -> Guest {
    let mut allowed = Allowed::new("/sbin/guestd".into(), false);
    allowed.add("quick", "/bin/true").expect("taken");
    let name = DomainName::parse("small-1").expect("a name");
    let settings = Settings { name, interval_ms: 5_000, allowed };
    let mut guest = Guest { agent: Agent::new(settings, Boot(7), at(0)), now: 0, orders: 0 };
    assert_eq!(kinds(&guest.tick(0)), ["beat"], "the first heartbeat is said at once");
    guest
}

/// Its wall clock is wrong by years: a day after 1970.
fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(DAY + ms) }
}

impl Guest {
    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.agent.step(input, at(self.now))
    }

    fn tick(&mut self, now: u64) -> Vec<Effect> {
        self.now = now;
        self.step(Input::Tick)
    }

    fn command(&self, number: u64, command: GuestCommand) -> Command {
        Command {
            id: format!("c.1.{number}").into(),
            client: ClientName::parse("c").expect("a name"),
            boot: Boot(7),
            deadline: Wall(DAY + self.now + 5_000),
            order: Order::Guest { name: DomainName::parse("small-1").expect("a name"), command },
        }
    }

    fn order(&mut self, command: GuestCommand) -> Vec<Effect> {
        self.orders += 1;
        let command = self.command(self.orders, command);
        self.step(Input::Command(Box::new(command)))
    }

    fn run(&mut self, line: &str) -> Vec<Effect> {
        self.order(GuestCommand::Run { line: line.into() })
    }

    /// Ticks whenever it wants to, up to `until`; what follows, with its moments.
    fn live(&mut self, until: u64) -> Vec<(u64, &'static str)> {
        let mut all = Vec::new();
        for _ in 0..10_000 {
            let wake = self.agent.wake().0.max(self.now);
            if wake > until {
                self.now = until;
                return all;
            }
            let effects = self.tick(wake);
            all.extend(kinds(&effects).into_iter().map(|k| (wake, k)));
            if effects.iter().any(|e| matches!(e, Effect::Look { .. })) {
                let top = Top { at: Wall(0), cpus: 1, load: Ratio::ZERO, total: 0, processes: Vec::new() };
                let effects = self.step(Input::Looked(Some(Box::new(top))));
                all.extend(kinds(&effects).into_iter().map(|k| (wake, k)));
            }
        }
        panic!("it wakes without end");
    }
}

fn kinds(effects: &[Effect]) -> Vec<&'static str> {
    let kind = |e: &Effect| match e {
        Effect::Publish(_, body) => body.kind(),
        Effect::Beat(_) => "beat",
        Effect::Begin(_) => "begin",
        Effect::Kill => "kill",
        Effect::Load(Some(_)) => "load",
        Effect::Load(None) => "no load",
        Effect::Look { .. } => "look",
    };
    effects.iter().map(kind).collect()
}

fn answer(effects: &[Effect]) -> Answer {
    let answer = |e: &Effect| match e {
        Effect::Publish(_, body) => match &**body {
            Body::Reply(reply) => Some(reply.answer.clone()),
            _ => None,
        },
        _ => None,
    };
    effects.iter().rev().find_map(answer).expect("an answer")
}

fn done(text: &str) -> Answer {
    Answer::Done { text: text.into() }
}

fn failed(effects: &[Effect]) -> (Code, String) {
    match answer(effects) {
        Answer::Failed { failure } => (failure.code, failure.text),
        other => panic!("{other:?}"),
    }
}

fn end(status: i32) -> Input {
    Input::Ended(End { wall_ms: 3, cpu_ms: 2, status: Ok(status), output: "x\n".into() })
}

#[test]
fn heartbeats_come_in_time_and_to_who_joins() {
    let mut guest = guest();
    assert_eq!(guest.live(12_000), [(5_000, "beat"), (10_000, "beat")]);
    assert_eq!(kinds(&guest.step(Input::Joined)), ["beat"]);
    // a crowd is answered at a pace that receivers read
    assert!(guest.step(Input::Joined).is_empty() && guest.step(Input::Joined).is_empty());
    assert_eq!(guest.live(17_000), [(12_100, "beat")]);
    // what was said to nobody does not count
    guest.run("quick");
    assert_eq!(kinds(&guest.step(Input::Linked)), ["beat", "guest-runs"]);
}

#[test]
fn a_test_is_told_before_the_answer_and_once_more() {
    let mut guest = guest();
    let effects = guest.run("fibonacci 38");
    assert_eq!(kinds(&effects), ["guest-runs", "reply", "begin"]);
    assert_eq!(answer(&effects), done("fibonacci 38 is taken"));
    assert_eq!(kinds(&guest.run("quick")), ["guest-runs", "reply"], "one runs at a time");
    guest.now = 1_000;
    assert_eq!(kinds(&guest.step(end(0))), ["begin", "guest-runs"]);
    assert_eq!(kinds(&guest.step(end(3))), Vec::<&str>::new(), "what changes by itself keeps a pace");
    let told: Vec<_> = guest.live(130_000).into_iter().filter(|(_, k)| *k == "guest-runs").collect();
    assert_eq!(told.iter().map(|t| t.0).collect::<Vec<_>>(), [1_100, 3_100, 63_100, 123_100]);
    let states: Vec<_> = guest.agent.runs().runs.iter().map(|r| (r.state, r.status)).collect();
    assert_eq!(states, [(RunState::Done, Some(0)), (RunState::Failed, Some(3))]);
}

#[test]
fn what_is_no_test_is_refused_and_named() {
    let mut guest = guest();
    assert_eq!(
        failed(&guest.run("fibonaci 38")),
        (
            Code::Invalid,
            "cannot run \"fibonaci 38\" in small-1: there is no test of that name; there are fibonacci, image, memory, disk, quick".into()
        )
    );
    for line in ["/bin/true", "", "a\u{1}", "quick x"] {
        assert_eq!(failed(&guest.run(line)).0, Code::Invalid, "{line:?}");
    }
    assert!(guest.agent.runs().runs.is_empty());
}

#[test]
fn an_order_is_carried_out_once() {
    let mut guest = guest();
    let command = Box::new(guest.command(1, GuestCommand::Run { line: "quick".into() }));
    let first = guest.step(Input::Command(command.clone()));
    let again = guest.step(Input::Command(command.clone()));
    assert_eq!((kinds(&again), answer(&again)), (vec!["reply"], answer(&first)));
    assert_eq!(guest.agent.runs().runs.len(), 1);
    let other = Command { boot: Boot(6), id: "c.1.2".into(), ..*command.clone() };
    assert_eq!(failed(&guest.step(Input::Command(Box::new(other)))).0, Code::TimedOut);
    let late = Command { deadline: Wall(DAY), id: "c.1.3".into(), ..*command.clone() };
    assert_eq!(failed(&guest.step(Input::Command(Box::new(late)))).0, Code::TimedOut);
    let name = DomainName::parse("small-2").expect("a name");
    let others = Order::Guest { name, command: GuestCommand::Cancel };
    let others = Command { order: others, id: "c.1.4".into(), ..*command };
    assert!(guest.step(Input::Command(Box::new(others))).is_empty(), "what is for others is not answered");
}

#[test]
fn a_cancel_is_answered_when_the_test_has_ended() {
    let mut guest = guest();
    let (code, text) = failed(&guest.order(GuestCommand::Cancel));
    assert_eq!((code, text.as_str()), (Code::Busy, "cannot cancel in small-1: no test runs"));
    guest.run("fibonacci 50");
    guest.run("quick");
    assert_eq!(kinds(&guest.order(GuestCommand::Cancel)), ["kill"]);
    let effects = guest.step(end(0));
    assert_eq!(kinds(&effects), ["guest-runs", "reply"]);
    assert_eq!(answer(&effects), done("fibonacci 50 was ended, and 1 that waited is forgotten"));
    assert!(guest.agent.runs().runs.iter().all(|r| r.state == RunState::Cancelled));
    // one that the kernel does not let die
    guest.run("disk");
    guest.order(GuestCommand::Cancel);
    assert!(guest.live(guest.now + 1_900).iter().all(|(_, k)| *k != "reply"));
    assert!(guest.live(guest.now + 200).iter().any(|(_, k)| *k == "reply"));
}

#[test]
fn processes_are_looked_at_while_they_are_asked_for() {
    let mut guest = guest();
    let looks = |all: Vec<(u64, &'static str)>| -> Vec<u64> {
        all.into_iter().filter(|(_, k)| *k == "look").map(|(at, _)| at).collect()
    };
    assert!(looks(guest.live(20_000)).is_empty());
    assert_eq!(kinds(&guest.order(GuestCommand::Top { seconds: 3 })), ["look", "reply"]);
    guest.step(Input::Looked(None));
    assert_eq!(looks(guest.live(22_500)), [20_150, 21_150, 22_150]);
    assert_eq!(kinds(&guest.order(GuestCommand::Top { seconds: 2 })), ["reply"], "it goes on");
    assert_eq!(looks(guest.live(60_000)), [23_150, 24_150]);
    // what is asked for too long has a bound
    guest.order(GuestCommand::Top { seconds: u32::MAX });
    guest.step(Input::Looked(None));
    assert_eq!(looks(guest.live(300_000)).len(), 60);
    guest.order(GuestCommand::Top { seconds: 9 });
    guest.step(Input::Looked(None));
    guest.order(GuestCommand::Top { seconds: 0 });
    assert!(looks(guest.live(400_000)).is_empty());
}

#[test]
fn load_ends_by_itself() {
    let mut guest = guest();
    let effects = guest.order(GuestCommand::Load { share: Ratio::new(0.8), seconds: 2 });
    assert_eq!(kinds(&effects), ["load", "beat", "reply"]);
    assert_eq!(effects[1], Effect::Beat(Some(Loading { share: Ratio::new(0.8), left: 2 })));
    assert_eq!(answer(&effects), done("each CPU is loaded by 80 % for 2 s"));
    assert_eq!(guest.live(4_000), [(2_000, "no load"), (2_000, "beat")]);
    guest.order(GuestCommand::Load { share: Ratio::ONE, seconds: 60 });
    let effects = guest.order(GuestCommand::Load { share: Ratio::ONE, seconds: 0 });
    assert_eq!(effects[..2], [Effect::Load(None), Effect::Beat(None)]);
    let (code, _) = failed(&guest.order(GuestCommand::Load { share: Ratio::ONE, seconds: u32::MAX }));
    assert_eq!(code, Code::Invalid);
}

fn inputs() -> impl Strategy<Value = Input> {
    let line = prop_oneof![Just("quick".to_owned()), Just("disk 1".to_owned()), any::<String>()];
    let command = prop_oneof![
        4 => line.prop_map(|line| GuestCommand::Run { line: line.into() }),
        1 => Just(GuestCommand::Cancel),
        1 => (any::<f64>(), any::<u32>()).prop_map(|(s, seconds)| GuestCommand::Load { share: Ratio::new(s), seconds }),
        1 => any::<u32>().prop_map(|seconds| GuestCommand::Top { seconds }),
    ];
    let command =
        (command, 0u64..60, any::<bool>(), any::<u64>(), prop_oneof![Just(DAY + 9_000), any::<u64>()]);
    let command = command.prop_map(|(command, number, right, boot, deadline)| {
        let name = DomainName::parse(if right { "small-1" } else { "small-2" }).expect("a name");
        Input::Command(Box::new(Command {
            id: format!("c.1.{number}").into(),
            client: ClientName::parse("c").expect("a name"),
            boot: if right { Boot(7) } else { Boot(boot) },
            deadline: Wall(deadline),
            order: Order::Guest { name, command },
        }))
    });
    prop_oneof![6 => command, 2 => Just(end(0)), 1 => Just(Input::Joined), 1 => Just(Input::Linked), 1 => Just(Input::Looked(None)), 2 => Just(Input::Tick)]
}

proptest! {
    // whatever comes: bounded, believed by receivers, one test at a time, each id answered alike, and it never wakes without end
    #[test]
    fn whatever_comes_is_taken(steps in prop::collection::vec((inputs(), 0u64..800), 0..120)) {
        let mut guest = guest();
        let (mut running, mut answers) = (0i32, std::collections::HashMap::<Box<str>, Reply>::new());
        for (input, wait) in steps {
            guest.now += wait;
            if matches!(input, Input::Ended(_)) {
                if running == 0 {
                    continue;
                }
                running -= 1;
            }
            let mut effects = guest.step(input);
            if guest.agent.wake().0 <= guest.now {
                effects.extend(guest.step(Input::Tick));
            }
            prop_assert!(guest.agent.wake().0 > guest.now, "what is due is done");
            for effect in effects {
                match effect {
                    Effect::Begin(program) => {
                        running += 1;
                        prop_assert!(program.path.ends_with("true") || program.path.ends_with("guestd"));
                    }
                    Effect::Publish(_, body) => match *body {
                        Body::GuestRuns(runs) => prop_assert!(runs.check().is_ok() && runs.runs.len() <= RUNS_MAX),
                        Body::Reply(reply) if matches!(reply.answer, Answer::Done { .. }) => {
                            let before = answers.insert(reply.id.clone(), (*reply).clone());
                            prop_assert!(before.is_none_or(|b| b.answer == reply.answer));
                        }
                        _ => {}
                    },
                    _ => {}
                }
            }
            prop_assert!((0..=1).contains(&running));
        }
    }
}
