//! `evacuate` empties a server, `restore` brings exactly its domains back; also when its agent dies in the middle.

use crate::stage::{cluster, ended, on, patiently, restart, rounds, smalls};
use xvm_tests::{Cluster, Tree, lab, requires, say};

const CTL: &str = "servers/ferby/ctl";
const WAIT: &str = "servers/ferby/wait";
const STATE: &str = "servers/ferby/state";

#[test]
fn evacuate_and_restore() {
    requires!("/dev/fuse");
    let idle = vec!["--domain".to_owned(), "db-1,demand=0.02".to_owned()];
    let c = cluster(&[("ferby", smalls(4)), ("gerby", idle), ("herby", vec![])]);
    let t = &c.tree;
    // those that stay together leave together
    t.order("domains/small-1/with", "crew");
    t.order("domains/small-2/with", "crew");
    let home = on(t, "ferby");
    let events = t.events("servers/ferby/events");
    t.order(CTL, "evacuate");
    assert_eq!(t.text(STATE), "maintenance", "from the moment at which it was accepted");
    let end = patiently_until(t, "evacuate");
    say(&format!("  {end}"));
    assert!(end.contains("done evacuate: "), "{end}");
    assert_eq!((on(t, "ferby"), t.text(STATE)), (vec![], "maintenance".to_owned()));
    assert_eq!(t.text("servers/ferby/accepting"), "off");
    home.iter().for_each(|d| assert_ne!(c.once(d, "running"), "ferby"));
    assert_eq!(c.once("small-1", "running"), c.once("small-2", "running"), "the crew is together");
    let moved = ended(t, "moved");
    assert!(moved.iter().all(|r| r.need == "evacuate" && r.asker == "ferby"), "{moved:?}");
    assert_eq!(moved.len(), 4);
    events.expect("server ferby job evacuate");
    events.expect("server ferby done evacuate");
    for d in &home {
        let why = t.text(&format!("domains/{d}/status"));
        assert!(why.contains("ferby") && why.contains("evacuate"), "{why}");
    }
    // it helps nobody meanwhile, and nobody may be sent there
    t.order(CTL, "restore");
    let end = patiently_until(t, "restore");
    say(&format!("  {end}"));
    assert!(end.contains("done restore: "), "{end}");
    assert_eq!(on(t, "ferby"), home, "exactly its domains");
    home.iter().for_each(|d| assert_eq!(c.once(d, "running"), "ferby"));
    assert_eq!(c.once("db-1", "running"), "gerby");
    assert_eq!((t.text(STATE), t.text("servers/ferby/accepting")), ("up".to_owned(), "on".to_owned()));
    // nothing is left to bring home: a second restore changes nothing
    t.order(CTL, "restore");
    patiently_until(t, "restore");
    assert_eq!(on(t, "ferby"), home);
}

/// ferby's agent dies while domains leave, and while they come home; between the two all are killed.
#[test]
fn its_agent_dies_in_the_middle() {
    requires!("/dev/fuse", "root");
    let flags = |names: &[&str]| {
        let mut flags: Vec<String> = ["--scale", "512"].map(str::to_owned).into();
        for name in names {
            flags.extend(["--domain".into(), format!("{name},demand=0.02,memory=3072,dirty=1")]);
        }
        flags
    };
    let all = ["big-1", "big-2", "big-3", "big-4"];
    let mut c = cluster(&[("ferby", flags(&all)), ("gerby", flags(&[])), ("herby", flags(&[]))]);
    let tree = c.tree.clone();
    let t = &tree;
    for (order, left) in [("evacuate", 0), ("restore", 4)] {
        t.order(CTL, order);
        // one has moved and another is on its way; ferby's second life offers its own domains no room for 30 s
        patiently(t, "the middle", 90, || {
            let half = (1..4).contains(&on(t, "ferby").len());
            let copies = all
                .iter()
                .any(|d| t.value(&format!("domains/{d}/job"), "phase").is_some_and(|p| p == "copy"));
            (half && copies).then_some(())
        });
        c.agent("ferby").kill_and_launch();
        t.settles(STATE, if order == "evacuate" { "maintenance" } else { "up" });
        patiently(t, &format!("the end of {order}"), 180, || {
            (on(t, "ferby").len() == left && job(t) == "none").then_some(())
        });
        all.iter().for_each(|d| assert_eq!(c.once(d, "running") == "ferby", left == 4, "{d}"));
        say(&format!("  {order}: {}", t.until_end(WAIT)));
        restart(&mut c);
    }
    assert_eq!((t.text(STATE), t.text("servers/ferby/accepting")), ("up".to_owned(), "on".to_owned()));
}

/// Real migrations go on while the agent that began them is dead.
#[test]
fn its_agent_dies_in_the_middle_on_qemu() {
    requires!("/dev/fuse");
    for need in lab::NEEDS {
        requires!(need);
    }
    let all = ["small-1", "small-2"];
    let mut c = Cluster::qemu(2, 2, |lab| all.iter().for_each(|name| lab.guest("ferby", name, &[], true)));
    c.heartbeat("0.2");
    let tree = c.tree.clone();
    let t = &tree;
    t.order("domains/small-1/with", "crew");
    t.order("domains/small-2/with", "crew");
    t.order("domains/small-2/apart", "night heavy");
    for (order, from, left) in [("evacuate", "ferby", 0), ("restore", "gerby", 2)] {
        for name in all {
            c.hosts().virsh(from, &["migrate-setspeed", name, "4"]).ok();
        }
        t.order(CTL, order);
        patiently(t, "a copy", 90, || {
            let percent = |d: &&str| {
                let phase = t.value(&format!("domains/{d}/job"), "phase")?;
                let percent: u32 = t.value(&format!("domains/{d}/job"), "percent")?.parse().ok()?;
                (phase == "copy" && percent > 0).then_some(())
            };
            all.iter().find_map(percent)
        });
        c.agent(from).kill_and_launch();
        patiently(t, &format!("the end of {order}"), 240, || {
            (on(t, "ferby").len() == left && job(t) == "none").then_some(())
        });
        all.iter().for_each(|d| assert_eq!(c.once(d, "running") == "ferby", left == 2, "{d}"));
        say(&format!("  {order}: {}", t.until_end(WAIT)));
    }
    assert_eq!((t.text(STATE), t.text("servers/ferby/accepting")), ("up".to_owned(), "on".to_owned()));
    assert_eq!(t.text("domains/small-1/with"), "crew");
    assert_eq!(t.text("domains/small-2/apart"), "night heavy");
}

/// A domain that is pinned to the server stays, and so does who stays together with it; all others leave.
#[test]
fn who_must_stay_stays() {
    requires!("/dev/fuse");
    let c = cluster(&[("ferby", smalls(4)), ("gerby", vec![])]);
    let t = &c.tree;
    t.order("domains/small-1/pin", "ferby");
    t.order("domains/small-1/with", "crew");
    t.order("domains/small-2/with", "crew");
    t.order("domains/small-4/ctl", "pause");
    t.order(CTL, "evacuate");
    let end = patiently_until(t, "evacuate");
    say(&format!("  {end}"));
    assert!(end.contains("failed evacuate: ENOSPC cannot evacuate all of ferby: there stay "), "{end}");
    assert!(end.contains("small-1 (it is pinned to this server)"), "{end}");
    assert!(end.contains("small-2 (a domain that it stays together with cannot leave)"), "{end}");
    assert_eq!(on(t, "ferby"), ["small-1", "small-2"]);
    assert_eq!((c.once("small-3", "running"), c.once("small-4", "paused")), ("gerby".into(), "gerby".into()));
    assert_eq!(t.text(STATE), "maintenance");
    t.order(CTL, "restore");
    patiently_until(t, "restore");
    assert_eq!((on(t, "ferby").len(), c.once("small-4", "paused")), (4, "ferby".to_owned()));
}

/// gerby has too little memory for any of them.
#[test]
fn nobody_has_room() {
    requires!("/dev/fuse");
    let tiny = vec!["--memory".to_owned(), "256".to_owned()];
    let c = cluster(&[("ferby", smalls(2)), ("gerby", tiny)]);
    let t = &c.tree;
    t.order(CTL, "evacuate");
    let told = patiently(t, "the reason", 60, || {
        let text = t.text("servers/ferby/job");
        text.contains("memory").then_some(text)
    });
    say(&format!("  {told}"));
    let last = ended(t, "no-offer").pop().expect("a round that told it");
    assert!(last.offers.contains("gerby refused: it has too little memory"), "{last:?}");
    assert_eq!((on(t, "ferby").len(), t.text(STATE)), (2, "maintenance".to_owned()));
    t.order(CTL, "cancel");
    let end = t.until_end(WAIT);
    say(&format!("  {end}"));
    assert!(end.contains("failed evacuate: ") && end.contains("cancel"), "{end}");
    assert_eq!(job(t), "none");
    t.order(CTL, "restore");
    patiently_until(t, "restore");
    assert_eq!((on(t, "ferby").len(), t.text(STATE)), (2, "up".to_owned()));
    runs(&c, 2);
}

fn runs(c: &Cluster, count: usize) {
    for n in 1..=count {
        assert_eq!(c.once(&format!("small-{n}"), "running"), "ferby");
    }
    assert!(rounds(&c.tree).iter().all(|r| r.end != "moved"));
}

fn job(t: &Tree) -> String {
    t.text("servers/ferby/job")
}

/// How the server's job ended.
#[track_caller]
fn patiently_until(t: &Tree, kind: &str) -> String {
    patiently(t, &format!("the end of {kind}"), 120, || (job(t) == "none").then_some(()));
    t.until_end(WAIT)
}
