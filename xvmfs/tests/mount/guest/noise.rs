//! A guest is not trusted: what it says too much, too long or with a wrong clock harms nobody.

use super::rows::{DIR, with_guest};
use crate::events::Follower;
use crate::kit::{Cluster, can_mount, errno, wait_for};
use xvm_bus::SecretKey;
use xvm_model::{Body, GuestCommand, GuestRuns, Run, RunState, Wall};

fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|l| l.starts_with(&format!("{name} "))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_flood_is_told_and_others_go_on() {
    if !can_mount("a_flood_is_told_and_others_go_on") {
        return;
    }
    let (c, guest, m) = with_guest();
    let _other = c.guest("small-2");
    wait_for("the other", || m.at("domains/small-2/guest").exists());
    let mut events = Follower::new(&m, "exec cat domains/small-1/events");
    assert!(events.line().ends_with("listening\n"));
    for _ in 0..200 {
        guest.say(Body::Guest(Box::new(guest.heartbeat())));
    }
    let line = events.line();
    assert!(
        line.ends_with("domain small-1 guest floods the bus: what it says too much is dropped\n"),
        "{line}"
    );
    m.write("domains/small-2/guest/run", "image 1\n").unwrap();
    m.write("domains/small-2/ctl", "pause\n").unwrap();
    assert_eq!(m.read("domains/small-2/state"), "paused\n");
    wait_for("the counter", || metric(&m.read("metrics"), "xvm_bus_flooded_messages_total") >= 100);
    // it is heard again when it behaves
    wait_for("its answer", || m.write(&format!("{DIR}/run"), "image 1\n").is_ok());
}

/// If this fails, root in one guest makes a mount believe what it likes of another.
#[test]
fn under_a_machines_name_its_own_key_is_believed_and_nothing_else() {
    if !can_mount("under_a_machines_name_its_own_key_is_believed_and_nothing_else") {
        return;
    }
    let (c, guest, m) = with_guest();
    let signed =
        || m.read(&format!("{DIR}/status")).lines().find(|l| l.starts_with("signed")).map(str::to_owned);
    assert_eq!(signed().as_deref(), Some("signed no"), "nobody made it a key");
    let images = c.images();
    images.add("small-1");
    assert!(m.at(DIR).exists());
    let own = SecretKey::from_seed(&[1; 32]);
    let mut events = Follower::new(&m, "exec cat domains/small-1/events");
    assert!(events.line().ends_with("listening\n"));
    // what was believed before the key was known is forgotten
    images.change("small-1", |r| r.guest_key = Some(own.public()));
    wait_for("it to be doubted", || !m.at(DIR).exists());
    let line = events.line();
    assert!(
        line.ends_with(
            "domain small-1 guest is not believed: what comes under its name is not signed with its key\n"
        ),
        "{line}"
    );
    guest.sign(SecretKey::from_seed(&[2; 32]));
    let forged = || metric(&m.read("metrics"), "xvm_bus_forged_messages_total");
    let before = forged();
    wait_for("another's key", || forged() > before + 2);
    assert!(!m.at(DIR).exists());

    guest.sign(own);
    wait_for("its own key", || m.at(DIR).exists());
    assert_eq!(signed().as_deref(), Some("signed yes"));
    // one that is not it
    let thief = c.guest("small-1");
    thief.change(|b| b.version = "stolen".into());
    let before = forged();
    wait_for("the thief", || forged() > before + 2);
    assert!(m.read(&format!("{DIR}/status")).contains("\nversion 0.1.0\n"));
    m.write(&format!("{DIR}/run"), "image 1\n").unwrap();
}

#[test]
fn what_is_too_long_or_not_believed_is_dropped() {
    if !can_mount("what_is_too_long_or_not_believed_is_dropped") {
        return;
    }
    let (_c, guest, m) = with_guest();
    let dropped = metric(&m.read("metrics"), "xvm_bus_malformed_messages_total");
    let mut long = guest.heartbeat();
    long.version = "x".repeat(2 << 20).into();
    guest.say(Body::Guest(Box::new(long)));
    let run = |output: String| Run {
        id: "c.1.1".into(),
        line: "two\nlines".into(),
        state: RunState::Done,
        at: Wall(0),
        wall_ms: 1,
        cpu_ms: 1,
        status: Some(0),
        why: None,
        output: output.into(),
    };
    guest.say(Body::GuestRuns(Box::new(GuestRuns { runs: vec![run("x".repeat(5000))] })));
    wait_for("both are dropped", || {
        metric(&m.read("metrics"), "xvm_bus_malformed_messages_total") >= dropped + 2
    });
    assert!(m.read(&format!("{DIR}/status")).contains("version 0.1.0\n"));
    assert_eq!(m.read(&format!("{DIR}/results")), "");
    let mut events = Follower::new(&m, "exec cat domains/small-1/events");
    assert!(events.line().ends_with("listening\n"));
    let begun = Run { state: RunState::Running, status: None, ..run("".into()) };
    guest.say(Body::GuestRuns(Box::new(GuestRuns { runs: vec![begun] })));
    guest.say(Body::GuestRuns(Box::new(GuestRuns { runs: vec![run("ok".into())] })));
    assert!(
        events.line().ends_with("domain small-1 guest run done two lines: 0.001 s\n"),
        "it makes no lines"
    );
    wait_for("what can be believed", || {
        m.read(&format!("{DIR}/results")) == "1970-01-01T00:00:00.000Z done 0 0.001 0.001 two lines\n"
    });
}

/// If this fails, whoever has a guest tells lies about orders to others.
#[test]
fn a_guest_answers_for_nobody_else() {
    if !can_mount("a_guest_answers_for_nobody_else") {
        return;
    }
    let (c, guest, m) = with_guest();
    let liar = c.liar("small-2");
    guest.deaf(true);
    c.world.deaf(true);
    let writes = [format!("{DIR}/run"), "domains/small-1/ctl".into()].map(|file| {
        let (path, line) = (m.at(&file), if file.ends_with("run") { "fibonacci 1\n" } else { "pause\n" });
        std::thread::spawn(move || errno(std::fs::write(path, line)))
    });
    assert_eq!(writes.map(|w| w.join().unwrap()), [110, 110], "ETIMEDOUT: only the liar has answered");
    assert!(liar.load(std::sync::atomic::Ordering::Relaxed) >= 2);
}

#[test]
fn its_sentences_are_one_line() {
    if !can_mount("its_sentences_are_one_line") {
        return;
    }
    let (_c, guest, m) = with_guest();
    guest.change(|b| b.tests = vec![format!("none\n1970 EPERM\u{1b}[2J{}", "x".repeat(350)).into()]);
    assert_eq!(errno(m.write(&format!("{DIR}/run"), "fibonacci 38\n")), 22);
    let error = m.read(&format!("{DIR}/error"));
    assert!(error.contains(": it has none 1970 EPERM [2Jxx") && error.lines().count() == 1, "{error}");
    assert!(error.len() < 500 && !error.contains('\u{1b}'));
}

/// If this fails, the clock of a guest decides whether it can be commanded.
#[test]
fn a_clock_that_is_wrong_by_hours_does_no_harm() {
    if !can_mount("a_clock_that_is_wrong_by_hours_does_no_harm") {
        return;
    }
    for hours in [-5i64, 5] {
        let c = Cluster::new();
        let guest = c.guest_with_clock("small-1", hours);
        let m = c.mount();
        wait_for("the guest", || m.at(DIR).exists());
        m.write(&format!("{DIR}/run"), "fibonacci 1\n").unwrap();
        guest.finish(Ok(0), "1\n");
        wait_for("its end", || m.read(&format!("{DIR}/result")).contains("state done\n"));
        assert!(matches!(&guest.orders()[..], [GuestCommand::Run { .. }]));
        let heard = std::fs::metadata(m.at(&format!("{DIR}/status"))).unwrap().modified().unwrap();
        let off = std::time::SystemTime::now().duration_since(heard).unwrap_or_default();
        assert!(off.as_secs() < 3600, "times of files are ours: {off:?}");
        assert!(m.shell(&format!("cat {DIR}/top")).contains("COMMAND"));
    }
}
