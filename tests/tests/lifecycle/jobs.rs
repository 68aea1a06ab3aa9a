//! What goes on for a while: migration, shutdown, reboot; `job`, `wait`, `cancel`.

use crate::stage::{SMALL, Stage};
use xvm_tests::wait_for;

const CTL: &str = "domains/small-1/ctl";
const WAIT: &str = "domains/small-1/wait";

/// `migrate SERVER` moves a running domain; `wait` ends when it has moved, and says how.
pub fn migrate_and_back(s: &mut Stage) {
    let t = s.tree();
    let events = t.events("events");
    for to in ["gerby", "ferby"] {
        t.order(CTL, &format!("migrate {to}"));
        let end = t.until_end(WAIT);
        assert!(end.starts_with("done migrate: ") && end.contains(to), "{end}");
        assert_eq!(t.text("domains/small-1/server"), to, "what wait says is in the tree");
        assert_eq!(t.text("domains/small-1/state"), "running");
        assert_eq!(s.cluster.once(SMALL, "running"), to);
        let links = t.names(&format!("servers/{to}/domains"));
        assert!(links.iter().any(|l| l == SMALL), "{links:?}");
        events.expect(&format!("domain small-1 server {to}"));
    }
    // without a name the best other server is taken
    t.order(CTL, "migrate");
    t.until_end(WAIT);
    assert_eq!(s.cluster.once(SMALL, "running"), "gerby");
}

/// A rename of the link is a migration.
pub fn mv(s: &mut Stage) {
    let t = s.tree();
    for (from, to) in [("ferby", "gerby"), ("gerby", "ferby")] {
        let (a, b) = (format!("servers/{from}/domains/small-1"), format!("servers/{to}/domains/small-1"));
        t.rename(&a, &b).unwrap_or_else(|e| panic!("cannot move: {e} {:?}", t.get("domains/small-1/error")));
        let end = t.until_end(WAIT);
        assert!(end.starts_with("done migrate: "), "{end}");
        assert_eq!(s.cluster.once(SMALL, "running"), to);
        assert!(std::fs::symlink_metadata(t.path(&a)).is_err(), "the old link is gone");
    }
}

/// Its vCPUs stand before and after.
pub fn a_paused_domain_moves_paused(s: &mut Stage) {
    let t = s.tree();
    t.order(CTL, "pause");
    t.order(CTL, "migrate gerby");
    let end = t.until_end(WAIT);
    assert!(end.starts_with("done migrate: "), "{end}");
    assert_eq!(s.cluster.once(SMALL, "paused"), "gerby");
    t.order(CTL, "unpause");
    assert_eq!(t.text("domains/small-1/state"), "running");
}

/// While a migration runs, all else is refused, `job` tells how far it is, and `cancel` ends it with the domain where it was.
pub fn a_job_lets_only_cancel_in(s: &mut Stage) {
    let (t, domain) = (s.tree(), s.slow());
    let file = |f: &str| format!("domains/{domain}/{f}");
    t.order(&file("ctl"), "migrate gerby");
    wait_for("the copy's progress", || {
        let phase = t.value(&file("job"), "phase")?;
        let percent: u32 = t.value(&file("job"), "percent")?.parse().ok()?;
        (phase == "copy" && percent > 0).then_some(())
    });
    assert_eq!(t.value(&file("job"), "kind").as_deref(), Some("migrate"));
    assert_eq!(t.value(&file("job"), "to").as_deref(), Some("gerby"));
    for line in ["pause", "shutdown", "reboot", "destroy", "migrate gerby", "start", "load 5"] {
        let no = t.refused(&file("ctl"), format!("{line}\n"));
        assert_eq!(no.errno, "EBUSY", "{line}: {no:?}");
        assert!(no.sentence.contains("its migrate runs"), "{line}: {no:?}");
    }
    assert_eq!(t.text(&file("server")), "ferby");
    assert_eq!(t.text(&file("state")), "running", "it runs while it moves");
    t.order(&file("ctl"), "cancel");
    let end = t.until_end(&file("wait"));
    assert!(end.starts_with("failed migrate: ") && end.contains("cancel"), "{end}");
    assert_eq!(s.cluster.once(domain, "running"), "ferby");
    let no = t.refused(&file("ctl"), "cancel\n");
    assert!(no.errno == "EBUSY" && no.sentence.contains("no job runs"), "{no:?}");
    s.fast();
    // and nothing is left at the destination that would refuse it now
    if domain == SMALL {
        t.order(&file("ctl"), "migrate gerby");
        assert!(t.until_end(&file("wait")).starts_with("done migrate"));
    }
}

/// The guest is asked, and `wait` ends when it is off.
pub fn shutdown_and_start(s: &mut Stage) {
    let t = s.tree();
    crate::states::boots(s);
    t.order(CTL, "shutdown");
    let end = t.until_end(WAIT);
    assert!(end.starts_with("done shutdown"), "{end}");
    assert_eq!(t.text("domains/small-1/state"), "shutoff");
    for line in ["pause", "unpause", "shutdown", "reboot", "destroy", "migrate gerby"] {
        let no = t.refused(CTL, format!("{line}\n"));
        assert_eq!(no.errno, "EBUSY", "{line}: {no:?}");
        assert!(no.sentence.contains("shutoff"), "{line}: {no:?}");
    }
    t.order(CTL, "start");
    let end = t.until_end(WAIT);
    assert!(end.starts_with("done start"), "{end}");
    assert_eq!(s.cluster.once(SMALL, "running"), "ferby");
    crate::states::boots(s);
}

/// The same domain on the same server, started anew.
pub fn reboot(s: &mut Stage) {
    let t = s.tree();
    crate::states::boots(s);
    let events = t.events("domains/small-1/events");
    t.order(CTL, "reboot");
    let end = t.until_end(WAIT);
    assert!(end.starts_with("done reboot") || end.starts_with("no job") || end.starts_with("done"), "{end}");
    assert_eq!(s.cluster.once(SMALL, "running"), "ferby");
    drop(events);
    crate::states::boots(s);
}
