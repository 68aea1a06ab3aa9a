//! What goes wrong in a migration on Xen: in the end the domain runs exactly once, or nowhere and that is said, and nothing is left.

use crate::guests::Guest;
use crate::scene::{Scene, wait};
use std::time::Instant;
use xvm_tests::say;

fn guest(name: &'static str, number: u8) -> Guest<'static> {
    Guest { name, machine: "xenpvh", number, busy: 0 }
}

/// A domain whose migration failed can be paused and let go on, within the time that libxl keeps its lock.
#[track_caller]
fn obeys(s: &Scene, name: &str) {
    let begin = Instant::now();
    let ctl = format!("domains/{name}/ctl");
    wait(&format!("{name} to be paused"), || s.tree().put(&ctl, "pause\n").ok());
    s.settles(&format!("domains/{name}/state"), "paused");
    wait(&format!("{name} to go on"), || s.tree().put(&ctl, "unpause\n").ok());
    s.settles(&format!("domains/{name}/state"), "running");
    say(&format!("{name} obeys again after {:.0} s", begin.elapsed().as_secs_f64()));
}

/// xen2 has another domain of that name, so that its libvirt refuses before anything is copied.
pub fn the_destination_refuses(s: &Scene) {
    let g = guest("small-10", 110);
    g.start(s, 1);
    g.virsh(s, 2, "define");
    let end = s.job("domains/small-10", "migrate xen2");
    assert!(end.starts_with("failed migrate: "), "{end}");
    say(&end);
    assert_eq!(s.hosts.copies("small-10", &[1, 2]), [1]);
    s.hosts.ssh(2, "virsh -c xen:///system undefine small-10");
    obeys(s, "small-10");
    g.end(s);
}

/// Begins a migration of a guest to xen2, and returns when it is copied.
#[track_caller]
fn copying(s: &Scene, g: &Guest) {
    g.start(s, 1);
    s.tree().order(&format!("domains/{}/ctl", g.name), "migrate xen2");
    s.hosts.until(2, &format!("xl list | grep -q {}", g.name)); // the half of it
    let refusal = s.tree().refused(&format!("domains/{}/ctl", g.name), "cancel\n");
    assert_eq!(refusal.errno, "EOPNOTSUPP", "{}", refusal.sentence);
    say(&refusal.sentence);
}

/// It goes on where it was.
pub fn the_destination_loses_power(s: &Scene) {
    let g = guest("small-11", 111);
    copying(s, &g);
    s.hosts.host(&["crash", "2"]).ok();
    s.settles("servers/xen2/state", "down");
    assert_eq!(s.hosts.copies("small-11", &[1]), [1]);
    s.hosts.boot(2);
    s.hosts.ready(2);
    s.agent(2);
    let end = s.end("domains/small-11");
    say(&end);
    assert!(end.starts_with("failed migrate: "), "{end}");
    assert_eq!(s.hosts.copies("small-11", &[1, 2]), [1]);
    obeys(s, "small-11");
    g.end(s);
}

/// It runs nowhere, which is said, and the half of it is removed.
pub fn the_source_loses_power(s: &Scene) {
    let g = guest("small-12", 113);
    copying(s, &g);
    s.hosts.host(&["crash", "1"]).ok();
    let begin = Instant::now();
    s.settles("servers/xen1/state", "down");
    let reason = s.tree().value("domains/small-12/status", "reason").unwrap_or_default();
    assert!(reason.contains("xen1 is down") && reason.contains("to xen2, which does not run it"), "{reason}");
    say(&reason);
    s.hosts.until(2, "! xl list | grep -q small-12");
    say(&format!("Xen has no half of it after {:.0} s", begin.elapsed().as_secs_f64()));
    // libvirt goes on to list what is left of it, and is made to forget it
    s.hosts.until(2, "! virsh -c xen:///system list --all --name | grep -q small-12");
    say(&format!("libvirt has no half of it after {:.0} s", begin.elapsed().as_secs_f64()));
    assert_eq!(s.hosts.copies("small-12", &[2]), [0; 0]);
    s.hosts.boot(1);
    s.hosts.ready(1);
    s.agent(1);
    s.settles("servers/xen1/state", "up");
    wait("its end", || (!s.tree().path("domains/small-12").exists()).then_some(()));
}
