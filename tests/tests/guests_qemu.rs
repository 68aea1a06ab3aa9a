//! guestd in machines that imaged made, on real QEMU hosts, through the mounted tree: it comes up, tells, runs tests, makes load, and goes
//! along when a server gets help.

#[path = "configs/qemu/records.rs"]
#[allow(dead_code, reason = "shared with the tests of configs")]
mod records;
#[path = "configs/qemu/scene.rs"]
#[allow(dead_code, reason = "shared with the tests of configs")]
mod scene;
#[path = "configs/stage.rs"]
#[allow(dead_code, reason = "shared with the tests of configs")]
mod stage;

use scene::wait_long;
use stage::{make, start};
use std::collections::BTreeSet;
use std::time::Instant;
use xvm_tests::{Cluster, Daemon, Events, Tree, say};

/// From which load on a host counts as full here: what else runs on this machine takes its part of the CPU.
const FULL: &str = "0.3";
/// What a guest does besides guestd: its clock is wrong by years.
const SCRIPT: &str = "#!/bin/sh\ndate -s 2001-09-09 > /dev/null\n";

/// A line of `results` whose test is `line`, as words: when, state, exit status, wall, CPU.
fn result(t: &Tree, name: &str, line: &str) -> Option<Vec<String>> {
    let text = t.get(&format!("domains/{name}/guest/results")).ok()?;
    let found = text.lines().rev().find(|l| l.ends_with(&format!(" {line}")))?;
    Some(found.split(' ').take(5).map(str::to_owned).collect())
}

/// Waits until a test has one of `states`; gives it.
#[track_caller]
fn is(t: &Tree, name: &str, line: &str, states: &[&str]) -> String {
    wait_long(&format!("{line} in {name} to be one of {states:?}"), || {
        result(t, name, line).map(|r| r[1].clone()).filter(|s| states.contains(&&**s))
    })
}

/// Two hosts of one CPU each, machines that have guestd and begin on ferby.
fn cluster(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::qemu(2, 0, |lab| {
        lab.limit("ferby", "0");
        lab.limit("gerby", "1");
    });
    cluster.heartbeat("0.2");
    let t = cluster.tree.clone();
    t.order("ctl", "balance off");
    t.order("servers/ferby/watchdog", &format!("threshold {FULL}"));
    let guests = cluster.guest_forwarder();
    scene::tiny(&mut cluster, SCRIPT, &["--guest-forwarder", &guests]);
    let net = cluster.hosts().address().trim_end_matches(".1").to_owned();
    for (n, name) in names.iter().enumerate() {
        match n {
            0 => {
                t.order("ctl", &format!("create {name} address={net}.100/24"));
                assert_eq!(
                    t.until_end(&format!("configs/{name}/wait")),
                    format!("done create: {name} is ready")
                );
            }
            // a clone has its own name and address, and guestd knows
            _ => {
                t.order(&format!("configs/{}/ctl", names[0]), &format!("clone {name}"));
                assert_eq!(
                    t.until_end(&format!("configs/{name}/wait")),
                    format!("done clone: {name} is ready")
                );
                t.order(&format!("configs/{name}/address"), &format!("{net}.{}/24", 100 + n));
            }
        }
    }
    let begin = Instant::now();
    names.iter().for_each(|name| drop(start(&t, name, "ferby")));
    for name in names {
        let heard = || t.get(&format!("domains/{name}/guest/status")).ok();
        let status = wait_long(&format!("guestd in {name}"), heard);
        assert!(status.starts_with(&format!("name {name}\nstate up\nsigned yes\n")), "{status}");
    }
    say(&format!("{} machines from start to guestd: {:.1} s", names.len(), begin.elapsed().as_secs_f64()));
    cluster
}

#[test]
fn five_domains_under_load_get_help_and_their_tests_go_on() {
    crate::requires_lab!();
    xvm_tests::requires!("patchelf", "strip");
    let names = ["small-1", "small-2", "small-3", "small-4", "small-5"];
    let cluster = cluster(&names);
    let t = &cluster.tree;

    // a test that is right, on each of them, and what it printed
    for name in names {
        t.order(&format!("domains/{name}/guest/run"), "fibonacci 20");
        is(t, name, "fibonacci 20", &["done"]);
        assert!(t.text(&format!("domains/{name}/guest/result")).ends_with("\n\n6765"), "{name}");
    }

    // all are loaded, and a test runs in each: memory is written, and checked again and again
    for name in names {
        t.order(&format!("domains/{name}/ctl"), "load 100 600");
        t.order(&format!("domains/{name}/guest/run"), "memory 4 45");
        is(t, name, "memory 4 45", &["running"]);
        let loading = t.value(&format!("domains/{name}/guest/status"), "loading").unwrap_or_default();
        assert!(loading.starts_with("100 % for "), "{loading}");
    }
    let share = |path: &str| t.text(path).parse::<f64>().expect("a share");
    wait_long("the load of ferby", || (share("servers/ferby/load") >= 0.3).then_some(()));
    let began = Instant::now();
    t.order("ctl", "balance on");

    // help comes, and takes one
    let moved = wait_long("a domain on gerby", || {
        names.iter().find(|n| t.text(&format!("domains/{n}/server")) == "gerby").copied()
    });
    t.until_end(&format!("domains/{moved}/wait"));
    say(&format!("{moved} moved by itself after {:.1} s", began.elapsed().as_secs_f64()));
    t.order("ctl", "balance off");
    assert_eq!(cluster.once(moved, "running"), "gerby");
    let came = t.value(&format!("domains/{moved}/status"), "came").unwrap_or_default();
    assert!(came.contains("ferby"), "{came}");

    // there it works on: processes, load, and the very test
    let top = t.text(&format!("domains/{moved}/guest/top"));
    assert!(top.contains("guestd test memory 4 45"), "{top}");
    wait_long("its load there", || (share(&format!("domains/{moved}/load")) >= 0.3).then_some(()));
    wait_long("the load of gerby", || (share("servers/gerby/load") >= 0.3).then_some(()));
    for name in names {
        let state = is(t, name, "memory 4 45", &["done", "failed", "cancelled"]);
        let result = t.text(&format!("domains/{name}/guest/result"));
        assert_eq!(state, "done", "{name}: {result}");
        let value = |key: &str| t.value(&format!("domains/{name}/guest/result"), key).unwrap_or_default();
        let wall: f64 = value("wall").parse().expect("seconds");
        // however its clock stands
        assert!((45.0..600.0).contains(&wall), "{name}: {result}");
        assert_eq!(value("server"), if name == moved { "gerby" } else { "ferby" });
        t.order(&format!("domains/{name}/guest/ctl"), "load 0");
    }
    let at = &result(t, moved, "memory 4 45").expect("it ran")[0];
    assert!(at.starts_with("2001-"), "the guest's own clock: {at}");
    let age: f64 =
        t.value(&format!("domains/{moved}/guest/status"), "age").and_then(|a| a.parse().ok()).expect("it");
    assert!(age < 60.0, "the mount's clock: {age}");

    // each has a key of its own, and what comes under its name without it is not believed
    let key = |name: &str| t.json(&format!("configs/{name}/json"))["guest_key"].as_str().map(str::to_owned);
    let keys: BTreeSet<Option<String>> = names.iter().map(|n| key(n)).collect();
    assert!(keys.len() == names.len() && !keys.contains(&None), "{keys:?}");
    let other = names.iter().find(|n| **n != moved).expect("four did not move");
    let events = Events::open(&t.path(&format!("domains/{other}/events")));
    let (guests, state) = (cluster.guest_forwarder(), cluster.dir().join("thief"));
    let state = state.to_string_lossy().into_owned();
    let flags = ["--name", other, "--forwarder", &guests, "--heartbeat", "0.5", "--state", &state];
    let mut thief = Daemon::start("thief", "guestd", &flags, cluster.dir());
    events.expect("guest is not believed");
    let status = t.text(&format!("domains/{other}/guest/status"));
    assert!(status.contains("signed yes") && status.contains("cpus 1"), "this machine has more: {status}");
    thief.kill();

    // one that ends with its domain has no result, and is not made up
    t.order(&format!("domains/{moved}/guest/run"), "memory 4 600");
    is(t, moved, "memory 4 600", &["running"]);
    let path = t.path(&format!("domains/{moved}/guest/result"));
    let waits = std::thread::spawn(move || std::fs::read_to_string(path));
    t.order(&format!("domains/{moved}/ctl"), "destroy");
    let told = waits.join().expect("no panic");
    assert!(told.as_ref().is_ok_and(|text| text.starts_with("state unknown")), "{told:?}");
    t.settles(&format!("configs/{moved}/state"), "ready");
    make(t, "small-6");
}
