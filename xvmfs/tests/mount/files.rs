//! Reading: every row by every tool gives the same, copies are true, and what cannot be done is refused.

use crate::help::round;
use crate::kit::{Cluster, Mount, can_mount, errno, wait_for};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// All paths below the mount with their inode numbers, as readdir tells them.
fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = std::fs::symlink_metadata(entry.path()).unwrap();
        assert_eq!(meta.ino(), entry.ino(), "{}", entry.path().display());
        assert_eq!(meta.file_type(), entry.file_type().unwrap());
        if meta.is_dir() {
            walk(&entry.path(), found);
        }
        found.insert(entry.path(), meta.ino());
    }
}

fn relative(m: &Mount) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    walk(&m.path, &mut found);
    found.into_iter().map(|(p, i)| (p.strip_prefix(&m.path).unwrap().to_owned(), i)).collect()
}

#[test]
fn list_walk_and_attributes_agree_on_two_mounts() {
    if !can_mount("list_walk_and_attributes_agree_on_two_mounts") {
        return;
    }
    let c = Cluster::new();
    c.world.rounds("ferby", &[round("ferby", 1, 5)], 1);
    let (a, b) = (c.mount(), c.mount());
    wait_for("the round", || [&a, &b].iter().all(|m| m.list("help") == ["ferby.7.1"]));
    let (all, other) = (relative(&a), relative(&b));
    assert_eq!(all, other, "two mounts show the same numbers");
    let mut files =
        all.iter().filter(|(p, _)| a.at(p.to_str().unwrap()).symlink_metadata().unwrap().is_file());
    let numbers: std::collections::BTreeSet<u64> = files.clone().map(|(_, i)| *i).collect();
    assert_eq!(numbers.len(), files.clone().count(), "each file has its own number");
    assert!(files.any(|(p, _)| p == Path::new("domains/with space/state")));
    assert_eq!(a.read("servers/herby/domains/zwölf/state"), "running\n", "links lead to domains");
}

#[test]
fn the_length_after_open_is_the_length_of_what_is_read() {
    if !can_mount("the_length_after_open_is_the_length_of_what_is_read") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    for path in relative(&m).keys() {
        let meta = m.path.join(path).symlink_metadata().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !meta.is_file() || ["events", "wait"].contains(&name) {
            continue;
        }
        let mut file = std::fs::File::open(m.path.join(path)).unwrap();
        m.write("domains/small-1/priority", "7").unwrap();
        let size = file.metadata().unwrap().len();
        m.write("domains/small-1/priority", "70").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).unwrap();
        assert_eq!(size, text.len() as u64, "{}", path.display());
        assert_eq!(file.metadata().unwrap().len(), size, "{}", path.display());
    }
}

#[test]
fn copies_by_all_tools_are_true_and_end() {
    if !can_mount("copies_by_all_tools_are_true_and_end") {
        return;
    }
    let c = Cluster::new();
    c.world.rounds("ferby", &[round("ferby", 1, 5)], 1);
    let m = c.mount();
    wait_for("the round", || m.list("help").len() == 1);
    let out = tempfile::tempdir().unwrap();
    let to = out.path().display();
    let mut copies = vec![
        format!("cp -r . {to}/cp"),
        format!("mkdir {to}/tar && tar cf - . | tar xf - -C {to}/tar"),
        format!("python3 -c \"import shutil; shutil.copytree('.', '{to}/py', symlinks=True)\""),
    ];
    if m.sh("rsync --version").status.success() {
        copies.push(format!("rsync -a ./ {to}/rsync"));
    } else {
        eprintln!("SKIP copies by rsync: rsync is not installed");
    }
    for copy in &copies {
        m.shell(copy);
    }
    let stable = [
        "config",
        "state",
        "priority",
        "pin",
        "with",
        "apart",
        "server",
        "memory",
        "accepting",
        "watchdog",
        "even",
        "ctl",
        "request",
        "offers",
        "accept",
        "outcome",
    ];
    for kind in ["cp", "tar", "py", "rsync"].iter().take(copies.len()) {
        for path in relative(&m).keys() {
            let copy = out.path().join(kind).join(path);
            let meta = copy.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
            let name = path.file_name().unwrap().to_str().unwrap();
            if meta.is_file() && stable.contains(&name) {
                let (was, is) = (std::fs::read_to_string(&copy).unwrap(), m.read(path.to_str().unwrap()));
                assert_eq!(was, is, "{}", copy.display());
            }
            if name == "events" {
                assert_eq!(meta.len(), 35, "{}", copy.display());
            }
        }
    }
    // all of these end although there are events files
    m.sh(&format!("diff -r . {to}/cp"));
    assert!(m.shell("grep -rl --include=state running domains").contains("domains/small-1/state"));
    m.sh("grep -r nothing .");
    assert!(m.shell("find . -name load -size -2 | wc -l").trim().parse::<usize>().unwrap() >= 8);
    m.shell("du -s . && df . && stat -f . && ls -lR > /dev/null");
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    if !can_mount("what_cannot_be_done_is_refused_and_changes_nothing") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let before = relative(&m);
    let (eperm, enoent, einval) = (1, 2, 22);
    use std::fs;
    assert_eq!(errno(fs::create_dir(m.at("x"))), eperm);
    assert!(m.read("error").contains("EPERM cannot make the directory x: "));
    assert_eq!(errno(fs::create_dir(m.at("domains/x"))), eperm);
    assert_eq!(errno(fs::remove_dir(m.at("domains/small-1"))), eperm);
    assert_eq!(errno(fs::remove_file(m.at("domains/small-1/state"))), eperm);
    assert!(m.read("domains/small-1/error").contains("cannot remove state"));
    assert_eq!(errno(fs::write(m.at("servers/new"), "x")), eperm);
    assert_eq!(errno(fs::write(m.at("README"), "x")), eperm, "also for root");
    assert_eq!(errno(fs::create_dir(m.at("help/x"))), eperm);
    assert_eq!(errno(std::os::unix::fs::symlink("a", m.at("b"))), eperm);
    assert_eq!(errno(fs::hard_link(m.at("README"), m.at("b"))), eperm);
    assert_eq!(errno(fs::set_permissions(m.at("README"), fs::Permissions::from_mode(0o777))), eperm);
    assert_eq!(errno(std::os::unix::fs::chown(m.at("README"), Some(1), None)), eperm);
    assert_eq!(errno(fs::rename(m.at("README"), m.at("R"))), eperm);
    let writable = fs::OpenOptions::new().write(true).open(m.at("ctl")).unwrap();
    assert_eq!(errno(writable.set_len(0)), 0);
    assert_eq!(errno(writable.set_len(5)), einval);
    m.shell("touch ctl");
    assert!(!m.sh("touch README").status.success());
    assert!(!m.sh("mkfifo f").status.success());
    assert_eq!(errno(fs::metadata(m.at("domains/none"))), enoent);
    let odd = m.path.join(std::ffi::OsStr::from_bytes(b"domains/\xff\xfe"));
    assert_eq!(errno(fs::metadata(odd)), enoent);
    assert!(!m.sh("rm -rf ./*").status.success());
    assert_eq!(relative(&m), before);
    assert_eq!(c.world.done(), 0);
}

#[test]
fn a_read_only_mount_takes_no_commands() {
    if !can_mount("a_read_only_mount_takes_no_commands") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount_at(tempfile::tempdir().unwrap(), "ro,noexec,uid=1,gid=2");
    assert_eq!(errno(m.write("domains/small-1/ctl", "pause\n")), 30, "EROFS");
    let meta = std::fs::metadata(m.at("README")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1, 2, 0o444));
}
