//! The directory is there while its guestd is heard, and each of its rows says what it heard.

use super::Guest;
use crate::kit::{Cluster, Mount, can_mount, errno, wait_for};
use std::os::unix::fs::MetadataExt;
use std::process::Output;
use xvm_model::Ratio;
use xvm_model::guest::Pressure;

pub const DIR: &str = "domains/small-1/guest";

/// A cluster, a guest in small-1, and a mount that hears it.
pub fn with_guest() -> (Cluster, Guest, Mount) {
    let c = Cluster::new();
    let guest = c.guest("small-1");
    let m = c.mount();
    wait_for("the guest", || m.at(DIR).exists());
    (c, guest, m)
}

#[test]
fn the_directory_is_there_while_its_guest_is_heard() {
    if !can_mount("the_directory_is_there_while_its_guest_is_heard") {
        return;
    }
    let (_c, guest, m) = with_guest();
    assert!(
        !m.list("domains/small-2").contains(&"guest".to_owned()) && !m.at("domains/small-2/guest").exists()
    );
    assert!(m.list("domains/small-1").contains(&"guest".to_owned()));
    let rows: Vec<String> = m.list(DIR);
    let mut want: Vec<&str> = xvmfs::tables::guest::ROWS.iter().map(|r| r.name).collect();
    want.sort_unstable();
    assert_eq!(rows, want);
    let number = std::fs::metadata(m.at(DIR)).unwrap().ino();
    assert!(m.read("status").starts_with("xvm ") && m.read("status").contains(", 1 guests\n"));
    assert!(m.read("metrics").contains("\nxvm_guests 1\n"));
    // it falls silent, and the directory is gone though its names may be cached
    guest.change(|b| b.interval_ms = 100);
    guest.dead(true);
    wait_for("its end", || !m.at(DIR).exists());
    assert!(!m.list("domains/small-1").contains(&"guest".to_owned()));
    assert_eq!(errno(std::fs::read(m.at(&format!("{DIR}/status")))), 2);
    guest.dead(false);
    guest.change(|b| b.interval_ms = 1000);
    wait_for("its return", || m.at(DIR).exists());
    assert_eq!(std::fs::metadata(m.at(DIR)).unwrap().ino(), number, "the same file");
    assert!(m.read(&format!("{DIR}/status")).starts_with("name small-1\n"));
    assert_eq!(
        m.shell(&format!("cd {DIR}/.. && ls -d guest && cd guest/.. && cat state")),
        "guest\nrunning\n"
    );
}

#[test]
fn every_row_says_what_was_heard() {
    if !can_mount("every_row_says_what_was_heard") {
        return;
    }
    let (_c, guest, m) = with_guest();
    let read = |row: &str| m.read(&format!("{DIR}/{row}"));
    let status = read("status");
    let (text, age) = status.rsplit_once("age ").unwrap();
    assert_eq!(
        text,
        "name small-1\nstate up\nsigned no\nversion 0.1.0\nuptime 77\ncpus 2\nload 0.31\nsteal 0.02\naverage 1.05 0.50 0.07\n\
         pressure-cpu -\npressure-memory -\npressure-io -\nmemory 262144\nmemory-available 131072\nswap 4096\n\
         swap-free 4000\nloading none\ntests fibonacci image\n"
    );
    assert!(age.trim().parse::<f64>().is_ok(), "{age}");
    let (cpu, memory, io) = (Ratio::new(0.5), Ratio::ZERO, Ratio::ONE);
    guest.change(|b| {
        b.pressure = Some(Pressure { cpu, memory, io });
        b.version = "1\nage 0".into();
        b.tests = vec![];
    });
    wait_for("the change", || read("status").contains("tests none\n"));
    assert!(read("status").contains("pressure-cpu 0.50\npressure-memory 0.00\npressure-io 1.00\n"));
    assert!(read("status").contains("version 1 age 0\n"), "a guest makes no lines");
    assert_eq!(read("load"), "0.31\n");
    assert_eq!((&*read("run"), &*read("result"), &*read("results"), &*read("error")), ("", "", "", ""));
    assert!(
        read("ctl").ends_with("# state up; runs nothing; 0 wait\n") && read("ctl").contains("run TEST [ARG]")
    );
    for (path, key) in [(format!("{DIR}/json"), "."), ("domains/small-1/json".into(), ".guest")] {
        let json: serde_json::Value = serde_json::from_str(&m.read(&path)).unwrap();
        let json = if key == "." { &json } else { &json["guest"] };
        assert_eq!((&json["state"], &json["cpus"]), (&"up".into(), &2.into()), "{path}");
    }
    let json: serde_json::Value = serde_json::from_str(&m.read("domains/small-2/json")).unwrap();
    assert!(json.get("guest").is_none());
    assert!(m.read("README").contains("\ndomains/NAME/guest\n"));
}

/// If this fails, a copy of the tree never ends, or is not true.
#[test]
fn copies_of_the_directory_end() {
    if !can_mount("copies_of_the_directory_end") {
        return;
    }
    let (_c, guest, m) = with_guest();
    m.write(&format!("{DIR}/run"), "fibonacci 38\n").unwrap();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().display();
    for copy in [
        format!("cp -r {DIR} {to}/cp"),
        format!("mkdir {to}/tar && tar cf - -C {DIR} . | tar xf - -C {to}/tar"),
        format!("python3 -c \"import shutil; shutil.copytree('{DIR}', '{to}/py')\""),
        format!("grep -r nothing {DIR} || true"),
    ] {
        m.shell(&copy);
    }
    for kind in ["cp", "tar", "py"] {
        let run = std::fs::read_to_string(out.path().join(kind).join("run")).unwrap();
        assert_eq!(run, "test fibonacci\ntest image\nrunning fibonacci 38\n");
    }
    assert_eq!(guest.asked(), 0, "who copies a tree asks nobody for processes");
}

fn as_user(m: &Mount, uid: u32, script: &str) -> Output {
    m.sh(&format!("exec setpriv --reuid {uid} --regid {uid} --clear-groups bash -c '{script}'"))
}

#[test]
fn who_owns_the_domain_owns_its_guest() {
    if !can_mount("who_owns_the_domain_owns_its_guest") {
        return;
    }
    let c = Cluster::new();
    let (peer, _guest) = (c.images(), c.guest("small-1"));
    peer.add("small-1");
    let m = c.mount_at(tempfile::tempdir().unwrap(), "rw,allow_other");
    wait_for("all", || m.at("configs/small-1").exists() && m.at(DIR).exists());
    let may = |uid, script: &str| as_user(&m, uid, script).status.success();
    let run = format!("echo fibonacci 1 > {DIR}/run");
    assert!(!may(4242, &run) && !may(4242, &format!("echo cancel > {DIR}/ctl")));
    m.shell("chown 4242:4343 domains/small-1 && chmod 750 configs/small-1");
    let meta =
        |path: &str| std::fs::metadata(m.at(path)).map(|m| (m.uid(), m.gid(), m.mode() & 0o777)).unwrap();
    wait_for("its owner", || meta(DIR) == (4242, 4343, 0o750));
    assert_eq!(meta(&format!("{DIR}/run")), (4242, 4343, 0o640));
    assert_eq!(meta(&format!("{DIR}/status")), (4242, 4343, 0o440));
    assert!(may(4242, &run), "{:?}", as_user(&m, 4242, &run));
    assert!(may(4343, &format!("cat {DIR}/run")) && !may(4343, &run), "its group");
    assert!(!may(5555, &format!("cat {DIR}/status")));
    for path in [DIR, "domains/small-1/guest/run"] {
        assert_eq!(errno(std::os::unix::fs::chown(m.at(path), Some(7), None)), 1);
        let error = m.read(&format!("{DIR}/error"));
        assert!(
            error.contains(&format!(
                "EPERM cannot change the owner of {path}: it has what domains/small-1 has"
            )),
            "{error}"
        );
    }
}
