//! The asker, the helper and the forwarder die in mid-round and in mid-migration: each domain runs once, no room stays reserved, and
//! help comes later all the same.

use crate::stage::{cluster, ended, load, on, patiently, rounds};
use std::time::Instant;
use xvm_tests::{Cluster, requires, say, tree::errno, wait_eq};

/// When it dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Round,
    Migration,
}

/// Who dies.
type Victim = fn(&mut Cluster);

const COUNT: usize = 12;

/// ferby has far too much to do and gerby room for all of it, in memory just for those that move: a reservation that stayed would show.
fn overloaded() -> Cluster {
    let mut flags: Vec<String> = ["--scale", "512", "--memory", "65536"].map(str::to_owned).into();
    let helper = [&flags[..], &["--cpus".to_owned(), "16".to_owned()]].concat();
    for n in 1..=COUNT {
        flags.extend(["--domain".into(), format!("small-{n},demand=0.02,memory=3072,dirty=1")]);
    }
    let c = cluster(&[("ferby", flags), ("gerby", helper)]);
    (1..=COUNT).for_each(|n| load(&c.tree, &format!("small-{n}"), 100));
    c
}

fn play(victim: Victim) {
    let mut c = overloaded();
    let tree = c.tree.clone();
    let t = &tree;
    for when in [When::Round, When::Migration] {
        let probe = c.probe();
        let round = patiently(t, "a round", 120, || {
            let running = rounds(t).into_iter().find(|r| r.end.is_empty())?;
            let copies = !running.domain.is_empty()
                && t.value(&format!("domains/{}/job", running.domain), "phase").is_some_and(|p| p == "copy");
            (when == When::Round || copies).then_some(running)
        });
        let moved = ended(t, "moved").len();
        victim(&mut c);
        let start = Instant::now();
        for server in ["ferby", "gerby"] {
            t.settles(&format!("servers/{server}/state"), "up");
        }
        for n in 1..=COUNT {
            c.once(&format!("small-{n}"), "running");
        }
        let end = patiently(t, "the end of that round", 90, || {
            let told = rounds(t).into_iter().find(|r| r.id == round.id)?;
            (!told.end.is_empty()).then_some(told)
        });
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        say(&format!("{test} in mid-{when:?}: {} ended as {:?}", end.id, end.end));
        if !end.domain.is_empty() {
            let there = c.once(&end.domain, "running");
            assert!(end.end != "moved" || there == end.helper, "{end:?}");
        }
        let later = patiently(t, "help that comes later", 180, || {
            let all = ended(t, "moved");
            let other = all.last().filter(|r| r.id != round.id)?.clone();
            (all.len() > moved).then_some(other)
        });
        assert_eq!(c.once(&later.domain, "running"), "gerby");
        say(&format!("{test}: {} after {} s", later.id, start.elapsed().as_secs()));
        assert_eq!(probe.end(), [].into(), "reading never failed");
    }
    assert_eq!(on(t, "ferby").len() + on(t, "gerby").len(), COUNT);
}

/// Side by side: most of the time they wait for a counter or for an agent to grow up.
#[test]
fn who_negotiates_is_killed() {
    requires!("/dev/fuse");
    let plays: [(&str, Victim); 3] = [("asker", asker), ("helper", helper), ("forwarder", forwarder)];
    let threads = plays.map(|(name, victim)| {
        let thread = std::thread::Builder::new().name(format!("the {name} is killed"));
        thread.spawn(move || play(victim)).expect("a thread more")
    });
    let ends = threads.map(|t| t.join().is_ok());
    assert_eq!(ends, [true; 3], "who failed has said why above");
}

fn asker(c: &mut Cluster) {
    c.agent("ferby").kill_and_launch();
}

fn helper(c: &mut Cluster) {
    c.agent("gerby").kill_and_launch();
}

/// It stays away until everybody knows.
fn forwarder(c: &mut Cluster) {
    c.forwarder.kill();
    wait_eq("the refusal", "EHOSTUNREACH".to_owned(), || {
        c.tree.put("ctl", "roll-call\n").err().map(|e| errno(&e)).unwrap_or_default()
    });
    c.forwarder.launch();
    wait_eq("the bus", true, || c.tree.put("ctl", "roll-call\n").is_ok());
}
