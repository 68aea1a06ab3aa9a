//! `tests/NAME`

use crate::row::{CTL, ERROR, KeyValues, Kind, Row, Scene};
use crate::schedules::{Entry, driver};
use xvm_model::schedule::play::{Play, TaskState};
use xvm_model::schedule::{SCHEDULE_VERBS, table};

/// Its files, in the order of the listing.
pub const ROWS: &[Row] = &[
    Row {
        name: "schedule",
        mode: 0o644,
        about: "what is to run, a line a test: AT DOMAIN TEST [ARG]...; AT in seconds from the start with one decimal at most, DOMAIN a name or a pattern (*, ?, [...]) of domains with guestd; lines that begin with # say nothing; 64 KiB and 1000 lines at most",
        kind: Kind::Schedule(|scene| of(scene, |e| text(&e.text))),
    },
    Row {
        name: "status",
        mode: 0o444,
        about: "all in brief, `key value` lines: name; state (idle, running, done, cancelled, interrupted when the mount ended meanwhile); lines of its schedule; then the tests of the last time by their state",
        kind: Kind::Text(|scene| of(scene, status)),
    },
    Row {
        name: "results",
        mode: 0o444,
        about: "what ran, a line a test under a header: AT, when it was ordered, domain, server (FROM>TO when it moved), state (waiting, ordered, running, done, failed, cancelled, unknown), exit status, wall and CPU time as the guest measured them, total time from AT to the end, all in seconds, the test, and after # why it has no exit status",
        kind: Kind::Text(|scene| played(scene, table::results)),
    },
    Row {
        name: "summary",
        mode: 0o444,
        about: "the whole in brief: state, start, how long it took, whether servers helped each other, how many domains moved, counts; then a line for each test and one for all: how many, how many done, least, median and greatest wall time, median CPU and total time, in seconds",
        kind: Kind::Text(|scene| played(scene, table::summary)),
    },
    CTL,
    ERROR,
    Row {
        name: "wait",
        mode: 0o444,
        about: "blocks until no test of it runs or waits, then tells how it ended; empty when it was never started",
        kind: Kind::Wait,
    },
    Row {
        name: "json",
        mode: 0o444,
        about: "all that is known of it, for programs; times in milliseconds",
        kind: Kind::Text(json),
    },
];

/// What a function gives of the schedule; nothing for another thing.
fn of(scene: &Scene, f: impl FnOnce(&Entry) -> String) -> String {
    scene.test().map(f).unwrap_or_default()
}

/// The same of the last time that it was carried out; nothing before.
fn played(scene: &Scene, f: fn(&Play) -> String) -> String {
    of(scene, |e| e.play.as_deref().map(f).unwrap_or_default())
}

fn text(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.into() } else { format!("{text}\n") }
}

fn status(entry: &Entry) -> String {
    let mut out = KeyValues::default();
    out.put("name", &entry.name);
    out.put("state", &entry.play.as_ref().map_or("idle", |p| p.state.word()));
    let says = |l: &&str| !l.trim().is_empty() && !l.trim().starts_with('#');
    out.put("lines", &entry.text.lines().filter(says).count());
    let tasks = entry.play.as_ref().map(|p| &p.tasks[..]).unwrap_or_default();
    for state in TaskState::ALL {
        out.put(state.word(), &tasks.iter().filter(|t| t.state == *state).count());
    }
    out.text()
}

fn json(scene: &Scene) -> String {
    of(scene, |e| {
        crate::json::pretty(&serde_json::json!({ "name": e.name, "schedule": *e.text, "play": e.play }))
    })
}

/// What `wait` prints; none while tests run.
pub fn outcome(entry: &Entry) -> Option<String> {
    match &entry.play {
        Some(play) if play.is_running() => None,
        Some(play) => Some(format!("{}\n", driver::outcome(play))),
        None => Some(String::new()),
    }
}

/// The commands with their usage, and what it does now: what reading `ctl` gives.
pub fn help(scene: &Scene) -> String {
    of(scene, |e| {
        let now = e.play.as_ref().map_or("was never started".into(), |p| driver::outcome(p));
        format!("{}# {now}\n", super::cluster::usage(SCHEDULE_VERBS))
    })
}
