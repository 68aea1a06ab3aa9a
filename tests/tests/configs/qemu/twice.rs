//! Two starts of one config at the same moment on QEMU hosts: exactly one runs, and only its server has the disk.

use crate::scene::{cluster, records, writes};
use crate::stage::{exports_agree, make};
use std::sync::Barrier;
use xvm_tests::tree::errno;

const ROUNDS: usize = 10;

#[test]
fn of_two_starts_at_once_one_has_the_disk() {
    crate::requires_lab!();
    let cluster = cluster(2);
    let t = &cluster.tree;
    make(t, "small-6");
    let mut first = [0; 2];
    for round in 0..ROUNDS {
        let barrier = Barrier::new(2);
        let results: Vec<Result<(), String>> = std::thread::scope(|s| {
            let tries = ["ferby", "gerby"].map(|server| {
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
        let server = ["ferby", "gerby"][won[0]];
        assert_eq!(t.until_end("configs/small-6/wait"), format!("done start: small-6 runs on {server}"));
        assert_eq!(cluster.once("small-6", "running"), server);
        assert!(exports_agree(t, "small-6").iter().all(|e| e.contains(server)));
        if round + 1 == ROUNDS {
            // the last one boots: its disk is as the first build left it
            writes(&cluster, server, "small-6", 1, 8);
        }
        t.order("domains/small-6/ctl", "destroy");
        t.settles("configs/small-6/state", "ready");
    }
    xvm_tests::say(&format!("of {ROUNDS} pairs ferby won {}, gerby {}", first[0], first[1]));
    assert_eq!(records(&cluster, "small-6").boots, 1);
}
