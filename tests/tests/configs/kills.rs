//! imaged is killed at each stage of a build, while domains run, while one migrates: nothing is left, nothing is lost.

use crate::stage::{cluster, exports_agree, leases, make, order_anew, start, stop};
use std::collections::BTreeSet;
use std::path::Path;
use xvm_tests::{Cluster, Events, requires, wait_eq, wait_for};

/// Everything of a build that a kill could leave, but for its log.
fn left(cluster: &Cluster) -> Vec<String> {
    let dir = cluster.images_dir();
    let mut left = names(&dir.join("work"));
    left.extend(names(&dir.join("store/volumes")).into_iter().filter(|n| n.contains(".new")));
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("it is mounted");
    let at = dir.display().to_string();
    left.extend(mounts.lines().filter(|l| l.contains(&at)).map(str::to_owned));
    left
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path().display().to_string()).collect()
}

#[test]
fn a_build_that_imaged_does_not_survive_leaves_nothing_and_can_be_made_anew() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let mut cluster = cluster();
    let t = cluster.tree.clone();
    let mut seen = BTreeSet::new();
    // a kill after more and more of a build: each stage is met
    for round in 0..12u32 {
        let name = format!("small-{round}");
        // who knows the life before only is refused
        wait_for("imaged's new life in the tree", || {
            std::fs::create_dir(t.path(&format!("configs/{name}"))).ok()
        });
        let mut looks = 0;
        wait_for("a moment of the build", || {
            looks += 1;
            let stage = t.value(&format!("configs/{name}/progress"), "stage").unwrap_or_default();
            let over = t.text(&format!("configs/{name}/state")) != "creating";
            (over || looks > round).then(|| seen.insert(stage))
        });
        cluster.images().kill_and_launch();
        let state = wait_for("imaged is back, and says how it stands", || {
            let state = t.get(&format!("configs/{name}/state")).ok()?;
            matches!(&*state, "failed\n" | "ready\n").then_some(state)
        });
        wait_eq("what is left", Vec::<String>::new(), || left(&cluster));
        if state == "failed\n" {
            let end = t.text(&format!("configs/{name}/wait"));
            assert!(end.contains("imaged ended in the middle; `echo rebuild > ctl` begins anew"), "{end}");
            order_anew(&t, &format!("configs/{name}/ctl"), "rebuild");
            assert_eq!(
                t.until_end(&format!("configs/{name}/wait")),
                format!("done rebuild: {name} is ready")
            );
        }
    }
    xvm_tests::say(&format!("killed in the stages {seen:?}"));
    start(&t, "small-0", "");
}

#[test]
fn domains_run_on_while_imaged_is_away() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let mut cluster = cluster();
    let t = cluster.tree.clone();
    make(&t, "small-6");
    make(&t, "small-7");
    start(&t, "small-6", "ferby");
    let before = exports_agree(&t, "small-6");
    let exporters = cluster.exporters();
    let events = Events::open(&t.path("events"));
    cluster.images().kill();
    let (uri, _) = leases(&t, "small-6");
    assert_eq!(crate::stage::exported(&uri.expect("leased")), before, "exports do not need imaged");
    assert_eq!(cluster.once("small-6", "running"), "ferby");
    wait_for("a refusal that says who is away", || {
        let refused = t.put("configs/small-7/ctl", "start\n").err()?;
        (refused.raw_os_error() == Some(nix::libc::EHOSTDOWN)).then_some(())
    });
    assert!(t.text("configs/small-7/error").contains("imaged"), "{}", t.text("configs/small-7/error"));
    // a domain that is off meanwhile is seen when it is back
    cluster.images().launch();
    t.settles("configs/small-6/state", "running");
    assert_eq!(exports_agree(&t, "small-6"), before);
    let is: Vec<i32> = cluster.exporters();
    assert!(exporters.iter().all(|pid| is.contains(pid)), "the same processes export: {exporters:?} {is:?}");
    cluster.images().kill();
    t.order("domains/small-6/ctl", "destroy");
    cluster.images().launch();
    t.settles("configs/small-6/state", "ready");
    start(&t, "small-6", "gerby");
    // and in the middle of a migration
    t.order("domains/small-6/ctl", "migrate herby");
    cluster.images().kill_and_launch();
    let end = t.until_end("domains/small-6/wait");
    let server = cluster.once("small-6", "running");
    xvm_tests::say(&format!("imaged killed at the begin of a migration: {end}"));
    wait_eq("one lease, of the server where it runs", true, || {
        let (_, exports) = leases(&t, "small-6");
        exports.len() == 2 && exports.iter().all(|e| e.contains(&server))
    });
    exports_agree(&t, "small-6");
    let wrong: Vec<String> = events.lines().into_iter().filter(|l| l.contains("invalid")).collect();
    assert!(wrong.is_empty(), "told by one that has not read all files yet: {wrong:?}");
    stop(&t, "small-6");
}

#[test]
fn an_exporter_that_dies_is_started_anew() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let cluster = cluster();
    let t = &cluster.tree;
    make(t, "small-6");
    start(t, "small-6", "");
    let before = exports_agree(t, "small-6");
    let old = cluster.exporters();
    for pid in &old {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL)
            .expect("ours");
    }
    wait_for("a new one", || {
        let now = cluster.exporters();
        (!now.is_empty() && now.iter().all(|pid| !old.contains(pid))).then_some(())
    });
    assert_eq!(exports_agree(t, "small-6"), before);
}

#[test]
fn a_server_that_is_away_loses_its_disk_before_another_gets_it() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let mut cluster = cluster();
    let t = cluster.tree.clone();
    make(&t, "small-6");
    start(&t, "small-6", "ferby");
    cluster.agent("ferby").freeze();
    t.settles("configs/small-6/state", "lost");
    let refused = t.refused("configs/small-6/ctl", "start gerby\n");
    assert!(
        refused.sentence.contains("ferby is down and may run it still; `echo always > restart`"),
        "{}",
        refused.sentence
    );
    let reason = t.value("domains/small-6/status", "reason").unwrap_or_default();
    assert!(
        reason.contains("ferby is down") && reason.ends_with("echo always > configs/small-6/restart"),
        "{reason}"
    );
    t.order("configs/small-6/restart", "always");
    wait_for("it runs elsewhere", || {
        let exports = leases(&t, "small-6").1;
        (!exports.is_empty() && exports.iter().all(|e| !e.contains("ferby"))).then_some(())
    });
    t.settles("configs/small-6/state", "running");
    assert!(exports_agree(&t, "small-6").iter().all(|e| !e.contains("ferby")));
    cluster.agent("ferby").thaw();
    // the old one has no disk, and is ended
    let server = cluster.once("small-6", "running");
    assert_ne!(server, "ferby");
}
