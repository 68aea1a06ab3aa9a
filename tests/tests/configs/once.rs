//! Two starts of one config at the same moment: exactly one runs, whoever was first.

use crate::stage::{cluster, exports_agree, make, two_starts};
use xvm_tests::{requires, wait_for};

/// How often.
const ROUNDS: usize = 100;

#[test]
fn of_two_starts_at_once_one_runs() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let cluster = cluster();
    let t = &cluster.tree;
    make(t, "small-6");
    let mut first = [0; 2];
    for round in 0..ROUNDS {
        let servers = if round % 2 == 0 { ["ferby", "gerby"] } else { ["herby", "ferby"] };
        let won = two_starts(t, "small-6", servers, round);
        first[won] += 1;
        let end = t.until_end("configs/small-6/wait");
        assert_eq!(end, format!("done start: small-6 runs on {}", servers[won]));
        assert_eq!(cluster.once("small-6", "running"), servers[won]);
        if round % 10 == 0 {
            assert!(exports_agree(t, "small-6").iter().all(|e| e.contains(servers[won])));
        }
        t.order("domains/small-6/ctl", "destroy");
        wait_for("the lease back", || (t.text("configs/small-6/state") == "ready").then_some(()));
    }
    xvm_tests::say(&format!(
        "of {ROUNDS} pairs the first of the two won {}, the second {}",
        first[0], first[1]
    ));
}
