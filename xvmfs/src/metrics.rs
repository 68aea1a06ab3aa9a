//! The file `metrics`, in Prometheus' text format (version 0.0.4). `promtool check metrics` passes.

use crate::row::Scene;
use std::fmt::{Display, Write as _};
use xvm_model::domain::DomainState;
use xvm_model::round::End;
use xvm_model::{BalanceMode, ConfigState, Counters, DomainView, Images, Reach, Server};

/// One family: its name, type and help, then its samples.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(out: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes all");
        Family { out, name }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.out, "{}{labels} {value}", self.name).expect("a String takes all");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The whole text.
pub fn text(scene: &Scene) -> String {
    let mut out = String::new();
    servers(&mut out, scene);
    domains(&mut out, scene);
    let guests = scene.view.guest_count();
    Family::new(&mut out, "xvm_guests", "gauge", "Guests that are heard.").sample(&[], guests);
    configs(&mut out, scene);
    help(&mut out, scene);
    bus(&mut out, scene);
    out
}

type Gauge<T> = (&'static str, &'static str, fn(&Scene, &T) -> String);

fn servers(out: &mut String, scene: &Scene) {
    let gauges: &[Gauge<Server>] = &[
        ("xvm_server_up", "1 while the server's heartbeats come and its hypervisor answers.", |c, s| {
            let up = matches!(c.view.reach(s, c.now.mono), Reach::Up | Reach::Maintenance);
            u8::from(up).to_string()
        }),
        ("xvm_server_accepting", "1 while the server takes domains from others.", |_, s| {
            u8::from(s.beat.settings.accepting).to_string()
        }),
        ("xvm_server_load_ratio", "Mean load of the server's CPUs.", |_, s| s.beat.load().to_string()),
        ("xvm_server_cpus", "Physical CPUs of the server.", |_, s| s.beat.cpus.len().to_string()),
        ("xvm_server_memory_bytes", "Memory of the server.", |_, s| (s.beat.memory.total * 1024).to_string()),
        ("xvm_server_memory_free_bytes", "Memory that a new domain could take.", |_, s| {
            (s.beat.memory.free * 1024).to_string()
        }),
        ("xvm_server_overload_points", "The overload counter.", |_, s| s.beat.points.to_string()),
        ("xvm_server_heartbeat_age_seconds", "Time since the server was heard.", |c, s| {
            (c.now.mono.since(s.heard.mono) as f64 / 1e3).to_string()
        }),
    ];
    for (name, help, value) in gauges {
        let mut family = Family::new(out, name, "gauge", help);
        for s in scene.view.servers() {
            family.sample(&[("server", s.name.as_str())], value(scene, s));
        }
    }
}

fn domains(out: &mut String, scene: &Scene) {
    let all: Vec<DomainView> =
        scene.view.domain_names().filter_map(|n| scene.view.domain(n.as_str(), scene.now.mono)).collect();
    let words = DomainState::ALL.iter().map(|s| s.word()).chain(["unknown", "conflict"]);
    let mut family = Family::new(out, "xvm_domains", "gauge", "Domains by state.");
    for word in words {
        family.sample(&[("state", word)], all.iter().filter(|d| d.shown.word() == word).count());
    }
    let gauges: &[Gauge<DomainView>] = &[
        ("xvm_domain_running", "1 while the domain runs.", |_, d| {
            u8::from(d.shown.word() == "running").to_string()
        }),
        ("xvm_domain_load_ratio", "Share of its vCPUs that the domain used.", |_, d| {
            d.domain.load.to_string()
        }),
        ("xvm_domain_memory_bytes", "Memory that the domain has now.", |_, d| {
            (d.domain.memory.current * 1024).to_string()
        }),
        ("xvm_domain_job_running", "1 while a job runs.", |_, d| {
            u8::from(d.domain.job.is_some()).to_string()
        }),
    ];
    for (name, help, value) in gauges {
        let mut family = Family::new(out, name, "gauge", help);
        for d in &all {
            let labels = [("domain", d.domain.name.as_str()), ("server", d.server.as_str())];
            family.sample(&labels, value(scene, d));
        }
    }
    let mut devices = |name, help, value: fn(&DomainView) -> Vec<(String, u64)>| {
        let mut family = Family::new(out, name, "counter", help);
        for d in &all {
            for (device, n) in value(d) {
                let labels = [
                    ("domain", d.domain.name.as_str()),
                    ("server", d.server.as_str()),
                    ("device", device.as_str()),
                ];
                family.sample(&labels, n);
            }
        }
    };
    devices("xvm_domain_disk_read_bytes_total", "Bytes that the domain read from a disk.", |d| {
        d.domain.disks.iter().map(|k| (k.name.to_string(), k.read)).collect()
    });
    devices("xvm_domain_disk_written_bytes_total", "Bytes that the domain wrote to a disk.", |d| {
        d.domain.disks.iter().map(|k| (k.name.to_string(), k.written)).collect()
    });
    devices("xvm_domain_network_received_bytes_total", "Bytes that the domain received.", |d| {
        d.domain.nics.iter().map(|n| (n.name.to_string(), n.received)).collect()
    });
    devices("xvm_domain_network_sent_bytes_total", "Bytes that the domain sent.", |d| {
        d.domain.nics.iter().map(|n| (n.name.to_string(), n.sent)).collect()
    });
}

fn configs(out: &mut String, scene: &Scene) {
    let mut family = Family::new(out, "xvm_configs", "gauge", "Configs by state.");
    for state in ConfigState::ALL {
        let n = scene.view.configs().filter(|c| c.record.state == *state).count();
        family.sample(&[("state", state.word())], n);
    }
    let leases: usize = scene.view.configs().map(|c| c.record.leases.len()).sum();
    Family::new(out, "xvm_leases", "gauge", "Leases that are held.").sample(&[], leases);
    let gauges: &[Gauge<Images>] = &[
        ("xvm_images_up", "1 while imaged is heard.", |c, i| {
            u8::from(c.view.images_reach(i, c.now.mono) == Reach::Up).to_string()
        }),
        ("xvm_store_bytes", "Room for volumes.", |_, i| (u128::from(i.said.store.total) << 20).to_string()),
        ("xvm_store_free_bytes", "Room for volumes that is free.", |_, i| {
            (u128::from(i.said.store.free) << 20).to_string()
        }),
    ];
    for (name, help, value) in gauges {
        let mut family = Family::new(out, name, "gauge", help);
        if let Some(images) = scene.view.images() {
            family.sample(&[("server", images.name.as_str())], value(scene, images));
        }
    }
}

fn help(out: &mut String, scene: &Scene) {
    let mode = scene.view.balance().mode;
    let mut family =
        Family::new(out, "xvm_balance_mode", "gauge", "1 for what the cluster was told about balancing.");
    for word in BalanceMode::ALL {
        family.sample(&[("mode", word.word())], u8::from(*word == mode));
    }
    let running = scene.view.rounds().filter(|r| r.outcome.is_none()).count();
    Family::new(out, "xvm_help_rounds_running", "gauge", "Rounds of help that have not ended.")
        .sample(&[], running);
    let about = "Rounds of help that ended since this mount listens, by how.";
    let mut family = Family::new(out, "xvm_help_rounds_total", "counter", about);
    for (end, n) in End::ALL.iter().zip(scene.view.rounds_ended()) {
        family.sample(&[("end", end.word())], n);
    }
    let about =
        "Domains that came to another server since this mount listens, by a round of help or by an order.";
    let mut family = Family::new(out, "xvm_moves_total", "counter", about);
    for (by, n) in ["order", "help"].iter().zip(scene.cluster.moves()) {
        family.sample(&[("by", by)], n);
    }
}

fn bus(out: &mut String, scene: &Scene) {
    let up = u8::from(scene.view.link_up());
    Family::new(out, "xvm_bus_up", "gauge", "1 while this mount hears a forwarder.").sample(&[], up);
    let counts = scene.cluster.publisher().counts();
    for (name, help, value) in [
        ("xvm_bus_received_messages_total", "Messages that this mount took from the bus.", counts.received),
        (
            "xvm_bus_received_bytes_total",
            "Bytes that came to this mount from the bus.",
            counts.received_bytes,
        ),
        (
            "xvm_bus_malformed_messages_total",
            "Messages that this mount dropped for their form.",
            counts.malformed,
        ),
        (
            "xvm_bus_flooded_messages_total",
            "Messages that this mount dropped because a guest said too much.",
            counts.flooded,
        ),
        (
            "xvm_bus_forged_messages_total",
            "Messages that this mount dropped because they came under a guest's name without its signature.",
            counts.forged,
        ),
        ("xvm_bus_doubled_messages_total", "Messages that this mount dropped as doubles.", counts.doubled),
        ("xvm_bus_sent_messages_total", "Messages that this mount gave to the bus.", counts.sent),
        ("xvm_bus_unsent_messages_total", "Messages that this mount could not send.", counts.unsent),
        ("xvm_bus_links_total", "Times that this mount found a forwarder.", counts.links),
    ] {
        Family::new(out, name, "counter", help).sample(&[], value);
    }
    let forwarders = scene.cluster.forwarder_counters();
    for (name, kind, help, value) in FORWARDER {
        let mut family = Family::new(out, name, kind, help);
        for (forwarder, c, _) in &forwarders {
            family.sample(&[("forwarder", forwarder.as_str())], value(c));
        }
    }
}

/// Name, type, help and value of a figure of a forwarder.
type ForwarderRow = (&'static str, &'static str, &'static str, fn(&Counters) -> u64);

const FORWARDER: &[ForwarderRow] = &[
    ("xvm_forwarder_messages_total", "counter", "Messages that the forwarder passed on.", |c| c.messages),
    ("xvm_forwarder_bytes_total", "counter", "Bytes that the forwarder passed on.", |c| c.bytes),
    (
        "xvm_forwarder_malformed_total",
        "counter",
        "Messages that the forwarder dropped for their form.",
        |c| c.malformed,
    ),
    (
        "xvm_forwarder_refused_total",
        "counter",
        "Messages that guests may not say, and the forwarder dropped.",
        |c| c.refused,
    ),
    ("xvm_forwarder_subscriptions_total", "counter", "Subscriptions and their ends.", |c| c.subscriptions),
    ("xvm_forwarder_uptime_seconds", "gauge", "Time since the forwarder's start.", |c| c.uptime / 1000),
];
