//! Disks by TLS alone on QEMU hosts: who holds the lease has the disk, also while it moves, and a server of the cluster that does not
//! hold it is not let in.

use crate::scene::{no_errors, records, sound, writers, writes};
use crate::stage::{exported, leases, make, start};
use std::path::Path;
use xvm_tests::{Cluster, wait_eq};

/// What a server sees with its own certificate.
fn seen(uri: &str, certificates: &Path, server: &str) -> Vec<String> {
    exported(&format!("{uri}?tls-certificates={}", certificates.join(server).display()))
}

#[test]
fn a_disk_is_served_to_the_server_that_holds_the_lease_also_while_it_moves() {
    crate::requires_lab!();
    let mut cluster = Cluster::qemu(2, 0, |_| {});
    let certificates = cluster.hosts().certificates();
    let own = certificates.join("kerby").display().to_string();
    writers(&mut cluster, &["--tls", &own]);
    let t = cluster.tree.clone();
    make(&t, "small-6");
    start(&t, "small-6", "ferby");
    let xml = t.text("configs/small-6/libvirt.xml");
    assert_eq!(xml.matches("tls='yes'").count(), 2, "disk and swap: {xml}");
    writes(&cluster, "ferby", "small-6", 1, 8);
    let uri = leases(&t, "small-6").0.expect("it is leased");
    let plain = uri.clone();
    let uri = uri.replace("nbd://", "nbds://");
    assert_eq!(seen(&uri, &certificates, "ferby"), ["small-6.ferby.1", "small-6.ferby.1.swap"]);
    assert_eq!(seen(&uri, &certificates, "gerby"), [""; 0], "it holds no lease");
    assert_eq!(exported(&plain), [""; 0], "without TLS nobody is served");

    t.order("domains/small-6/ctl", "migrate gerby");
    let end = t.until_end("domains/small-6/wait");
    assert!(end.starts_with("done migrate: small-6 runs on gerby"), "{end}");
    wait_eq("who is served", (Vec::new(), 2), || {
        (seen(&uri, &certificates, "ferby"), seen(&uri, &certificates, "gerby").len())
    });
    writes(&cluster, "gerby", "small-6", 1, 8);

    // imaged's next life finds the disks served as they were; the guest does not notice
    cluster.images().kill_and_launch();
    writes(&cluster, "gerby", "small-6", 1, 8);
    assert_eq!(seen(&uri, &certificates, "gerby").len(), 2);
    t.settles("configs/small-6/state", "running");
    t.order("domains/small-6/ctl", "shutdown");
    t.settles("configs/small-6/state", "ready");
    wait_eq("who is served", [0, 0], || ["ferby", "gerby"].map(|s| seen(&uri, &certificates, s).len()));
    for host in ["ferby", "gerby"] {
        no_errors(&cluster, host, "small-6");
    }
    assert_eq!(records(&cluster, "small-6").boots, 1);
    sound(&cluster, "small-6");

    // a server without certificates cannot start it, and says so
    std::fs::remove_file(cluster.dir().join("hosts/ferby/etc/nbd/client-key.pem")).expect("ours");
    t.order("configs/small-6/ctl", "start ferby");
    let end = t.until_end("configs/small-6/wait");
    assert!(end.starts_with("failed start: ") && end.contains("TLS in imaged(8)"), "{end}");
    t.settles("configs/small-6/state", "ready");
    assert_eq!(leases(&t, "small-6").1, [""; 0], "its lease is given back");
}
