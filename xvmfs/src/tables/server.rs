//! `servers/NAME`

use super::domain::{job_lines, outcome_line};
use crate::row::{CTL, ERROR, KeyValues, Kind, Row, Scene};
use std::fmt::Write as _;
use xvm_model::command::{
    SERVER_VERBS, parse_accepting, parse_even, parse_heartbeat, parse_policy, parse_watchdog,
};
use xvm_model::event::word;
use xvm_model::{Order, Server, ServerCommand};

/// Its files, in the order of the listing.
pub const ROWS: &[Row] = &[
    Row {
        name: "status",
        mode: 0o444,
        about: "all in brief, `key value` lines; memory in KiB, age in seconds since it was heard",
        kind: Kind::Text(status),
    },
    Row {
        name: "load",
        mode: 0o444,
        about: "mean load of all CPUs over the last second, 0.00 to 1.00",
        kind: Kind::Text(load),
    },
    Row {
        name: "cpus",
        mode: 0o444,
        about: "a line a physical CPU: number, load 0.00 to 1.00, then DOMAIN/VCPU of each vCPU that ran there last",
        kind: Kind::Text(cpus),
    },
    Row {
        name: "memory",
        mode: 0o444,
        about: "`key value` lines in KiB: total, free",
        kind: Kind::Text(memory),
    },
    Row {
        name: "state",
        mode: 0o444,
        about: "up, stale (3 heartbeats missed, or its hypervisor does not answer), down (10 missed), maintenance (accepts no domains)",
        kind: Kind::Text(state),
    },
    Row { name: "json", mode: 0o444, about: "all that is known of it, for programs", kind: Kind::Text(json) },
    Row {
        name: "heartbeat",
        mode: 0o644,
        about: "seconds between two heartbeats, 0.1 to 60",
        kind: Kind::Setting(heartbeat, set_heartbeat),
    },
    Row {
        name: "accepting",
        mode: 0o644,
        about: "on or off: whether it takes domains from other servers",
        kind: Kind::Setting(accepting, set_accepting),
    },
    Row {
        name: "watchdog",
        mode: 0o644,
        about: "the overload counter, `key value` lines: points (now), threshold (0.00 to 1.00), limit (points), unit (seconds)",
        kind: Kind::Setting(watchdog, set_watchdog),
    },
    Row {
        name: "policy",
        mode: 0o644,
        about: "the rule by which it asks for help and offers it: points or adaptive, see xvm-policy(7)",
        kind: Kind::Setting(policy, set_policy),
    },
    Row {
        name: "even",
        mode: 0o644,
        about: "on or off: whether the policy adaptive also evens out load that overloads nobody",
        kind: Kind::Setting(even, set_even),
    },
    Row {
        name: "domains",
        mode: 0o755,
        about: "a link to each domain that is on it; a rename into another server's `domains` is a live migration",
        kind: Kind::Links,
    },
    CTL,
    Row {
        name: "events",
        mode: 0o444,
        about: "blocks; a line an event of it and its domains from the moment of opening",
        kind: Kind::Events,
    },
    ERROR,
    Row {
        name: "wait",
        mode: 0o444,
        about: "blocks until no job of it or of any of its domains runs, then tells how its own last job ended, and the last of each domain",
        kind: Kind::Wait,
    },
    Row {
        name: "job",
        mode: 0o444,
        about: "its own job (evacuate, restore), `key value` lines: kind, phase, percent, to, since, id, note; none",
        kind: Kind::Text(job),
    },
    Row {
        name: "history",
        mode: 0o444,
        about: "a line each five minutes since this mount hears of it, a day at most: time, mean load; and a comment line `# TIME moved DOMAIN FROM TO ROUND|- WHY` for each domain that came or went",
        kind: Kind::Text(history),
    },
];

fn of(scene: &Scene, f: impl FnOnce(&Server) -> String) -> String {
    scene.server().map(f).unwrap_or_default()
}

fn status(scene: &Scene) -> String {
    of(scene, |s| {
        let mut out = KeyValues::default();
        let b = &s.beat;
        out.put("name", &s.name);
        out.put("state", &scene.view.reach(s, scene.now.mono));
        if let Some(why) = &b.stale {
            out.put("reason", why);
        }
        out.put("hypervisor", &b.hypervisor);
        if let Some(cpu) = &b.cpu {
            out.put("cpu", cpu);
        }
        out.put("address", &b.address);
        out.put("load", &b.load());
        out.put("cpus", &b.cpus.len());
        out.put("memory-total", &b.memory.total);
        out.put("memory-free", &b.memory.free);
        out.put("domains", &scene.view.domains_of(s, scene.now.mono).count());
        out.put("accepting", &on_off(b.settings.accepting));
        out.put("policy", &b.settings.policy);
        out.put("points", &b.points);
        out.put("balance", &b.settings.balance.mode);
        out.put("job", &own_job(s));
        out.put("heartbeat", &heartbeat_text(s));
        out.put("age", &scene.age());
        out.text()
    })
}

fn load(scene: &Scene) -> String {
    of(scene, |s| format!("{}\n", s.beat.load()))
}

fn cpus(scene: &Scene) -> String {
    of(scene, |s| {
        let mut lines: Vec<String> =
            s.beat.cpus.iter().enumerate().map(|(i, load)| format!("{i} {load}")).collect();
        for domain in s.domains.iter().filter(|d| d.state.is_active()) {
            for (i, vcpu) in domain.vcpus.iter().enumerate() {
                if let Some(line) = vcpu.cpu.and_then(|c| lines.get_mut(usize::from(c))) {
                    write!(line, " {}/{i}", word(domain.name.as_str())).expect("a String takes all");
                }
            }
        }
        lines.into_iter().map(|l| l + "\n").collect()
    })
}

fn memory(scene: &Scene) -> String {
    of(scene, |s| format!("total {}\nfree {}\n", s.beat.memory.total, s.beat.memory.free))
}

fn state(scene: &Scene) -> String {
    of(scene, |s| format!("{}\n", scene.view.reach(s, scene.now.mono)))
}

fn json(scene: &Scene) -> String {
    of(scene, |s| crate::json::pretty(&crate::json::server(&scene.view, s, scene.now)))
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn heartbeat_text(s: &Server) -> String {
    (f64::from(s.beat.settings.heartbeat_ms) / 1e3).to_string()
}

fn heartbeat(scene: &Scene) -> String {
    of(scene, |s| heartbeat_text(s) + "\n")
}

fn accepting(scene: &Scene) -> String {
    of(scene, |s| format!("{}\n", on_off(s.beat.settings.accepting)))
}

fn watchdog(scene: &Scene) -> String {
    of(scene, |s| s.beat.settings.watchdog.text(s.beat.points))
}

fn policy(scene: &Scene) -> String {
    of(scene, |s| format!("{}\n", s.beat.settings.policy))
}

fn even(scene: &Scene) -> String {
    of(scene, |s| format!("{}\n", on_off(s.beat.settings.even)))
}

/// Its own job in a few words.
fn own_job(s: &Server) -> String {
    s.beat.job.as_ref().map_or("none".to_owned(), |j| format!("{} {} %", j.kind, j.percent))
}

fn job(scene: &Scene) -> String {
    of(scene, |s| job_lines(s.beat.job.as_deref()))
}

fn history(scene: &Scene) -> String {
    of(scene, |s| scene.cluster.histories().server_text(&s.name))
}

fn order(command: Result<ServerCommand, String>) -> Result<Order, String> {
    command.map(|command| Order::Server { command })
}

fn set_heartbeat(_: &Scene, text: &str) -> Result<Order, String> {
    order(parse_heartbeat(text))
}

fn set_accepting(_: &Scene, text: &str) -> Result<Order, String> {
    order(parse_accepting(text))
}

fn set_watchdog(_: &Scene, text: &str) -> Result<Order, String> {
    order(parse_watchdog(text))
}

fn set_policy(_: &Scene, text: &str) -> Result<Order, String> {
    order(parse_policy(text))
}

fn set_even(_: &Scene, text: &str) -> Result<Order, String> {
    order(parse_even(text))
}

/// Whether no job of it or of its domains runs.
pub fn is_idle(scene: &Scene, server: &Server) -> bool {
    server.beat.job.is_none() && jobs(scene, server).is_empty()
}

/// The domains on which a job runs.
fn jobs(scene: &Scene, server: &Server) -> Vec<String> {
    let on = scene.view.domains_of(server, scene.now.mono);
    let with_job = on.filter(|n| server.domain(n).is_some_and(|d| d.job.is_some()));
    with_job.map(|n| n.to_string()).collect()
}

/// How its own last job ended, then that of each domain: what `wait` prints.
pub fn outcomes(scene: &Scene, server: &Server) -> String {
    let mut out = server.last().map(|last| outcome_line(Some(last))).unwrap_or_default();
    for name in scene.view.domains_of(server, scene.now.mono) {
        if let Some(d) = scene.view.domain(name.as_str(), scene.now.mono).filter(|d| d.last.is_some()) {
            write!(out, "{} {}", word(name.as_str()), super::domain::outcome(&d))
                .expect("a String takes all");
        }
    }
    if out.is_empty() { "no job has run\n".into() } else { out }
}

/// The commands with their usage, and the state: what reading `ctl` gives.
pub fn help(scene: &Scene) -> String {
    of(scene, |s| {
        let mut out = super::cluster::usage(SERVER_VERBS);
        let jobs = jobs(scene, s);
        let jobs = if jobs.is_empty() { "none".to_owned() } else { jobs.join(" ") };
        let reach = scene.view.reach(s, scene.now.mono);
        writeln!(out, "# state {reach}, job {}, jobs of domains {jobs}", own_job(s))
            .expect("a String takes all");
        out
    })
}
