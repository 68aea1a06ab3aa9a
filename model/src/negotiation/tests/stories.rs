//! Whole stories without faults: what moves, what does not, what is written down, and how much is said.

use super::world::{World, groups, guest, name};
use super::*;
use crate::Pin;
use crate::policy::Need;
use crate::round::Verdict;

fn counts(w: &World) -> Vec<usize> {
    w.agents.iter().map(|a| a.host.guests.len()).collect()
}

#[test]
fn one_offer_is_accepted_and_the_others_released() {
    for rule in RULES {
        let mut w = world(rule, 1, 4, 7);
        w.run(60_000, true);
        assert!(w.agents[0].host.load() < 1.0, "{rule}: {:?}", counts(&w));
        assert_eq!((counts(&w).iter().sum::<usize>(), w.reserved()), (10, 0));
        let round = w.records.values().find(|r| r.effect.is_none()).expect("one round");
        let text = round.outcome();
        assert!(text.starts_with("s0 asked for help: ") && text.contains("; accepted\n"), "{text}");
        assert!(text.contains("moved: "), "{text}");
    }
}

#[test]
fn sixteen_busy_domains_spread_by_the_fewest_moves() {
    let all = (0..16).map(|d| guest(&format!("d0-{d}"), 1.0)).collect();
    let mut w = World::new("points", 3, 40, vec![all, vec![], vec![], vec![]]);
    w.run(600_000, true);
    assert_eq!((counts(&w), w.moves.len()), (vec![4, 4, 4, 4], 12));
}

#[test]
fn what_is_balanced_stays() {
    for rule in RULES {
        for load in [0.1, 0.3, 0.6] {
            let domains = (0..4).map(|s| (0..5).map(|d| guest(&format!("d{s}-{d}"), load)).collect());
            let mut w = World::new(rule, 1, 40, domains.collect());
            w.run(120_000, true);
            assert_eq!((w.moves.len(), w.said), (0, 0), "{rule} at {load}");
        }
    }
}

#[test]
fn a_spike_shorter_than_the_rules_time_moves_nothing() {
    for rule in RULES {
        let domains = (0..3).map(|s| (0..5).map(|d| guest(&format!("d{s}-{d}"), 0.3)).collect());
        let mut w = World::new(rule, 1, 40, domains.collect());
        for second in 0..60u64 {
            let load = if (20..24).contains(&second) { 1.0 } else { 0.3 };
            for g in &mut w.agents[0].host.guests {
                g.load = load;
                g.habit.note(load, 1.0);
            }
            w.run(1_000, true);
        }
        assert_eq!(w.moves.len(), 0, "{rule}");
    }
}

#[test]
fn a_dry_run_tells_who_would_help_and_moves_nothing() {
    for rule in RULES {
        let mut w = world(rule, 2, 2, 5);
        w.dry = true;
        w.run(60_000, true);
        assert_eq!((w.moves.len(), w.reserved(), counts(&w)), (0, 0, vec![6, 6, 1, 1]));
        let round = w.records.values().find(|r| r.accepted.is_some()).expect("somebody would help");
        assert!(round.outcome().contains("dry: nothing was to move"), "{}", round.outcome());
        assert!(w.agents[0].ended.iter().all(|&e| e == End::Dry || e == End::NoOffer));
    }
}

#[test]
fn when_nobody_can_help_some_say_why() {
    let mut domains = vec![(0..6).map(|d| guest(&format!("d0-{d}"), 0.9)).collect::<Vec<_>>()];
    domains.extend((1..200).map(|s| (0..4).map(|d| guest(&format!("d{s}-{d}"), 0.9)).collect()));
    let mut w = World::new("points", 3, 40, domains);
    w.agents.iter_mut().skip(100).for_each(|a| a.host.accepting = false);
    w.run(12_000, true);
    let round = w.records.values().next().expect("a round");
    assert!(round.outcome().contains("no-offer: nobody offered"), "{}", round.outcome());
    let said = w.said / w.records.len();
    assert!(round.refusals.len() >= REFUSERS && said <= 12, "{said} messages, {:?}", round.refusals);
    let words = ["it does not accept domains", "it would be loaded over its limit with the domain on board"];
    assert!(round.refusals.iter().all(|r| words.contains(&&*r.why)), "{:?}", round.refusals);
}

#[test]
fn messages_a_round_do_not_grow_with_the_servers() {
    for servers in [10, 100, 400] {
        let mut said = 0;
        for seed in 0..5 {
            let domains = (0..servers)
                .map(|s| (0..if s == 0 { 6 } else { 1 }).map(|d| guest(&format!("d{s}-{d}"), 0.9)).collect());
            let mut w = World::new("points", seed, 40, domains.collect());
            while w.records.is_empty() {
                w.run(1_000, true);
            }
            w.run(20_000, false);
            let round = w.records.values().next().expect("a round");
            let second =
                round.offers.iter().filter(|b| matches!(b.verdict, Verdict::Declined { .. })).count();
            assert!(second + 1 == round.offers.len() && second < 10, "{:?}", round.offers);
            said += w.said;
        }
        assert!(said / 5 <= 14, "{} messages a round among {servers}", said / 5);
    }
}

#[test]
fn an_emptied_server_keeps_only_what_must_stay() {
    for rule in RULES {
        let mut w = world(rule, 1, 5, 2);
        for (d, g) in w.agents[0].host.guests.iter_mut().enumerate() {
            match d {
                0 => g.pin = Pin(vec![name(0)]),
                1 | 2 => g.with = groups(&["web"]),
                3 => g.pin = Pin(vec![name(0), name(3)]),
                4 => g.movable = false,
                _ => {}
            }
        }
        w.agents[0].evacuating = true;
        w.agents[0].host.accepting = false;
        w.run(120_000, true);
        let left: Vec<&str> = w.agents[0].host.guests.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(left, ["d0-0", "d0-4"], "{rule}");
        let home =
            |name: &str| w.agents.iter().position(|a| a.host.guests.iter().any(|g| g.name.as_str() == name));
        assert_eq!(home("d0-1"), home("d0-2"));
        assert_eq!(home("d0-3"), Some(3));
        let agent = &w.agents[0];
        let why =
            |g| agent.engine.stays(&agent.host, g, Mono(w.now), Need::Evacuate).expect("it stays").word();
        let why: Vec<&str> = agent.host.guests.iter().map(why).collect();
        assert_eq!(why, ["it is pinned to this server", "it does not run, or a job goes on with it"]);
    }
}

#[test]
fn a_group_goes_only_where_room_for_all_is_and_home_again() {
    // server 1 has memory for one of the two, server 2 for both
    let pair = |s: usize| (0..2).map(|d| guest(&format!("d{s}-{d}"), 0.1)).collect::<Vec<_>>();
    let mut w = World::new("points", 1, 4, vec![pair(0), vec![], vec![]]);
    w.agents[0].host.guests.iter_mut().for_each(|g| g.with = groups(&["web"]));
    w.agents[1].host.memory = 1;
    w.agents[0].evacuating = true;
    w.agents[0].host.accepting = false;
    w.run(60_000, true);
    assert_eq!(counts(&w), [0, 0, 2]);
    w.agents[0].evacuating = false;
    w.agents[0].host.accepting = true;
    for d in ["d0-0", "d0-1"] {
        let agent = &w.agents[2];
        let domain = DomainName::parse(d).expect("name");
        let request =
            agent.engine.recall(&agent.host, &domain, &name(0), Mono(w.now)).expect("it may go home");
        // for this test the group may be parted while it goes home
        w.agents[1].evacuating = true;
        w.step(2, Input::Ask(Box::new(request)));
        w.run(20_000, false);
    }
    assert_eq!(counts(&w), [2, 0, 0]);
}
