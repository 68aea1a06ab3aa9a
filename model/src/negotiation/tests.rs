//! The negotiation step by step, and under seeded schedules.

mod schedules;
mod stories;
mod world;

use super::*;
use crate::policy::Refusal;
use world::{World, at, guest, name};

const RULES: [&str; 2] = ["points", "adaptive"];

/// `hot` servers with six busy domains on four CPUs, `cool` ones with one domain each.
fn world(rule: &'static str, hot: usize, cool: usize, seed: u64) -> World {
    let domains = (0..hot + cool).map(|s| {
        let (count, load) = if s < hot { (6, 0.9) } else { (1, 1.0) };
        (0..count).map(|d| guest(&format!("d{s}-{d}"), load)).collect()
    });
    World::new(rule, seed, 8, domains.collect())
}

/// A request of server 0, and what server 1 makes of it.
fn asked(w: &mut World) -> (RoundId, Request) {
    let agent = &mut w.agents[0];
    (0..8).for_each(|_| agent.engine.sample(&agent.host, &crate::policy::Peers::default(), Mono(0)));
    let request = agent.engine.ask(&agent.host, Mono(w.now)).expect("it is hot");
    ("s0.1.1".into(), request)
}

fn heard(w: &mut World, a: usize, from: usize, say: Say) -> Vec<Effect> {
    let agent = &mut w.agents[a];
    let input = Input::Heard { from: name(from), say };
    agent.talk.step(input, &agent.engine, &agent.host, at(w.now), 0)
}

fn tick(w: &mut World, a: usize) -> Vec<Effect> {
    let agent = &mut w.agents[a];
    agent.talk.step(Input::Tick, &agent.engine, &agent.host, at(w.now), 0)
}

#[test]
fn a_late_accept_of_expired_room_is_declined() {
    let mut w = world("points", 1, 1, 1);
    let (round, request) = asked(&mut w);
    assert!(
        heard(&mut w, 1, 0, Say::RequestHelp { round: round.clone(), request: request.into() }).is_empty()
    );
    w.now += 200;
    assert!(matches!(&tick(&mut w, 1)[..], [Effect::Say(Say::OfferHelp { held: None, .. })]));
    assert_eq!(w.reserved(), 1);
    w.now += RESERVE_MS;
    let say = Say::AcceptHelp { round: round.clone(), helper: name(1), number: 0 };
    let why = Some("the room is not reserved any more".into());
    assert_eq!(heard(&mut w, 1, 0, say), [Effect::Say(Say::Decline { round, helper: name(1), why })]);
    assert_eq!(w.reserved(), 0);
}

#[test]
fn held_room_ends_with_its_lease_and_who_has_promised_room_does_not_ask() {
    let mut w = world("points", 2, 1, 1);
    let (round, request) = asked(&mut w);
    // server 1 is overloaded too, but it may help before it asks
    let say = Say::RequestHelp { round: round.clone(), request: request.clone().into() };
    w.agents[1].host.guests.truncate(1);
    heard(&mut w, 1, 0, say);
    w.now += 200;
    tick(&mut w, 1);
    heard(&mut w, 1, 0, Say::AcceptHelp { round, helper: name(1), number: 0 });
    w.now += LEASE_MS - 1;
    tick(&mut w, 1);
    assert!(w.reserved() == 1 && !w.agents[1].talk.may_ask(Mono(w.now)));
    let agent = &mut w.agents[1];
    let ask = Input::Ask(Box::new(Request { asker: name(1), ..request }));
    assert!(agent.talk.step(ask, &agent.engine, &agent.host, at(w.now), 0).is_empty());
    w.now += 1;
    tick(&mut w, 1);
    assert!(w.reserved() == 0 && w.agents[1].talk.may_ask(Mono(w.now)));
}

#[test]
fn room_that_the_own_domains_took_meanwhile_is_declined() {
    let mut w = world("points", 1, 1, 1);
    let (round, request) = asked(&mut w);
    heard(&mut w, 1, 0, Say::RequestHelp { round: round.clone(), request: request.into() });
    w.now += 200;
    tick(&mut w, 1);
    (w.agents[1].host.guests[0].load, w.agents[1].host.guests[0].busy) = (3.5, 4);
    let accept = |number| Say::AcceptHelp { round: round.clone(), helper: name(1), number };
    let why = Some(Refusal::Load.to_string().into());
    let decline = Effect::Say(Say::Decline { round: round.clone(), helper: name(1), why });
    assert_eq!(heard(&mut w, 1, 0, accept(0)), [decline]);
    assert_eq!(w.reserved(), 0);
}

#[test]
fn settings_that_changed_during_a_round_keep_the_domain() {
    let mut w = world("points", 1, 1, 1);
    let (round, request) = asked(&mut w);
    let agent = &mut w.agents[0];
    agent.talk.step(Input::Ask(Box::new(request.clone())), &agent.engine, &agent.host, at(0), 0);
    let offer = w.agents[1].engine.offer(&w.agents[1].host, &request).expect("it has room");
    heard(&mut w, 0, 1, Say::OfferHelp { round: round.clone(), offer: offer.clone(), held: None });
    let domain = request.wishes[offer.wish].guest.name.clone();
    w.agents[0].host.guests.iter_mut().filter(|g| g.name == domain).for_each(|g| g.pin.0 = vec![name(0)]);
    let effects = heard(&mut w, 0, 1, Say::OfferHelp { round, offer, held: Some(0) });
    assert!(effects.iter().any(|e| matches!(e, Effect::Ended { end: End::Cancelled, .. })), "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Move { .. })));
}

#[test]
fn a_round_is_cancelled_until_its_move_begins() {
    let mut w = world("points", 1, 1, 1);
    let (round, request) = asked(&mut w);
    let agent = &mut w.agents[0];
    agent.talk.step(Input::Ask(Box::new(request)), &agent.engine, &agent.host, at(0), 0);
    let effects = agent.talk.step(Input::Cancel, &agent.engine, &agent.host, at(1), 0);
    assert_eq!(effects[0], Effect::Say(Say::Done { round: round.clone(), moved: false }));
    assert_eq!(effects[1], Effect::Ended { round, end: End::Cancelled });
    assert!(!agent.talk.may_ask(Mono(REST_MS)) && agent.talk.may_ask(Mono(REST_MS + 1)));
}

#[test]
fn who_finds_no_help_asks_ever_more_seldom_until_it_is_calm() {
    let mut w = world("points", 1, 0, 1);
    let (_, request) = asked(&mut w);
    let mut rests = Vec::new();
    for _ in 0..9 {
        let agent = &mut w.agents[0];
        agent.talk.step(Input::Ask(Box::new(request.clone())), &agent.engine, &agent.host, at(w.now), 0);
        w.now += OFFERS_MS;
        tick(&mut w, 0);
        let begin = w.now;
        while !w.agents[0].talk.may_ask(Mono(w.now)) {
            w.now += 1_000;
        }
        rests.push((w.now - begin) / 1_000);
    }
    assert_eq!(rests, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    w.agents[0].talk.calm();
    let agent = &mut w.agents[0];
    agent.talk.step(Input::Ask(Box::new(request)), &agent.engine, &agent.host, at(w.now), 0);
    w.now += OFFERS_MS;
    tick(&mut w, 0);
    assert!(w.agents[0].talk.may_ask(Mono(w.now + REST_MS)));
}

#[test]
fn an_agent_that_may_have_promised_room_says_so_and_one_that_asks_too() {
    let mut w = world("points", 2, 1, 1);
    let (round, request) = asked(&mut w);
    w.agents[2].talk = Negotiation::new(name(2), 2, Mono(0), true);
    let again = request.clone();
    let agent = &mut w.agents[1];
    agent.talk.step(
        Input::Ask(Box::new(Request { asker: name(1), ..again })),
        &agent.engine,
        &agent.host,
        at(0),
        0,
    );
    for (a, why) in [(1, Refusal::Asks), (2, Refusal::Young)] {
        heard(&mut w, a, 0, Say::RequestHelp { round: round.clone(), request: request.clone().into() });
        w.now = 1_500;
        let said = tick(&mut w, a);
        let why = Some(why.to_string().into());
        assert_eq!(said, [Effect::Say(Say::Decline { round: round.clone(), helper: name(a), why })]);
        w.now = 0;
    }
}

#[test]
fn what_is_said_reads_as_documented_and_nonsense_is_not_believed() {
    let round: RoundId = "s0.1.1".into();
    let accept = Say::AcceptHelp { round: round.clone(), helper: name(1), number: 2 };
    let json = serde_json::to_string(&accept).expect("json");
    assert_eq!(json, r#"{"say":"accept-help","round":"s0.1.1","helper":"s1","number":2}"#);
    let mut w = world("points", 1, 1, 1);
    let (_, request) = asked(&mut w);
    let say = |change: &dyn Fn(&mut Request)| {
        let mut request = request.clone();
        change(&mut request);
        Say::RequestHelp { round: "s0.1.1".into(), request: request.into() }.check()
    };
    assert_eq!(say(&|_| ()), Ok(()));
    let bad: [(&str, Result<(), String>); 7] = [
        ("request with 0 wishes", say(&|r| r.wishes.clear())),
        ("request with 65 wishes", say(&|r| r.wishes = vec![r.wishes[0].clone(); 65])),
        ("load NaN", say(&|r| r.load = f64::NAN)),
        ("load -1", say(&|r| r.wishes[0].guest.load = -1.0)),
        ("cpus 0", say(&|r| r.cpus = 0.0)),
        ("not one of s1", say(&|r| r.asker = name(1))),
        ("control characters", say(&|r| r.why = "a\nb".into())),
    ];
    for (words, answer) in bad {
        assert!(answer.as_ref().is_err_and(|e| e.contains(words)), "{words}: {answer:?}");
    }
    for round in ["", "../x", "a/b", ".1.1"] {
        assert!(Say::Done { round: round.into(), moved: true }.check().is_err(), "{round}");
    }
    assert!(Say::Recall { domains: Vec::new() }.check().is_err());
}

#[test]
fn offers_for_rounds_of_others_are_not_answered() {
    let mut w = world("points", 1, 2, 1);
    let (_, request) = asked(&mut w);
    let offer = w.agents[1].engine.offer(&w.agents[1].host, &request).expect("it has room");
    for (round, answers) in [("s0.1.1", 0), ("s2.1.1", 1), ("s2.x.1.1", 0)] {
        let say = Say::OfferHelp { round: round.into(), offer: offer.clone(), held: None };
        assert_eq!(heard(&mut w, 2, 1, say).len(), answers, "{round}");
    }
}
