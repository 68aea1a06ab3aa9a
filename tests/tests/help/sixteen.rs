//! Sixteen busy domains on one of four servers end as four on each, with the smallest number of moves.

use crate::stage::{beats, cluster, ended, load, on, patiently, points, rounds, smalls};
use std::collections::BTreeSet;
use xvm_tests::{requires, say};

const SERVERS: [&str; 4] = ["ferby", "gerby", "herby", "ierby"];

#[test]
fn sixteen_end_as_four_on_each() {
    requires!("/dev/fuse");
    let c = cluster(&[("ferby", smalls(16)), ("gerby", vec![]), ("herby", vec![]), ("ierby", vec![])]);
    let t = &c.tree;
    (1..=16).for_each(|n| load(t, &format!("small-{n}"), 100));
    let start = std::time::Instant::now();
    patiently(t, "four on each", 240, || SERVERS.iter().all(|s| on(t, s).len() == 4).then_some(()));
    say(&format!("four on each after {} s", start.elapsed().as_secs()));
    // it would count back to 0 point by point
    let high = patiently(t, "a counter that falls", 30, || {
        let now = points(t, "ferby");
        beats(t, "ferby", 6);
        (points(t, "ferby") < now).then_some(now)
    });
    t.order("servers/ferby/watchdog", "points 2");
    let count = rounds(t).len();
    for _ in 0..25 {
        SERVERS.iter().for_each(|s| beats(t, s, 1));
        assert!(SERVERS.iter().all(|s| points(t, s) <= 2 && on(t, s).len() == 4));
    }
    assert!(SERVERS.iter().all(|s| points(t, s) == 0), "the counter of ferby was at {high}");
    assert_eq!(rounds(t).len(), count, "nobody asks any more");
    let moved = ended(t, "moved");
    let domains: BTreeSet<&str> = moved.iter().map(|r| &*r.domain).collect();
    assert_eq!((moved.len(), domains.len()), (12, 12), "twelve moves, of twelve domains");
    assert!(moved.iter().all(|r| r.asker == "ferby"));
    for n in 1..=16 {
        c.once(&format!("small-{n}"), "running");
    }
    say(&format!("{count} rounds, of which 12 moved a domain"));
}
