//! If this fails, tables of `xvm-sim` can not be compared: a seed gives two results, or a figure is counted wrong.

use xvm_sim::{Loads, Setup, packing, replay};

const RULES: [&str; 5] = ["none", "points", "three-in-a-row", "three-of-five", "adaptive"];

/// Some steady busy, some idle, some with a spike now and then.
fn loads() -> Loads {
    let domains: Vec<Vec<f64>> = (0..60usize)
        .map(|d| {
            (0..144usize)
                .map(|t| match d % 4 {
                    0 => 0.8,
                    1 => 0.02,
                    2 if (t * 7 + d * 13) % 11 == 0 => 0.9,
                    _ => 0.15,
                })
                .collect()
        })
        .collect();
    Loads { name: "made".into(), names: (0..60).map(|d| format!("d{d}")).collect(), domains }
}

#[test]
fn a_seed_gives_one_result() {
    let (loads, setup) = (loads(), Setup { load: 0.8, ..Setup::default() });
    for rule in RULES {
        assert_eq!(replay(&loads, &setup, rule), replay(&loads, &setup, rule), "{rule}");
    }
}

#[test]
fn nothing_moves_without_a_rule_and_nothing_is_undone_with_one() {
    for seed in 0..5 {
        let setup = Setup { load: 0.8, seed, ..Setup::default() };
        assert_eq!(replay(&loads(), &setup, "none").moves, 0);
        for rule in RULES {
            let f = replay(&loads(), &setup, rule);
            assert_eq!(f.undone, 0, "{rule}");
            assert!(f.lost() >= f.moving && (0.0..=1.0).contains(&f.overload), "{rule}: {f:?}");
        }
    }
}

#[test]
fn contention_is_what_was_wanted_beyond_the_cpus() {
    // two domains on one server with one CPU: 0.4 CPUs are missing in half of 4 samples of 900 s
    let domains = vec![vec![0.7, 0.2, 0.7, 0.2], vec![0.7, 0.2, 0.7, 0.2]];
    let loads = Loads { name: "two".into(), names: vec!["a".into(), "b".into()], domains };
    let setup = Setup { servers: Some(1), cpus: 1.0, unit_s: 900.0, ..Setup::default() };
    let f = replay(&loads, &setup, "adaptive");
    assert!((f.contention - 0.4 * 2.0 * 0.25).abs() < 1e-9 && (f.overload - 0.5).abs() < 1e-9);
    assert_eq!((f.moves, f.relieved), (0, (2, 2)));
    assert!((packing::lost(&loads, &setup) - f.contention).abs() < 1e-9);
    let two = Setup { servers: Some(2), ..setup };
    assert!(packing::lost(&loads, &two) < 1e-9);
}

#[test]
fn an_overload_by_bad_placement_ends_with_every_rule_that_acts() {
    let setup = Setup { load: 0.7, ..Setup::default() };
    let none = replay(&loads(), &setup, "none").lost();
    assert!(replay(&loads(), &setup, "adaptive").lost() < none);
}

#[test]
fn messages_a_move_do_not_grow_with_the_servers() {
    // request, accept, held and end, three renewals while a domain moves for 30 s, and a few offers
    for (servers, samples) in [(10, 96), (100, 24), (300, 12)] {
        let loads = Loads::made(servers * 20, samples, 1);
        let setup = Setup { servers: Some(servers), ..Setup::default() };
        for rule in ["points", "adaptive"] {
            let f = replay(&loads, &setup, rule);
            println!("{servers} {rule}: {} moves, {:.1} messages each", f.moves, f.messages_a_move());
            assert!(f.messages_a_move() <= 14.0 && f.messages_in_vain() <= 10.0, "{servers} {rule}: {f:?}");
            assert!(
                f.moves > 0 || servers == 10 || !["adaptive", "points"].contains(&rule),
                "{servers} {rule}"
            );
        }
    }
}

#[test]
fn a_short_move_needs_no_renewal() {
    let loads = Loads::made(400, 96, 3);
    let setup = Setup { servers: Some(20), move_s: 2.0, ..Setup::default() };
    let f = replay(&loads, &setup, "adaptive");
    assert!(f.moves > 0 && (5.0..=9.0).contains(&f.messages_a_move()), "{f:?}");
}
