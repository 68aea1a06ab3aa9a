//! Writing: pieces, long lines, answers, errors of write(2) and close(2), renames.

use crate::kit::{Cluster, can_mount, errno, wait_for};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

const EBUSY: i32 = 16;
const EINVAL: i32 = 22;

#[test]
fn lines_run_in_order_and_stop_at_the_first_that_fails() {
    if !can_mount("lines_run_in_order_and_stop_at_the_first_that_fails") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let state = || m.read("domains/small-1/state");
    m.write("domains/small-1/ctl", "pause\n").unwrap();
    assert_eq!(state(), "paused\n");
    assert_eq!(errno(m.write("domains/small-1/ctl", "unpause\nunpause\npause\n")), EBUSY);
    assert_eq!(state(), "running\n", "nothing after the failure ran");
    let error = m.read("domains/small-1/error");
    assert!(error.contains(" EBUSY cannot unpause small-1: it is running; it must be paused"), "{error}");
    m.write("domains/small-1/ctl", "\n# a comment\n  \n").unwrap();
    let done = c.world.done();
    // what reading gives may be written back in part
    assert_eq!(done, c.world.done());
    m.shell("echo pause >> domains/small-1/ctl");
    assert_eq!(state(), "paused\n", "O_APPEND");
}

#[test]
fn a_line_may_come_in_pieces_and_its_answer_is_read_back() {
    if !can_mount("a_line_may_come_in_pieces_and_its_answer_is_read_back") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let script = "exec 3<>domains/small-1/ctl; echo pause >&3; read r <&3; echo \"$r\"; \
                  echo pause >&3; read r <&3; echo \"$r\"; printf unp >&3; printf 'ause\\n' >&3; read r <&3; echo \"$r\"";
    let out = String::from_utf8(m.sh(script).stdout).unwrap();
    let want = "small-1 is paused\nEBUSY cannot pause small-1: it is paused; it must be running\nsmall-1 is running\n";
    assert_eq!(out, want);

    // one byte at a time, and without a last line end; two handles do not mix
    let mut a = OpenOptions::new().read(true).write(true).open(m.at("domains/small-1/ctl")).unwrap();
    let mut b = OpenOptions::new().write(true).open(m.at("domains/small-1/ctl")).unwrap();
    for byte in b"pau" {
        a.write_all(&[*byte]).unwrap();
    }
    b.write_all(b"load 10 1").unwrap();
    for byte in b"se\n" {
        a.write_all(&[*byte]).unwrap();
    }
    assert_eq!(m.read("domains/small-1/state"), "paused\n");
    let mut answer = Vec::new();
    let mut byte = [0];
    while a.read(&mut byte).unwrap() == 1 {
        answer.push(byte[0]);
    }
    assert_eq!(answer, b"small-1 is paused\n");
    a.write_all(b"unpause").unwrap();
    drop((a, b));
    wait_for("the line that was closed", || m.read("domains/small-1/state") == "running\n");
}

#[test]
fn close_answers_for_a_line_without_end() {
    if !can_mount("close_answers_for_a_line_without_end") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let script = "f = open('domains/small-1/ctl', 'w')\nf.write('nonsense')\ntry:\n  f.close()\nexcept OSError as e:\n  print(e.errno)\n";
    let out = Command::new("python3").args(["-c", script]).current_dir(&m.path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "22\n");
    assert!(m.read("domains/small-1/error").contains("\"nonsense\": unknown command"));
    m.shell("printf pause > domains/small-1/ctl");
    assert_eq!(m.read("domains/small-1/state"), "paused\n");
}

/// bash's printf makes a write of each line: it is one script all the same. In a dialogue each line stands for itself.
#[test]
fn nothing_runs_after_a_line_that_failed() {
    if !can_mount("nothing_runs_after_a_line_that_failed") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let lines = "printf 'pause\\npause\\nunpause\\n'";
    assert!(!m.sh(&format!("{lines} > domains/small-1/ctl")).status.success());
    assert_eq!(m.read("domains/small-1/state"), "paused\n");
    m.write("domains/small-1/ctl", "unpause\n").unwrap();
    m.shell(&format!("exec 3<>domains/small-1/ctl; {lines} >&3 2>/dev/null; exec 3>&-"));
    assert_eq!(m.read("domains/small-1/state"), "running\n");
}

#[test]
fn a_line_of_a_mebibyte_is_refused_whole() {
    if !can_mount("a_line_of_a_mebibyte_is_refused_whole") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let mut long = vec![b'x'; 1 << 20];
    long.extend_from_slice(b"\npause\n");
    for step in [long.len(), 65536, 4096, 1000] {
        let mut f = OpenOptions::new().write(true).open(m.at("domains/small-1/ctl")).unwrap();
        let refused = long.chunks(step).filter(|part| errno(f.write_all(part)) == EINVAL).count();
        assert!(refused >= 1, "{step}");
        drop(f);
        // the last piece has the end of the long line and the command after it: nothing of it runs
        assert_eq!(m.read("domains/small-1/state"), "running\n", "{step}");
    }
    let error = m.read("domains/small-1/error");
    assert!(error.contains("EINVAL cannot run a line of more than 4096 bytes"), "{error}");
    assert_eq!(c.world.done(), 0);
    let bytes = std::fs::write(m.at("domains/small-1/ctl"), b"\xff\xfe\n");
    assert_eq!(errno(bytes), EINVAL);
    assert!(m.read("domains/small-1/error").contains("is not UTF-8"));
}

#[test]
fn settings_are_read_as_they_were_written() {
    if !can_mount("settings_are_read_as_they_were_written") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    for (file, text) in [
        ("domains/small-1/priority", "77\n"),
        ("domains/small-1/pin", "ferby gerby\n"),
        ("domains/small-1/with", "web front\n"),
        ("domains/small-1/with", "none\n"),
        ("domains/small-1/apart", "db.1\n"),
        ("servers/ferby/even", "off\n"),
        ("servers/ferby/policy", "adaptive\n"),
        ("servers/ferby/heartbeat", "0.7\n"),
        ("servers/ferby/accepting", "off\n"),
        ("servers/ferby/watchdog", "points 1\nthreshold 0.70\nlimit 9\nunit 3\n"),
    ] {
        m.write(file, text).unwrap();
        assert_eq!(m.read(file), text, "{file}");
    }
    m.shell("printf 'limit 8\\nunit 2\\n' > servers/ferby/watchdog");
    assert_eq!(m.read("servers/ferby/watchdog"), "points 1\nthreshold 0.70\nlimit 8\nunit 2\n");
    m.shell("printf 5 > domains/small-1/priority");
    assert_eq!(m.read("domains/small-1/priority"), "5\n");
    let mut f = OpenOptions::new().read(true).write(true).open(m.at("domains/small-1/priority")).unwrap();
    assert_eq!(errno(f.write_all(b"500\n")), EINVAL);
    let mut answer = String::new();
    f.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("EINVAL cannot set domains/small-1/priority to \"500\""), "{answer}");
}

#[test]
fn a_rename_across_servers_migrates_and_wait_tells_the_end() {
    if !can_mount("a_rename_across_servers_migrates_and_wait_tells_the_end") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    m.shell("mv servers/ferby/domains/small-1 servers/gerby/domains/");
    assert!(m.read("domains/small-1/job").contains("kind migrate"));
    assert_eq!(errno(m.write("domains/small-1/ctl", "pause\n")), EBUSY, "a job runs");
    assert_eq!(m.read("domains/small-1/wait"), "done migrate: small-1 runs on gerby\n");
    assert_eq!(m.read("domains/small-1/server"), "gerby\n");
    wait_for("the link", || m.list("servers/gerby/domains") == ["small-1", "small-3"]);
    let (old, new) = (m.at("servers/gerby/domains/small-1"), m.at("servers/herby/domains/other"));
    assert_eq!(errno(std::fs::rename(&old, new)), 1, "a domain keeps its name");
    assert_eq!(errno(std::fs::rename(old, m.at("domains/x"))), 1);
    c.world.migration(Duration::from_secs(60));
    m.write("domains/small-1/ctl", "migrate herby\n").unwrap();
    m.write("domains/small-1/ctl", "cancel\n").unwrap();
    assert!(m.read("domains/small-1/wait").contains("cancelled"));
}

#[test]
fn no_call_takes_longer_than_its_bound() {
    if !can_mount("no_call_takes_longer_than_its_bound") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    c.world.deaf(true);
    let start = Instant::now();
    let parallel: Vec<_> = (0..3)
        .map(|_| {
            let path = m.at("domains/small-1/ctl");
            std::thread::spawn(move || {
                let mut f = OpenOptions::new().write(true).open(path).unwrap();
                errno(f.write_all(b"pause\n"))
            })
        })
        .collect();
    assert_eq!(m.read("domains/small-1/state"), "running\n", "reads go on");
    assert!(parallel.iter().all(|t| !t.is_finished()), "a read waited for a write");
    for t in parallel {
        assert_eq!(t.join().unwrap(), 110, "ETIMEDOUT");
    }
    // one after the other they would have taken three times the bound
    assert!(start.elapsed() < Duration::from_secs(14), "they waited for one another");
    c.net.forwarder(false);
    wait_for("no forwarder", || errno(m.write("domains/small-1/ctl", "pause\n")) == 113);
}
