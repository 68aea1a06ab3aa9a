//! Debian's Xen has no shadow paging: a PV guest cannot move while it runs.

use crate::guests::Guest;
use crate::scene::Scene;

/// It is known before it is tried, and what works is said.
pub fn moves_while_it_stands(s: &Scene) {
    let t = s.tree();
    let guest = Guest { name: "small-8", machine: "xenpv", number: 108, busy: 0 };
    guest.start(s, 1);
    let refusal = t.refused("domains/small-8/ctl", "migrate xen2\n");
    assert_eq!(refusal.errno, "EOPNOTSUPP", "{}", refusal.sentence);
    for part in ["shadow paging", "type pvh", "`migrate --paused [SERVER]`"] {
        assert!(refusal.sentence.contains(part), "{}", refusal.sentence);
    }
    assert!(t.value("domains/small-8/status", "moves").is_some_and(|m| m.starts_with("paused: ")));
    let end = s.job("domains/small-8", "migrate --paused xen2");
    assert!(end.starts_with("done migrate: small-8 runs on xen2"), "{end}");
    assert_eq!(s.hosts.copies("small-8", &[1, 2]), [2]);
    guest.end(s);
}
