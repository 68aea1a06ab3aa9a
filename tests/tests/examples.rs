//! If this fails, an example in `examples/shell` does not do what its first comment says.

use std::fs;
use xvm_tests::{Cluster, Daemon, program::workspace, requires, shell::Done, shell::bash, wait_for};

const ALL: [&str; 7] = [
    "busiest-domain",
    "empty-server",
    "follow-events",
    "new-machine",
    "pause-all",
    "time-test",
    "watch-load",
];

/// Runs an example on the cluster's mount.
#[track_caller]
fn example(c: &Cluster, name: &str, args: &[&str]) -> Done {
    let (path, root) = (workspace().join("examples/shell").join(name), c.root());
    let all: Vec<&str> = [path.to_str().expect("UTF-8"), root.to_str().expect("UTF-8")]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    bash("exec \"$@\"", &all)
}

#[test]
fn each_is_short_and_tested() {
    let mut names: Vec<String> = fs::read_dir(workspace().join("examples/shell"))
        .expect("the examples")
        .map(|e| e.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ALL, "each example has its test here");
    for name in names {
        let text = fs::read_to_string(workspace().join("examples/shell").join(&name)).expect("text");
        assert!(text.lines().count() < 20, "{name} has {} lines", text.lines().count());
        assert!(
            text.lines().nth(1).is_some_and(|l| l.starts_with(&format!("# {name}"))),
            "{name} says what it does"
        );
    }
}

#[test]
fn watch_load() {
    requires!("/dev/fuse");
    let c = Cluster::three();
    let out = example(&c, "watch-load", &["2"]).ok();
    assert_eq!(out.lines().count(), 2, "{out}");
    for line in out.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!([words[0], words[2], words[4]], ["ferby", "gerby", "herby"], "{line}");
        assert!(words[1].parse::<f64>().is_ok_and(|l| (0.0..=1.0).contains(&l)), "{line}");
    }
}

#[test]
fn busiest_domain() {
    requires!("/dev/fuse");
    let c = Cluster::sim(&[
        ("ferby", &["--domain", "lazy,demand=0.1", "--domain", "busy,demand=0.9"]),
        ("gerby", &["--domain", "half,demand=0.5"]),
    ]);
    let out = wait_for("all loads", || {
        let out = example(&c, "busiest-domain", &[]).ok();
        (!out.contains("0.00 ")).then_some(out)
    });
    let names: Vec<&str> = out.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(names, ["busy", "half", "lazy"], "{out}");
    assert!(out.lines().next().is_some_and(|l| l.ends_with(" ferby")), "{out}");
}

#[test]
fn time_test() {
    requires!("/dev/fuse");
    let c = Cluster::sim(&[
        ("ferby", &["--domain", "a,demand=0", "--domain", "b"]),
        ("gerby", &["--domain", "c"]),
    ]);
    let bus = c.bus();
    let args = ["--simulated", "--forwarder", &bus, "--heartbeat", "0.2"];
    let _guests = Daemon::start("guests", "guestd", &args, c.dir());
    for name in ["a", "b", "c"] {
        wait_for("its guest", || c.tree.get(&format!("domains/{name}/guest/load")).ok());
    }
    let out = example(&c, "time-test", &["fibonacci", "20"]).ok();
    let mut rows: Vec<Vec<&str>> = out.lines().map(|l| l.split(' ').collect()).collect();
    assert!(rows.iter().all(|r| r.len() == 4 && r[0].parse::<f64>().is_ok() && r[1] == "done"), "{out}");
    rows.sort_by(|a, b| a[2].cmp(b[2]));
    assert_eq!(
        rows.iter().map(|r| [r[2], r[3]]).collect::<Vec<_>>(),
        [["a", "ferby"], ["b", "ferby"], ["c", "gerby"]]
    );
}

#[test]
fn new_machine() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "mke2fs", "busybox");
    let mut c = Cluster::sim(&[("ferby", &[])]);
    c.imaged(&[]);
    let out = example(&c, "new-machine", &["small-6", "memory=128"]).ok();
    let lines: Vec<&str> = out.lines().collect();
    let last = &lines[lines.len() - 2..];
    assert_eq!(last, ["done create: small-6 is ready", "done start: small-6 runs on ferby"], "{out}");
    let done = example(&c, "new-machine", &["small-6"]);
    assert!(done.status != 0 && done.out.contains("EEXIST cannot create small-6"), "{}", done.out);
}

#[test]
fn empty_server() {
    requires!("/dev/fuse");
    let c = Cluster::three();
    let out = example(&c, "empty-server", &["ferby"]).ok();
    assert_eq!(out.matches("done migrate").count(), 2, "{out}");
    for domain in ["small-1", "small-4"] {
        assert_ne!(c.once(domain, "running"), "ferby");
    }
    assert_eq!(c.tree.text("servers/ferby/state"), "maintenance");
}

#[test]
fn pause_all() {
    requires!("/dev/fuse");
    let c = Cluster::three();
    let out = example(&c, "pause-all", &["gerby", "pause"]).ok();
    assert_eq!(c.tree.text("domains/small-2/state"), "paused");
    assert_eq!(out, "cannot pause small-5: it is shutoff; it must be running\n");
}

#[test]
fn follow_events() {
    requires!("/dev/fuse");
    let c = Cluster::three();
    let (path, out) = (workspace().join("examples/shell/follow-events"), c.dir().join("events.txt"));
    let mut child = std::process::Command::new(&path)
        .arg(c.root())
        .stdout(fs::File::create(&out).expect("scratch"))
        .spawn()
        .expect("the example starts");
    // events that come before it has opened the file are not for it
    wait_for("the events", || {
        c.tree.order("domains/small-1/ctl", "pause");
        c.tree.order("domains/small-1/ctl", "unpause");
        let text = fs::read_to_string(&out).unwrap_or_default();
        (text.contains("domain small-1 paused") && text.contains("domain small-1 running")).then_some(())
    });
    child.kill().expect("our own child");
    child.wait().expect("our own child");
}
