//! `balance off`, `dry-run` and `on`: what the whole cluster was told stays so, whatever dies, also for who was away.

use crate::stage::{beats, cluster, ended, grown, load, on, patiently, points, restart, rounds, smalls};
use xvm_tests::{Tree, requires, wait_eq};

/// Far above the limit of 5.
const HOT: u32 = 12;

#[test]
fn balance_off_dry_run_and_on() {
    requires!("/dev/fuse", "root");
    let mut c = cluster(&[("ferby", smalls(5)), ("gerby", vec![]), ("herby", vec![])]);
    let tree = c.tree.clone();
    let t = &tree;
    t.order("ctl", "balance off");
    told(t, "off");
    (1..=5).for_each(|n| load(t, &format!("small-{n}"), 100));
    hot(t);
    assert_eq!((rounds(t).len(), on(t, "ferby").len()), (0, 5), "off: nobody asks, nothing moves");

    restart(&mut c);
    told(t, "off");
    // the counter begins anew, the load goes on; the agents may help again only some time after their start
    grown(&c);
    hot(t);
    assert_eq!((rounds(t).len(), on(t, "ferby").len()), (0, 5), "off, after all were killed");

    // herby is away when it is told
    c.agent("herby").kill();
    t.order("ctl", "balance dry-run");
    let dry = patiently(t, "a dry round", 60, || ended(t, "dry").pop());
    assert_eq!((&*dry.asker, &*dry.helper), ("ferby", "gerby"), "who would have been accepted");
    assert!(on(t, "ferby").contains(&dry.domain), "{} would have moved", dry.domain);
    patiently(t, "a second dry round", 60, || (ended(t, "dry").len() >= 2).then_some(()));
    assert_eq!(on(t, "ferby").len(), 5, "dry: nothing moves");
    c.agent("herby").launch();
    told(t, "dry-run");

    restart(&mut c);
    told(t, "dry-run");
    t.order("ctl", "balance on");
    told(t, "on");
    assert_eq!(on(t, "ferby").len(), 5);
    let round = patiently(t, "a move", 120, || ended(t, "moved").pop());
    assert_eq!(c.once(&round.domain, "running"), round.helper);
    restart(&mut c);
    told(t, "on");
    beats(t, "ferby", 3);
    assert_eq!(on(t, "ferby").len(), 4);
}

/// Waits until the cluster and each server say it.
#[track_caller]
fn told(t: &Tree, mode: &str) {
    wait_eq("balance", Some(mode.to_owned()), || t.value("status", "balance"));
    for server in t.names("servers") {
        let file = format!("servers/{server}/status");
        wait_eq(&file, Some(mode.to_owned()), || t.value(&file, "balance"));
    }
}

/// Waits until ferby is overloaded for long.
#[track_caller]
fn hot(t: &Tree) {
    patiently(t, "an overload that goes on", 60, || (points(t, "ferby") >= HOT).then_some(()));
}
