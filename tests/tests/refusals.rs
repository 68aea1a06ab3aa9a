//! If this fails, a wrong use of the tree is accepted, or refused with another errno or sentence than the manual says.

use nix::errno::Errno;
use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};
use xvm_tests::{Cluster, requires, shell::bash, tree::errno, wait_eq};

/// What is written where, the errno, and a part of the sentence.
const TABLE: &[(&str, &str, &str, &str)] = &[
    (
        "domains/small-1/ctl",
        "fly\n",
        "EINVAL",
        "cannot run \"fly\": unknown command; commands are start, pause",
    ),
    ("domains/small-1/ctl", "pause now\n", "EINVAL", "too many words; usage: pause"),
    (
        "domains/small-1/ctl",
        "migrate gerby herby\n",
        "EINVAL",
        "\"herby\" is too much; usage: migrate [--paused] [SERVER]",
    ),
    ("domains/small-1/ctl", "load\n", "EINVAL", "too few words; usage: load [PERCENT] SECONDS"),
    ("domains/small-1/ctl", "load 101 5\n", "EINVAL", "PERCENT"),
    ("domains/small-1/ctl", "load 5 86401\n", "EINVAL", "SECONDS"),
    ("domains/small-1/ctl", "load many\n", "EINVAL", "SECONDS"),
    ("domains/small-1/ctl", "migrate nobody\n", "ENOENT", "nobody"),
    ("domains/small-1/ctl", "migrate ../x\n", "EINVAL", "usage: migrate [--paused] [SERVER]"),
    ("domains/small-1/ctl", "migrate ferby\n", "EEXIST", "ferby"),
    ("domains/small-1/ctl", "unpause\n", "EBUSY", "cannot unpause small-1: it is running; it must be paused"),
    (
        "domains/small-1/ctl",
        "start\n",
        "EBUSY",
        "cannot start small-1: it is running; it must be shutoff or crashed",
    ),
    ("domains/small-1/ctl", "cancel\n", "EBUSY", "cannot cancel small-1: no job runs"),
    ("domains/small-5/ctl", "pause\n", "EBUSY", "cannot pause small-5: it is shutoff; it must be running"),
    ("domains/small-5/ctl", "migrate ferby\n", "EBUSY", "cannot migrate small-5: it is shutoff"),
    ("domains/small-1/priority", "101\n", "EINVAL", "cannot set domains/small-1/priority to \"101\""),
    ("domains/small-1/priority", "-1\n", "EINVAL", "\"-1\""),
    ("domains/small-1/priority", "high\n", "EINVAL", "\"high\""),
    ("domains/small-1/priority", "\n", "EINVAL", "\"\""),
    (
        "domains/small-1/pin",
        "nobody\n",
        "EINVAL",
        "there is no server nobody; servers are ferby, gerby, herby",
    ),
    ("domains/small-1/pin", "a/b\n", "EINVAL", "a/b"),
    ("servers/ferby/ctl", "fly\n", "EINVAL", "unknown command; commands are accept, heartbeat"),
    (
        "servers/ferby/ctl",
        "accept perhaps\n",
        "EINVAL",
        "\"perhaps\" is neither on nor off; usage: accept on|off",
    ),
    ("servers/ferby/ctl", "accept\n", "EINVAL", "too few words; usage: accept on|off"),
    ("servers/ferby/heartbeat", "0\n", "EINVAL", "\"0\" is not a number of seconds from 0.1 to 60"),
    ("servers/ferby/heartbeat", "61\n", "EINVAL", "from 0.1 to 60"),
    ("servers/ferby/heartbeat", "-1\n", "EINVAL", "from 0.1 to 60"),
    ("servers/ferby/heartbeat", "NaN\n", "EINVAL", "from 0.1 to 60"),
    ("servers/ferby/heartbeat", "inf\n", "EINVAL", "from 0.1 to 60"),
    ("servers/ferby/heartbeat", "1e400\n", "EINVAL", "from 0.1 to 60"),
    ("servers/ferby/accepting", "yes\n", "EINVAL", "neither on nor off"),
    ("servers/ferby/watchdog", "limit 0\n", "EINVAL", "limit"),
    ("servers/ferby/watchdog", "limit many\n", "EINVAL", "limit"),
    ("servers/ferby/watchdog", "threshold 2\n", "EINVAL", "threshold"),
    ("servers/ferby/watchdog", "unit 0\n", "EINVAL", "unit"),
    ("servers/ferby/watchdog", "bark loud\n", "EINVAL", "bark"),
    ("servers/ferby/policy", "dice\n", "EINVAL", "dice"),
    ("ctl", "fly\n", "EINVAL", "unknown command; commands are balance, create, restore, roll-call"),
    ("ctl", "roll-call all\n", "EINVAL", "too many words"),
];

#[test]
fn every_wrong_line_has_its_errno_and_sentence() {
    requires!("/dev/fuse");
    let cluster = Cluster::three();
    let t = &cluster.tree;
    t.order("domains/small-3/ctl", "pause");
    let mut wrong = Vec::new();
    for (path, line, errno, part) in TABLE {
        let Err(e) = t.put(path, line) else {
            wrong.push(format!("{line:?} > {path} was accepted"));
            continue;
        };
        let no = t.refusal(path, &e);
        let sentence = no.sentence.starts_with("cannot ") && !no.sentence.ends_with('.');
        if no.errno != *errno || !no.sentence.contains(part) || !sentence {
            wrong.push(format!("{line:?} > {path}: {no:?}, wanted {errno} {part:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let no = t.refused("domains/small-3/ctl", "pause\n");
    assert_eq!(no.sentence, "cannot pause small-3: it is paused; it must be running");
    // the right lines before the wrong one were run, those after it were not
    let no = t.refused("domains/small-3/ctl", "unpause\nfly\npause\n");
    assert_eq!(no.errno, "EINVAL");
    assert_eq!(t.text("domains/small-3/state"), "running");
    // a line without its end runs at close
    t.put("domains/small-3/ctl", "pause").expect("accepted");
    assert_eq!(t.text("domains/small-3/state"), "paused");
    let no = t.refused("domains/small-3/ctl", "pause");
    assert_eq!(no.errno, "EBUSY");
}

#[test]
fn what_is_no_line_is_refused() {
    requires!("/dev/fuse");
    let cluster = Cluster::three();
    let t = &cluster.tree;
    let long = [vec![b'x'; 1 << 20], vec![b'\n']].concat();
    for path in
        ["ctl", "servers/ferby/ctl", "domains/small-1/ctl", "domains/small-1/pin", "servers/ferby/watchdog"]
    {
        let no = t.refused(path, &long);
        assert!(no.errno == "EINVAL" && no.sentence.contains("4096"), "{path}: {no:?}");
        let no = t.refused(path, b"pause\xff\xfe\n");
        assert!(no.errno == "EINVAL" && no.sentence.contains("not UTF-8"), "{path}: {no:?}");
        let no = t.refused(path, b"pau\0se\n");
        assert!(no.errno == "EINVAL" && no.sentence.contains("NUL"), "{path}: {no:?}");
    }
    assert_eq!(t.text("domains/small-1/state"), "running");
    // a line may come in pieces
    bash(r#"exec 3>"$1"; printf pau >&3; printf 'se\nunp' >&3; [ "$(cat "$2")" = paused ] && printf 'ause\n' >&3"#, &[
        &t.path("domains/small-1/ctl").to_string_lossy(),
        &t.path("domains/small-1/state").to_string_lossy(),
    ])
    .ok();
    assert_eq!(t.text("domains/small-1/state"), "running");
}

#[test]
fn the_same_open_file_answers() {
    requires!("/dev/fuse");
    let cluster = Cluster::three();
    let t = &cluster.tree;
    let (done, answer) = t.talk("domains/small-1/ctl", "pause");
    done.expect("accepted");
    assert!(answer.contains("paused"), "{answer}");
    let (no, answer) = t.talk("domains/small-1/ctl", "pause");
    assert_eq!(errno(&no.expect_err("refused")), "EBUSY");
    assert!(answer.contains("cannot pause small-1: it is paused"), "{answer}");
    let out = bash(
        r#"exec 3<>"$1"; echo unpause >&3; read -r first <&3; echo unpause >&3 2>/dev/null; read -r second <&3; echo "$first"; echo "$second""#,
        &[&t.path("domains/small-1/ctl").to_string_lossy()],
    )
    .ok();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].contains("running") && lines[1].contains("cannot unpause small-1"), "{lines:?}");
}

#[test]
fn a_second_job_is_refused() {
    requires!("/dev/fuse");
    let cluster = Cluster::sim(&[
        ("ferby", &["--scale", "512", "--domain", "big-1,memory=8192,dirty=1"]),
        ("gerby", &["--scale", "512"]),
        ("herby", &[]),
    ]);
    let t = &cluster.tree;
    t.order("domains/big-1/ctl", "migrate gerby");
    for line in ["migrate herby\n", "migrate\n", "shutdown\n", "reboot\n"] {
        let no = t.refused("domains/big-1/ctl", line);
        assert!(no.errno == "EBUSY" && no.sentence.contains("its migrate runs"), "{line:?}: {no:?}");
    }
    let e = t.rename("servers/ferby/domains/big-1", "servers/herby/domains/big-1").expect_err("a job runs");
    assert_eq!(errno(&e), "EBUSY");
    t.order("domains/big-1/ctl", "cancel");
    assert_eq!(cluster.once("big-1", "running"), "ferby");
}

#[test]
fn a_server_that_is_down_and_no_forwarder() {
    requires!("/dev/fuse");
    let mut cluster = Cluster::three();
    cluster.agent("herby").kill();
    cluster.tree.settles("servers/herby/state", "down");
    let t = &cluster.tree;
    assert_eq!(t.text("domains/small-3/state"), "unknown");
    assert_eq!(t.value("domains/small-3/status", "last-state").as_deref(), Some("running"));
    let reason = t.value("domains/small-3/status", "reason").unwrap_or_default();
    assert!(reason.starts_with("herby is down, last heard ") && reason.contains("without power"), "{reason}");
    for (path, line) in [
        ("domains/small-3/ctl", "pause\n"),
        ("domains/small-1/ctl", "migrate herby\n"),
        ("servers/herby/ctl", "accept off\n"),
        ("servers/herby/heartbeat", "1\n"),
    ] {
        let no = t.refused(path, line);
        assert!(no.errno == "EHOSTDOWN" && no.sentence.contains("herby"), "{line:?} > {path}: {no:?}");
    }
    let e = t.rename("servers/ferby/domains/small-1", "servers/herby/domains/small-1").expect_err("down");
    assert_eq!(errno(&e), "EHOSTDOWN");
    cluster.agent("herby").launch();
    cluster.tree.settles("servers/herby/state", "up");
    cluster.tree.settles("domains/small-3/state", "running");

    cluster.forwarder.kill();
    let t = &cluster.tree;
    wait_eq("the refusal", "EHOSTUNREACH".to_owned(), || {
        t.put("domains/small-1/ctl", "fly away\n").err().map(|e| errno(&e)).unwrap_or_default();
        t.put("ctl", "roll-call\n").err().map(|e| errno(&e)).unwrap_or_default()
    });
    for (path, line) in
        [("domains/small-1/ctl", "pause\n"), ("servers/ferby/heartbeat", "1\n"), ("ctl", "roll-call\n")]
    {
        let no = t.refused(path, line);
        assert!(no.errno == "EHOSTUNREACH" && no.sentence.contains("bus"), "{line:?} > {path}: {no:?}");
    }
    assert!(t.text("status").contains("down"), "{}", t.text("status"));
    cluster.forwarder.launch();
    wait_eq("the order", true, || cluster.tree.put("domains/small-1/ctl", "pause\n").is_ok());
    assert_eq!(cluster.tree.text("domains/small-1/state"), "paused");
}

/// All that the tree holds, as names and states: what a destructive tool must not change.
fn inventory(cluster: &Cluster) -> Vec<String> {
    let t = &cluster.tree;
    let mut all = t.names("");
    for dir in ["servers", "domains"] {
        for name in t.names(dir) {
            all.extend(t.names(&format!("{dir}/{name}")));
            all.push(format!("{dir}/{name} {}", t.text(&format!("{dir}/{name}/state"))));
        }
    }
    all
}

#[test]
fn nothing_can_be_made_removed_or_changed_by_name() {
    requires!("/dev/fuse");
    let cluster = Cluster::three();
    let t = &cluster.tree;
    let before = inventory(&cluster);
    let root = cluster.root();
    let p = |path: &str| root.join(path);
    let denied = |what: &str, result: io::Result<()>, allowed: &[&str]| {
        let e = result.expect_err(what);
        assert!(allowed.contains(&&*errno(&e)), "{what}: {}", errno(&e));
    };
    let no = ["EPERM"];
    for dir in ["", "servers", "domains", "servers/ferby", "servers/ferby/domains", "domains/small-1"] {
        let at = |name: &str| p(dir).join(name);
        denied("mkdir", fs::create_dir(at("new")), &no);
        denied("create", fs::write(at("new"), "x"), &no);
        denied("symlink", std::os::unix::fs::symlink("x", at("new")), &no);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        let node = nix::sys::stat::mknod(&at("new"), nix::sys::stat::SFlag::S_IFIFO, mode, 0);
        denied("mknod", node.map_err(io::Error::from), &no);
        denied("chmod", fs::set_permissions(p(dir), fs::Permissions::from_mode(0o777)), &no);
    }
    denied("hard link", fs::hard_link(p("README"), p("domains/x")), &no);
    for file in [
        "README",
        "status",
        "ctl",
        "events",
        "domains/small-1/state",
        "domains/small-1/ctl",
        "servers/ferby/load",
    ] {
        denied("unlink", fs::remove_file(p(file)), &no);
        denied("chmod", fs::set_permissions(p(file), fs::Permissions::from_mode(0o777)), &no);
        denied("chown", std::os::unix::fs::chown(p(file), Some(1), Some(1)), &no);
        denied("rename", fs::rename(p(file), p("domains/new")), &no);
    }
    for file in ["README", "status", "domains/small-1/state"] {
        let open = fs::OpenOptions::new().write(true).open(p(file)).map(drop);
        denied("open to write", open, &["EPERM", "EACCES"]);
        let cut = nix::unistd::truncate(&p(file), 0).map_err(io::Error::from);
        denied("truncate", cut, &["EPERM", "EACCES"]);
    }
    denied(
        "truncate",
        nix::unistd::truncate(&p("domains/small-1/ctl"), 5).map_err(io::Error::from),
        &["EINVAL"],
    );
    denied("rmdir", fs::remove_dir(p("domains/small-1")), &no);
    for (from, to) in [
        ("domains/small-1", "domains/new"),
        ("servers/ferby", "servers/new"),
        ("servers/ferby", "servers/gerby"),
        ("servers/ferby/domains/small-1", "servers/ferby/domains/new"),
        ("servers/ferby/domains/small-1", "servers/gerby/domains/new"),
        ("servers/ferby/domains/small-1", "domains/x"),
        ("servers/ferby/load", "servers/gerby/load"),
    ] {
        denied(&format!("mv {from} {to}"), fs::rename(p(from), p(to)), &["EPERM", "EINVAL", "EXDEV"]);
    }
    denied(
        "mv of nothing",
        fs::rename(p("servers/ferby/domains/nobody"), p("servers/gerby/domains/nobody")),
        &["ENOENT"],
    );
    assert!(!Path::new(&p("domains/nobody")).exists());
    let gone = fs::read(p("domains/nobody/state")).expect_err("no such domain");
    assert_eq!(gone.raw_os_error(), Some(Errno::ENOENT as i32));
    assert_eq!(inventory(&cluster), before);
    assert_eq!(t.text("domains/small-1/server"), "ferby");
}

#[test]
fn rm_rf_of_the_mount_changes_nothing() {
    requires!("/dev/fuse");
    let cluster = Cluster::three();
    let before = inventory(&cluster);
    let root = cluster.root();
    let done = bash(r#"rm -rf "$1"/* "$1" 2>&1"#, &[&root.to_string_lossy()]);
    assert_ne!(done.status, 0);
    assert!(done.out.contains("Operation not permitted"), "{}", done.out);
    let done = bash(
        r#"find "$1" -delete 2>&1; find "$1" -type f -exec truncate -s 0 {} + 2>&1"#,
        &[&root.to_string_lossy()],
    );
    assert_ne!(done.status, 0);
    assert_eq!(inventory(&cluster), before);
    for domain in ["small-1", "small-2", "small-3", "small-4"] {
        assert_eq!(cluster.copies(domain).len(), 1);
        assert_eq!(cluster.tree.text(&format!("domains/{domain}/state")), "running");
    }
}
