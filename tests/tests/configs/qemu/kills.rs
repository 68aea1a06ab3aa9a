//! imaged and the process that exports a disk are killed while a guest writes: it writes on, and meets no error.

use crate::scene::{cluster, no_errors, records, sound, told, writes};
use crate::stage::{exports_agree, make, start};
use nix::sys::signal::{Signal, kill};
use std::time::Instant;
use xvm_tests::{Cluster, wait_for};

/// Kills the process that exports a config's volumes.
#[track_caller]
fn kill_exporter(cluster: &Cluster, name: &str) {
    let is = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("/{name}."))
    };
    let pid = cluster.exporters().into_iter().find(is).expect("its volumes are exported");
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("ours");
}

#[test]
fn a_guest_outlives_who_serves_its_disk() {
    crate::requires_lab!();
    let mut cluster = cluster(2);
    let t = cluster.tree.clone();
    make(&t, "small-6");
    start(&t, "small-6", "ferby");
    writes(&cluster, "ferby", "small-6", 1, 8);

    // imaged alone: nobody notices
    cluster.images().kill();
    writes(&cluster, "ferby", "small-6", 1, 24);
    assert_eq!(cluster.copies("small-6"), ["ferby running"]);
    cluster.images().launch();
    t.settles("configs/small-6/state", "running");
    exports_agree(&t, "small-6");

    // the process that exports
    for round in 1..=3 {
        let before = told(&cluster, "ferby", "small-6", 1).expect("it writes");
        let begin = Instant::now();
        kill_exporter(&cluster, "small-6");
        wait_for("records after it", || told(&cluster, "ferby", "small-6", 1).filter(|n| *n > before + 8));
        let took = begin.elapsed().as_secs_f64();
        xvm_tests::say(&format!(
            "exporter killed, round {round}: nine to sixteen records more after {took:.2} s"
        ));
        exports_agree(&t, "small-6");
    }

    // both: it stands still until imaged is back, and goes on then
    cluster.images().kill();
    kill_exporter(&cluster, "small-6");
    wait_for("it stands still", || (cluster.copies("small-6") == ["ferby paused"]).then_some(()));
    wait_for("its agent says why", || t.text("domains/small-6/status").contains("io-error").then_some(()));
    let stopped = told(&cluster, "ferby", "small-6", 1).expect("it wrote");
    let begin = Instant::now();
    cluster.images().launch();
    wait_for("it goes on", || told(&cluster, "ferby", "small-6", 1).filter(|n| *n > stopped));
    xvm_tests::say(&format!("goes on {:.2} s after imaged was started", begin.elapsed().as_secs_f64()));
    assert_eq!(cluster.once("small-6", "running"), "ferby");

    // it can move all the same
    t.order("domains/small-6/ctl", "migrate gerby");
    let end = t.until_end("domains/small-6/wait");
    assert!(end.starts_with("done migrate: small-6 runs on gerby"), "{end}");
    writes(&cluster, "gerby", "small-6", 1, 8);
    t.order("domains/small-6/ctl", "shutdown");
    t.settles("configs/small-6/state", "ready");
    for host in ["ferby", "gerby"] {
        no_errors(&cluster, host, "small-6");
    }
    let all = records(&cluster, "small-6");
    assert_eq!(all.boots, 1, "it was never started anew");
    sound(&cluster, "small-6");
}
