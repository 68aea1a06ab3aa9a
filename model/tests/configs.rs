//! If these fail, two mounts of one cluster show different configs, or events tell what did not happen.
#![allow(clippy::unwrap_used)] // a test may panic

use proptest::prelude::*;
use uuid::Uuid;
use xvm_model::lease::Phase;
use xvm_model::spec::{Grant, GrantDisk, export_name};
use xvm_model::view::thing_id;
use xvm_model::*;

fn server(n: u64) -> ServerName {
    ServerName::parse(["kerby", "lerby", "ferby"][n as usize]).unwrap()
}

fn name(n: u64) -> ConfigName {
    ConfigName::parse(&format!("small-{n}")).unwrap()
}

fn record(n: u64, state: ConfigState) -> ConfigRecord {
    ConfigRecord {
        name: name(n),
        config: Config::new(Uuid::from_u128(n.into())),
        state,
        job: None,
        remaining: None,
        last: None,
        leases: vec![],
        boot: None,
        guest_key: None,
        log: n,
        wrong: None,
    }
}

fn lease(n: u64, on: &str, epoch: u64) -> Lease {
    let server = ServerName::parse(on).unwrap();
    let export = export_name(&name(n), &server, epoch, "disk");
    let disks = vec![GrantDisk { target: "vda".into(), volume: "disk".into(), export, size: 1 << 20 }];
    let grant =
        Grant { config: name(n), server, epoch, host: "10.0.0.9".into(), port: 10809, tls: false, disks };
    Lease { grant, phase: Phase::Held, job: None, boot: Boot(1) }
}

fn said(from: u64, boot: u64, seq: u64, body: Body) -> Envelope {
    let from = Sender::Images(server(from));
    Envelope { v: 1, from, boot: Boot(boot), seq, at: Wall(seq), body }
}

fn all(from: u64, boot: u64, seq: u64, configs: Vec<ConfigRecord>) -> Envelope {
    let said_all = Configs { interval_ms: 2_000, host: "10.0.0.9".into(), configs, ..Configs::default() };
    said(from, boot, seq, Body::Configs(Box::new(said_all)))
}

fn is(boot: u64, seq: u64, record: ConfigRecord) -> Envelope {
    said(0, boot, seq, Body::Config(Box::new(ConfigChange::Is { record })))
}

fn gone(boot: u64, seq: u64, n: u64) -> Envelope {
    said(0, boot, seq, Body::Config(Box::new(ConfigChange::Gone { name: name(n) })))
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(ms) }
}

fn linked() -> View {
    let mut view = View::default();
    view.link(true, "", at(0));
    view
}

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(|e| e.to_string().split_once(' ').unwrap().1.to_owned()).collect()
}

fn job(id: &str) -> Option<Box<Job>> {
    let (kind, phase) = (JobKind::Create, "packages".into());
    Some(Box::new(Job { id: id.into(), kind, phase, percent: 40, to: None, since: Wall(1), note: None }))
}

fn outcome(id: &str, at: u64, result: Result<&str, Failure>) -> Option<Box<Outcome>> {
    let result = result.map(Into::into);
    Some(Box::new(Outcome { id: id.into(), kind: JobKind::Create, at: Wall(at), result }))
}

#[test]
fn the_life_of_a_config_is_told_line_by_line() {
    use ConfigState::*;
    let mut view = linked();
    assert_eq!(texts(&view.apply(all(0, 1, 1, vec![]), at(1))), ["cluster imaged up on kerby"]);
    let creating = ConfigRecord { job: job("a"), ..record(6, Creating) };
    assert_eq!(
        texts(&view.apply(is(1, 2, creating.clone()), at(2))),
        ["config small-6 appeared: creating", "config small-6 job create"]
    );
    let further = ConfigRecord { remaining: Some(3), log: 99, ..creating.clone() };
    assert!(view.apply(is(1, 3, further), at(3)).is_empty(), "progress is no event");
    let ready = ConfigRecord { last: outcome("a", 9, Ok("small-6 is ready")), ..record(6, Ready) };
    let made = view.apply(is(1, 4, ready.clone()), at(4));
    assert_eq!(
        texts(&made),
        ["config small-6 state ready (was creating)", "config small-6 done create: small-6 is ready"]
    );
    let running = ConfigRecord { state: Running, leases: vec![lease(6, "ferby", 7)], ..ready.clone() };
    let events = view.apply(is(1, 5, running.clone()), at(5));
    assert_eq!(texts(&events), ["config small-6 lease ferby 7", "config small-6 state running (was ready)"]);
    assert!(events[0].heard_at(&About::Server(server(2))), "its server hears it too");
    assert!(events[0].heard_at(&About::Config(name(6))) && !events[0].heard_at(&About::Config(name(7))));
    let moved = ConfigRecord { leases: vec![lease(6, "gerby", 8)], ..running };
    assert_eq!(
        texts(&view.apply(is(1, 6, moved), at(6))),
        ["config small-6 lease gerby 8", "config small-6 lease ferby 7 ended"]
    );
    let wrong = ConfigRecord { wrong: Some("line 3: unknown\nfield".into()), ..ready.clone() };
    let events = view.apply(
        said(
            0,
            1,
            7,
            Body::Reply(Box::new(Reply {
                id: "x".into(),
                answer: Answer::Accepted,
                news: Some(News::Config { change: Box::new(ConfigChange::Is { record: wrong }) }),
            })),
        ),
        at(7),
    );
    assert_eq!(
        texts(&events),
        [
            "config small-6 lease gerby 8 ended",
            "config small-6 state ready (was running)",
            "config small-6 wrong: line 3: unknown field"
        ]
    );
    assert_eq!(texts(&view.apply(is(1, 8, ready), at(8))), ["config small-6 no longer wrong"]);
    assert!(view.thing(thing_id(&Thing::Config(name(6)))).is_some());
    assert_eq!(texts(&view.apply(gone(1, 9, 6), at(9))), ["config small-6 gone"]);
    assert!(view.thing(thing_id(&Thing::Config(name(6)))).is_none() && view.config("small-6").is_none());
}

#[test]
fn its_reach_follows_its_interval_and_without_a_forwarder_it_is_not_down() {
    let mut view = linked();
    view.apply(all(0, 1, 1, vec![record(1, ConfigState::Ready)]), at(0));
    assert!(view.tick(at(5_900)).is_empty());
    assert_eq!(texts(&view.tick(at(6_000))), ["cluster imaged stale on kerby"]);
    assert_eq!(texts(&view.tick(at(20_000))), ["cluster imaged down on kerby"]);
    assert!(view.tick(at(21_000)).is_empty());
    assert!(view.config("small-1").is_some(), "what was heard last stays");
    assert_eq!(
        texts(&view.apply(all(0, 1, 2, vec![record(1, ConfigState::Ready)]), at(22_000))),
        ["cluster imaged up on kerby"]
    );
    view.link(false, "gone", at(23_000));
    let images = view.images().unwrap().clone();
    assert_eq!(view.images_reach(&images, Mono(900_000)), Reach::Stale);
}

#[test]
fn of_two_imageds_the_first_stays_until_it_is_down() {
    let mut view = linked();
    view.apply(all(0, 1, 1, vec![record(1, ConfigState::Ready)]), at(0));
    let told = texts(&view.apply(all(1, 9, 1, vec![record(2, ConfigState::Ready)]), at(1)));
    assert_eq!(
        told,
        ["cluster imaged on lerby is not heeded: the one on kerby was heard first; stop one of them"]
    );
    assert!(view.apply(all(1, 9, 2, vec![record(2, ConfigState::Ready)]), at(2)).is_empty(), "told once");
    let news = ConfigChange::Is { record: record(3, ConfigState::Ready) };
    assert!(view.apply(said(1, 9, 3, Body::Config(Box::new(news))), at(3)).is_empty());
    assert_eq!((view.config_count(), view.images().unwrap().name.clone()), (1, server(0)));
    view.tick(at(20_000));
    assert_eq!(
        texts(&view.apply(all(1, 9, 4, vec![record(2, ConfigState::Ready)]), at(20_001))),
        ["cluster imaged up on lerby", "config small-1 gone", "config small-2 appeared: ready"]
    );
}

#[test]
fn a_job_that_a_new_life_does_not_know_is_told_as_lost() {
    let mut view = linked();
    let creating = ConfigRecord {
        job: job("new"),
        last: outcome("old", 0, Ok("small-1 is ready")),
        ..record(1, ConfigState::Creating)
    };
    view.apply(all(0, 1, 1, vec![creating]), at(0));
    let events = view.apply(all(0, 2, 1, vec![record(1, ConfigState::Failed)]), at(1));
    let told = texts(&events);
    assert_eq!(told[0], "cluster imaged started anew on kerby");
    assert!(
        told.iter().any(|t| t.starts_with("config small-1 failed create: ETIMEDOUT cannot tell")),
        "{told:?}"
    );
    assert_eq!(&*view.config("small-1").unwrap().last().unwrap().id, "new");
    let later = ConfigRecord {
        last: outcome("later", 5, Err(Failure::busy("cancelled"))),
        ..record(1, ConfigState::Failed)
    };
    let told = texts(&view.apply(all(0, 2, 2, vec![later]), at(2)));
    assert_eq!(told, ["config small-1 failed create: EBUSY cancelled"]);
}

#[test]
fn news_of_another_life_waits_for_its_whole_state() {
    let mut view = linked();
    assert!(view.apply(is(1, 1, record(1, ConfigState::Ready)), at(0)).is_empty(), "nothing is known yet");
    view.apply(all(0, 5, 1, vec![]), at(0));
    view.apply(is(6, 1, record(1, ConfigState::Ready)), at(1));
    view.apply(is(4, 99, record(2, ConfigState::Ready)), at(1));
    assert_eq!(view.config_count(), 0);
    view.apply(all(0, 4, 99, vec![record(2, ConfigState::Ready)]), at(2));
    assert_eq!(view.config_count(), 0, "an older life");
    view.apply(all(0, 4, 99, vec![record(2, ConfigState::Ready)]), at(60_000));
    assert_eq!(view.config_count(), 1, "a clock that was set back, once the known life is down");
}

/// One thing that imaged says.
#[derive(Debug, Clone)]
enum Say {
    All(Vec<(u64, ConfigState)>),
    Is(u64, ConfigState),
    Gone(u64),
}

fn state() -> impl Strategy<Value = ConfigState> {
    prop::sample::select(ConfigState::ALL)
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        prop::collection::vec((0u64..5, state()), 0..5).prop_map(Say::All),
        (0u64..5, state()).prop_map(|(n, s)| Say::Is(n, s)),
        (0u64..5).prop_map(Say::Gone),
    ]
}

fn records(of: &[(u64, ConfigState)]) -> Vec<ConfigRecord> {
    of.iter().map(|(n, s)| record(*n, *s)).collect()
}

fn envelopes(says: &[Say]) -> Vec<Envelope> {
    let envelope = |(i, say): (usize, &Say)| {
        let seq = i as u64 + 1;
        match say {
            Say::All(of) => all(0, 1, seq, records(of)),
            Say::Is(n, s) => is(1, seq, record(*n, *s)),
            Say::Gone(n) => gone(1, seq, *n),
        }
    };
    says.iter().enumerate().map(envelope).collect()
}

/// What a reader can see, without when it was heard and how lost jobs ended.
fn seen(view: &View) -> Vec<String> {
    let images = view.images().map(|i| format!("{} {:?} {:?}", i.name, i.stamp, i.said));
    let configs = view.configs().map(|c| {
        let thing = view.thing(thing_id(&Thing::Config(c.record.name.clone())));
        format!("{:?} {thing:?}", c.record)
    });
    images.into_iter().chain(configs).collect()
}

proptest! {
    /// After any loss, doubling and reordering, the next whole state makes two views say the same.
    #[test]
    fn views_converge(
        says in prop::collection::vec(say(), 0..40),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        last in prop::collection::vec((0u64..5, state()), 0..5),
    ) {
        let said = envelopes(&says);
        let (mut straight, mut crooked) = (linked(), linked());
        for e in &said {
            straight.apply(e.clone(), at(1));
        }
        for pick in picks.iter().filter(|_| !said.is_empty()) {
            crooked.apply(said[pick.index(said.len())].clone(), at(1));
        }
        let end = all(0, 1, 1000, records(&last));
        straight.apply(end.clone(), at(2));
        crooked.apply(end, at(2));
        prop_assert_eq!(seen(&straight), seen(&crooked));
        for pick in picks.iter().filter(|_| !said.is_empty()) {
            let late = said[pick.index(said.len())].clone();
            prop_assert!(crooked.apply(late, at(3)).is_empty(), "what is late tells nothing");
        }
        prop_assert_eq!(seen(&straight), seen(&crooked));
    }

    /// Applying a message twice changes nothing and tells nothing; each config that is shown has its number.
    #[test]
    fn doubles_do_nothing_and_what_is_listed_has_a_number(says in prop::collection::vec(say(), 1..30)) {
        let mut view = linked();
        for e in envelopes(&says) {
            view.apply(e.clone(), at(1));
            let before = view.clone();
            prop_assert!(view.apply(e, at(1)).is_empty());
            prop_assert_eq!(seen(&before), seen(&view));
            for c in view.configs() {
                let thing = Thing::Config(c.record.name.clone());
                prop_assert_eq!(view.thing(thing_id(&thing)), Some(&thing));
            }
        }
    }
}
