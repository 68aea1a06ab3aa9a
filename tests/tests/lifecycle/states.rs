//! What ends at once: states, settings, figures, events.

use crate::stage::{Act, SMALL, Stage};
use xvm_tests::wait_for;

const CTL: &str = "domains/small-1/ctl";
const STATE: &str = "domains/small-1/state";

/// A write that was accepted has happened: the next read says so, each time.
pub fn pause_is_seen_at_once(s: &mut Stage) {
    for i in 0..50 {
        s.tree().order(CTL, "pause");
        assert_eq!(s.tree().text(STATE), "paused", "round {i}");
        s.tree().order(CTL, "unpause");
        assert_eq!(s.tree().text(STATE), "running", "round {i}");
    }
    assert_eq!(s.cluster.once(SMALL, "running"), "ferby");
}

/// Every file of a domain and of its server says something that can be true.
pub fn figures(s: &mut Stage) {
    let t = s.tree();
    let vcpus = wait_for("vCPUs that are on physical CPUs", || {
        let text = t.text("domains/small-1/vcpus");
        let rows: Vec<Vec<String>> =
            text.lines().map(|l| l.split(' ').map(str::to_owned).collect()).collect();
        (rows.len() == 2 && rows.iter().all(|r| r.len() == 3 && r[2] != "-")).then_some(rows)
    });
    let cpus = t.text("servers/ferby/cpus");
    for row in &vcpus {
        let (load, cpu): (f64, usize) = (row[1].parse().expect("a ratio"), row[2].parse().expect("a number"));
        assert!((0.0..=1.0).contains(&load), "{row:?}");
        assert!(cpu < cpus.lines().count(), "{row:?} of {cpus}");
    }
    wait_for("the vCPU in the server's map", || {
        t.text("servers/ferby/cpus").contains("small-1/0").then_some(())
    });
    let memory = |key| t.value("domains/small-1/memory", key).expect("a row");
    assert!(memory("max").parse::<u64>().expect("KiB") >= 96 << 10);
    assert!(memory("current").parse::<u64>().expect("KiB") >= 64 << 10);
    for key in ["total", "free"] {
        assert!(t.value("servers/ferby/memory", key).expect("a row").parse::<u64>().expect("KiB") > 0);
    }
    if !s.is_sim() {
        let arch = format!("{}/", std::env::consts::ARCH);
        wait_for("the server's processors", || {
            t.value("servers/ferby/status", "cpu").filter(|cpu| cpu.starts_with(&arch))
        });
        for file in ["disk", "net"] {
            wait_for(&format!("bytes in {file}"), || {
                let text = t.text(&format!("domains/small-1/{file}"));
                let mut numbers =
                    text.lines().next()?.split(' ').skip(1).map(|n| n.parse::<u64>().unwrap_or(0));
                let (first, second) = (numbers.next()?, numbers.next()?);
                (first + second > 0).then_some(())
            });
        }
        wait_for("a resident size", || memory("resident").parse::<u64>().ok().filter(|n| *n > 10 << 10));
    }
    let config = t.text("domains/small-1/config");
    assert!(config.contains("vcpus 2") && config.contains("uuid "), "{config}");
    let json = t.json("domains/small-1/json");
    assert_eq!(json["name"], "small-1");
    assert_eq!(json["state"], "running");
    assert_eq!(json["server"], "ferby");
    assert_eq!(t.json("servers/ferby/json")["name"], "ferby");
    assert_eq!(t.text("servers/ferby/state"), "up");
    let link = std::fs::read_link(t.path("servers/ferby/domains/small-1")).expect("a link");
    assert_eq!(link.to_str(), Some("../../../domains/small-1"));
    assert_eq!(t.text("servers/ferby/domains/small-1/state"), "running");
    for file in ["load", "memory", "history", "status", "policy", "watchdog", "accepting"] {
        t.text(&format!("servers/ferby/{file}"));
    }
}

/// What is written to a setting reads back in the same form, and goes along with the domain.
pub fn settings(s: &mut Stage) {
    let t = s.tree();
    for (file, values) in [("priority", ["70", "0", "100"]), ("pin", ["ferby", "gerby ferby", "ferby gerby"])]
    {
        for value in values {
            t.order(&format!("domains/small-1/{file}"), value);
            assert_eq!(t.text(&format!("domains/small-1/{file}")), value);
        }
    }
    t.order(CTL, "migrate gerby");
    let end = t.until_end("domains/small-1/wait");
    assert!(end.starts_with("done migrate"), "{end}");
    assert_eq!(s.cluster.once(SMALL, "running"), "gerby");
    assert_eq!(t.text("domains/small-1/priority"), "100");
    assert_eq!(t.text("domains/small-1/pin"), "ferby gerby");
    t.order("domains/small-1/pin", "gerby");
    let no = t.refused(CTL, "migrate ferby\n");
    assert!(no.sentence.contains("pin"), "{no:?}");
    t.order("domains/small-1/pin", "none");
    t.order("domains/small-1/priority", "50");
    assert_eq!(t.text("domains/small-1/pin"), "none");
    for (file, value) in [("accepting", "off"), ("accepting", "on"), ("watchdog", "limit 7")] {
        t.order(&format!("servers/gerby/{file}"), value);
        assert!(t.text(&format!("servers/gerby/{file}")).contains(value), "{file}");
    }
}

/// Who follows `events` hears each change once it is there.
pub fn events(s: &mut Stage) {
    let t = s.tree();
    let (mine, all) = (t.events("domains/small-1/events"), t.events("events"));
    t.order(CTL, "pause");
    mine.expect("domain small-1 state paused");
    t.order(CTL, "unpause");
    mine.expect("domain small-1 state running");
    all.expect("domain small-1 state running");
    for line in mine.lines() {
        assert!(line.contains(" domain small-1 ") || line.ends_with(" listening"), "{line}");
    }
}

/// Pulling the plug is done when the write returns.
pub fn destroy_and_start(s: &mut Stage) {
    s.tree().order(CTL, "destroy");
    assert_eq!(s.tree().text(STATE), "shutoff");
    assert_eq!(s.cluster.copies(SMALL), Vec::<String>::new());
    s.tree().order(CTL, "start");
    s.tree().until_end("domains/small-1/wait");
    assert_eq!(s.cluster.once(SMALL, "running"), "ferby");
    boots(s);
}

/// After a start or a reboot: a guest that does not listen yet would not hear what the next act tells it.
pub fn boots(s: &Stage) {
    if let Some(lab) = &s.cluster.lab {
        lab.ticks("ferby", SMALL);
    }
}

/// What virsh does is in the tree, and what the tree does virsh sees.
pub const BEHIND_THE_BACK: &[(&str, Act)] = &[("virsh_and_the_tree_agree", virsh_and_the_tree_agree)];

fn virsh_and_the_tree_agree(s: &mut Stage) {
    let (t, lab) = (s.tree(), s.cluster.hosts());
    let events = t.events("domains/small-1/events");
    for (verb, state, virsh) in [
        ("suspend", "paused", "paused"),
        ("resume", "running", "running"),
        ("destroy", "shutoff", "shut off"),
    ] {
        lab.virsh("ferby", &[verb, SMALL]).ok();
        t.settles(STATE, state);
        events.expect(&format!("state {state}"));
        assert_eq!(lab.state("ferby", SMALL), virsh);
    }
    lab.virsh("ferby", &["start", SMALL]).ok();
    t.settles(STATE, "running");
    boots(s);
    t.order(CTL, "pause");
    assert_eq!(lab.state("ferby", SMALL), "paused");
    t.order(CTL, "unpause");
    assert_eq!(lab.state("ferby", SMALL), "running");
    // a domain that is defined and forgotten by others comes and goes
    let xml = lab.virsh("ferby", &["dumpxml", "--inactive", SMALL]).ok();
    let file = s.cluster.dir().join("guest-2.xml");
    let xml = xml.replace("small-1</name>", "guest two</name>").replace("-9000-", "-9001-");
    std::fs::write(&file, xml).expect("scratch");
    lab.virsh("ferby", &["define", &file.to_string_lossy()]).ok();
    t.settles("domains/guest two/state", "shutoff");
    lab.virsh("ferby", &["undefine", "guest two"]).ok();
    wait_for("the end of guest two", || (t.names("domains") == ["small-1"]).then_some(()));
}
