//! The life of a tiny machine on QEMU hosts: made, started, moved while it writes, shut down, cloned, removed, brought back.

use crate::scene::{cluster, exports_work, no_errors, records, sound, took, volume, writes};
use crate::stage::{exported, exports_agree, leases, make, start};
use std::collections::BTreeSet;
use std::time::Instant;
use xvm_tests::{wait_eq, wait_for};

#[test]
fn a_tiny_machine_lives_and_no_byte_of_it_is_lost() {
    crate::requires_lab!();
    let cluster = cluster(2);
    let t = &cluster.tree;
    let begin = Instant::now();
    make(t, "small-6");
    took("mkdir to ready", begin);

    let begin = Instant::now();
    assert_eq!(start(t, "small-6", "ferby"), "ferby");
    took("start to running", begin);
    wait_for("its console says that it is up", || {
        cluster.hosts().console("ferby", "small-6").contains("small-6 is up").then_some(())
    });
    took("start to the console's word that it is up", begin);
    let uri = exports_work(t, "small-6", "ferby");
    writes(&cluster, "ferby", "small-6", 1, 16);

    // it moves while it writes, slowly until both leases were seen by somebody who looks from outside
    cluster.hosts().virsh("ferby", &["migrate-setspeed", "small-6", "1"]);
    let begin = Instant::now();
    t.rename("servers/ferby/domains/small-6", "servers/gerby/domains/small-6").expect("it moves");
    let both = ["ferby.1", "ferby.1.swap", "gerby.2", "gerby.2.swap"].map(|e| format!("small-6.{e}"));
    wait_eq("what is exported while it moves", both.to_vec(), || exported(&uri));
    cluster.hosts().virsh("ferby", &["migrate-setspeed", "small-6", "1000"]);
    let mut seen = BTreeSet::new();
    let mut phases = Vec::new();
    wait_for("the end of its job", || {
        seen.extend(exported(&uri));
        let job = t.text("domains/small-6/job");
        if phases.last() != Some(&job) {
            phases.push(job.clone());
        }
        (job == "none").then_some(())
    });
    took("migration", begin);
    xvm_tests::say(&format!("its job said {phases:?}, exported were {seen:?}"));
    let end = t.until_end("domains/small-6/wait");
    assert!(end.starts_with("done migrate: small-6 runs on gerby"), "{end}");
    assert_eq!(cluster.once("small-6", "running"), "gerby");
    assert!(
        seen.iter().all(|e| both.contains(e)),
        "nothing but both leases is exported while it moves: {seen:?}"
    );
    exports_work(t, "small-6", "gerby");
    let wrote = writes(&cluster, "gerby", "small-6", 1, 16);

    // shutdown by its power button gives the lease back
    let begin = Instant::now();
    t.order("domains/small-6/ctl", "shutdown");
    t.settles("configs/small-6/state", "ready");
    took("shutdown", begin);
    assert_eq!(leases(t, "small-6").1, Vec::<String>::new());
    wait_eq("what is exported", Vec::<String>::new(), || exported(&uri));
    assert_eq!(cluster.copies("small-6"), Vec::<String>::new());
    for host in ["ferby", "gerby"] {
        no_errors(&cluster, host, "small-6");
    }
    let first = records(&cluster, "small-6");
    assert_eq!(first.boots, 1);
    assert!(first.of[0].wrote >= wrote, "{wrote} were told: {first:?}");
    sound(&cluster, "small-6");
    xvm_tests::say(&format!("{} records, each of them whole", first.of[0].wrote));

    // a clone is another machine
    let begin = Instant::now();
    t.order("configs/small-6/ctl", "clone small-8");
    assert_eq!(t.until_end("configs/small-8/wait"), "done clone: small-8 is ready");
    took("clone", begin);
    start(t, "small-8", "ferby");
    wait_for("the clone says its own name", || {
        cluster.hosts().console("ferby", "small-8").contains("small-8 is up").then_some(())
    });

    // away, back, and it goes on where it was
    std::fs::remove_dir(t.path("configs/small-6")).expect("it is off");
    assert_eq!(t.names("configs"), ["small-8"]);
    assert!(!volume(&cluster, "small-6", "disk").exists());
    t.order("ctl", "restore small-6");
    t.settles("configs/small-6/state", "ready");
    start(t, "small-6", "gerby");
    writes(&cluster, "gerby", "small-6", 2, 8);
    exports_agree(t, "small-6");
    t.order("domains/small-6/ctl", "destroy");
    t.settles("configs/small-6/state", "ready");
    let second = records(&cluster, "small-6");
    assert_eq!((second.of[0].wrote, second.of[1].found), (first.of[0].wrote, Some(first.of[0].wrote)));
}
