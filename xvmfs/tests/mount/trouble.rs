//! `reason` in the status of a domain. If these fail, an administrator reads that something is wrong, and not what to do.

use crate::kit::{Cluster, Mount, can_mount, errno, wait_for};
use std::time::Duration;

fn reason(m: &Mount, name: &str) -> String {
    let status = m.read(&format!("domains/{name}/status"));
    status.lines().find_map(|l| l.strip_prefix("reason ")).unwrap_or_default().to_owned()
}

#[test]
fn two_that_claim_it_are_named() {
    if !can_mount("two_that_claim_it_are_named") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    assert_eq!(reason(&m, "small-1"), "");
    c.world.claims("gerby", "small-1");
    wait_for("a conflict", || m.read("domains/small-1/state") == "conflict\n");
    let why = reason(&m, "small-1");
    assert!(
        why.starts_with("ferby and gerby all say that it runs there") && why.contains("virsh destroy"),
        "{why}"
    );
    assert_eq!(errno(m.write("domains/small-1/ctl", "pause\n")), 16);
    assert!(m.read("domains/small-1/error").trim_end().ends_with(&why), "the same sentence");
}

#[test]
fn one_that_was_on_its_way_is_told_where_it_does_not_run() {
    if !can_mount("one_that_was_on_its_way_is_told_where_it_does_not_run") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    c.world.migration(Duration::from_secs(3_600));
    m.write("domains/small-2/ctl", "migrate gerby\n").unwrap();
    c.world.kill("ferby");
    wait_for("the server is down", || m.read("domains/small-2/state") == "unknown\n");
    let why = reason(&m, "small-2");
    for part in [
        "ferby is down, last heard ",
        "on its way to gerby, which does not run it",
        "ferby must be without power",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    // one that went nowhere
    assert!(!reason(&m, "small-1").contains("on its way"));
    // nobody can tell of gerby either
    c.world.kill("gerby");
    wait_for("nobody hears gerby", || reason(&m, "small-2").contains("gerby, which is not heard either"));
}
