//! The story: a server is driven to full load, one domain moves by itself, and then nothing more moves although the server stays full,
//! because each busy domain now has a CPU of its own.

use crate::stage::{beats, cluster, load, on, patiently, points, restart, rounds, smalls};
use xvm_tests::{Cluster, lab, requires, say, wait_eq};

/// How many heartbeats without a further round show that there is none.
const QUIET: usize = 25;
/// From which load on a host counts as full here.
const FULL: f64 = 0.3;

#[test]
fn story_sim() {
    requires!("/dev/fuse", "root");
    let mut c = cluster(&[("ferby", smalls(5)), ("gerby", vec![]), ("herby", vec![])]);
    let tree = c.tree.clone();
    play(&mut c, || (1..=5).for_each(|n| load(&tree, &format!("small-{n}"), 100)));
}

/// Two guests that never rest on a host of one CPU.
#[test]
fn story_qemu() {
    requires!("/dev/fuse");
    for need in lab::NEEDS {
        requires!(need);
    }
    let mut c = Cluster::qemu(2, 2, |lab| {
        lab.limit("ferby", "0");
        lab.guest("ferby", "small-1", &["spin=1"], true);
        lab.guest("ferby", "small-2", &["spin=1"], false);
    });
    c.heartbeat("0.2");
    // what else runs on this machine takes its part of the CPU, and none of it belongs to the host
    c.tree.order("servers/ferby/watchdog", &format!("threshold {FULL}"));
    let tree = c.tree.clone();
    play(&mut c, || tree.order("domains/small-2/ctl", "start"));
}

/// `drive` brings ferby to full load, with one busy domain more than it has CPUs.
fn play(c: &mut Cluster, drive: impl FnOnce()) {
    let tree = c.tree.clone();
    let t = &tree;
    let all = on(t, "ferby").len();
    assert_eq!((points(t, "ferby"), rounds(t).len()), (0, 0), "nobody is overloaded yet");
    let events = t.events("events");
    drive();
    let start = std::time::Instant::now();
    let round = patiently(t, "a move by itself", 90, || rounds(t).into_iter().find(|r| r.end == "moved"));
    say(&format!("moved {} s after the load began\n{}", start.elapsed().as_secs(), round.outcome));
    assert_eq!((&*round.asker, &*round.need), ("ferby", "overload"));
    let (domain, helper) = (&*round.domain, &*round.helper);
    assert_eq!(c.once(domain, "running"), helper, "what the round tells is so");
    assert_eq!(on(t, "ferby").len(), all - 1);
    // who offered with which projected load, who was taken
    let kind = t.value(&format!("servers/{helper}/status"), "hypervisor").expect("its kind");
    let is_its = |l: &&str| {
        let words: Vec<&str> = l.split(' ').collect();
        words.len() > 3 && (words[0], words[1], words[3]) == (helper, &*kind, domain)
    };
    let offer = round.offers.lines().find(is_its).expect("its offer");
    assert!(offer.ends_with(" accepted"), "{offer}");
    for words in [
        "ferby asked for help: ",
        &format!("{helper} offered to take {domain}: "),
        &format!("moved: {domain} "),
    ] {
        assert!(round.outcome.contains(words), "{words:?} is not in\n{}", round.outcome);
    }
    // live: request, offer, accept, the move, done
    let told = [
        "asks: ".to_owned(),
        format!("offer {helper} {domain} projected "),
        format!("accepts {helper} for {domain}"),
        "ended: ".to_owned(),
    ];
    for words in told {
        let line = events.expect(&format!("server ferby help {} {words}", round.id));
        say(&format!("  {line}"));
    }
    events.expect(&format!("domain {domain} job migrate to {helper}"));
    events.expect(&format!("domain {domain} server {helper} (was ferby)"));
    // where it came from, and why
    for file in ["status", "history"] {
        let text = t.text(&format!("domains/{domain}/{file}"));
        assert!(text.contains("ferby") && text.contains(&round.id), "{file}:\n{text}");
    }
    // each busy domain has a CPU of its own now
    patiently(t, "the counter at 0", 90, || (points(t, "ferby") == 0).then_some(()));
    let count = rounds(t).len();
    let mut loads = Vec::new();
    for _ in 0..QUIET {
        beats(t, "ferby", 1);
        assert_eq!((points(t, "ferby"), rounds(t).len()), (0, count));
        loads.push(t.text("servers/ferby/load").parse::<f64>().expect("a number"));
    }
    // a real host may not get its CPU at each moment
    let full = loads.iter().filter(|load| **load >= if c.lab.is_some() { FULL } else { 0.95 }).count();
    assert!(full == QUIET || c.lab.is_some() && full > 0, "it is still full: {loads:?}");
    assert_eq!(on(t, "ferby").len(), all - 1);
    // and what it brought is written down
    let last = patiently(t, "what it brought", 30, || {
        let text = t.text(&format!("help/{}/outcome", round.id));
        text.lines().last().filter(|l| l.starts_with("ferby's load was ")).map(str::to_owned)
    });
    say(&format!("  {last}"));
    // nobody forgets it
    let told = |file: &str| t.get(&format!("help/{}/{file}", round.id)).unwrap_or_default();
    let files = ["request", "offers", "accept", "outcome"];
    let (before, came) = (files.map(told), t.value(&format!("domains/{domain}/status"), "came"));
    restart(c);
    wait_eq("the same story", before, || files.map(told));
    assert_eq!(t.value(&format!("domains/{domain}/status"), "came"), came);
    assert_eq!(c.once(domain, "running"), helper);
}
