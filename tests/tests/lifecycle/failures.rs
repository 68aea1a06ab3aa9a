//! Migrations that fail, at each phase: afterwards the domain is on exactly one server, and the tree says which.

use crate::stage::{Act, SMALL, Stage};
use xvm_tests::{say, wait_for};

const CTL: &str = "domains/small-1/ctl";
const WAIT: &str = "domains/small-1/wait";

/// On request: the simulated hypervisor fails or dies.
pub const SIM: &[(&str, Act)] = &[
    ("faults", faults),
    ("the_source_dies", |s| deaths(s, "ferby", &SOURCE)),
    ("the_destination_dies", |s| deaths(s, "gerby", &DESTINATION)),
];

/// For real: libvirtd dies, or refuses.
pub const QEMU: &[(&str, Act)] = &[
    ("the_destination_refuses", the_destination_refuses),
    ("the_destinations_libvirtd_dies", |s| libvirtd_dies(s, "gerby")),
    ("the_sources_libvirtd_dies", |s| libvirtd_dies(s, "ferby")),
];

const SOURCE: [&str; 7] =
    ["die-begin", "die-copy", "die-stopped", "die-noted", "die-asked", "die-answered", "die-forgot"];
const DESTINATION: [&str; 4] = ["die-agreed", "die-commit", "die-taken", "die-said"];

fn faults(s: &mut Stage) {
    for (server, fault, ends) in [
        ("ferby", "prepare", "failed migrate: "),
        ("ferby", "copy", "failed migrate: "),
        ("gerby", "refuse", "failed migrate: "),
        ("ferby", "commit-lost", ""),
        ("gerby", "ack-lost", "done migrate: "),
        ("ferby", "slow-stop", "done migrate: "),
    ] {
        s.home(SMALL);
        s.cluster.fault(server, &format!("{fault} 1"));
        s.tree().order(CTL, "migrate gerby");
        let end = s.tree().until_end(WAIT);
        assert!(end.starts_with(ends), "{fault}: {end}");
        let on = s.cluster.once(SMALL, "running");
        say(&format!("  {fault}: {end}"));
        assert_eq!(on == "gerby", end.starts_with("done"), "{fault}: {end}");
    }
}

fn deaths(s: &mut Stage, server: &str, words: &[&str]) {
    for word in words {
        s.home(SMALL);
        s.cluster.fault(server, &format!("{word} 1"));
        s.tree().order(CTL, "migrate gerby");
        s.cluster.agent(server).end();
        s.cluster.agent(server).launch();
        let on = s.cluster.once(SMALL, "running");
        say(&format!("  {word}: {SMALL} is on {on}; {}", s.tree().until_end(WAIT)));
    }
}

/// A domain of that name is there already.
fn the_destination_refuses(s: &mut Stage) {
    let lab = s.cluster.hosts();
    let xml = lab.virsh("ferby", &["dumpxml", "--inactive", SMALL]).ok();
    let file = s.cluster.dir().join("twin.xml");
    std::fs::write(&file, xml.replace("-9000-", "-9002-")).expect("scratch");
    lab.virsh("gerby", &["define", &file.to_string_lossy()]).ok();
    let t = s.tree();
    match t.put(CTL, "migrate gerby\n") {
        Ok(()) => {
            let end = t.until_end(WAIT);
            assert!(end.starts_with("failed migrate: "), "{end}");
            say(&format!("  {end}"));
        }
        Err(e) => say(&format!("  {:?}", t.refusal(CTL, &e))),
    }
    s.cluster.hosts().virsh("gerby", &["undefine", SMALL]).ok();
    assert_eq!(s.cluster.once(SMALL, "running"), "ferby");
}

fn libvirtd_dies(s: &mut Stage, host: &str) {
    let (t, lab) = (s.tree(), s.cluster.hosts());
    s.slow();
    t.order(CTL, "migrate gerby");
    wait_for("the copy's progress", || {
        let percent: u32 = t.value("domains/small-1/job", "percent")?.parse().ok()?;
        (t.value("domains/small-1/job", "phase")? == "copy" && percent > 0).then_some(())
    });
    lab.hosts_sh(&["daemon-kill", host, "KILL"]).ok();
    t.settles(&format!("servers/{host}/state"), "stale");
    let reason = t.value(&format!("servers/{host}/status"), "reason");
    assert!(reason.is_some(), "a stale server says why");
    lab.hosts_sh(&["daemon-start", host]).ok();
    t.settles(&format!("servers/{host}/state"), "up");
    let end = t.until_end(WAIT);
    let on = s.cluster.once(SMALL, "running");
    say(&format!("  libvirtd of {host} died: {SMALL} is on {on}; {end}"));
    s.fast();
    t.order(CTL, &format!("migrate {}", if on == "ferby" { "gerby" } else { "ferby" }));
    assert!(t.until_end(WAIT).starts_with("done migrate"), "it can move again");
}
