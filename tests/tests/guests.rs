//! If this fails, what goes on inside the machines is not told, or not as it is: guestd as a process, and the guests of simulated
//! domains, through the mounted tree.

use std::fs::File;
use std::io::Read as _;
use std::process::Command;
use xvm_tests::{Cluster, Daemon, requires, wait_eq, wait_for};

/// A real guestd in the place of one in a domain: it tells of this machine.
#[track_caller]
fn guestd(cluster: &Cluster, name: &str, flags: &[&str]) -> Daemon {
    let (bus, state) = (cluster.bus(), cluster.dir().join(format!("guest-{name}")));
    let state = state.to_string_lossy().into_owned();
    let mut args = vec!["--name", name, "--forwarder", &bus, "--state", &state, "--heartbeat", "0.2"];
    args.extend(flags);
    let daemon = Daemon::start(&format!("guestd-{name}"), "guestd", &args, cluster.dir());
    is_heard(cluster, name);
    daemon
}

/// The guests of all simulated domains.
#[track_caller]
fn simulated(cluster: &Cluster) -> Daemon {
    let bus = cluster.bus();
    let args = ["--simulated", "--forwarder", &bus, "--heartbeat", "0.2"];
    Daemon::start("guests", "guestd", &args, cluster.dir())
}

#[track_caller]
fn is_heard(cluster: &Cluster, name: &str) {
    wait_for(&format!("guestd in {name}"), || cluster.tree.get(&format!("domains/{name}/guest/load")).ok());
}

/// A value of `guest/result`, which waits for the end of all tests.
#[track_caller]
fn result(cluster: &Cluster, name: &str, key: &str) -> String {
    let path = format!("domains/{name}/guest/result");
    cluster
        .tree
        .value(&path, key)
        .unwrap_or_else(|| panic!("{path} has no {key}: {}", cluster.tree.text(&path)))
}

/// What its server says that it uses.
#[track_caller]
fn load(cluster: &Cluster, name: &str) -> f64 {
    cluster.tree.text(&format!("domains/{name}/load")).parse().expect("a share")
}

#[test]
fn a_real_guestd_runs_tests_and_shows_its_processes() {
    requires!("/dev/fuse");
    let cluster = Cluster::three();
    let t = &cluster.tree;
    assert!(t.get("domains/small-1/guest/status").is_err(), "nobody is heard");
    let list = cluster.dir().join("guestd.toml");
    std::fs::write(&list, "[tests]\nsleep = \"/bin/sleep ...\"\nsay = \"/bin/echo one two\"\n")
        .expect("written");
    let mut guest = guestd(&cluster, "small-1", &["--config", &list.to_string_lossy()]);

    // it takes as long as it takes, and says what it printed
    t.put("domains/small-1/guest/run", "fibonacci 20\nsay\n").expect("taken");
    assert_eq!(result(&cluster, "small-1", "test"), "say");
    let said = t.text("domains/small-1/guest/result");
    assert!(said.ends_with("\n\none two"), "{said}");
    let lines = t.text("domains/small-1/guest/results");
    let states: Vec<&str> = lines.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(states, ["done", "done"], "{lines}");

    // the third is what is wrong with the second
    for (line, why) in [
        ("nonsense 3", "there is no test of that name; there are fibonacci"),
        ("/bin/true", "there is no test of that name"),
        ("say more", "takes no arguments"),
    ] {
        let refused = t.refused("domains/small-1/guest/run", format!("{line}\n"));
        assert!(refused.sentence.contains(why) && refused.sentence.contains("small-1"), "{refused:?}");
        assert_eq!(refused.errno, "EINVAL", "{refused:?}");
    }
    t.order("domains/small-1/guest/run", "fibonacci 99");
    assert_eq!(
        (&*result(&cluster, "small-1", "state"), &*result(&cluster, "small-1", "status")),
        ("failed", "2")
    );

    // one that would go on is ended with all that it started
    t.put("domains/small-1/guest/run", "sleep 3600.25\nsay\n").expect("taken");
    let sleeps = || Command::new("pgrep").args(["-f", "sleep 3600.25$"]).output().expect("pgrep").stdout;
    wait_for("the program", || (!sleeps().is_empty()).then_some(()));
    t.order("domains/small-1/guest/ctl", "cancel");
    assert_eq!(result(&cluster, "small-1", "state"), "cancelled");
    wait_for("its end", || sleeps().is_empty().then_some(()));

    // who reads top gets what is now, and guestd is asked no longer
    let top = t.text("domains/small-1/guest/top");
    assert!(
        top.lines()
            .nth(1)
            .is_some_and(|l| l.split_whitespace().eq(["PID", "USER", "CPU", "MEM", "TIME", "COMMAND"])),
        "{top}"
    );
    assert!(top.lines().count() > 3, "{top}");

    // a guest that is lost takes its directory along, and its test's end is not made up
    t.put("domains/small-1/guest/run", "sleep 3600.25\n").expect("taken");
    wait_for("the program", || (!sleeps().is_empty()).then_some(()));
    let mut waits = File::open(t.path("domains/small-1/guest/result")).expect("opens");
    guest.kill();
    let mut text = String::new();
    while waits.read_to_string(&mut text).is_err_and(|e| e.kind() == std::io::ErrorKind::Interrupted) {}
    assert!(text.starts_with("state unknown"), "{text}");
    wait_for("no guest", || t.get("domains/small-1/guest/load").is_err().then_some(()));
    assert!(!t.names("domains/small-1").contains(&"guest".to_owned()));
    drop(Command::new("pkill").args(["-f", "sleep 3600.25$"]).status());
    guest.launch();
    is_heard(&cluster, "small-1");
}

#[test]
fn a_simulated_guest_works_on_while_its_domain_moves() {
    requires!("/dev/fuse");
    let cluster = Cluster::three();
    let t = &cluster.tree;
    let _guests = simulated(&cluster);
    for name in ["small-1", "small-2", "small-3", "small-4"] {
        is_heard(&cluster, name);
    }
    assert!(t.get("domains/small-5/guest/load").is_err(), "it is off");
    t.order("domains/small-2/guest/run", "fibonacci 25");
    assert!(t.text("domains/small-2/guest/result").ends_with("\n\n75025"));

    // three seconds of one CPU, most of them elsewhere
    t.order("domains/small-1/guest/run", "memory 1 3");
    wait_eq("its load is seen", true, || load(&cluster, "small-1") >= 0.4);
    t.order("domains/small-1/ctl", "migrate herby");
    assert!(t.until_end("domains/small-1/wait").starts_with("done migrate: small-1 runs on herby"));
    assert!(t.text("domains/small-1/guest/top").contains("guestd test memory 1 3"), "it goes on");
    assert_eq!(&*result(&cluster, "small-1", "state"), "done");
    assert_eq!(&*result(&cluster, "small-1", "server"), "herby");
    assert_eq!(&*result(&cluster, "small-1", "cpu"), "3.000");
    let wall: f64 = result(&cluster, "small-1", "wall").parse().expect("seconds");
    assert!(wall >= 3.0, "{wall}");
    wait_eq("its load ends", true, || load(&cluster, "small-1") < 0.4);

    // load that the domain's ctl orders is the guest's, and the server's
    t.order("domains/small-3/ctl", "load 80 60");
    wait_eq("it is told", true, || {
        t.value("domains/small-3/guest/status", "loading").is_some_and(|l| l.starts_with("80 % for "))
    });
    wait_eq("it is seen", true, || (0.75..=0.85).contains(&load(&cluster, "small-3")));
    t.order("domains/small-3/guest/ctl", "load 0");
    wait_eq("it ends", true, || load(&cluster, "small-3") < 0.4);

    // neither hears nor speaks while it stands
    t.order("domains/small-2/ctl", "pause");
    wait_for("no guest", || t.get("domains/small-2/guest/load").is_err().then_some(()));
    t.order("domains/small-2/ctl", "unpause");
    is_heard(&cluster, "small-2");
}
