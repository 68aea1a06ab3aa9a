//! `configs/NAME`. The settings are those of [`SETTINGS`], a row each, so a new one is a row there.

use super::domain::outcome_line;
use crate::row::{CTL, ERROR, EVENTS, KeyValues, Kind, Row, Scene, WAIT};
use std::fmt::Write as _;
use xvm_model::config::{render, settings::SETTINGS};
use xvm_model::images::CONFIG_VERBS;
use xvm_model::{ConfigRecord, ConfigState, ConfigView, HypervisorKind};

/// Before the settings.
const FIRST: &[Row] = &[
    Row {
        name: "status",
        mode: 0o444,
        about: "all in brief, `key value` lines; sizes in MiB, age in seconds since imaged was heard",
        kind: Kind::Text(status),
    },
    Row {
        name: "state",
        mode: 0o444,
        about: "creating, failed (rebuild begins anew), invalid (its file does not read), ready, running, lost (its server is down)",
        kind: Kind::Text(state),
    },
    Row {
        name: "progress",
        mode: 0o444,
        about: "how far its job is, `key value` lines: percent, stage (none when no job runs), remaining in seconds or -",
        kind: Kind::Text(progress),
    },
    Row {
        name: "log",
        mode: 0o444,
        about: "what building it printed; grows while that goes on, so tail -f follows it; read from imaged on demand",
        kind: Kind::Log,
    },
    Row { name: "json", mode: 0o444, about: "all that is known of it, for programs", kind: Kind::Text(json) },
];

/// After the settings.
const LAST: &[Row] = &[
    Row {
        name: "libvirt.xml",
        mode: 0o444,
        about: "its domain as libvirt takes it, with the exports of its lease; without a lease a comment says so",
        kind: Kind::Text(libvirt_xml),
    },
    Row { name: "xl.cfg", mode: 0o444, about: "the same as Xen's xl takes it", kind: Kind::Text(xl_cfg) },
    CTL,
    EVENTS,
    ERROR,
    WAIT,
];

const LEN: usize = FIRST.len() + SETTINGS.len() + LAST.len();

const fn rows() -> [Row; LEN] {
    let mut rows = [CTL; LEN];
    let mut i = 0;
    while i < LEN {
        rows[i] = if i < FIRST.len() {
            FIRST[i]
        } else if i < FIRST.len() + SETTINGS.len() {
            let setting = &SETTINGS[i - FIRST.len()];
            Row { name: setting.key, mode: 0o644, about: setting.about, kind: Kind::Key(setting) }
        } else {
            LAST[i - FIRST.len() - SETTINGS.len()]
        };
        i += 1;
    }
    rows
}

const TABLE: [Row; LEN] = rows();

/// Its files, in the order of the listing.
pub const ROWS: &[Row] = &TABLE;

/// Settings whose value is several lines: all that one open file is given is one value.
pub const MANY_LINES: &[&str] = &["keys"];

/// What a function gives of the config; nothing for another thing.
fn of(scene: &Scene, f: impl FnOnce(&ConfigView) -> String) -> String {
    scene.config().map(f).unwrap_or_default()
}

fn status(scene: &Scene) -> String {
    of(scene, |view| {
        let mut out = KeyValues::default();
        let (r, c) = (&view.record, &view.record.config);
        out.put("name", &r.name);
        out.put("state", &r.state);
        out.put("os", &c.os);
        out.put("memory", &c.memory);
        out.put("vcpus", &c.vcpus);
        out.put("swap", &c.swap);
        out.put("disk", &c.disk);
        out.put("address", &c.address);
        out.put("vlan", &c.vlan.map_or("none".to_owned(), |v| v.to_string()));
        out.put("mac", &c.mac);
        out.put("uuid", &c.uuid);
        out.put("priority", &c.priority);
        out.put("pin", &c.pin);
        out.put("restart", &c.restart);
        out.put("type", &c.kind);
        out.put("owner", &format!("{} {} {:04o}", c.rights.uid, c.rights.gid, c.rights.mode & 0o777));
        out.put("lease", &lease_brief(r));
        out.put("job", &job_brief(r));
        out.put("wrong", &r.wrong.as_deref().unwrap_or("none"));
        out.put("imaged", &super::cluster::imaged_brief(scene));
        out.put("age", &scene.age());
        out.text()
    })
}

/// `ferby 7 held`, of a migration both: `ferby 7 held, gerby 8 arriving`.
fn lease_brief(record: &ConfigRecord) -> String {
    let leases = record.leases.iter().map(|l| format!("{} {} {}", l.grant.server, l.grant.epoch, l.phase));
    let leases: Vec<String> = leases.collect();
    if leases.is_empty() { "none".into() } else { leases.join(", ") }
}

/// The job in a few words, for tables.
pub fn job_brief(record: &ConfigRecord) -> String {
    record.job.as_ref().map_or("none".into(), |j| format!("{} {} %", j.kind, j.percent))
}

fn state(scene: &Scene) -> String {
    of(scene, |view| format!("{}\n", view.record.state))
}

fn progress(scene: &Scene) -> String {
    of(scene, |view| {
        let (r, mut out) = (&view.record, KeyValues::default());
        let made = matches!(r.state, ConfigState::Ready | ConfigState::Running | ConfigState::Lost);
        let idle = if made { 100 } else { 0 };
        out.put("percent", &r.job.as_ref().map_or(idle, |j| j.percent));
        out.put("stage", &r.job.as_ref().map_or("none", |j| &*j.phase));
        let remaining = r.remaining.filter(|_| r.job.is_some());
        out.put("remaining", &remaining.map_or("-".to_owned(), |s| s.to_string()));
        out.text()
    })
}

fn json(scene: &Scene) -> String {
    of(scene, |view| crate::json::pretty(&crate::json::config(&scene.view, view, scene.now)))
}

/// What a server has that nobody told us about: the usual places, and QEMU's own network.
const SITE: render::Site<'static> = render::Site {
    boot: "/var/lib/xvm/agentd/kernels",
    bridge: None,
    imports: None,
    metadata: "",
    emulator: None,
    consoles: Some(render::CONSOLES),
    kvm: true,
};

/// The exports' host as imaged says it.
fn host<'a>(scene: &'a Scene) -> &'a str {
    scene.view.images().map_or("", |i| &*i.said.host)
}

const UNLEASED: &str = "no server holds its lease: SERVER and 0 in the exports' names stand for the next one's, which do not exist yet";

fn libvirt_xml(scene: &Scene) -> String {
    of(scene, |view| {
        let r = &view.record;
        let on = r.holder().and_then(|l| scene.view.server(l.grant.server.as_str()));
        let kind = on.or_else(|| scene.view.servers().next()).map(|s| s.beat.hypervisor);
        // what is no driver of libvirt is shown as QEMU would take it
        let xen = kind == Some(HypervisorKind::Xen);
        let kind = if xen { HypervisorKind::Xen } else { HypervisorKind::Qemu };
        let site = render::Site { imports: xen.then_some(render::IMPORTS), ..SITE };
        let note = if r.holder().is_none() { format!("<!-- {UNLEASED} -->\n") } else { String::new() };
        note + &render::libvirt_xml(&r.shown_spec(host(scene)), kind, &site)
    })
}

fn xl_cfg(scene: &Scene) -> String {
    of(scene, |view| {
        let r = &view.record;
        let note = if r.holder().is_none() { format!("# {UNLEASED}\n") } else { String::new() };
        let site = render::Site { imports: Some(render::IMPORTS), ..SITE };
        note + &render::xl_cfg(&r.shown_spec(host(scene)), &site)
    })
}

/// How its last job ended: what `wait` prints.
pub fn outcome(view: &ConfigView) -> String {
    outcome_line(view.last())
}

/// The commands with their usage, and what is allowed now: what reading `ctl` gives.
pub fn help(scene: &Scene) -> String {
    of(scene, |view| {
        let (r, mut out) = (&view.record, super::cluster::usage(CONFIG_VERBS));
        let words = r.allowed();
        let words = if words.is_empty() { "nothing".to_owned() } else { words.join(" ") };
        let (job, lease) = (job_brief(r), lease_brief(r));
        writeln!(out, "# state {}, job {job}, lease {lease}; allowed now: {words}", r.state)
            .expect("a String takes all");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// If this fails, a setting has no file, or a file's name is taken twice.
    #[test]
    fn each_setting_is_one_row_that_can_be_written() {
        let keys: Vec<&str> = ROWS
            .iter()
            .filter(|r| matches!(r.kind, Kind::Key(s) if s.key == r.name && s.about == r.about))
            .inspect(|r| assert!(r.kind.is_writable() && r.mode == 0o644, "{}", r.name))
            .map(|r| r.name)
            .collect();
        assert_eq!(keys, SETTINGS.iter().map(|s| s.key).collect::<Vec<_>>());
        let names: BTreeSet<&str> = ROWS.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), ROWS.len());
        assert!(MANY_LINES.iter().all(|k| keys.contains(k)));
    }
}
