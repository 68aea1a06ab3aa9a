//! xvm-messages(5): the bus, from the topic table, with real messages as examples.

use crate::roff::Page;
use anyhow::Result;
use uuid::Uuid;
use xvm_model::images::{Removed, StoreRoom};
use xvm_model::lease::Phase;
use xvm_model::message::{MESSAGE_MAX, Rounds, VERSION};
use xvm_model::negotiation::Say;
use xvm_model::policy::{Need, Offer, Worth};
use xvm_model::round::{Accepted, Bid, Brought, End, Ending, Round, Verdict, Wished};
use xvm_model::spec::{GrantDisk, export_name};
use xvm_model::*;

/// The page.
pub fn page() -> Result<String> {
    let mut p = Page::new("xvm-messages", 5, "what xvm's daemons say on the bus");
    p.section("DESCRIPTION").text(&format!(
        "Daemons publish to and subscribe at a forwarder, xvm-forwarder(8), by ZeroMQ PUB and SUB sockets. A message is two frames: \
         the topic, then an envelope in JSON of at most {MESSAGE_MAX} bytes. A receiver drops what is not of this form, what it has \
         had already, and what comes from a sender that may not speak under its topic.",
    ));
    p.section("ENVELOPE");
    for (field, about) in [
        ("v", format!("The version of this layout: {VERSION}.")),
        ("from", "Who says it: agent/SERVER, images/SERVER, client/CLIENT or forwarder/NAME.".into()),
        (
            "boot",
            "The sender's life: a later one has a greater number (milliseconds since 1970 at its start)."
                .into(),
        ),
        ("seq", "Counts the messages of this life from 1.".into()),
        (
            "at",
            "The sender's clock, in milliseconds since 1970. Clocks of two senders need not agree.".into(),
        ),
        ("body", "What is said; its field type names the kind.".into()),
    ] {
        p.item(field, &about);
    }
    p.section("TOPICS");
    for row in TOPICS {
        p.subsection(row.pattern);
        p.text(&format!("{} \u{2192} {}, type {}: {}", row.from, row.to, row.body, row.about));
        p.literal(&example(row)?);
    }
    p.section("SIGNATURES").text(
        "A guest may sign what it says: its message ends with one field more, sig, which holds an Ed25519 signature (RFC 8032) in 128 \
         hexadecimal digits. Signed are the five bytes xvm1 and zero, the topic, a zero byte, and the message as it would be without \
         that field. Who knows the guest's key, guest_key of its config's record, believes nothing under its name that is not signed with it.",
    );
    p.section("LAWS").text(
        "State is repeated: a heartbeat is a server's whole state, configs that of imaged, and an older message (boot, seq) never wins over a newer one. \
         An order is carried out at most once and never late: it has an id, names the life of its receiver, and is void after its \
         deadline, which is in the receiver's own clock.",
    );
    p.section("SEE ALSO").line(".BR xvm (4),\n.BR xvm-forwarder (8),\n.BR agentd (8)");
    Ok(p.finish())
}

fn example(row: &TopicRow) -> Result<String> {
    let ferby = ServerName::parse("ferby")?;
    let client = ClientName::parse("desk-1")?;
    let id: Box<str> = "desk-1.1795377000000.7".into();
    let name = DomainName::parse("small-1")?;
    let domain = Domain {
        state: DomainState::Running,
        load: Ratio::new(0.42),
        vcpus: vec![Vcpu { load: Ratio::new(0.42), cpu: Some(2) }],
        memory: DomainMemory { max: 524_288, current: 524_288, resident: None },
        ..Domain::new(name.clone(), Uuid::from_u128(1))
    };
    let agent = || Sender::Agent(ferby.clone());
    let (from, body) = match row.body {
        "heartbeat" => (
            agent(),
            Body::Heartbeat(Box::new(Heartbeat {
                settings: ServerSettings::default(),
                points: 0,
                hypervisor: HypervisorKind::Sim,
                cpu: None,
                address: "10.0.0.1:5760".into(),
                stale: None,
                cpus: vec![Ratio::new(0.1), Ratio::new(0.12), Ratio::new(0.42), Ratio::ZERO],
                memory: ServerMemory { total: 16_777_216, free: 16_252_928 },
                domains: vec![domain],
                job: None,
                last: None,
                departed: vec![],
            })),
        ),
        "domain" => (agent(), Body::Domain(Box::new(DomainChange::Is { domain }))),
        "command" if row.pattern == "control.images" => (
            Sender::Client(client.clone()),
            Body::Command(Box::new(Command {
                id,
                client,
                boot: Boot(1_795_376_000_000),
                deadline: Wall(1_795_377_017_000),
                order: Order::Config {
                    name: ConfigName::parse("small-6")?,
                    command: ConfigCommand::Start { on: Some(ferby.clone()) },
                },
            })),
        ),
        "command" => (
            Sender::Client(client.clone()),
            Body::Command(Box::new(Command {
                id,
                client,
                boot: Boot(1_795_376_000_000),
                deadline: Wall(1_795_377_017_000),
                order: Order::Domain { name, command: DomainCommand::Pause },
            })),
        ),
        "reply" => (
            agent(),
            Body::Reply(Box::new(Reply {
                id,
                answer: Answer::Done { text: "small-1 is paused".into() },
                news: None,
            })),
        ),
        "configs" => {
            let removed =
                vec![Removed { name: ConfigName::parse("small-9")?, until: Wall(1_795_463_400_000) }];
            let store = StoreRoom { kind: "dir".into(), total: 81_920, free: 41_984 };
            (
                Sender::Images(ServerName::parse("kerby")?),
                Body::Configs(Box::new(Configs {
                    interval_ms: 2_000,
                    host: "10.0.0.9".into(),
                    store,
                    systems: vec!["debian/bookworm".into(), "tiny".into()],
                    configs: vec![config()?],
                    removed,
                })),
            )
        }
        "config" => (
            Sender::Images(ServerName::parse("kerby")?),
            Body::Config(Box::new(ConfigChange::Is { record: creating()? })),
        ),
        "watchdog" => (
            agent(),
            Body::Watchdog(Box::new(Say::OfferHelp {
                round: "gerby.1795376000000.3".into(),
                offer: Offer {
                    helper: ferby.clone(),
                    address: "10.0.0.1:5760".into(),
                    platform: HypervisorKind::Sim.into(),
                    wish: 0,
                    projected: 0.52,
                    worth: Worth { gain: 0.25, delay_ms: 12.0 },
                },
                held: None,
            })),
        ),
        "rounds" => (agent(), Body::Rounds(Box::new(Rounds { rounds: vec![round(&ferby, name)?] }))),
        "roll-call" => (Sender::Client(client), Body::RollCall),
        _ => (Sender::Forwarder(ServerName::parse("main")?), Body::Forwarder(Counters::default())),
    };
    let envelope = Envelope {
        v: VERSION,
        from,
        boot: Boot(1_795_377_000_000),
        seq: 12,
        at: Wall(1_795_377_012_000),
        body,
    };
    Ok(serde_json::to_string_pretty(&envelope)?)
}

/// One that runs.
fn config() -> Result<ConfigRecord> {
    let (name, server) = (ConfigName::parse("small-6")?, ServerName::parse("ferby")?);
    let disk = |target: &str, volume: &str, mib: u64| GrantDisk {
        target: target.into(),
        volume: volume.into(),
        export: export_name(&name, &server, 7, volume),
        size: mib << 20,
    };
    let disks = vec![disk("vda", "disk", 2048), disk("vdb", "swap", 128)];
    let (config, host) = (name.clone(), "10.0.0.9".into());
    let grant = Grant { config, server: server.clone(), epoch: 7, host, port: 10_810, tls: false, disks };
    let lease = Lease { grant, phase: Phase::Held, job: None, boot: Boot(1_795_376_000_000) };
    Ok(ConfigRecord {
        name: name.clone(),
        config: Config::new(Uuid::from_u128(6)),
        state: ConfigState::Running,
        job: None,
        remaining: None,
        last: None,
        leases: vec![lease],
        boot: None,
        guest_key: Some(PublicKey([0x5a; 32])),
        log: 48_213,
        wrong: None,
    })
}

/// The same while it is made.
fn creating() -> Result<ConfigRecord> {
    let job = Job {
        id: "desk-1.1795377000000.7".into(),
        kind: JobKind::Create,
        phase: "packages".into(),
        percent: 42,
        to: None,
        since: Wall(1_795_377_001_000),
        note: None,
    };
    let (job, remaining) = (Some(Box::new(job)), Some(17));
    Ok(ConfigRecord { state: ConfigState::Creating, job, remaining, leases: vec![], log: 9_120, ..config()? })
}

fn round(asker: &ServerName, domain: DomainName) -> Result<Round> {
    let helper = ServerName::parse("herby")?;
    let bid = Bid {
        helper: helper.clone(),
        platform: HypervisorKind::Sim.into(),
        domain: domain.clone(),
        projected: 0.43,
        gain: 0.25,
        verdict: Verdict::Accepted,
    };
    let sentence = "small-1 runs on herby".into();
    Ok(Round {
        id: "ferby.1795377000000.1".into(),
        asker: asker.clone(),
        need: Need::Overload,
        policy: "points".into(),
        dry: false,
        at: Wall(1_795_377_001_000),
        load: 1.25,
        why: "5 points of 5: all CPUs are at 0.80 or more, and one serves more than one busy domain".into(),
        wishes: vec![Wished { domain: domain.clone(), load: 1.0, memory: 524_288, relief: 1.0 }],
        offers: vec![bid],
        refusals: vec![],
        accepted: Some(Accepted { helper, domain, at: Wall(1_795_377_001_120) }),
        outcome: Some(Ending { at: Wall(1_795_377_001_800), end: End::Moved, sentence }),
        effect: Some(Brought { before: 1.0, after: 1.0, points_before: 5, points_after: 0 }),
    })
}
