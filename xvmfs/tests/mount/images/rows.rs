//! Reading: each row, the root's files, copies, and the log as a file that grows.

use super::Peer;
use crate::events::Follower;
use crate::kit::{Cluster, Mount, can_mount, errno, wait_for};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xvm_model::config::settings::SETTINGS;
use xvm_model::{ConfigState, Failure, Job, JobKind, Wall, config};

pub fn start(names: &[&str]) -> (Cluster, Peer, Mount) {
    let c = Cluster::new();
    let peer = c.images();
    names.iter().for_each(|n| peer.add(n));
    let m = c.mount();
    wait_for("the configs", || m.list("configs").len() == names.len());
    (c, peer, m)
}

#[test]
fn every_row_of_a_config_reads_as_documented() {
    if !can_mount("every_row_of_a_config_reads_as_documented") {
        return;
    }
    let (_c, peer, m) = start(&["small-6"]);
    for row in xvmfs::tables::config::ROWS.iter().filter(|r| !["wait", "events"].contains(&r.name)) {
        let path = format!("configs/small-6/{}", row.name);
        let (text, size) = (m.read(&path), m.at(&path).metadata().unwrap().len());
        let may_grow = ["status", "json"].contains(&row.name); // an age may get a digit
        assert!(size == text.len() as u64 || may_grow, "{path}: {size} and {text:?}");
    }
    for setting in SETTINGS {
        let shown = (setting.show)(&peer.record("small-6").config) + "\n";
        assert_eq!(m.read(&format!("configs/small-6/{}", setting.key)), shown);
    }
    assert_eq!(m.read("configs/small-6/state"), "ready\n");
    assert_eq!(m.read("configs/small-6/progress"), "percent 100\nstage none\nremaining -\n");
    assert_eq!(m.read("configs/small-6/wait"), "no job has run\n");
    let status = m.read("configs/small-6/status");
    for line in [
        "name small-6",
        "state ready",
        "os tiny",
        "memory 256",
        "lease none",
        "job none",
        "wrong none",
        "imaged kerby up",
        "owner 0 0 0755",
    ] {
        assert!(status.lines().any(|l| l == line), "{line} in {status}");
    }
    let xml = m.read("configs/small-6/libvirt.xml");
    assert!(xml.starts_with("<!-- no server holds its lease: ") && xml.contains("small-6"), "{xml}");
    assert!(m.read("configs/small-6/xl.cfg").starts_with("# no server holds its lease: "));
    let ctl = m.read("configs/small-6/ctl");
    assert!(
        ctl.ends_with("# state ready, job none, lease none; allowed now: start clone resize rebuild\n"),
        "{ctl}"
    );

    peer.lease("small-6", "gerby", 8);
    wait_for("the lease", || m.read("configs/small-6/state") == "running\n");
    assert!(m.read("configs/small-6/status").contains("\nlease gerby 8 held\n"));
    assert!(!m.read("configs/small-6/libvirt.xml").contains("<!--"));
    let json: serde_json::Value = serde_json::from_str(&m.read("configs/small-6/json")).unwrap();
    assert_eq!(json["state"], "running");
    assert_eq!((&json["leases"][0]["grant"]["epoch"], &json["imaged"]), (&8.into(), &"kerby".into()));

    let job = Job {
        id: "x".into(),
        kind: JobKind::Create,
        phase: "packages".into(),
        percent: 42,
        to: None,
        since: Wall(5),
        note: None,
    };
    peer.change("small-6", |r| {
        (r.job, r.remaining, r.state) = (Some(Box::new(job)), Some(17), ConfigState::Creating);
        r.wrong = Some("line 3: unknown\nfield".into());
    });
    wait_for("the job", || {
        m.read("configs/small-6/progress") == "percent 42\nstage packages\nremaining 17\n"
    });
    assert!(m.read("configs/small-6/status").contains("\nwrong line 3: unknown field\n"));
    assert!(m.read("configs/small-6/ctl").contains("job create 42 %"));
    assert_eq!(m.at("configs/small-6/wait").metadata().unwrap().len(), 0, "a job runs");
    peer.finish("small-6", ConfigState::Failed, Err(Failure::busy("cancelled")));
    assert_eq!(m.read("configs/small-6/wait"), "failed create: EBUSY cancelled\n");
    assert_eq!(m.read("configs/small-6/progress"), "percent 0\nstage none\nremaining -\n");
}

#[test]
fn the_root_tells_of_imaged_and_of_addresses() {
    if !can_mount("the_root_tells_of_imaged_and_of_addresses") {
        return;
    }
    let none = Cluster::new();
    let alone = none.mount();
    assert!(!alone.read("status").contains("images") && alone.read("hosts").is_empty());
    assert!(alone.list("configs").is_empty());
    assert_eq!(errno(std::fs::create_dir(alone.at("configs/a"))), 112, "EHOSTDOWN");
    assert!(alone.read("error").contains("cannot create a: no imaged is heard"), "{}", alone.read("error"));

    let (_c, peer, m) = start(&["small-6", "small-7"]);
    peer.change("small-7", |r| {
        r.config.address = config::Address::parse("10.0.0.7/24 via 10.0.0.1").unwrap();
    });
    peer.lease("small-6", "gerby", 8);
    wait_for("both", || {
        m.read("hosts") == "10.0.0.7 small-7\n" && m.read("configs/small-6/state") == "running\n"
    });
    let status = m.read("status");
    assert!(status.contains("\nimages kerby up, dir store, 41 of 80 GiB free"), "{status}");
    let line = |name: &str| {
        let line =
            status.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name} in {status}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("small-6"), ["small-6", "running", "tiny", "256", "2048", "gerby", "none"]);
    assert_eq!(line("small-7"), ["small-7", "ready", "tiny", "256", "2048", "-", "none"]);
    let metrics = m.read("metrics");
    for sample in [
        "xvm_configs{state=\"running\"} 1",
        "xvm_configs{state=\"ready\"} 1",
        "xvm_leases 1",
        "xvm_images_up{server=\"kerby\"} 1",
        "xvm_store_free_bytes{server=\"kerby\"} 44023414784",
    ] {
        assert!(metrics.lines().any(|l| l == sample), "{sample} in {metrics}");
    }
    let readme = m.read("README");
    assert!(
        readme.contains("\nconfigs/NAME\n") && readme.contains("\ncommands of configs/NAME/ctl\n"),
        "{readme}"
    );
    m.shell("rmdir configs/small-7");
    wait_for("what is removed", || m.read("status").contains("\nremoved small-7, restorable until 2026-11-"));
}

#[test]
fn copies_of_configs_are_true_and_end() {
    if !can_mount("copies_of_configs_are_true_and_end") {
        return;
    }
    let (_c, peer, m) = start(&["small-6"]);
    peer.log("small-6", &"ein Schloß, 5 € im Jahr 😀\n".repeat(4000));
    wait_for("the log", || m.at("configs/small-6/log").metadata().unwrap().len() > 100_000);
    let out = tempfile::tempdir().unwrap();
    let to = out.path().display();
    for copy in [
        format!("cp -r configs {to}/cp"),
        format!("mkdir {to}/tar && tar cf - configs | tar xf - -C {to}/tar --strip-components=1"),
        format!("/usr/bin/env python3 -c \"import shutil; shutil.copytree('configs', '{to}/py')\""),
    ] {
        m.shell(&copy);
    }
    for kind in ["cp", "tar", "py"] {
        for row in xvmfs::tables::config::ROWS.iter().map(|r| r.name) {
            let copy = out.path().join(kind).join("small-6").join(row);
            let text = std::fs::read_to_string(&copy).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
            if !["status", "json", "events", "wait"].contains(&row) {
                assert!(text == m.read(&format!("configs/small-6/{row}")), "{}", copy.display());
            }
        }
    }
}

#[test]
fn a_log_is_a_file_at_every_offset_and_grows() {
    if !can_mount("a_log_is_a_file_at_every_offset_and_grows") {
        return;
    }
    let (_c, peer, m) = start(&["small-6"]);
    assert_eq!(m.read("configs/small-6/log"), "");
    let mut log: String = (0..9000).map(|i| format!("{i} größer als 5 € 😀\n")).collect();
    peer.log("small-6", &log);
    let path = m.at("configs/small-6/log");
    wait_for("the log", || path.metadata().unwrap().len() == log.len() as u64);
    assert!(m.read("configs/small-6/log") == log, "all of it");
    let file = std::fs::File::open(&path).unwrap();
    for (offset, size) in [(100_003u64, 17), (5, 100), (32_767, 3), (200_001, 40_000), (0, 1), (65_537, 1)] {
        let mut buffer = vec![0; size];
        let n = file.read_at(&mut buffer, offset).unwrap();
        assert!(n > 0 && buffer[..n] == log.as_bytes()[offset as usize..offset as usize + n], "{offset}");
    }
    assert_eq!(m.shell("tail -c 100 configs/small-6/log").as_bytes(), &log.as_bytes()[log.len() - 100..]);
    assert_eq!(m.shell("tail -n 1 configs/small-6/log"), "8999 größer als 5 € 😀\n");
    assert_eq!(
        m.shell("dd if=configs/small-6/log bs=7 skip=9999 count=3 status=none").as_bytes(),
        &log.as_bytes()[69_993..70_014]
    );

    // tail -f sees it grow, and cat ends
    let mut f = Follower::new(&m, "exec tail -n 1 -f configs/small-6/log");
    assert_eq!(f.line(), "8999 größer als 5 € 😀\n");
    for more in ["one\n", "two ü\n"] {
        peer.log("small-6", more);
        log.push_str(more);
        assert_eq!(f.line(), more);
    }
    assert_eq!(m.shell("cat configs/small-6/log | wc -c").trim(), log.len().to_string());
    // an open file sees it too
    let mut file = std::fs::File::open(&path).unwrap();
    file.seek(SeekFrom::Start(log.len() as u64)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
    peer.log("small-6", "three\n");
    wait_for("three", || {
        file.read_to_string(&mut text).unwrap();
        text == "three\n"
    });
    assert_eq!(errno(m.write("configs/small-6/log", "x")), 1, "EPERM");

    // imaged that does not answer, and one that is down
    peer.deaf(true);
    let start = Instant::now();
    assert_eq!(errno(std::fs::read(&path)), 110, "ETIMEDOUT");
    assert!(start.elapsed() < Duration::from_secs(8));
    assert!(m.read("configs/small-6/error").contains(" ETIMEDOUT cannot read the log of small-6: "));
    peer.kill();
    wait_for("down", || m.read("status").contains("images kerby down"));
    assert_eq!(errno(std::fs::read(&path)), 112, "EHOSTDOWN");
    let error = m.read("configs/small-6/error");
    assert!(
        error.contains("EHOSTDOWN cannot read the log of small-6: imaged on kerby is down, last heard "),
        "{error}"
    );
}

#[test]
fn events_are_heard_at_the_config_the_root_and_the_server() {
    if !can_mount("events_are_heard_at_the_config_the_root_and_the_server") {
        return;
    }
    let (_c, peer, m) = start(&["small-6", "small-7"]);
    let mut all = ["configs/small-6/events", "events", "servers/gerby/events"]
        .map(|f| Follower::new(&m, &format!("exec cat {f}")));
    all.iter_mut().for_each(|f| assert!(f.line().ends_with(" listening\n")));
    peer.lease("small-6", "gerby", 8);
    for f in &mut all {
        assert!(f.line().ends_with(" config small-6 lease gerby 8\n"));
    }
    assert!(all[0].line().ends_with(" config small-6 state running (was ready)\n"));
    peer.change("small-7", |r| r.wrong = Some("line 3: no".into()));
    assert!(all[1].line().ends_with(" config small-6 state running (was ready)\n"));
    assert!(all[1].line().ends_with(" config small-7 wrong: line 3: no\n"));
}

#[test]
fn wait_blocks_while_its_job_runs() {
    if !can_mount("wait_blocks_while_its_job_runs") {
        return;
    }
    let (_c, peer, m) = start(&[]);
    m.shell("mkdir configs/small-6");
    let mut waits =
        Command::new("cat").arg(m.at("configs/small-6/wait")).stdout(Stdio::piped()).spawn().unwrap();
    let mut impatient = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(m.at("configs/small-6/wait"))
        .unwrap();
    assert_eq!(errno(impatient.read(&mut [0; 9])), 11, "EAGAIN: a job runs");
    peer.finish("small-6", ConfigState::Ready, Ok("small-6 is ready"));
    let mut text = String::new();
    waits.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    waits.wait().unwrap();
    assert_eq!(text, "done create: small-6 is ready\n");
}
