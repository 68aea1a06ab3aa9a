//! Whose a config and its domain are: what chown and chmod say, the kernel enforces for other users.

use super::Peer;
use crate::kit::{Cluster, Mount, can_mount, errno, wait_for};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::{fs, process::Output};

const STUDENT: u32 = 4242;
const OTHER: u32 = 4343;

/// Runs bash as another user.
fn as_user(m: &Mount, uid: u32, script: &str) -> Output {
    m.sh(&format!("exec setpriv --reuid {uid} --regid {uid} --clear-groups bash -c '{script}'"))
}

fn may(m: &Mount, uid: u32, script: &str) -> bool {
    as_user(m, uid, script).status.success()
}

fn shared(options: &str) -> (Cluster, Peer, Mount) {
    let c = Cluster::new();
    let peer = c.images();
    ["small-1", "small-6"].iter().for_each(|n| peer.add(n));
    let m = c.mount_at(tempfile::tempdir().unwrap(), &format!("rw,allow_other{options}"));
    wait_for("the configs", || m.list("configs").len() == 2);
    (c, peer, m)
}

fn owner(m: &Mount, path: &str) -> (u32, u32, u32) {
    let meta = fs::metadata(m.at(path)).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

#[test]
fn who_owns_a_config_commands_it_and_its_domain() {
    if !can_mount("who_owns_a_config_commands_it_and_its_domain") {
        return;
    }
    let (_c, peer, m) = shared("");
    let pause = "echo pause > domains/small-1/ctl";
    assert!(!may(&m, STUDENT, pause) && !may(&m, STUDENT, "echo 512 > configs/small-1/memory"));
    assert!(may(&m, STUDENT, "cat configs/small-1/memory domains/small-1/state"));
    m.shell(&format!("chown {STUDENT}:{OTHER} configs/small-1"));
    for path in ["configs/small-1", "domains/small-1"] {
        assert_eq!(owner(&m, path), (STUDENT, OTHER, 0o755), "{path}");
    }
    assert_eq!(owner(&m, "domains/small-1/ctl"), (STUDENT, OTHER, 0o644));
    assert_eq!(owner(&m, "domains/small-1/state"), (STUDENT, OTHER, 0o444));
    assert_eq!(owner(&m, "domains/small-2/ctl"), (0, 0, 0o644), "another domain");
    assert!(may(&m, STUDENT, pause), "{:?}", as_user(&m, STUDENT, pause));
    assert_eq!(m.read("domains/small-1/state"), "paused\n");
    assert!(may(&m, STUDENT, "echo 512 > configs/small-1/memory"));
    assert_eq!(m.read("configs/small-1/memory"), "512\n");
    for refused in [
        "echo pause > domains/small-2/ctl",
        "echo 512 > configs/small-6/memory",
        "rmdir configs/small-1",
        "mkdir configs/mine",
        "chown 0 configs/small-1",
        "chmod 777 configs/small-6",
    ] {
        assert!(!may(&m, STUDENT, refused), "{refused}");
    }
    // the owner lets the group in, and shuts the others out
    assert!(!may(&m, OTHER, "echo unpause > domains/small-1/ctl"));
    assert!(may(&m, STUDENT, "chmod 770 configs/small-1"));
    assert_eq!(owner(&m, "configs/small-1/ctl"), (STUDENT, OTHER, 0o660));
    assert!(may(&m, OTHER, "echo unpause > domains/small-1/ctl"), "its group");
    assert!(!may(&m, 5555, "cat domains/small-1/state") && !may(&m, 5555, "ls configs/small-1"));
    assert_eq!(peer.record("small-1").config.rights.mode, 0o770);
    // what is made by an owner belongs to them
    assert!(may(&m, STUDENT, "echo clone small-9 > configs/small-1/ctl"));
    wait_for("the clone", || m.at("configs/small-9").exists());
    assert_eq!(owner(&m, "configs/small-9"), (STUDENT, STUDENT, 0o755));
}

/// If this fails, who may make configs owns what is not theirs.
#[test]
fn with_a_sticky_directory_everybody_makes_configs_and_removes_their_own() {
    if !can_mount("with_a_sticky_directory_everybody_makes_configs_and_removes_their_own") {
        return;
    }
    let (_c, peer, m) = shared(",configs=1777");
    assert_eq!(owner(&m, "configs"), (0, 0, 0o1777));
    assert!(may(&m, STUDENT, "umask 027; mkdir configs/mine && cat configs/mine/state"));
    assert_eq!(owner(&m, "configs/mine"), (STUDENT, STUDENT, 0o750));
    peer.finish("mine", xvm_model::ConfigState::Ready, Ok("mine is ready"));
    wait_for("ready", || m.read("configs/mine/state") == "ready\n");
    assert!(!may(&m, OTHER, "rmdir configs/mine") && !may(&m, STUDENT, "rmdir configs/small-6"));
    assert!(may(&m, STUDENT, "rmdir configs/mine"));
    // a config that is called like a domain which was not made from it gives nobody that domain
    assert!(may(&m, STUDENT, "mkdir configs/small-2"));
    peer.change("small-2", |r| r.config.uuid = uuid::Uuid::from_u128(1));
    wait_for("another identity", || owner(&m, "domains/small-2") == (0, 0, 0o755));
    assert!(!may(&m, STUDENT, "echo pause > domains/small-2/ctl"));
    assert_eq!(errno(chown(m.at("domains/small-2"), Some(7), None)), 1);
}

#[test]
fn chown_and_chmod_elsewhere_are_refused() {
    if !can_mount("chown_and_chmod_elsewhere_are_refused") {
        return;
    }
    let (_c, peer, m) = shared("");
    chown(m.at("domains/small-1"), Some(7), Some(8)).unwrap();
    assert_eq!(owner(&m, "configs/small-1"), (7, 8, 0o755), "by its domain");
    chown(m.at("configs/small-1"), None, Some(9)).unwrap();
    assert_eq!(owner(&m, "configs/small-1"), (7, 9, 0o755), "chgrp");
    let orders = peer.orders().len();
    let mode = |path: &str, mode| errno(fs::set_permissions(m.at(path), fs::Permissions::from_mode(mode)));
    assert_eq!(errno(chown(m.at("configs/small-1/ctl"), Some(7), None)), 1);
    assert!(
        m.read("configs/small-1/error").contains(
            "EPERM cannot change the owner of configs/small-1/ctl: it has what configs/small-1 has"
        )
    );
    assert_eq!(mode("configs/small-1/memory", 0o666), 1);
    assert_eq!(mode("configs/small-1", 0o4755), 22, "EINVAL");
    assert_eq!(mode("domains/small-2", 0o700), 1);
    assert!(m.read("domains/small-2/error").contains("it was not made from a config"));
    assert_eq!(mode("configs", 0o777), 1);
    assert_eq!(mode("servers/ferby", 0o777), 1);
    assert_eq!(errno(chown(m.at("."), Some(1), None)), 1);
    assert_eq!(peer.orders().len(), orders, "nothing was asked");
    peer.deaf(true);
    assert_eq!(mode("configs/small-1", 0o700), 110, "ETIMEDOUT");
}
