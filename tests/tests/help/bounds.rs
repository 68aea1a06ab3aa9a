//! What must not happen: a move for a spike, and two askers that get the same room.

use crate::stage::{cluster, ended, load, on, patiently, points, rounds, smalls};
use xvm_tests::requires;

/// Three hot seconds are no overload, by either rule: the counter rises, and falls again.
#[test]
fn a_spike_moves_nothing() {
    requires!("/dev/fuse");
    let c = cluster(&[("ferby", smalls(6)), ("gerby", vec![])]);
    let t = &c.tree;
    for policy in ["adaptive", "points"] {
        ["ferby", "gerby"].iter().for_each(|s| t.order(&format!("servers/{s}/policy"), policy));
        for _ in 0..2 {
            (1..=6).for_each(|n| t.order(&format!("domains/small-{n}/ctl"), "load 100 3"));
            patiently(t, "a point", 20, || (points(t, "ferby") > 0).then_some(()));
            patiently(t, "no point", 30, || (points(t, "ferby") == 0).then_some(()));
        }
        assert_eq!((rounds(t), on(t, "ferby").len()), (vec![], 6), "{policy}");
    }
}

/// ferby and gerby are overloaded at the same time, and herby has one CPU left.
#[test]
fn two_askers_do_not_get_the_same_room() {
    requires!("/dev/fuse");
    let names = |letter: &str, count: usize| {
        (1..=count)
            .flat_map(|n| ["--domain".to_owned(), format!("{letter}-{n},demand=0.02")])
            .collect::<Vec<_>>()
    };
    let c = cluster(&[("ferby", names("f", 5)), ("gerby", names("g", 5)), ("herby", names("h", 3))]);
    let t = &c.tree;
    t.names("domains").iter().filter(|d| d.starts_with("h-")).for_each(|d| load(t, d, 100));
    t.names("domains").iter().filter(|d| !d.starts_with("h-")).for_each(|d| load(t, d, 100));
    let first = patiently(t, "a move", 60, || ended(t, "moved").pop());
    // the other has asked in vain since then, twice
    patiently(t, "two rounds in vain", 90, || {
        let vain = rounds(t).into_iter().filter(|r| r.asker != first.asker && r.at > first.at);
        (vain.filter(|r| r.end == "no-offer").count() >= 2).then_some(())
    });
    assert_eq!(ended(t, "moved").len(), 1, "{:?}", rounds(t));
    assert_eq!((on(t, "herby").len(), on(t, "ferby").len() + on(t, "gerby").len()), (4, 9));
    assert_eq!(c.once(&first.domain, "running"), "herby");
    assert_eq!(points(t, "herby"), 0, "the helper did not die of the help");
}
