//! Xen and QEMU servers are one tree, and a domain goes only where it can go on.

use crate::guests::Guest;
use crate::scene::{QEMU, Scene, wait};
use xvm_tests::say;

pub fn domains_stay_with_their_kind(s: &Scene) {
    let t = s.tree();
    assert_eq!(t.names("servers"), ["ferby", "xen1", "xen2"]);
    assert_eq!(t.value("servers/ferby/status", "hypervisor").as_deref(), Some("qemu"));
    s.lab().virsh("ferby", &["start", QEMU]).ok();
    s.lab().ticks("ferby", QEMU);
    s.settles(&format!("domains/{QEMU}/state"), "running");
    let guest = Guest { name: "small-2", machine: "xenpvh", number: 102, busy: 0 };
    guest.start(s, 1);

    // by order, by mv, and to empty a server
    for (name, to) in [(QEMU, "xen1"), ("small-2", "ferby")] {
        let refusal = t.refused(&format!("domains/{name}/ctl"), format!("migrate {to}\n"));
        say(&format!("{}: {}", refusal.errno, refusal.sentence));
        assert!(
            refusal.sentence.contains("xen") && refusal.sentence.contains("qemu"),
            "{}",
            refusal.sentence
        );
    }
    let there = format!("servers/xen2/domains/{QEMU}");
    let moved = t.rename(&format!("servers/ferby/domains/{QEMU}"), &there).expect_err("it cannot go there");
    say(&moved.to_string());
    t.order("servers/ferby/ctl", "evacuate");
    // it looks for another server until it is told not to
    let note = wait("why nobody takes it", || {
        t.value("servers/ferby/job", "note").filter(|note| note.contains("xen"))
    });
    say(&note);
    t.order("servers/ferby/ctl", "cancel");
    let end = s.end("servers/ferby");
    assert!(end.starts_with("failed evacuate: "), "{end}");
    t.order("servers/ferby/accepting", "on");
    assert_eq!(t.text(&format!("domains/{QEMU}/server")).trim_end(), "ferby");
    assert_eq!(s.hosts.copies("small-2", &[1, 2]), [1]);
    guest.end(s);
    s.lab().virsh("ferby", &["destroy", QEMU]).ok();
    s.settles(&format!("domains/{QEMU}/state"), "shutoff");
}
