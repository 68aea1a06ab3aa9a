//! Domains that spin on one host: it asks for help, and one of them moves to the other, with its reason written down.

use crate::guests::Guest;
use crate::scene::{Scene, wait};

pub fn is_helped(s: &Scene) {
    let t = s.tree();
    let guests = [("busy-1", 111), ("busy-2", 112)];
    let guests = guests.map(|(name, number)| Guest { name, machine: "xenpvh", number, busy: 45 });
    guests.iter().for_each(|g| g.start(s, 1));
    let load = |server: &str| t.text(&format!("servers/{server}/load")).parse::<f64>().expect("a share");
    wait("the load of xen1", || (load("xen1") >= 0.75).then_some(()));
    assert!(load("xen2") < 0.75, "xen2 is loaded {}", load("xen2"));
    t.order("ctl", "balance on");
    let moved = wait("a domain on xen2", || {
        let there = |g: &&Guest| t.text(&format!("domains/{}/server", g.name)) == "xen2";
        guests.iter().find(there).map(|g| g.name)
    });
    t.order("ctl", "balance off");
    let end = s.end(&format!("domains/{moved}"));
    assert!(end.starts_with(&format!("done migrate: {moved} runs on xen2")), "{end}");
    assert_eq!(s.hosts.copies(moved, &[1, 2]), [2]);
    let came = t.value(&format!("domains/{moved}/status"), "came").unwrap_or_default();
    assert!(came.starts_with("xen1 ") && came.ends_with("overload"), "{came}");
    let rounds = t.names("help");
    let round = rounds.iter().find(|r| came.contains(r.as_str())).expect("the round that moved it");
    let offers = t.text(&format!("help/{round}/offers"));
    assert!(offers.starts_with(&format!("xen2 xen x86_64/xenlab {moved} ")), "{offers}");
    guests.iter().for_each(|g| g.end(s));
}
