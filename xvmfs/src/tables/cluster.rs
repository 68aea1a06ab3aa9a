//! The root of the mount.

use crate::row::{CTL, ERROR, Kind, Row, Scene, seconds};
use std::fmt::Write as _;
use xvm_model::command::{CLUSTER_VERBS, Verb};
use xvm_model::guest::command::GUEST_VERBS;
use xvm_model::images::CONFIG_VERBS;
use xvm_model::schedule::SCHEDULE_VERBS;
use xvm_model::{Reach, ServerName, config::Address};

/// Its files, in the order of the listing.
pub const ROWS: &[Row] = &[
    Row {
        name: "README",
        mode: 0o444,
        about: "this tree: every file with one line about it",
        kind: Kind::Text(readme),
    },
    Row {
        name: "status",
        mode: 0o444,
        about: "the cluster for people: its bus, whether servers help each other, imaged, and tables of servers, domains and configs",
        kind: Kind::Text(status),
    },
    CTL,
    Row {
        name: "events",
        mode: 0o444,
        about: "blocks; a line an event of the whole cluster from the moment of opening",
        kind: Kind::Events,
    },
    ERROR,
    Row {
        name: "metrics",
        mode: 0o444,
        about: "counters and gauges of the cluster, its bus and this mount, in Prometheus' text format",
        kind: Kind::Text(crate::metrics::text),
    },
    Row {
        name: "hosts",
        mode: 0o444,
        about: "a line `ADDRESS NAME` for each config with an address of its own, as in hosts(5); for dnsmasq's addn-hosts",
        kind: Kind::Text(hosts),
    },
    Row {
        name: "help",
        mode: 0o755,
        about: "a directory for each round in which a server asked the others for help, named SERVER.BOOT.NUMBER; the last 16 of each server",
        kind: Kind::Help,
    },
    Row { name: "servers", mode: 0o755, about: "a directory for each physical machine", kind: Kind::Servers },
    Row { name: "domains", mode: 0o755, about: "a directory for each virtual machine", kind: Kind::Domains },
    Row {
        name: "configs",
        mode: 0o755,
        about: "a directory for each definition of a virtual machine; mkdir makes one with the site's defaults, rmdir removes one that does not run",
        kind: Kind::Configs,
    },
    Row {
        name: "tests",
        mode: 0o755,
        about: "a directory for each schedule of tests that guests run; mkdir makes one, rmdir removes one whose tests do not run; each mount has its own",
        kind: Kind::Tests,
    },
];

/// The tables in words, for README and the manual page: directory as it is written, and its rows.
pub const DIRECTORIES: &[(&str, &[Row])] = &[
    ("", ROWS),
    ("servers/NAME", super::server::ROWS),
    ("domains/NAME", super::domain::ROWS),
    ("domains/NAME/guest", super::guest::ROWS),
    ("help/ROUND", super::round::ROWS),
    ("configs/NAME", super::config::ROWS),
    ("tests/NAME", super::test::ROWS),
];

/// More domains than this are counted in `status`, not listed.
const LISTED: usize = 200;

fn readme(_: &Scene) -> String {
    let mut out = String::from(
        "The virtual machines of a cluster as files. Read a file to see, write a line to a ctl file to act.\n\
         A refused write leaves its reason in the file `error` of the same directory.\n",
    );
    for (directory, rows) in DIRECTORIES {
        writeln!(out, "\n{}", if directory.is_empty() { "." } else { directory })
            .expect("a String takes all");
        for row in *rows {
            let slash = if row.kind.is_dir() { "/" } else { "" };
            let write = if row.kind.is_writable() { "rw" } else { "r-" };
            writeln!(out, "  {:<11} {write}  {}", format!("{}{slash}", row.name), row.about)
                .expect("a String takes all");
        }
    }
    for (path, text) in [
        ("ctl", usage(CLUSTER_VERBS)),
        ("servers/NAME/ctl", usage(xvm_model::command::SERVER_VERBS)),
        ("domains/NAME/ctl", usage(xvm_model::command::DOMAIN_VERBS)),
        ("domains/NAME/guest/ctl", usage(GUEST_VERBS)),
        ("configs/NAME/ctl", usage(CONFIG_VERBS)),
        ("tests/NAME/ctl", usage(SCHEDULE_VERBS)),
    ] {
        write!(out, "\ncommands of {path}\n{text}").expect("a String takes all");
    }
    out
}

fn status(scene: &Scene) -> String {
    let mut out = String::new();
    let (view, now) = (&scene.view, scene.now.mono);
    let up = view.servers().filter(|s| matches!(view.reach(s, now), Reach::Up | Reach::Maintenance)).count();
    let bus = scene.cluster.bus_sentence();
    let (servers, domains) = (view.server_count(), view.domain_count());
    let mut line = |text: String| writeln!(out, "{text}").expect("a String takes all");
    let guests = match view.guest_count() {
        0 => String::new(),
        n => format!(", {n} guests"),
    };
    line(format!(
        "xvm {}: {servers} servers ({up} up), {domains} domains{guests}",
        env!("CARGO_PKG_VERSION")
    ));
    line(bus);
    line(balance(scene));
    images(scene).into_iter().for_each(&mut line);
    line(String::new());
    let width = name_width(view.servers().map(|s| s.name.as_str()));
    line(format!(
        "{:<width$} {:<11} {:>4} {:>4} {:>8} {:>8} {:>7} {:>6}",
        "SERVER", "STATE", "LOAD", "CPUS", "MEM MiB", "FREE", "DOMAINS", "AGE"
    ));
    for s in view.servers() {
        let (beat, reach) = (&s.beat, view.reach(s, now));
        let (total, free) = (beat.memory.total / 1024, beat.memory.free / 1024);
        let n = view.domains_of(s, now).count();
        let age = seconds(now.since(s.heard.mono));
        let (name, load, cpus) = (&s.name, beat.load(), beat.cpus.len());
        line(format!("{name:<width$} {reach:<11} {load:>4} {cpus:>4} {total:>8} {free:>8} {n:>7} {age:>6}"));
    }
    line(String::new());
    if domains > LISTED {
        line(format!("{domains} domains: see domains/"));
        return out + &configs(scene);
    }
    let width = name_width(view.domain_names().map(|n| n.as_str()));
    let on = name_width(view.servers().map(|s| s.name.as_str()));
    line(format!(
        "{:<width$} {:<8} {:<on$} {:>4} {:>5} {:>8} {}",
        "DOMAIN", "STATE", "SERVER", "LOAD", "VCPUS", "MEM MiB", "JOB"
    ));
    for name in view.domain_names() {
        let Some(d) = view.domain(name.as_str(), now) else { continue };
        let (record, job) = (&d.domain, super::domain::job_brief(&d));
        let (server, load, vcpus): (&ServerName, _, _) = (&d.server, record.load, record.vcpus.len());
        let (shown, memory) = (d.shown, record.memory.current / 1024);
        line(format!("{name:<width$} {shown:<8} {server:<on$} {load:>4} {vcpus:>5} {memory:>8} {job}"));
    }
    out + &configs(scene)
}

/// `kerby up`, `none was heard`.
pub fn imaged_brief(scene: &Scene) -> String {
    scene.view.images().map_or("none was heard".into(), |i| {
        format!("{} {}", i.name, scene.view.images_reach(i, scene.now.mono))
    })
}

/// What is said of imaged: nothing when none was ever heard.
fn images(scene: &Scene) -> Vec<String> {
    let Some(images) = scene.view.images() else { return Vec::new() };
    let store = &images.said.store;
    let (each, unit) = if store.total < 10 << 10 { (1, "MiB") } else { (1 << 10, "GiB") };
    let (free, total) = (store.free / each, store.total / each);
    let mut lines = vec![
        format!("images {}, {} store, {free} of {total} {unit} free", imaged_brief(scene), store.kind)
            .replace(char::is_control, " "),
    ];
    for removed in &images.said.removed {
        lines.push(format!("removed {}, restorable until {}", removed.name, removed.until.rfc3339()));
    }
    lines
}

/// The table of configs, after an empty line; nothing when no imaged was ever heard.
fn configs(scene: &Scene) -> String {
    let (view, n) = (&scene.view, scene.view.config_count());
    if view.images().is_none() {
        return String::new();
    }
    if n > LISTED {
        return format!("\n{n} configs: see configs/\n");
    }
    let width = name_width(view.configs().map(|c| c.record.name.as_str()));
    let system = name_width(view.configs().map(|c| c.record.config.os.as_str()));
    let on = name_width(view.servers().map(|s| s.name.as_str()));
    let mut out = format!(
        "\n{:<width$} {:<8} {:<system$} {:>8} {:>8} {:<on$} {}\n",
        "CONFIG", "STATE", "OS", "MEM MiB", "DISK MiB", "SERVER", "JOB"
    );
    for c in view.configs() {
        let (r, job) = (&c.record, super::config::job_brief(&c.record));
        let (name, state, os, memory, disk) =
            (&r.name, r.state, &r.config.os, r.config.memory, r.config.disk);
        let server = r.holder().map_or("-", |l| l.grant.server.as_str());
        writeln!(out, "{name:<width$} {state:<8} {os:<system$} {memory:>8} {disk:>8} {server:<on$} {job}")
            .expect("a String takes all");
    }
    out
}

fn hosts(scene: &Scene) -> String {
    let line = |c: &xvm_model::ConfigRecord| match c.config.address {
        Address::Static { ip, .. } => Some(format!("{ip} {}\n", c.name)),
        Address::None | Address::Dhcp => None,
    };
    scene.view.configs().filter_map(|c| line(&c.record)).collect()
}

/// `balance on`, with the servers of which another word was heard last.
fn balance(scene: &Scene) -> String {
    let mode = scene.view.balance().mode;
    let behind = scene.view.servers().filter(|s| s.beat.settings.balance.mode != mode);
    let behind: Vec<String> =
        behind.map(|s| format!("{} {}", s.name, s.beat.settings.balance.mode)).collect();
    match &behind[..] {
        [] => format!("balance {mode}"),
        [..] => format!("balance {mode} (not known yet to all: {})", behind.join(", ")),
    }
}

fn name_width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|n| n.chars().count()).max().unwrap_or(0).clamp(8, 40)
}

/// A line a command: usage, then what it does.
pub fn usage<C>(verbs: &[Verb<C>]) -> String {
    verbs.iter().map(|v| format!("{:<24} {}\n", v.usage(), v.about)).collect()
}

/// What reading `ctl` gives.
pub fn help(scene: &Scene) -> String {
    format!("{}# {}; {}\n", usage(CLUSTER_VERBS), balance(scene), scene.cluster.bus_sentence())
}
