//! Schedules over guests that take their time, refuse, die, are lost and answer late.

use super::super::table::{results, summary};
use super::*;
use crate::Run;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Guests of which each runs one test at a time.
#[derive(Default)]
struct World {
    guests: RefCell<BTreeMap<String, Guest>>,
    moves: u64,
}

#[derive(Clone, Default)]
struct Guest {
    boot: u64,
    heard: bool,
    server: &'static str,
    runs: Vec<Run>,
}

impl Guests for World {
    fn heard(&self) -> Vec<DomainName> {
        let guests = self.guests.borrow();
        guests.iter().filter(|(_, g)| g.heard).map(|(n, _)| DomainName::parse(n).expect("a name")).collect()
    }
    fn server(&self, domain: &str) -> Option<ServerName> {
        self.guests.borrow().get(domain).map(|g| ServerName::parse(g.server).expect("a name"))
    }
    fn runs(&self, domain: &str) -> Option<(Boot, Arc<GuestRuns>)> {
        let guests = self.guests.borrow();
        let guest = guests.get(domain).filter(|g| g.heard)?;
        Some((Boot(guest.boot), Arc::new(GuestRuns { runs: guest.runs.clone() })))
    }
    fn moves(&self) -> u64 {
        self.moves
    }
}

impl World {
    fn with(names: &[&str]) -> World {
        let guest = Guest { boot: 1, heard: true, server: "ferby", runs: Vec::new() };
        let guests = names.iter().map(|n| ((*n).to_owned(), guest.clone())).collect();
        World { guests: RefCell::new(guests), moves: 3 }
    }

    fn change(&self, name: &str, f: impl FnOnce(&mut Guest)) {
        f(self.guests.borrow_mut().get_mut(name).expect("it is there"));
    }

    /// The guest takes a test.
    fn take(&self, name: &str, id: &str, line: &str) {
        self.change(name, |g| {
            g.runs.push(Run {
                id: id.into(),
                line: line.into(),
                state: RunState::Running,
                at: Wall(0),
                wall_ms: 0,
                cpu_ms: 0,
                status: None,
                why: None,
                output: "".into(),
            });
        });
    }

    fn end(&self, name: &str, id: &str, state: RunState, wall_ms: u64) {
        self.change(name, |g| {
            let run = g.runs.iter_mut().find(|r| &*r.id == id).expect("it runs");
            (run.state, run.wall_ms, run.cpu_ms) = (state, wall_ms, wall_ms / 2);
            run.status = (state != RunState::Cancelled).then_some(i32::from(state == RunState::Failed));
        });
    }
}

fn now(ms: u64) -> Now {
    Now { wall: Wall(1_000_000_000_000 + ms), mono: Mono(5_000 + ms) }
}

fn start(text: &str, world: &World) -> Play {
    Play::start(Schedule::parse(text).expect("it reads"), "on", world, now(0))
}

fn run(task: usize, domain: &str, test: &str) -> Effect {
    Effect::Run { task, domain: DomainName::parse(domain).expect("a name"), test: test.into() }
}

#[test]
fn tests_run_in_order_one_a_domain() {
    let mut world = World::with(&["small-1", "small-2", "web"]);
    let mut play = start("0 small-* fibonacci 3\n0 small-1 disk\n1.5 web image\n0 nobody disk\n", &world);
    assert_eq!(play.next(now(0)), Some(0));
    assert_eq!(
        play.step(&world, now(0)),
        [run(0, "small-1", "fibonacci 3"), run(1, "small-2", "fibonacci 3")]
    );
    assert_eq!(play.step(&world, now(10)), [], "ordered once");
    assert_eq!((play.tasks[2].state, play.tasks[3].state), (TaskState::Waiting, TaskState::Failed));
    assert!(play.tasks[3].why.as_ref().is_some_and(|w| w.contains("\"nobody\"")));
    for (task, name) in [(0, "small-1"), (1, "small-2")] {
        world.take(name, &format!("c.{task}"), "fibonacci 3");
        play.answered(task, Ok(format!("c.{task}").into()), &world, now(20));
    }
    assert_eq!((play.step(&world, now(30)), play.next(now(30))), (vec![], Some(1470)));
    world.end("small-1", "c.0", RunState::Done, 900);
    world.change("small-1", |g| g.server = "herby");
    world.moves = 4;
    assert_eq!(play.step(&world, now(1000)), []);
    assert_eq!(play.step(&world, now(1600)), [run(2, "small-1", "disk"), run(4, "web", "image")]);
    let first = &play.tasks[0];
    assert_eq!((first.state, first.wall_ms, first.cpu_ms, first.total_ms), (TaskState::Done, 900, 450, 1000));
    assert_eq!(
        (first.from.as_ref().map(ServerName::as_str), first.to.as_ref().map(ServerName::as_str)),
        (Some("ferby"), Some("herby"))
    );
    play.answered(2, Err(Failure::busy("16 wait")), &world, now(1610));
    play.answered(4, Err(Failure::new(Code::TimedOut, "no answer".to_owned())), &world, now(6600));
    world.end("small-2", "c.1", RunState::Failed, 10);
    assert_eq!(play.step(&world, now(6700)), []);
    let states: Vec<_> = play.tasks.iter().map(|t| t.state).collect();
    use TaskState::{Done, Failed, Unknown};
    assert_eq!(states, [Done, Failed, Failed, Failed, Unknown]);
    assert_eq!((play.state, play.took_ms, play.moves), (PlayState::Done, 6700, 1));
    let table = results(&play);
    assert!(table.starts_with(" AT BEGUN "), "{table}");
    assert!(table.lines().nth(1).is_some_and(|l| l.contains(" small-1 ferby>herby done ")), "{table}");
    assert!(table.lines().nth(3).is_some_and(|l| l.ends_with("disk # 16 wait")), "{table}");
    let summary = summary(&play);
    assert!(
        summary.contains("\nbalance on\nmoves 1\ntests 5\ndone 1\nfailed 3\ncancelled 0\nunknown 1\n\n"),
        "{summary}"
    );
    assert!(summary.contains("    2    1 0.900  0.900 0.900 0.450 1.000 fibonacci 3\n"), "{summary}");
    // it can be kept
    let kept = serde_json::to_string(&play).expect("it is written");
    assert_eq!(results(&serde_json::from_str(&kept).expect("it is read")), table);
}

#[test]
fn a_lost_guest_ends_its_test() {
    let world = World::with(&["a", "b", "c"]);
    let mut play = start("0 * disk\n", &world);
    play.step(&world, now(0));
    for (task, name) in ["a", "b", "c"].iter().enumerate() {
        world.take(name, "x", "disk");
        play.answered(task, Ok("x".into()), &world, now(1));
    }
    play.step(&world, now(2));
    world.change("a", |g| g.boot = 2);
    world.change("b", |g| g.heard = false);
    world.change("c", |g| g.runs.clear());
    play.step(&world, now(3));
    let states = |p: &Play| p.tasks.iter().map(|t| t.state).collect::<Vec<_>>();
    assert_eq!(states(&play), [TaskState::Unknown, TaskState::Running, TaskState::Running]);
    play.step(&world, now(3 + UNTOLD_MS));
    assert_eq!(states(&play)[1..], [TaskState::Running, TaskState::Unknown]);
    // it was only moving
    world.change("b", |g| g.heard = true);
    play.step(&world, now(SILENCE_MS));
    world.change("b", |g| g.heard = false);
    play.step(&world, now(SILENCE_MS + 10));
    play.step(&world, now(2 * SILENCE_MS));
    assert!(play.is_running());
    play.step(&world, now(2 * SILENCE_MS + 10));
    assert_eq!((states(&play)[1], play.state), (TaskState::Unknown, PlayState::Done));
    let why: Vec<_> = play.tasks.iter().filter_map(|t| t.why.as_deref()).collect();
    assert_eq!(
        why,
        ["its guestd was started anew", "its guestd was not heard for 60 s", "its guestd has forgotten it"]
    );
}

#[test]
fn cancelled_is_cancelled() {
    let world = World::with(&["a", "b"]);
    let mut play = start("0 * disk\n0 a image\n60 a disk\n", &world);
    play.step(&world, now(0));
    world.take("a", "x", "disk");
    play.answered(0, Ok("x".into()), &world, now(1));
    assert!(play.cancel());
    let a = DomainName::parse("a").expect("a name");
    assert_eq!(play.step(&world, now(2)), [Effect::Cancel { domain: a }]);
    assert_eq!(play.step(&world, now(3)), [], "told once");
    world.end("a", "x", RunState::Cancelled, 5);
    // an order that was under way
    world.take("b", "y", "disk");
    play.answered(1, Ok("y".into()), &world, now(4));
    let b = DomainName::parse("b").expect("a name");
    assert_eq!(play.step(&world, now(5)), [Effect::Cancel { domain: b }]);
    world.end("b", "y", RunState::Done, 5);
    play.step(&world, now(6));
    assert_eq!(play.state, PlayState::Cancelled);
    let states: Vec<_> = play.tasks.iter().map(|t| t.state).collect();
    assert_eq!(states, [TaskState::Cancelled, TaskState::Done, TaskState::Cancelled]);
    assert!(!play.cancel());
    let mut play = start("0 * disk\n", &world);
    play.step(&world, now(0));
    play.interrupt();
    assert_eq!((play.state, play.tasks[0].state), (PlayState::Interrupted, TaskState::Unknown));
}

/// What may happen between two steps.
#[derive(Debug, Clone)]
enum Happens {
    Answer(usize, bool),
    End(usize),
    Die(usize),
    Silent(usize, bool),
    Cancel,
    Time(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0usize..8, any::<bool>()).prop_map(|(t, ok)| Happens::Answer(t, ok)),
        4 => (0usize..8).prop_map(Happens::End),
        1 => (0usize..3).prop_map(Happens::Die),
        2 => (0usize..3, any::<bool>()).prop_map(|(g, heard)| Happens::Silent(g, heard)),
        1 => Just(Happens::Cancel),
        4 => (1u64..30_000).prop_map(Happens::Time),
    ]
}

proptest! {
    // every test is ordered once at most, one at a time in a domain, and ends in one row whatever happens
    #[test]
    fn every_test_ends_in_one_row(script in prop::collection::vec(happens(), 0..60)) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let world = World::with(&NAMES);
        let mut play = start("0 * disk\n1 * image\n2 a disk\n3 b disk\n", &world);
        let (mut ms, mut ordered) = (0, BTreeSet::new());
        let mut step = |play: &mut Play, ms: u64| -> Result<(), TestCaseError> {
            for effect in play.step(&world, now(ms)) {
                if let Effect::Run { task, domain, .. } = effect {
                    prop_assert!(ordered.insert(task), "task {task} was ordered twice");
                    let others = play.tasks.iter().enumerate();
                    let others = others.filter(|(i, t)| *i != task && *t.domain == *domain.as_str());
                    for (_, other) in others {
                        prop_assert!(!matches!(other.state, TaskState::Ordered | TaskState::Running));
                    }
                }
            }
            Ok(())
        };
        for happens in script {
            match happens {
                Happens::Answer(i, ok) => {
                    if let Some(task) = play.tasks.get(i).filter(|t| t.state == TaskState::Ordered).cloned() {
                        let id: Box<str> = format!("id.{i}").into();
                        if ok {
                            world.take(&task.domain, &id, &task.test);
                        }
                        let answer = if ok { Ok(id) } else { Err(Failure::busy("no")) };
                        play.answered(i, answer, &world, now(ms));
                    }
                }
                Happens::End(i) => {
                    if let Some(task) = play.tasks.get(i).filter(|t| t.state == TaskState::Running).cloned() {
                        let id = task.id.clone().unwrap_or_default();
                        let there = world.guests.borrow()[&*task.domain].runs.iter().any(|r| r.id == id);
                        if there {
                            world.end(&task.domain, &id, RunState::Done, 1);
                        }
                    }
                }
                Happens::Die(g) => world.change(NAMES[g], |g| { g.boot += 1; g.runs.clear(); }),
                Happens::Silent(g, heard) => world.change(NAMES[g], |g| g.heard = heard),
                Happens::Cancel => drop(play.cancel()),
                Happens::Time(more) => ms += more,
            }
            step(&mut play, ms)?;
        }
        // in the end every order is answered, and every guest is silent or says that it knows of nothing
        for round in 0..40 {
            for i in 0..play.tasks.len() {
                play.answered(i, Err(Failure::new(Code::TimedOut, "no answer".to_owned())), &world, now(ms));
            }
            if round > 2 {
                NAMES.iter().for_each(|n| world.change(n, |g| g.heard = false));
            }
            ms += SILENCE_MS;
            step(&mut play, ms)?;
        }
        prop_assert!(!play.is_running());
        prop_assert!(play.tasks.iter().all(|t| t.state.is_over()));
        drop((results(&play), summary(&play)));
    }
}
