//! If these fail, two mounts of one cluster show different things, or a mount shows what is not true.

use proptest::prelude::*;
use std::sync::Arc;
use uuid::Uuid;
use xvm_model::*;

fn server(n: u64) -> ServerName {
    ServerName::parse(["ferby", "gerby", "herby"][n as usize % 3]).expect("a name")
}

fn domain(n: u64, state: DomainState) -> Domain {
    let name = DomainName::parse(&format!("small-{n}")).expect("a name");
    Domain { state, ..Domain::new(name, Uuid::from_u128(u128::from(n))) }
}

fn beat(domains: Vec<Domain>) -> Heartbeat {
    Heartbeat {
        settings: ServerSettings::default(),
        points: 0,
        hypervisor: HypervisorKind::Sim,
        cpu: None,
        address: "127.0.0.1:1".into(),
        stale: None,
        cpus: vec![Ratio::new(0.5); 4],
        memory: ServerMemory { total: 1 << 24, free: 1 << 23 },
        domains,
        job: None,
        last: None,
        departed: vec![],
    }
}

fn said(from: &ServerName, boot: u64, seq: u64, body: Body) -> Envelope {
    Envelope { v: 1, from: Sender::Agent(from.clone()), boot: Boot(boot), seq, at: Wall(seq), body }
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(ms) }
}

fn heartbeat(from: u64, seq: u64, domains: Vec<Domain>) -> Envelope {
    said(&server(from), 1, seq, Body::Heartbeat(Box::new(beat(domains))))
}

fn linked() -> View {
    let mut view = View::default();
    view.link(true, "", at(0));
    view
}

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(|e| e.to_string().split_once(' ').expect("a time").1.to_owned()).collect()
}

#[test]
fn reach_follows_missed_heartbeats_and_is_told_once() {
    let mut view = linked();
    let first = view.apply(heartbeat(0, 1, vec![domain(1, DomainState::Running)]), at(0));
    assert_eq!(texts(&first), ["server ferby state up", "domain small-1 appeared on ferby: running"]);
    assert!(view.tick(at(5_900)).is_empty());
    assert_eq!(texts(&view.tick(at(6_000))), ["server ferby state stale"]);
    assert_eq!(texts(&view.tick(at(20_000))), ["server ferby state down", "domain small-1 state unknown"]);
    assert!(view.tick(at(21_000)).is_empty());
    assert_eq!(view.domain("small-1", Mono(21_000)).expect("shown").shown, Shown::Unknown);
    let back = view.apply(heartbeat(0, 2, vec![domain(1, DomainState::Running)]), at(22_000));
    assert_eq!(texts(&back), ["server ferby state up"]);
    assert_eq!(
        view.domain("small-1", Mono(22_000)).expect("shown").shown,
        Shown::Known(DomainState::Running)
    );
}

#[test]
fn without_a_forwarder_nobody_is_called_down() {
    let mut view = linked();
    view.apply(heartbeat(0, 1, vec![]), at(0));
    view.link(false, "gone", at(1_000));
    let s = view.server("ferby").expect("known").clone();
    assert_eq!(view.reach(&s, Mono(100_000)), Reach::Stale);
    view.link(true, "", at(100_000));
    assert_eq!(view.reach(&s, Mono(100_100)), Reach::Up, "it gets its time to be heard again");
    assert_eq!(view.reach(&s, Mono(120_000)), Reach::Down);
}

#[test]
fn two_servers_that_claim_one_running_domain_are_a_conflict_until_one_lets_go() {
    let mut view = linked();
    view.apply(heartbeat(0, 1, vec![domain(1, DomainState::Running)]), at(0));
    let events = view.apply(heartbeat(1, 1, vec![domain(1, DomainState::Paused)]), at(1));
    assert!(
        texts(&events).iter().any(|t| t.contains("state conflict") && t.contains("ferby and gerby")),
        "{events:?}"
    );
    let d = view.domain("small-1", Mono(1)).expect("shown");
    assert_eq!((d.shown, d.claimed_by.len()), (Shown::Conflict, 2));
    for s in ["ferby", "gerby"] {
        assert_eq!(view.domains_of(&view.server(s).expect("known").clone(), Mono(1)).count(), 1);
    }
    view.apply(heartbeat(0, 2, vec![domain(1, DomainState::Shutoff)]), at(2));
    let d = view.domain("small-1", Mono(2)).expect("shown");
    assert_eq!((d.shown, d.server.as_str()), (Shown::Known(DomainState::Paused), "gerby"));
    assert_eq!(view.domains_of(&view.server("ferby").expect("known").clone(), Mono(2)).count(), 0);
}

#[test]
fn a_migration_is_no_conflict_and_leaves_no_gap() {
    let mut view = linked();
    let job = Job {
        id: "j".into(),
        kind: JobKind::Migrate,
        phase: "copy".into(),
        percent: 9,
        to: Some(server(1)),
        since: Wall(0),
        note: None,
    };
    let moving = Domain { job: Some(Box::new(job)), ..domain(1, DomainState::Running) };
    view.apply(heartbeat(0, 1, vec![moving]), at(0));
    view.apply(heartbeat(1, 1, vec![domain(1, DomainState::Running)]), at(1));
    let d = view.domain("small-1", Mono(1)).expect("shown");
    assert_eq!((d.shown, d.server.as_str()), (Shown::Known(DomainState::Running), "ferby"));
    // the destination's own word is late: the domain is shown there all the same
    view.apply(heartbeat(1, 2, vec![]), at(2));
    let result = Ok("small-1 runs on gerby".into());
    let last = Outcome { id: "j".into(), kind: JobKind::Migrate, at: Wall(2), result };
    let arrived = Domain { last: Some(Box::new(last)), ..domain(1, DomainState::Running) };
    let departed = Departed { domain: arrived, to: server(1) };
    let change = DomainChange::Departed { departed: departed.clone() };
    let events = view.apply(said(&server(0), 1, 2, Body::Domain(Box::new(change))), at(3));
    assert_eq!(
        texts(&events),
        ["domain small-1 server gerby (was ferby)", "domain small-1 done migrate: small-1 runs on gerby"]
    );
    assert_eq!(view.domain("small-1", Mono(4)).expect("no gap").server.as_str(), "gerby");
    // a heartbeat that repeats it changes nothing, and the destination speaks
    let mut repeat = beat(vec![]);
    repeat.departed = vec![departed];
    let repeated = |seq| said(&server(0), 1, seq, Body::Heartbeat(Box::new(repeat.clone())));
    assert!(view.apply(repeated(3), at(5)).is_empty());
    assert!(view.apply(heartbeat(1, 3, vec![domain(1, DomainState::Running)]), at(6)).is_empty());
    let d = view.domain("small-1", Mono(30_000)).expect("stays");
    assert_eq!(d.last.expect("the outcome stays").id.as_ref(), "j");
    // it is shut down there within the minute in which its departure is told: it does not come back as a ghost
    view.apply(heartbeat(1, 4, vec![]), at(7_000));
    assert!(view.domain("small-1", Mono(7_001)).is_none());
    for (seq, ms) in [(4, 8_000), (5, 30_000), (6, 60_000)] {
        assert!(view.apply(repeated(seq), at(ms)).is_empty());
        view.tick(at(ms + 1));
        assert!(view.domain("small-1", Mono(ms + 2)).is_none(), "a ghost at {ms}");
    }
}

/// If this fails, a domain that moved and was then shut off comes back as a ghost, for its first server tells of it for a minute.
#[test]
fn regression_a_domain_that_moved_and_is_off_does_not_come_back() {
    let mut view = linked();
    let outcome =
        |id: &str, kind, at| Outcome { id: id.into(), kind, at: Wall(at), result: Ok("done".into()) };
    let with = |state, last| Domain { last: Some(Box::new(last)), ..domain(1, state) };
    view.apply(heartbeat(0, 1, vec![domain(1, DomainState::Running)]), at(0));
    let moved = with(DomainState::Running, outcome("j", JobKind::Migrate, 2));
    let departed = Departed { domain: moved, to: server(1) };
    let mut repeat = beat(vec![]);
    repeat.departed = vec![departed];
    let repeated = |seq| said(&server(0), 1, seq, Body::Heartbeat(Box::new(repeat.clone())));
    view.apply(repeated(2), at(3));
    view.apply(heartbeat(1, 1, vec![domain(1, DomainState::Running)]), at(4));
    let off = with(DomainState::Shutoff, outcome("s", JobKind::Shutdown, 5));
    view.apply(said(&server(1), 1, 2, Body::Domain(Box::new(DomainChange::Is { domain: off }))), at(5));
    let name = domain(1, DomainState::Running).name;
    let gone = DomainChange::Gone { name: name.clone() };
    view.apply(said(&server(1), 1, 3, Body::Domain(Box::new(gone))), at(6));
    assert!(view.domain("small-1", Mono(6)).is_none());
    view.apply(repeated(3), at(7));
    assert!(view.domain("small-1", Mono(7)).is_none(), "nobody has it");
    assert_eq!(view.ended(&name).map(|o| &*o.id), Some("s"), "how it ended is known for a while");
    view.tick(at(200_000));
    assert_eq!(view.ended(&name), None);
}

#[test]
fn an_old_outcome_is_not_told_again_when_another_server_speaks() {
    let result = Ok("small-1 is shut off".into());
    let last = Outcome { id: "j".into(), kind: JobKind::Shutdown, at: Wall(1), result };
    let off = Domain { last: Some(Box::new(last)), ..domain(1, DomainState::Shutoff) };
    let mut view = linked();
    view.apply(heartbeat(0, 1, vec![off.clone()]), at(1));
    view.apply(heartbeat(1, 1, vec![domain(1, DomainState::Running)]), at(2));
    let events = view.apply(heartbeat(1, 2, vec![]), at(3));
    assert_eq!(
        texts(&events),
        ["domain small-1 server ferby (was gerby)", "domain small-1 state shutoff (was running)"]
    );
}

#[test]
fn a_job_that_nobody_ended_is_told_as_lost() {
    let outcome = |id: &str, at| {
        let result = Ok("small-1 runs on ferby".into());
        Some(Box::new(Outcome { id: id.into(), kind: JobKind::Migrate, at: Wall(at), result }))
    };
    let job = |id: &str, since| Job {
        id: id.into(),
        kind: JobKind::Migrate,
        phase: "copy".into(),
        percent: 9,
        to: Some(server(1)),
        since: Wall(since),
        note: None,
    };
    let domain =
        |job: Option<Job>, last| Domain { job: job.map(Box::new), last, ..domain(1, DomainState::Running) };
    let waits = |view: &View, now| {
        view.domain("small-1", Mono(now)).expect("there").last.expect("an outcome").id.clone()
    };
    let mut view = linked();
    view.apply(heartbeat(0, 1, vec![domain(Some(job("new", 50)), outcome("old", 40))]), at(0));
    // the agent is started anew, and knows nothing of the job
    let anew = Body::Heartbeat(Box::new(beat(vec![domain(None, None)])));
    let events = view.apply(said(&server(0), 2, 1, anew), at(1));
    assert_eq!(&*waits(&view, 1), "new");
    assert!(
        texts(&events).iter().any(|t| t.starts_with("domain small-1 failed migrate: ETIMEDOUT")),
        "{events:?}"
    );
    // what it tells of a later job is believed, though its clock is far behind ours
    let later = Body::Heartbeat(Box::new(beat(vec![domain(None, outcome("later", 60))])));
    view.apply(said(&server(0), 2, 2, later), at(1_000_000));
    assert_eq!(&*waits(&view, 1_000_000), "later");
    // the agent dies in mid-migration for good, and the domain is on the destination
    view.apply(
        said(&server(0), 2, 3, Body::Heartbeat(Box::new(beat(vec![domain(Some(job("last", 70)), None)])))),
        at(1_000_001),
    );
    view.apply(heartbeat(1, 1, vec![domain(None, None)]), at(1_020_000));
    view.apply(heartbeat(1, 2, vec![domain(None, None)]), at(1_021_999));
    view.tick(at(1_022_000));
    assert_eq!(
        (&*waits(&view, 1_022_000), view.domain("small-1", Mono(1_022_000)).expect("there").server),
        ("last", server(1))
    );
}

#[test]
fn a_servers_own_job_is_told_from_begin_to_end_also_when_nobody_tells_its_end() {
    let job = |id: &str, since| {
        let (kind, phase) = (JobKind::Evacuate, "ask".into());
        Some(Box::new(Job {
            id: id.into(),
            kind,
            phase,
            percent: 9,
            to: None,
            since: Wall(since),
            note: None,
        }))
    };
    let last = |id: &str, at| {
        let result = Ok("ferby has no domains".into());
        Some(Box::new(Outcome { id: id.into(), kind: JobKind::Evacuate, at: Wall(at), result }))
    };
    let says = |boot, seq, job, last| {
        said(&server(0), boot, seq, Body::Heartbeat(Box::new(Heartbeat { job, last, ..beat(vec![]) })))
    };
    let mut view = linked();
    let first = view.apply(says(1, 1, None, last("old", 1)), at(1));
    assert_eq!(texts(&first), ["server ferby state up"], "what was before is no news");
    assert_eq!(
        texts(&view.apply(says(1, 2, job("a", 2), last("old", 1)), at(2))),
        ["server ferby job evacuate"]
    );
    assert!(view.apply(says(1, 2, job("a", 2), last("old", 1)), at(2)).is_empty());
    let done = view.apply(says(1, 3, None, last("a", 3)), at(3));
    assert_eq!(texts(&done), ["server ferby done evacuate: ferby has no domains"]);
    view.apply(says(1, 4, job("b", 4), last("a", 3)), at(4));
    let lost = texts(&view.apply(says(2, 1, None, last("a", 3)), at(5)));
    assert!(lost[1].starts_with("server ferby failed evacuate: ETIMEDOUT cannot tell"), "{lost:?}");
    assert!(view.apply(says(2, 2, None, last("a", 3)), at(6)).is_empty());
    let last_id = |view: &View| view.server("ferby").and_then(|s| s.last().map(|o| o.id.to_string()));
    assert_eq!(last_id(&view).as_deref(), Some("b"), "not an older one");
    view.apply(says(2, 3, None, last("c", 7)), at(7));
    assert_eq!(last_id(&view).as_deref(), Some("c"));
}

#[test]
fn the_latest_word_about_balance_is_the_clusters_and_is_told_once() {
    let says = |from, seq, mode, told| {
        let settings =
            ServerSettings { balance: Balance { mode, at: Wall(told) }, ..ServerSettings::default() };
        said(&server(from), 1, seq, Body::Heartbeat(Box::new(Heartbeat { settings, ..beat(vec![]) })))
    };
    let (on, off) = (BalanceMode::On, BalanceMode::Off);
    let mut view = linked();
    for (from, mode, told) in [(0, on, 0), (1, off, 5)] {
        let first = texts(&view.apply(says(from, 1, mode, told), at(1)));
        assert!(first.iter().all(|t| !t.contains("balance")), "what we join is no news: {first:?}");
    }
    assert_eq!(view.balance(), Balance { mode: off, at: Wall(5) });
    assert!(view.apply(says(0, 2, off, 5), at(2)).is_empty(), "the others hear it late");
    assert_eq!(texts(&view.apply(says(0, 3, on, 6), at(3))), ["cluster balance on (was off)"]);
    assert!(view.apply(says(1, 2, on, 6), at(4)).is_empty());
}

#[test]
fn an_older_life_is_believed_only_once_the_known_one_is_down() {
    let mut view = linked();
    view.apply(said(&server(0), 5, 9, Body::Heartbeat(Box::new(beat(vec![])))), at(0));
    let old =
        || said(&server(0), 4, 99, Body::Heartbeat(Box::new(beat(vec![domain(1, DomainState::Running)]))));
    view.apply(old(), at(10));
    assert_eq!(view.domain_count(), 0);
    view.apply(old(), at(60_000));
    assert_eq!(view.domain_count(), 1);
}

/// What a reader can see of a view, without when it was heard.
fn seen(view: &View, now: Mono) -> Vec<String> {
    let servers = view.servers().map(|s| format!("{} {:?} {:?}", s.name, s.beat, s.domains));
    let domains = view.domain_names().map(|n| {
        let d = view.domain(n.as_str(), now).map(|d| (d.shown, d.server, d.claimed_by));
        let thing = view.thing(view::thing_id(&Thing::Domain(n.clone())));
        format!("{n} {d:?} {thing:?}")
    });
    servers.chain(domains).collect()
}

/// One thing that a server says.
#[derive(Debug, Clone)]
enum Say {
    Beat(Vec<(u64, DomainState)>),
    Is(u64, DomainState),
    Gone(u64),
}

fn say() -> impl Strategy<Value = Say> {
    let state = || prop::sample::select(DomainState::ALL);
    prop_oneof![
        prop::collection::vec((0u64..5, state()), 0..5).prop_map(Say::Beat),
        (0u64..5, state()).prop_map(|(n, s)| Say::Is(n, s)),
        (0u64..5).prop_map(Say::Gone),
    ]
}

fn envelopes(says: &[(u64, Say)]) -> Vec<Envelope> {
    let mut out = Vec::new();
    for (seq, (from, say)) in says.iter().enumerate() {
        let body = match say {
            Say::Beat(domains) => {
                Body::Heartbeat(Box::new(beat(domains.iter().map(|(n, s)| domain(*n, *s)).collect())))
            }
            Say::Is(n, s) => Body::Domain(Box::new(DomainChange::Is { domain: domain(*n, *s) })),
            Say::Gone(n) => {
                Body::Domain(Box::new(DomainChange::Gone { name: domain(*n, DomainState::Running).name }))
            }
        };
        out.push(said(&server(*from), 1, seq as u64 + 1, body));
    }
    out
}

proptest! {
    /// After any loss, doubling and reordering, the next heartbeats make two views say the same.
    #[test]
    fn views_converge(
        says in prop::collection::vec((0u64..3, say()), 0..40),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..80),
        last in prop::collection::vec(prop::collection::vec((0u64..5, prop::sample::select(DomainState::ALL)), 0..5), 3),
    ) {
        let all = envelopes(&says);
        let (mut straight, mut crooked) = (linked(), linked());
        for e in &all {
            straight.apply(e.clone(), at(1));
        }
        for (pick, _) in picks.iter().filter(|_| !all.is_empty()) {
            crooked.apply(all[pick.index(all.len())].clone(), at(1));
        }
        for (n, domains) in last.iter().enumerate() {
            let domains: Vec<Domain> = domains.iter().map(|(n, s)| domain(*n, *s)).collect();
            let e = heartbeat(n as u64, 1000, domains);
            straight.apply(e.clone(), at(2));
            crooked.apply(e, at(2));
        }
        prop_assert_eq!(seen(&straight, Mono(3)), seen(&crooked, Mono(3)));
    }

    /// Applying a message twice changes nothing and tells nothing; a clone taken before stays as it was.
    #[test]
    fn doubles_do_nothing(says in prop::collection::vec((0u64..3, say()), 1..30)) {
        let mut view = linked();
        for e in envelopes(&says) {
            view.apply(e.clone(), at(1));
            let before = Arc::new(view.clone());
            prop_assert!(view.apply(e, at(1)).is_empty());
            prop_assert_eq!(seen(&before, Mono(1)), seen(&view, Mono(1)));
        }
    }

    /// The index of names agrees with the servers' lists after anything.
    #[test]
    fn the_index_is_the_union_of_the_lists(says in prop::collection::vec((0u64..3, say()), 0..60)) {
        let mut view = linked();
        for e in envelopes(&says) {
            view.apply(e, at(1));
        }
        let mut names: Vec<&DomainName> = view.servers().flat_map(|s| s.domains.iter().map(|d| &d.name)).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(view.domain_names().collect::<Vec<_>>(), names.clone());
        for name in names {
            let d = view.domain(name.as_str(), Mono(1)).expect("listed");
            let holds = view.servers().filter(|s| view.has(s, name, Mono(1))).count();
            prop_assert_eq!(holds, d.claimed_by.len().max(1));
        }
    }
}
