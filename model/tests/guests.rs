//! If this fails, a mount shows guests that are not there, or hides those that are.

use xvm_model::guest::GuestMemory;
use xvm_model::{
    Body, Boot, Config, ConfigName, ConfigRecord, ConfigState, Configs, Domain, DomainName, Envelope, Event,
    GuestBeat, GuestRuns, Heartbeat, HypervisorKind, Mono, Now, PublicKey, Ratio, Run, RunState, Sender,
    ServerMemory, ServerName, ServerSettings, View, Wall,
};

fn name() -> DomainName {
    DomainName::parse("small-1").expect("valid")
}

fn say(view: &mut View, from: Sender, boot: u64, seq: u64, now: u64, body: Body) -> Vec<String> {
    let now = Now { mono: Mono(now), wall: Wall(now) };
    let envelope = Envelope { v: 1, from, boot: Boot(boot), seq, at: Wall(7), body };
    view.apply(envelope, now).into_iter().map(|e: Event| e.text).collect()
}

fn beat() -> Body {
    Body::Guest(Box::new(GuestBeat {
        interval_ms: 1000,
        version: "0.1.0".into(),
        uptime: 3,
        cpus: 1,
        load: Ratio::ZERO,
        steal: Ratio::ZERO,
        average: [0; 3],
        pressure: None,
        memory: GuestMemory::default(),
        tests: vec![],
        loading: None,
    }))
}

fn runs(state: RunState) -> Body {
    let run = Run {
        id: "c.1.1".into(),
        line: "fibonacci 3".into(),
        state,
        at: Wall(1),
        wall_ms: 1_234,
        cpu_ms: 1,
        status: None,
        why: None,
        output: "".into(),
    };
    Body::GuestRuns(Box::new(GuestRuns { runs: vec![run] }))
}

fn with_domain() -> View {
    let mut view = View::default();
    view.link(true, "", Now { mono: Mono(0), wall: Wall(0) });
    let server = Heartbeat {
        settings: ServerSettings::default(),
        points: 0,
        hypervisor: HypervisorKind::Sim,
        cpu: None,
        address: "127.0.0.1:1".into(),
        stale: None,
        cpus: vec![],
        memory: ServerMemory::default(),
        domains: vec![Domain::new(name(), uuid::Uuid::nil())],
        job: None,
        last: None,
        departed: vec![],
    };
    let from = Sender::Agent(ServerName::parse("ferby").expect("valid"));
    say(&mut view, from, 1, 1, 0, Body::Heartbeat(Box::new(server)));
    view
}

#[test]
fn a_guest_comes_runs_and_falls_silent() {
    let mut view = with_domain();
    let guest = Sender::Guest(name());
    assert!(say(&mut view, guest.clone(), 5, 1, 0, runs(RunState::Running)).is_empty(), "no heartbeat yet");
    assert_eq!(say(&mut view, guest.clone(), 5, 2, 0, beat()), ["guest up"]);
    assert!(say(&mut view, guest.clone(), 5, 3, 10, runs(RunState::Running)).is_empty());
    assert!(say(&mut view, guest.clone(), 5, 2, 20, runs(RunState::Done)).is_empty(), "late");
    assert_eq!(
        say(&mut view, guest.clone(), 5, 4, 30, runs(RunState::Done)),
        ["guest run done fibonacci 3: 1.234 s"]
    );
    assert!(say(&mut view, guest.clone(), 5, 5, 40, runs(RunState::Done)).is_empty(), "told once");
    assert!(view.guest("small-1", Mono(9_000)).is_some());
    assert!(view.guest("small-1", Mono(10_040)).is_none(), "ten are missing");
    let now = Now { mono: Mono(10_040), wall: Wall(0) };
    assert_eq!(view.tick(now).iter().filter(|e| e.text == "guest down").count(), 1);
    assert_eq!(say(&mut view, guest.clone(), 5, 6, 10_050, beat()), ["guest up"]);
    // its clock was set back, and it was started anew
    assert!(say(&mut view, guest.clone(), 3, 1, 10_060, beat()).is_empty());
    assert_eq!(say(&mut view, guest, 3, 2, 90_000, beat()), ["guest started anew"]);
    assert!(view.guest("small-1", Mono(90_000)).is_some_and(|g| g.runs.runs.is_empty()));
}

/// If this fails, what a stranger said stays believed, or a machine vanishes whenever imaged speaks.
#[test]
fn what_was_believed_without_a_key_is_forgotten_when_there_is_one() {
    let mut view = with_domain();
    let (guest, images) = (Sender::Guest(name()), Sender::Images(ServerName::parse("kerby").expect("valid")));
    let record = |guest_key| ConfigRecord {
        name: ConfigName::parse("small-1").expect("valid"),
        config: Config::new(uuid::Uuid::nil()),
        state: ConfigState::Running,
        job: None,
        remaining: None,
        last: None,
        leases: vec![],
        boot: None,
        guest_key,
        log: 0,
        wrong: None,
    };
    let said = |key| {
        Body::Configs(Box::new(Configs {
            interval_ms: 1000,
            configs: vec![record(key)],
            ..Configs::default()
        }))
    };
    let heard = |view: &View| view.guest("small-1", Mono(50)).is_some();
    say(&mut view, guest.clone(), 1 << 50, 1, 0, beat());
    say(&mut view, images.clone(), 1, 1, 1, said(None));
    assert!(heard(&view), "it needs none");
    let key = Some(PublicKey([1; 32]));
    say(&mut view, images.clone(), 1, 2, 2, said(key));
    assert!(!heard(&view) && view.guest_key("small-1") == key);
    assert_eq!(say(&mut view, guest, 1, 1, 3, beat()), ["guest up"], "an older life by its number");
    say(&mut view, images.clone(), 1, 3, 4, said(key));
    assert!(heard(&view), "it was believed with that key");
    say(&mut view, images.clone(), 1, 4, 5, said(None));
    assert!(heard(&view));
    say(&mut view, images, 1, 5, 6, said(Some(PublicKey([2; 32]))));
    assert!(!heard(&view));
}

#[test]
fn a_guest_of_no_domain_fills_no_memory() {
    let mut view = with_domain();
    let other = Sender::Guest(DomainName::parse("other").expect("valid"));
    assert!(say(&mut view, other, 5, 1, 0, beat()).is_empty());
    assert_eq!(view.guest_count(), 0);
}
