//! Schedules of tests through the mounted tree, with simulated guests. If these fail, tests run twice, are lost without a word, or the
//! tables say what was not.

use std::process::Command;
use std::time::Duration;
use xvm_tests::{Cluster, Daemon, evaluation, requires, say, shell, wait_for};

/// Three servers, and the guests of their domains.
fn cluster() -> (Cluster, Daemon) {
    let cluster = Cluster::three();
    let flags = ["--simulated", "--forwarder", &cluster.bus(), "--heartbeat", "0.2"];
    let guests = Daemon::start("guests", "guestd", &flags, cluster.dir());
    for name in ["small-1", "small-2", "small-3", "small-4"] {
        wait_for("its guest", || cluster.tree.get(&format!("domains/{name}/guest/load")).ok());
    }
    (cluster, guests)
}

/// The rows of `results` as words: AT, BEGUN, DOMAIN, SERVER, STATE, EXIT, WALL, CPU, TOTAL, TEST...
fn rows(cluster: &Cluster, name: &str) -> Vec<Vec<String>> {
    let text = cluster.tree.text(&format!("tests/{name}/results"));
    text.lines().skip(1).map(|l| l.split_whitespace().map(str::to_owned).collect()).collect()
}

/// A column of the rows.
fn column(rows: &[Vec<String>], i: usize) -> Vec<&str> {
    rows.iter().map(|r| &*r[i]).collect()
}

#[test]
fn an_evening_of_tests() {
    requires!("/dev/fuse");
    let (cluster, mut guests) = cluster();
    let t = &cluster.tree;
    let make = |name: &str| std::fs::create_dir(t.path(&format!("tests/{name}")));
    make("evening").expect("made");
    assert_eq!(make("evening").expect_err("it is there").raw_os_error(), Some(nix::libc::EEXIST));
    assert_eq!(make(".x").expect_err("no name").raw_os_error(), Some(nix::libc::EINVAL));
    assert_eq!((t.names("tests"), &*t.text("tests/evening/wait")), (vec!["evening".to_owned()], ""));
    let refused = t.refused("tests/evening/ctl", "start\n");
    assert!(refused.sentence.contains("its file schedule says nothing yet"), "{refused:?}");

    // what is wrong is named, and what was there stays
    let schedule =
        "# an evening\n0 small-* fibonacci 20\n0.5 small-1 memory 1 1\n0 nobody disk\n0 small-2 nonsense\n";
    t.put("tests/evening/schedule", schedule).expect("taken");
    for (text, why) in [
        ("0 small-1\n", "line 1: \"0 small-1\" names no test"),
        ("0 a b\nx small-1 disk\n", "line 2: AT \"x\" is not 0 to 86400 seconds"),
        (&*"0 a b\n".repeat(1001), "at most 1000 lines"),
    ] {
        let refused = t.refused("tests/evening/schedule", text);
        assert!(refused.errno == "EINVAL" && refused.sentence.contains(why), "{refused:?}");
    }
    assert_eq!(t.get("tests/evening/schedule").expect("it reads"), schedule);

    // all that it says is carried out, each once
    t.order("tests/evening/ctl", "start");
    let refused = t.refused("tests/evening/schedule", "0 small-1 disk\n");
    assert!(refused.errno == "EBUSY" && refused.sentence.contains("its tests run"), "{refused:?}");
    assert_eq!(t.refused("tests/evening/ctl", "start\n").errno, "EBUSY");
    let busy = std::fs::remove_dir(t.path("tests/evening")).expect_err("it runs");
    assert_eq!(busy.raw_os_error(), Some(nix::libc::EBUSY));
    assert!(t.until_end("tests/evening/wait").starts_with("done: 5 of 7 tests done in "));
    let all = rows(&cluster, "evening");
    let domains = ["nobody", "small-1", "small-2", "small-2", "small-3", "small-4", "small-1"];
    let mut shown = column(&all, 2);
    shown[..6].sort_unstable();
    assert_eq!(shown, domains, "{all:?}");
    for row in &all {
        let wanted = if row[2] == "nobody" || row[9] == "nonsense" { "failed" } else { "done" };
        assert_eq!(row[4], wanted, "{row:?}");
    }
    let results = t.text("tests/evening/results");
    assert!(results.contains("disk # no guestd is heard in a domain that \"nobody\" names"), "{results}");
    assert!(results.contains("nonsense # cannot run \"nonsense\" in small-2: there is no test"), "{results}");
    let summary = t.text("tests/evening/summary");
    assert!(summary.contains("\ntests 7\ndone 5\nfailed 2\n"), "{summary}");
    let last = all.last().expect("a row");
    assert!(last[0] == "0.5" && last[6].parse::<f64>().expect("seconds") >= 1.0, "{last:?}");
    assert_eq!(t.json("tests/evening/json")["play"]["tasks"].as_array().map(Vec::len), Some(7));

    // one that goes on is cancelled; nothing more is ordered
    t.put("tests/evening/schedule", "0 small-[12] memory 1 3600\n0 small-1 disk\n60 small-3 disk\n")
        .expect("taken");
    t.order("tests/evening/ctl", "start");
    let running = |n: &str| (t.value("tests/evening/status", "running").as_deref() == Some(n)).then_some(());
    wait_for("two that run", || running("2"));
    let top = t.text("domains/small-2/guest/top");
    assert!(top.contains("guestd test memory 1 3600"), "{top}");
    t.order("tests/evening/ctl", "cancel");
    assert!(t.until_end("tests/evening/wait").starts_with("cancelled: 0 of 3 tests done in "));
    assert_eq!(column(&rows(&cluster, "evening"), 4), ["cancelled"; 3]);
    assert_eq!(t.refused("tests/evening/ctl", "cancel\n").errno, "EBUSY");

    // a guest that dies takes its test along, and nobody makes up its end
    t.put("tests/evening/schedule", "0 small-1 memory 1 3600\n").expect("taken");
    t.order("tests/evening/ctl", "start");
    wait_for("one that runs", || running("1"));
    guests.kill();
    guests.launch();
    assert!(t.until_end("tests/evening/wait").starts_with("done: 0 of 1 tests done in "));
    let results = t.text("tests/evening/results");
    assert!(results.contains(" unknown ") && results.contains("# its guestd was started anew"), "{results}");
    std::fs::remove_dir(t.path("tests/evening")).expect("nothing runs");
    assert_eq!(t.names("tests"), Vec::<String>::new());
}

#[test]
fn a_mount_that_dies_forgets_no_schedule() {
    requires!("/dev/fuse");
    let (mut cluster, _guests) = cluster();
    let t = cluster.tree.clone();
    std::fs::create_dir(t.path("tests/evening")).expect("made");
    let schedule = "0 small-1 fibonacci 20\n0 small-1 memory 1 3600\n0 small-1 disk\n";
    t.put("tests/evening/schedule", schedule).expect("taken");
    t.order("tests/evening/ctl", "start");
    let value = |key: &str| t.value("tests/evening/status", key).unwrap_or_default();
    wait_for("one that runs after one that is done", || {
        (value("running") == "1" && value("done") == "1").then_some(())
    });
    cluster.mount.kill_and_launch();
    cluster.mounted();
    assert_eq!((value("state"), value("lines")), ("interrupted".into(), "3".into()));
    assert_eq!(column(&rows(&cluster, "evening"), 4), ["done", "unknown", "unknown"]);
    let results = t.text("tests/evening/results");
    assert!(results.contains("# the mount ended while it ran"), "{results}");
    assert!(t.text("tests/evening/wait").starts_with("interrupted: 1 of 3 tests done"));
    // it is as good as new
    wait_for("its guest", || t.get("domains/small-1/guest/load").ok());
    t.order("domains/small-1/guest/ctl", "cancel");
    t.put("tests/evening/schedule", "0 small-1 fibonacci 20\n").expect("taken");
    t.order("tests/evening/ctl", "start");
    assert!(t.until_end("tests/evening/wait").starts_with("done: 1 of 1 tests done"));

    // nothing here is removed by accident
    let mut rm = Command::new("rm");
    rm.args(["-rf", "tests"]).current_dir(cluster.root());
    assert_ne!(shell::run(&mut rm, Duration::from_secs(20)).status, 0);
    assert_eq!(t.names("tests"), ["evening"]);
}

#[test]
fn balancing_brings_something() {
    requires!("/dev/fuse");
    let [off, on] = ["off", "on"].map(|balance| evaluation::evening(balance, "fibonacci 45", 2));
    say(&evaluation::side_by_side(&off.summary, &on.summary));
    assert_eq!((off.value("moves"), off.value("done"), on.value("done")), ("0", "16", "16"));
    assert!(on.value("moves").parse::<u32>().expect("a number") >= 2, "{}", on.summary);
    // sixteen on four CPUs of a simulated server take four times their CPU time, and no less; who moved has a CPU of its own
    let cpu = 5.67;
    assert!(off.least() >= 3.8 * cpu, "{}", off.summary);
    assert!(on.least() < off.least(), "{}", on.summary);
    assert!(on.results.contains(" ferby>"), "{}", on.results);
}
