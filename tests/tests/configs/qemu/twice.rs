//! Two starts of one config at the same moment on QEMU hosts: exactly one runs, and only its server has the disk.

use crate::scene::{cluster, records, writes};
use crate::stage::{exports_agree, make, two_starts};

const ROUNDS: usize = 10;

#[test]
fn of_two_starts_at_once_one_has_the_disk() {
    crate::requires_lab!();
    let cluster = cluster(2);
    let t = &cluster.tree;
    make(t, "small-6");
    let mut first = [0; 2];
    for round in 0..ROUNDS {
        let won = two_starts(t, "small-6", ["ferby", "gerby"], round);
        first[won] += 1;
        let server = ["ferby", "gerby"][won];
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
