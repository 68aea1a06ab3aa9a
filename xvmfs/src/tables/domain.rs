//! `domains/NAME`

use crate::row::{CTL, ERROR, EVENTS, KeyValues, Kind, Row, Scene, WAIT};
use crate::trouble;
use std::fmt::Write as _;
use xvm_model::command::{DOMAIN_VERBS, parse_groups, parse_pin, parse_priority};
use xvm_model::history::arrival;
use xvm_model::{DomainCommand, DomainView, Job, Order, Outcome, lifecycle};

/// Its files, in the order of the listing.
pub const ROWS: &[Row] = &[
    Row {
        name: "status",
        mode: 0o444,
        about: "all in brief, `key value` lines; reason, while something is wrong with it; age in seconds since it was heard of",
        kind: text(status),
    },
    Row {
        name: "state",
        mode: 0o444,
        about: "running, paused, incoming, shutoff, crashed; unknown while its server is down; conflict when two servers claim it",
        kind: text(state),
    },
    Row {
        name: "load",
        mode: 0o444,
        about: "share of its vCPUs that it used in the last second, 0.00 to 1.00",
        kind: text(load),
    },
    Row {
        name: "vcpus",
        mode: 0o444,
        about: "a line a vCPU: number, load 0.00 to 1.00, physical CPU or -",
        kind: text(vcpus),
    },
    Row {
        name: "memory",
        mode: 0o444,
        about: "`key value` lines in KiB: current, max, resident (- where the hypervisor does not tell)",
        kind: text(memory),
    },
    Row {
        name: "disk",
        mode: 0o444,
        about: "a line a disk: name, bytes read, bytes written, size in bytes or -",
        kind: text(disk),
    },
    Row {
        name: "net",
        mode: 0o444,
        about: "a line an interface: name, bytes received, bytes sent",
        kind: text(net),
    },
    Row {
        name: "server",
        mode: 0o444,
        about: "the server that it is on; all that claim it, in a conflict",
        kind: text(server),
    },
    Row {
        name: "config",
        mode: 0o444,
        about: "what it is made of, `key value` lines: uuid, vcpus, memory in KiB, disks, interfaces",
        kind: text(config),
    },
    Row { name: "json", mode: 0o444, about: "all that is known of it, for programs", kind: text(json) },
    Row {
        name: "priority",
        mode: 0o644,
        about: "0 to 100, 50 when nobody chose: the greater keeps the less loaded server",
        kind: Kind::Setting(priority, set_priority),
    },
    Row {
        name: "pin",
        mode: 0o644,
        about: "the servers where it may run, spaces between; none when it may run anywhere",
        kind: Kind::Setting(pin, set_pin),
    },
    Row {
        name: "with",
        mode: 0o644,
        about: "groups of domains that stay together on one server, spaces between; none when it is in no group",
        kind: Kind::Setting(with, set_with),
    },
    Row {
        name: "apart",
        mode: 0o644,
        about: "groups of domains that never come together on one server, spaces between; none when it is in no group",
        kind: Kind::Setting(apart, set_apart),
    },
    CTL,
    EVENTS,
    ERROR,
    WAIT,
    Row {
        name: "job",
        mode: 0o444,
        about: "the job that runs, `key value` lines: kind, phase, percent, to, since, id, note; none",
        kind: text(job),
    },
    Row {
        name: "history",
        mode: 0o444,
        about: "a line each five minutes since this mount hears of it, a day at most: time, mean load; and a comment line `# TIME moved FROM TO ROUND|- WHY` for each move",
        kind: text(history),
    },
    Row {
        name: "guest",
        mode: 0o755,
        about: "what guestd says from within the domain, and what it is told; there only while it is heard",
        kind: Kind::Guest,
    },
];

const fn text(render: fn(&Scene) -> String) -> Kind {
    Kind::Text(render)
}

/// What a function gives of the domain; nothing for another thing.
fn of(scene: &Scene, f: impl FnOnce(&DomainView) -> String) -> String {
    scene.domain().map(f).unwrap_or_default()
}

fn status(scene: &Scene) -> String {
    of(scene, |d| {
        let mut out = KeyValues::default();
        let record = &d.domain;
        out.put("name", &record.name);
        out.put("state", &d.shown);
        if d.shown.word() == "unknown" {
            out.put("last-state", &record.state);
        }
        if let Some(reason) = trouble::of(scene, d) {
            out.put("reason", &reason);
        }
        out.put("server", &server_names(d));
        match &record.fixed {
            Some(why) => out.put("moves", &format!("paused: {why}")),
            None => out.put("moves", &"live"),
        }
        out.put("load", &record.load);
        out.put("vcpus", &record.vcpus.len());
        out.put("memory", &record.memory.current);
        out.put("priority", &record.settings.priority);
        out.put("pin", &record.settings.pin);
        out.put("with", &record.settings.with);
        out.put("apart", &record.settings.apart);
        if let Some(came) = arrival(record, &d.server) {
            let round = came.round.as_deref().unwrap_or("-");
            out.put("came", &format!("{} {} {round} {}", came.from, came.at.rfc3339(), came.why));
        }
        out.put("job", &job_brief(d));
        out.put("age", &scene.age());
        out.text()
    })
}

fn server_names(d: &DomainView) -> String {
    if d.claimed_by.is_empty() {
        return d.server.to_string();
    }
    d.claimed_by.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ")
}

/// The job in a few words, for tables.
pub fn job_brief(d: &DomainView) -> String {
    match &d.domain.job {
        None => "none".into(),
        Some(j) => {
            let to = j.to.as_ref().map(|t| format!(" to {t}")).unwrap_or_default();
            format!("{}{to} {} %", j.kind, j.percent)
        }
    }
}

fn state(scene: &Scene) -> String {
    of(scene, |d| format!("{}\n", d.shown))
}

fn load(scene: &Scene) -> String {
    of(scene, |d| format!("{}\n", d.domain.load))
}

fn vcpus(scene: &Scene) -> String {
    of(scene, |d| {
        let mut out = String::new();
        for (i, v) in d.domain.vcpus.iter().enumerate() {
            let cpu = v.cpu.map_or("-".to_owned(), |c| c.to_string());
            writeln!(out, "{i} {} {cpu}", v.load).expect("a String takes all");
        }
        out
    })
}

fn or_dash(value: Option<u64>) -> String {
    value.map_or("-".to_owned(), |v| v.to_string())
}

fn memory(scene: &Scene) -> String {
    of(scene, |d| {
        let m = &d.domain.memory;
        format!("current {}\nmax {}\nresident {}\n", m.current, m.max, or_dash(m.resident))
    })
}

fn disk(scene: &Scene) -> String {
    of(scene, |d| {
        d.domain
            .disks
            .iter()
            .map(|k| format!("{} {} {} {}\n", k.name, k.read, k.written, or_dash(k.capacity)))
            .collect()
    })
}

fn net(scene: &Scene) -> String {
    of(scene, |d| d.domain.nics.iter().map(|n| format!("{} {} {}\n", n.name, n.received, n.sent)).collect())
}

fn server(scene: &Scene) -> String {
    of(scene, |d| server_names(d) + "\n")
}

fn config(scene: &Scene) -> String {
    of(scene, |d| {
        let r = &d.domain;
        let mut out = format!("uuid {}\nvcpus {}\nmemory {}\n", r.uuid, r.vcpus.len(), r.memory.max);
        for k in &r.disks {
            writeln!(out, "disk {} {}", k.name, or_dash(k.capacity)).expect("a String takes all");
        }
        for n in &r.nics {
            writeln!(out, "interface {}", n.name).expect("a String takes all");
        }
        out
    })
}

fn json(scene: &Scene) -> String {
    of(scene, |d| crate::json::pretty(&crate::json::domain(&scene.view, d, scene.now)))
}

fn priority(scene: &Scene) -> String {
    of(scene, |d| format!("{}\n", d.domain.settings.priority))
}

fn pin(scene: &Scene) -> String {
    of(scene, |d| format!("{}\n", d.domain.settings.pin))
}

fn with(scene: &Scene) -> String {
    of(scene, |d| format!("{}\n", d.domain.settings.with))
}

fn apart(scene: &Scene) -> String {
    of(scene, |d| format!("{}\n", d.domain.settings.apart))
}

fn order(scene: &Scene, command: DomainCommand) -> Result<Order, String> {
    let name = scene.domain().map(|d| d.domain.name.clone()).ok_or("there is no such domain")?;
    Ok(Order::Domain { name, command })
}

fn set_priority(scene: &Scene, text: &str) -> Result<Order, String> {
    order(scene, parse_priority(text)?)
}

fn set_pin(scene: &Scene, text: &str) -> Result<Order, String> {
    let command = parse_pin(text)?;
    if let DomainCommand::Pin { value } = &command
        && let Some(unknown) = value.0.iter().find(|s| scene.view.server(s.as_str()).is_none())
    {
        let known: Vec<&str> = scene.view.servers().take(20).map(|s| s.name.as_str()).collect();
        return Err(format!("there is no server {unknown}; servers are {}", known.join(", ")));
    }
    order(scene, command)
}

fn set_with(scene: &Scene, text: &str) -> Result<Order, String> {
    order(scene, DomainCommand::With { value: parse_groups(text)? })
}

fn set_apart(scene: &Scene, text: &str) -> Result<Order, String> {
    order(scene, DomainCommand::Apart { value: parse_groups(text)? })
}

fn job(scene: &Scene) -> String {
    of(scene, |d| job_lines(d.domain.job.as_deref()))
}

/// The text of a file `job`.
pub fn job_lines(job: Option<&Job>) -> String {
    let Some(j) = job else { return "none\n".into() };
    let to = j.to.as_ref().map_or("-", |t| t.as_str());
    let since = j.since.rfc3339();
    let mut out = format!(
        "kind {}\nphase {}\npercent {}\nto {to}\nsince {since}\nid {}\n",
        j.kind, j.phase, j.percent, j.id
    );
    if let Some(note) = &j.note {
        writeln!(out, "note {note}").expect("a String takes all");
    }
    out
}

fn history(scene: &Scene) -> String {
    of(scene, |d| scene.cluster.histories().domain_text(&d.domain.name))
}

/// How the last job ended: what `wait` prints.
pub fn outcome(d: &DomainView) -> String {
    outcome_line(d.last.as_deref())
}

/// An outcome as `wait` prints it.
pub fn outcome_line(last: Option<&Outcome>) -> String {
    match last {
        None => "no job has run\n".into(),
        Some(o) => match &o.result {
            Ok(text) => format!("done {}: {text}\n", o.kind),
            Err(f) => format!("failed {}: {} {}\n", o.kind, f.code, f.text),
        },
    }
}

/// The commands with their usage, and what is allowed now: what reading `ctl` gives.
pub fn help(scene: &Scene) -> String {
    of(scene, |d| {
        let mut out = super::cluster::usage(DOMAIN_VERBS);
        let words: Vec<&str> = lifecycle::allowed(d.domain.state, d.domain.job.as_deref())
            .into_iter()
            .map(|w| w.word())
            .collect();
        let job = job_brief(d);
        writeln!(out, "# state {}, job {job}; allowed now: {}", d.shown, words.join(" "))
            .expect("a String takes all");
        out
    })
}
