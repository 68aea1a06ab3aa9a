//! Two starts of one config at the same moment: exactly one runs, whoever was first.

use crate::stage::{cluster, exports_agree, make};
use std::sync::Barrier;
use xvm_tests::{requires, tree::errno, wait_for};

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
        let barrier = Barrier::new(2);
        let servers = if round % 2 == 0 { ["ferby", "gerby"] } else { ["herby", "ferby"] };
        let results: Vec<Result<(), String>> = std::thread::scope(|s| {
            let tries = servers.map(|server| {
                let (barrier, tree) = (&barrier, t.clone());
                s.spawn(move || {
                    barrier.wait();
                    tree.put("configs/small-6/ctl", format!("start {server}\n")).map_err(|e| errno(&e))
                })
            });
            tries.into_iter().map(|t| t.join().expect("no panic")).collect()
        });
        let won: Vec<usize> = (0..2).filter(|i| results[*i].is_ok()).collect();
        assert_eq!(won.len(), 1, "round {round}: {results:?}");
        assert_eq!(results[1 - won[0]], Err("EBUSY".into()));
        first[won[0]] += 1;
        let end = t.until_end("configs/small-6/wait");
        assert_eq!(end, format!("done start: small-6 runs on {}", servers[won[0]]));
        assert_eq!(cluster.once("small-6", "running"), servers[won[0]]);
        if round % 10 == 0 {
            assert!(exports_agree(t, "small-6").iter().all(|e| e.contains(servers[won[0]])));
        }
        t.order("domains/small-6/ctl", "destroy");
        wait_for("the lease back", || (t.text("configs/small-6/state") == "ready").then_some(()));
    }
    xvm_tests::say(&format!(
        "of {ROUNDS} pairs the first of the two won {}, the second {}",
        first[0], first[1]
    ));
}
