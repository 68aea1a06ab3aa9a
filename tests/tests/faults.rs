//! If this fails, a daemon that dies or stands still costs more than itself: a domain runs twice or nowhere, the tree lies or hangs,
//! or somebody has to help by hand.
//!
//! Each test breaks one process while nothing happens, while a command is under way, and in mid-migration. Meanwhile a probe reads
//! the whole tree without rest; at the end no call took longer than the tree promises.

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use xvm_tests::{Cluster, lab, requires, say, tree::errno, wait_eq, wait_for};

/// When it breaks.
#[derive(Debug, Clone, Copy)]
enum When {
    Idle,
    Command,
    Migration,
}

const ALWAYS: [When; 3] = [When::Idle, When::Command, When::Migration];
const BIG: &str = "big-1";

/// ferby with a domain that moves in some seconds and one that moves at once; gerby with another.
fn cluster() -> Cluster {
    let big = "big-1,memory=4096,dirty=1";
    let cluster = Cluster::sim(&[
        ("ferby", &["--scale", "512", "--domain", big, "--domain", "small-1"]),
        ("gerby", &["--scale", "512", "--domain", "small-2"]),
    ]);
    cluster.heartbeat("0.3");
    cluster
}

/// Begins what must be under way when it breaks. Gives the command's thread, which ends when its call has.
fn begin(c: &Cluster, when: When) -> Option<std::thread::JoinHandle<String>> {
    match when {
        When::Idle => None,
        When::Migration => {
            let to = if c.tree.text("domains/big-1/server") == "ferby" { "gerby" } else { "ferby" };
            c.tree.order("domains/big-1/ctl", &format!("migrate {to}"));
            wait_for("the copy", || (c.tree.value("domains/big-1/job", "phase")? == "copy").then_some(()));
            None
        }
        When::Command => {
            let (tree, ctl) = (c.tree.clone(), "domains/small-1/ctl");
            let word = if tree.text("domains/small-1/state") == "paused" { "unpause" } else { "pause" };
            Some(std::thread::spawn(move || {
                let mut last = String::new();
                // commands without rest, so that one is under way at the moment
                for word in [word, if word == "pause" { "unpause" } else { "pause" }].iter().cycle().take(60)
                {
                    match tree.put(ctl, format!("{word}\n")) {
                        Ok(()) => last = "ok".into(),
                        Err(e) => {
                            last = errno(&e);
                            break;
                        }
                    }
                }
                last
            }))
        }
    }
}

/// Everything is as it should be: each domain once, the tree right, orders are taken.
fn whole(c: &Cluster, since: Instant) {
    // a server stays up for three heartbeats after the forwarder has gone: the bus is asked first
    wait_eq("the bus", true, || c.tree.put("ctl", "roll-call\n").is_ok());
    for server in c.agents.keys() {
        c.tree.settles(&format!("servers/{server}/state"), "up");
    }
    let back = since.elapsed();
    for domain in [BIG, "small-1", "small-2"] {
        let state = wait_for("a known state", || {
            let state = c.tree.get(&format!("domains/{domain}/state")).ok()?;
            ["running", "paused"].contains(&state.trim_end()).then(|| state.trim_end().to_owned())
        });
        c.once(domain, &state);
        if state == "paused" {
            c.tree.order(&format!("domains/{domain}/ctl"), "unpause");
        }
        c.tree.order(&format!("domains/{domain}/ctl"), "pause");
        assert_eq!(c.tree.text(&format!("domains/{domain}/state")), "paused");
        c.tree.order(&format!("domains/{domain}/ctl"), "unpause");
    }
    assert_eq!(c.tree.names("domains").len(), 3);
    say(&format!(
        "  all up after {} ms, all domains once after {} ms",
        back.as_millis(),
        since.elapsed().as_millis()
    ));
}

fn ended(command: Option<std::thread::JoinHandle<String>>) {
    if let Some(command) = command {
        let last = command.join().expect("no call of it hung");
        say(&format!("  the command ended with {last}"));
        let fine = [
            "ok",
            "ETIMEDOUT",
            "EHOSTUNREACH",
            "EHOSTDOWN",
            "EIO",
            "ENOTCONN",
            "ECONNABORTED",
            "ENOENT",
            "EBUSY",
        ];
        assert!(fine.contains(&&*last), "{last}");
    }
}

/// No domain is stopped or moved by it; the tree says so in `status` and refuses orders until it is back.
#[test]
fn the_forwarder_is_killed() {
    requires!("/dev/fuse");
    let mut c = cluster();
    for when in ALWAYS {
        say(&format!("the forwarder is killed: {when:?}"));
        let probe = c.probe();
        let command = begin(&c, when);
        c.forwarder.kill();
        wait_for("its absence in status", || c.tree.text("status").contains("bus").then_some(()));
        wait_eq("the refusal", "EHOSTUNREACH".to_owned(), || {
            c.tree.put("ctl", "roll-call\n").err().map(|e| errno(&e)).unwrap_or_default()
        });
        ended(command);
        c.forwarder.launch();
        whole(&c, Instant::now());
        assert_eq!(probe.end(), [].into(), "reading never failed");
    }
}

/// Simulated domains run on while their agent is away, as real ones do.
#[test]
fn an_agent_is_killed() {
    requires!("/dev/fuse");
    let mut c = cluster();
    for who in ["ferby", "gerby"] {
        for when in ALWAYS {
            say(&format!("{who}'s agent is killed: {when:?}"));
            let probe = c.probe();
            let command = begin(&c, when);
            c.agent(who).kill();
            c.tree.settles(&format!("servers/{who}/state"), "stale");
            ended(command);
            c.agent(who).launch();
            whole(&c, Instant::now());
            assert_eq!(probe.end(), [].into(), "reading never failed");
        }
    }
}

/// A killed mount costs no domain and no job, and the next xvmfs takes its place without a hand.
#[test]
fn xvmfs_is_killed() {
    requires!("/dev/fuse", "root");
    let mut c = cluster();
    for when in ALWAYS {
        say(&format!("xvmfs is killed: {when:?}"));
        let probe = c.probe();
        let command = begin(&c, when);
        c.mount.kill();
        ended(command);
        c.mount.launch();
        let start = Instant::now();
        c.mounted();
        whole(&c, start);
        let errors = probe.end();
        // ENOENT: the directory below the mount, for the moment between the old and the new one
        assert!(errors.keys().all(|e| ["ENOTCONN", "ECONNABORTED", "ENOENT"].contains(&&**e)), "{errors:?}");
    }
}

/// An agent that stands still for longer than the tree waits: it is stale, then down, and carries out no order of that time later.
#[test]
fn an_agent_stands_still_for_30_s() {
    requires!("/dev/fuse");
    let mut c = cluster();
    c.heartbeat("2");
    let probe = c.probe();
    c.tree.order("domains/big-1/ctl", "migrate gerby");
    c.agent("ferby").freeze();
    let start = Instant::now();
    c.tree.settles("servers/ferby/state", "stale");
    let no = c.tree.refused("domains/small-1/ctl", "pause\n");
    assert_eq!(no.errno, "ETIMEDOUT", "{no:?}");
    c.tree.settles("servers/ferby/state", "down");
    let no = c.tree.refused("domains/small-1/ctl", "pause\n");
    assert_eq!(no.errno, "EHOSTDOWN", "{no:?}");
    assert_eq!(c.tree.text("domains/small-1/state"), "unknown");
    while start.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let events = c.tree.events("domains/small-1/events");
    c.agent("ferby").thaw();
    let back = Instant::now();
    c.tree.settles("servers/ferby/state", "up");
    let state = c.tree.text("domains/small-1/state");
    assert!(!events.lines().iter().any(|l| l.contains("state paused")), "an order came true late");
    assert_eq!(state, "running");
    c.tree.until_end("domains/big-1/wait");
    whole(&c, back);
    assert_eq!(probe.end(), [].into());
}

/// All of a cluster at once, as when the machine of a test is switched off.
#[test]
fn everything_is_killed() {
    requires!("/dev/fuse", "root");
    let mut c = cluster();
    begin(&c, When::Migration);
    c.mount.kill();
    c.forwarder.kill();
    for who in ["ferby", "gerby"] {
        c.agent(who).kill();
    }
    c.forwarder.launch();
    for who in ["gerby", "ferby"] {
        c.agent(who).launch();
    }
    c.mount.launch();
    let start = Instant::now();
    c.mounted();
    whole(&c, start);
}

/// A frozen xvmfs is the one thing that the tree cannot answer for; thawed, it goes on.
#[test]
fn xvmfs_and_the_forwarder_stand_still() {
    requires!("/dev/fuse");
    let c = cluster();
    c.forwarder.freeze();
    // what is said meanwhile waits in the forwarder's sockets: no order may be carried out after its time
    let result = c.tree.put("domains/small-1/ctl", "pause\n").expect_err("nobody answers");
    assert!(["ETIMEDOUT", "EHOSTUNREACH"].contains(&&*errno(&result)), "{}", errno(&result));
    c.forwarder.thaw();
    let start = Instant::now();
    whole(&c, start);
    assert_eq!(c.tree.text("domains/small-1/state"), "running", "a late order was carried out");
    c.mount.freeze();
    c.mount.thaw();
    whole(&c, Instant::now());
}

/// libvirtd dies or hangs: the server is stale with the reason, its agent's heartbeats go on, and all is well when it is back.
#[test]
fn libvirtd_is_killed_and_stands_still() {
    requires!("/dev/fuse");
    for need in lab::NEEDS {
        requires!(need);
    }
    let c = Cluster::qemu(1, 1, |lab| lab.guest("ferby", "small-1", &["disk=0", "net=0"], true));
    let (t, lab) = (&c.tree, c.hosts());
    let probe = c.probe();
    for how in [Signal::SIGKILL, Signal::SIGSTOP] {
        say(&format!("libvirtd gets {how}"));
        lab.hosts_sh(&["daemon-kill", "ferby", &how.as_str()[3..]]).ok();
        t.settles("servers/ferby/state", "stale");
        let reason = t.value("servers/ferby/status", "reason");
        assert!(reason.is_some(), "{}", t.text("servers/ferby/status"));
        // heartbeats go on: the age stays small
        let age =
            || t.value("servers/ferby/status", "age").and_then(|a| a.parse::<f64>().ok()).expect("an age");
        for _ in 0..20 {
            assert!(age() < 2.0, "the agent is heard no more");
            std::thread::sleep(Duration::from_millis(50));
        }
        let no = t.refused("domains/small-1/ctl", "pause\n");
        say(&format!("  pause: {no:?}"));
        assert!(["ETIMEDOUT", "EIO", "EHOSTDOWN", "EBUSY"].contains(&&*no.errno), "{no:?}");
        if how == Signal::SIGKILL {
            lab.hosts_sh(&["daemon-start", "ferby"]).ok();
        } else {
            lab.hosts_sh(&["daemon-kill", "ferby", "CONT"]).ok();
        }
        t.settles("servers/ferby/state", "up");
        wait_for("the same state in the tree and in virsh", || {
            (t.text("domains/small-1/state") == lab.state("ferby", "small-1")).then_some(())
        });
        if t.text("domains/small-1/state") == "paused" {
            t.order("domains/small-1/ctl", "unpause");
        }
        t.order("domains/small-1/ctl", "pause");
        assert_eq!(lab.state("ferby", "small-1"), "paused");
        t.order("domains/small-1/ctl", "unpause");
        assert_eq!(t.text("domains/small-1/state"), "running");
    }
    assert_eq!(probe.end(), [].into());
}
