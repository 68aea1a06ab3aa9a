//! `domains/NAME/guest`: what guestd says from within the domain. It is not trusted, so what it says is shown without characters that
//! control a terminal or begin a line.

use crate::row::{CTL, ERROR, KeyValues, Kind, Row, Scene};
use std::fmt::Write as _;
use xvm_model::guest::command::{GUEST_VERBS, parse_run};
use xvm_model::{DomainName, Guest, Ratio, Run, RunState, Top, Wall};

/// Its files, in the order of the listing.
pub const ROWS: &[Row] = &[
    Row {
        name: "status",
        mode: 0o444,
        about: "all in brief, `key value` lines: name; state (up, or stale when three heartbeats are missing); signed (yes: with the key that imaged made for it; no: whoever reaches the bus could have said it); version; uptime in seconds; cpus; load and steal (shares of them, 0.00 to 1.00); average (load averages over 1, 5 and 15 minutes); pressure-cpu, pressure-memory, pressure-io (share of the last 10 s in which something waited, - where its kernel does not tell); memory, memory-available, swap, swap-free in KiB; loading (`80 % for 42 s more`, or none); tests that it can run, or none; age in seconds since it was heard",
        kind: Kind::Text(status),
    },
    Row {
        name: "load",
        mode: 0o444,
        about: "share of its CPUs that it used since its last heartbeat, as it sees it, 0.00 to 1.00",
        kind: Kind::Text(load),
    },
    Row {
        name: "top",
        mode: 0o444,
        about: "its processes, the busiest first: time, load 0.00 to 1.00, CPUs and number of processes, then a table with CPU in CPUs since the last time, MEM in KiB, TIME in seconds of CPU; asked for while it is read, a snapshot each second; follow with `tail -n +1 -f`",
        kind: Kind::Top,
    },
    Row {
        name: "run",
        mode: 0o644,
        about: "write a test with its arguments, one a line, to run it after those that wait; reading gives a line `test NAME` for each that it can run, then `running LINE` and `waiting LINE` for those that were ordered",
        kind: Kind::Lines(run, parse_run),
    },
    Row {
        name: "result",
        mode: 0o444,
        about: "blocks until no test runs or waits, then tells of the last one, `key value` lines: test; state (done, failed, cancelled); status, its exit status or -; wall and cpu in seconds; server, where the domain is now; why, when it has no status; then an empty line and the end of its output, 4096 bytes at most; empty when none ran; state unknown when the guest was lost meanwhile",
        kind: Kind::Wait,
    },
    Row {
        name: "results",
        mode: 0o444,
        about: "a line a test, the latest last, 32 at most: when it began by the guest's clock, state (waiting, running, done, failed, cancelled), exit status or -, wall and CPU time in seconds, the test with its arguments",
        kind: Kind::Text(results),
    },
    CTL,
    ERROR,
    Row {
        name: "json",
        mode: 0o444,
        about: "all that is known of it but its processes, for programs",
        kind: Kind::Text(json),
    },
];

/// What a function gives of the guest; nothing for another thing.
fn of(scene: &Scene, f: impl FnOnce(&DomainName, &Guest) -> String) -> String {
    scene.guest().map(|(name, guest)| f(name, guest)).unwrap_or_default()
}

fn status(scene: &Scene) -> String {
    of(scene, |name, g| {
        let (beat, mut out) = (&*g.beat, KeyValues::default());
        out.put("name", name);
        out.put("state", &scene.view.guest_reach(g, scene.now.mono));
        let signed = scene.view.guest_key(name.as_str()).is_some();
        out.put("signed", &if signed { "yes" } else { "no" });
        out.put("version", &beat.version);
        out.put("uptime", &beat.uptime);
        out.put("cpus", &beat.cpus);
        out.put("load", &beat.load);
        out.put("steal", &beat.steal);
        out.put("average", &beat.average.map(hundredths).join(" "));
        let pressure = |share: Option<Ratio>| share.map_or("-".into(), |s| s.to_string());
        out.put("pressure-cpu", &pressure(beat.pressure.map(|p| p.cpu)));
        out.put("pressure-memory", &pressure(beat.pressure.map(|p| p.memory)));
        out.put("pressure-io", &pressure(beat.pressure.map(|p| p.io)));
        out.put("memory", &beat.memory.total);
        out.put("memory-available", &beat.memory.available);
        out.put("swap", &beat.memory.swap);
        out.put("swap-free", &beat.memory.swap_free);
        let loading = beat.loading.map(|l| format!("{} % for {} s more", l.share.percent(), l.left));
        out.put("loading", &loading.as_deref().unwrap_or("none"));
        out.put("tests", &if beat.tests.is_empty() { "none".into() } else { beat.tests.join(" ") });
        out.put("age", &scene.age());
        out.text()
    })
}

fn load(scene: &Scene) -> String {
    of(scene, |_, g| format!("{}\n", g.beat.load))
}

/// Its processes as the file `top` shows them; `at` is when they were heard.
pub fn top(top: &Top, at: Wall) -> String {
    let (at, load, cpus, total) = (at.rfc3339(), top.load, top.cpus, top.total);
    let mut out = format!("{at} load {load} of {cpus} CPUs, {total} processes\n");
    let width = top.processes.iter().map(|p| p.user.chars().count()).max().unwrap_or(0).clamp(4, 16);
    let line = |out: &mut String, [pid, user, cpu, mem, time, command]: [&str; 6]| {
        writeln!(out, "{pid:>7} {user:<width$} {cpu:>5} {mem:>9} {time:>9} {command}")
            .expect("a String takes all");
    };
    line(&mut out, ["PID", "USER", "CPU", "MEM", "TIME", "COMMAND"]);
    for p in &top.processes {
        let (pid, memory, time) = (p.pid.to_string(), p.memory.to_string(), p.time_ms / 10);
        let (cpu, time) = (hundredths(p.cpu), format!("{}.{:02}", time / 100, time % 100));
        line(&mut out, [&pid, &plain(&p.user), &cpu, &memory, &time, &plain(&p.command)]);
    }
    out
}

fn run(scene: &Scene) -> String {
    of(scene, |_, g| {
        let tests = g.beat.tests.iter().map(|t| format!("test {}\n", plain(t)));
        let ordered = g.runs.runs.iter().filter(|r| !r.state.is_over());
        tests.chain(ordered.map(|r| format!("{} {}\n", r.state, plain(&r.line)))).collect()
    })
}

/// What `result` gives; none while a test runs or waits.
pub fn result(scene: &Scene, name: &DomainName, g: &Guest) -> Option<String> {
    if !g.runs.is_idle() {
        return None;
    }
    let Some(run) = g.runs.last() else { return Some(String::new()) };
    let mut out = KeyValues::default();
    out.put("test", &run.line);
    out.put("state", &run.state);
    out.put("status", &exit(run));
    out.put("wall", &thousandths(run.wall_ms));
    out.put("cpu", &thousandths(run.cpu_ms));
    let domain = scene.view.domain(name.as_str(), scene.now.mono);
    out.put("server", &domain.map_or("-".into(), |d| d.server.to_string()));
    if let Some(why) = &run.why {
        out.put("why", why);
    }
    let end = if run.output.is_empty() || run.output.ends_with('\n') { "" } else { "\n" };
    Some(format!("{}\n{}{end}", out.text(), shown(&run.output)))
}

/// What `result` gives who waited for a test whose end nobody knows.
pub fn lost(name: &DomainName) -> String {
    format!("state unknown\nwhy guestd in {name} was started anew, or is not heard any more\n")
}

fn results(scene: &Scene) -> String {
    let line = |r: &Run| {
        let (at, state, wall, cpu) = (r.at.rfc3339(), r.state, thousandths(r.wall_ms), thousandths(r.cpu_ms));
        format!("{at} {state} {} {wall} {cpu} {}\n", exit(r), plain(&r.line))
    };
    of(scene, |_, g| g.runs.runs.iter().map(line).collect())
}

fn json(scene: &Scene) -> String {
    of(scene, |_, g| crate::json::pretty(&crate::json::guest(&scene.view, g, scene.now)))
}

/// The commands with their usage, and what it does now: what reading `ctl` gives.
pub fn help(scene: &Scene) -> String {
    of(scene, |_, g| {
        let state = scene.view.guest_reach(g, scene.now.mono);
        let running = g.runs.runs.iter().find(|r| r.state == RunState::Running);
        let running = running.map_or("nothing".into(), |r| plain(&r.line));
        let waiting = g.runs.runs.iter().filter(|r| r.state == RunState::Waiting).count();
        let usage = super::cluster::usage(GUEST_VERBS);
        format!("{usage}# state {state}; runs {running}; {waiting} wait\n")
    })
}

fn exit(run: &Run) -> String {
    run.status.map_or("-".into(), |s| s.to_string())
}

/// Hundredths as a number with two decimals.
fn hundredths(n: u32) -> String {
    format!("{}.{:02}", n / 100, n % 100)
}

/// Milliseconds as seconds with three decimals.
fn thousandths(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// A guest's words within a line.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A guest's lines.
fn shown(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xvm_model::guest::Process;

    fn process(user: &str, cpu: u32, command: &str) -> Process {
        Process { pid: 1, user: user.into(), cpu, memory: 2048, time_ms: 12_345, command: command.into() }
    }

    #[test]
    fn processes_are_a_table() {
        let t = Top {
            at: Wall(0),
            cpus: 2,
            load: Ratio::new(0.75),
            total: 87,
            processes: vec![process("root", 150, "burn cpu"), process("www-data", 5, "[kworker]")],
        };
        let want = "1970-01-01T00:00:00.007Z load 0.75 of 2 CPUs, 87 processes\n    \
                    PID USER       CPU       MEM      TIME COMMAND\n      \
                    1 root      1.50      2048     12.34 burn cpu\n      \
                    1 www-data  0.05      2048     12.34 [kworker]\n";
        assert_eq!(top(&t, Wall(7)), want);
    }

    proptest! {
        /// Whatever a guest says, each process is one line and no terminal is controlled.
        #[test]
        fn a_process_is_one_line(texts in prop::collection::vec((any::<String>(), any::<String>()), 0..5)) {
            let processes: Vec<_> = texts.iter().map(|(u, c)| process(u, u32::MAX, c)).collect();
            let n = processes.len();
            let text = top(&Top { at: Wall(0), cpus: 0, load: Ratio::ONE, total: 0, processes }, Wall(u64::MAX));
            prop_assert_eq!(text.matches('\n').count(), n + 2);
            prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
        }
    }
}
