//! Mounting and unmounting: no mount stays, dead ones are healed, wrong places are refused.

use crate::kit::{Cluster, can_mount, errno, is_mounted, wait_for};
use std::process::{Command, Stdio};

fn xvmfs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xvmfs"))
}

#[test]
fn a_busy_mount_disappears_all_the_same() {
    if !can_mount("a_busy_mount_disappears_all_the_same") {
        return;
    }
    let c = Cluster::new();
    let mut m = c.mount();
    let mut busy = Command::new("sleep").arg("60").current_dir(m.at("domains")).spawn().unwrap();
    let ended = m.end();
    let mounted = is_mounted(&m.path);
    busy.kill().unwrap();
    busy.wait().unwrap();
    ended.unwrap();
    assert!(!mounted);
}

#[test]
fn unmounted_by_others_it_ends() {
    if !can_mount("unmounted_by_others_it_ends") {
        return;
    }
    let c = Cluster::new();
    let mut m = c.mount();
    assert!(Command::new("umount").arg(&m.path).status().unwrap().success());
    m.ended().unwrap();
}

#[test]
fn a_place_that_is_taken_is_refused() {
    if !can_mount("a_place_that_is_taken_is_refused") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    for (place, why) in
        [(m.path.clone(), "an xvmfs is mounted there already"), (m.at("README"), "not a directory")]
    {
        let out = xvmfs().arg("ipc:///tmp/none").arg(&place).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1));
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn in_the_background_until_sigterm_and_healed_after_sigkill() {
    if !can_mount("in_the_background_until_sigterm_and_healed_after_sigkill") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let bus = format!("ipc://{}.bus", path.display());
    // without a forwarder it mounts as well; the log's pipe must not be held open by the one in the background
    let start = || {
        let out = xvmfs()
            .arg(&bus)
            .arg(&path)
            .args(["-o", "rw,_netdev", "-n"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(is_mounted(&path));
        let name = path.display().to_string();
        let mut pids = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok());
        let pid: u32 = pids
            .find(|p: &u32| {
                let args = std::fs::read_to_string(format!("/proc/{p}/cmdline")).unwrap_or_default();
                args.split('\0').any(|a| a == "--ready") && args.split('\0').any(|a| a == name)
            })
            .unwrap();
        pid
    };
    let kill = |signal: &str, pid: u32| {
        assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
        wait_for("its end", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    };
    let first = start();
    let ctl = std::fs::write(path.join("ctl"), "roll-call\n");
    assert_eq!(errno(ctl), 113, "EHOSTUNREACH without a forwarder");
    kill("KILL", first);
    // ECONNABORTED while the kernel ends what was under way
    wait_for("ENOTCONN", || errno(std::fs::metadata(&path)) == 107);
    let second = start();
    assert!(std::fs::read_to_string(path.join("status")).unwrap().contains("0 servers"));
    kill("TERM", second);
    assert!(!is_mounted(&path));
    let out = xvmfs().arg(&bus).arg(path.join("none")).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
}
