//! If these fail, two mounts show different rounds of help, or tell a step of one twice or never.

use proptest::prelude::*;
use xvm_model::message::Rounds;
use xvm_model::policy::Need;
use xvm_model::round::{Accepted, Bid, Brought, End, Ending, KEPT, Refused, Round, Verdict, Wished};
use xvm_model::*;

fn server(name: &str) -> ServerName {
    ServerName::parse(name).expect("a name")
}

fn small(n: u64) -> DomainName {
    DomainName::parse(&format!("small {n}")).expect("a name")
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(ms) }
}

/// What is written of the round `ferby.7.N` after so many steps; six make it whole.
fn round(n: u64, step: u64) -> Round {
    let bid = |helper, domain, verdict| Bid {
        helper,
        platform: HypervisorKind::Sim.into(),
        domain,
        projected: 0.431,
        gain: 0.2,
        verdict,
    };
    let too_late = Verdict::Declined { why: "another one was first".into() };
    let offers =
        [bid(server("gerby"), small(n), Verdict::Accepted), bid(server("herby"), small(2), too_late)];
    let refusals = vec![Refused { helper: server("full"), why: "it has too little memory".into() }];
    let accepted = Accepted { helper: server("gerby"), domain: small(n), at: Wall(n * 100 + 2) };
    let sentence = format!("small {n} runs on gerby").into();
    let outcome = Ending { at: Wall(n * 100 + 4), end: End::Moved, sentence };
    Round {
        id: format!("ferby.7.{n}").into(),
        asker: server("ferby"),
        need: Need::Overload,
        policy: "points".into(),
        dry: false,
        at: Wall(n * 100),
        load: 1.5,
        why: "all its CPUs\nare full".into(),
        wishes: vec![Wished { domain: small(n), load: 1.0, memory: 1 << 18, relief: 0.5 }],
        offers: offers[..(step as usize).saturating_sub(1).min(2)].to_vec(),
        refusals: if step >= 3 { refusals } else { vec![] },
        accepted: (step >= 2).then_some(accepted),
        outcome: (step >= 4).then_some(outcome),
        effect: (step >= 5).then_some(Brought {
            before: 1.0,
            after: 0.75,
            points_before: 5,
            points_after: 0,
        }),
    }
}

fn said(boot: u64, seq: u64, rounds: Vec<Round>) -> Envelope {
    let body = Body::Rounds(Box::new(Rounds { rounds }));
    Envelope { v: 1, from: Sender::Agent(server("ferby")), boot: Boot(boot), seq, at: Wall(seq), body }
}

fn linked() -> View {
    let mut view = View::default();
    view.link(true, "", at(0));
    view
}

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(|e| e.to_string().split_once(' ').expect("a time").1.to_owned()).collect()
}

/// All that is ever told of one round.
fn story(n: u64) -> Vec<String> {
    [
        "asks: all its CPUs are full".to_owned(),
        format!("offer gerby \"small {n}\" projected 0.43"),
        format!("accepts gerby for \"small {n}\""),
        "offer herby \"small 2\" projected 0.43".into(),
        "refused by full: it has too little memory".into(),
        "declined herby: another one was first".into(),
        format!("ended: small {n} runs on gerby"),
        "brought: load 0.75 (was 1.00), points 0 (was 5)".into(),
    ]
    .map(|line| format!("server ferby help ferby.7.{n} {line}"))
    .into()
}

#[test]
fn each_step_of_a_round_is_told_once() {
    let mut view = linked();
    let mut told = Vec::new();
    for step in 1..=5 {
        told.extend(view.apply(said(7, step, vec![round(1, step)]), at(step)));
        let late = round(1, step - 1);
        assert!(view.apply(said(7, step, vec![round(1, step)]), at(step)).is_empty(), "doubled");
        assert!(view.apply(said(7, step - 1, vec![late]), at(step)).is_empty(), "late");
        assert_eq!(**view.round("ferby.7.1").expect("kept"), round(1, step));
    }
    assert_eq!(texts(&told), story(1));
    assert!(told.iter().all(|e| e.heard_at(&About::Server(server("ferby")))), "its server hears it too");
    assert_eq!(view.rounds_ended()[End::Moved as usize], 1);
    // the next life repeats what is on its disk
    assert!(view.apply(said(8, 1, vec![round(1, 5)]), at(10)).is_empty());
    assert_eq!(View::round_changed(view.round("ferby.7.1").expect("kept")), Wall(104));
}

#[test]
fn what_was_lost_is_told_with_the_next_and_what_ended_before_we_joined_is_not() {
    let ended_at = round(1, 5).outcome.expect("ended").at.0;
    let mut view = View::default();
    view.link(true, "", at(1_000));
    // this ended 500 ms before it is told, by its asker's clock; we have listened for 400
    let events = view.apply(said(7, ended_at + 500, vec![round(1, 5)]), at(1_400));
    assert!(events.is_empty(), "{events:?}");
    assert!(view.round("ferby.7.1").is_some() && *view.rounds_ended() == [0; End::ALL.len()]);
    // of another server nothing was heard before its round had ended, and that was just now
    let mut view = View::default();
    view.link(true, "", at(1_000));
    let events = view.apply(said(7, ended_at + 300, vec![round(1, 5)]), at(1_400));
    let (mut told, mut want) = (texts(&events), story(1));
    told.sort();
    want.sort();
    assert_eq!(told, want);
    // one that runs is told from its beginning
    assert_eq!(view.apply(said(7, 1_000, vec![round(1, 5), round(2, 1)]), at(1_500)).len(), 1);
}

#[test]
fn rounds_of_one_server_are_bounded_and_their_names_are_safe() {
    let mut view = linked();
    let mut strange: Vec<Round> =
        ["ferby.7.x", "ferby.7.", "../../x", "ferby.7.1/2", "ferby", "", "gerby.7.1"]
            .map(|id| Round { id: id.into(), ..round(1, 1) })
            .into();
    strange.push(Round { asker: server("gerby"), ..round(1, 1) });
    strange.extend((1..=40).map(|n| round(n, 1)));
    strange.push(round(40, 1));
    view.apply(said(7, 1, strange), at(1));
    let kept: Vec<&str> = view.rounds().map(|r| &*r.id).collect();
    assert!(kept.len() <= KEPT && kept.first() == Some(&"ferby.7.26"), "{kept:?}");
    assert_eq!(kept.iter().filter(|id| **id == "ferby.7.40").count(), 1);
    let number = view::thing_id(&Thing::Round("ferby.7.40".into()));
    assert_eq!(view.thing(number), Some(&Thing::Round("ferby.7.40".into())));
    view.apply(said(7, 2, vec![]), at(2));
    assert!(view.rounds().next().is_none() && view.round("ferby.7.40").is_none());
    assert_eq!(view.thing(number), None);
}

#[test]
fn an_older_life_speaks_for_its_rounds_once_its_heartbeats_are_believed() {
    let mut view = linked();
    view.apply(said(9, 1, vec![round(1, 1)]), at(1));
    view.apply(said(4, 50, vec![round(2, 1)]), at(60_000));
    assert!(view.round("ferby.7.2").is_none());
    let beat = Heartbeat {
        settings: ServerSettings::default(),
        points: 0,
        hypervisor: HypervisorKind::Sim,
        cpu: None,
        address: "x:1".into(),
        stale: None,
        cpus: vec![],
        memory: ServerMemory::default(),
        domains: vec![],
        job: None,
        last: None,
        departed: vec![],
    };
    let beat = Envelope { body: Body::Heartbeat(Box::new(beat)), ..said(4, 51, vec![]) };
    view.apply(beat, at(60_001));
    view.apply(said(4, 52, vec![round(2, 1)]), at(60_002));
    assert!(view.round("ferby.7.2").is_some());
}

proptest! {
    /// After any loss, doubling and reordering the last message makes two views say the same, and no line is told twice.
    #[test]
    fn rounds_converge_and_no_step_is_told_twice(
        steps in prop::collection::vec((1u64..4, 0u64..3), 1..30),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        // what an agent writes down only grows
        let mut now = std::collections::BTreeMap::new();
        let all: Vec<Envelope> = steps
            .iter()
            .enumerate()
            .map(|(seq, (n, more))| {
                let step = now.entry(*n).or_insert(1);
                *step = u64::min(*step + more, 5);
                said(7, seq as u64 + 1, now.iter().map(|(n, step)| round(*n, *step)).collect())
            })
            .collect();
        let (mut straight, mut crooked) = (linked(), linked());
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for e in &all {
            one.extend(texts(&straight.apply(e.clone(), at(1_000_000))));
        }
        for e in picks.iter().map(|p| &all[p.index(all.len())]).chain(all.last()) {
            other.extend(texts(&crooked.apply(e.clone(), at(1_000_000))));
        }
        let rounds = |view: &View| view.rounds().map(|r| (**r).clone()).collect::<Vec<_>>();
        prop_assert_eq!(rounds(&straight), rounds(&crooked));
        prop_assert_eq!(straight.rounds_ended(), crooked.rounds_ended());
        for told in [&mut one, &mut other] {
            let n = told.len();
            told.sort();
            told.dedup();
            prop_assert_eq!(told.len(), n, "told twice");
        }
        prop_assert_eq!(one, other);
    }
}
