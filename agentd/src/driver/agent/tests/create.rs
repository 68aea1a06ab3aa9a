//! Domains that are made from configs.

use super::*;
use xvm_model::config::GuestType;
use xvm_model::spec::{Blob, Boot as Files, GrantDisk, export_name};
use xvm_model::{ConfigName, DomainSettings, Grant, GroupName, Groups, Spec};

pub(super) fn grant(server_: &str, epoch: u64) -> Grant {
    let (config, server) = (ConfigName::parse("small-1").expect("valid"), server(server_));
    let export = export_name(&config, &server, epoch, "disk");
    let disks = vec![GrantDisk { target: "vda".into(), volume: "disk".into(), export, size: 1 << 20 }];
    Grant { config, server, epoch, host: "kerby".into(), port: 10809, tls: false, disks }
}

pub(super) fn files() -> Files {
    let kernel = Blob { sha256: "a".repeat(64).into(), size: 9 };
    Files { host: "kerby".into(), port: 10810, kernel, initrd: None, cmdline: "quiet".into() }
}

pub(super) fn spec() -> Spec {
    Spec {
        name: name("small-1"),
        uuid: Uuid::from_u128(7),
        memory: 64 << 10,
        vcpus: 2,
        kind: GuestType::Auto,
        mac: None,
        vlan: None,
        grant: grant("ferby", 1),
        boot: Some(files()),
        settings: DomainSettings::default(),
    }
}

impl Rig {
    /// On ferby, without domains.
    pub(super) fn empty() -> Rig {
        let mut rig = Rig::silent();
        let query = rig.sample().expect("the first step samples");
        rig.input(Input::Sampled { query, host: Ok(Host::default()), domains: Ok(vec![]) });
        rig.out.clear();
        rig
    }

    fn create(&mut self, spec: Spec) -> Box<str> {
        self.tell(DomainCommand::Create { spec: Box::new(spec) })
    }

    /// What heartbeats say of small-1.
    fn told(&self) -> Option<(DomainState, bool)> {
        let all = self.agent.heartbeat().domains;
        all.iter().find(|d| d.name == name("small-1")).map(|d| (d.state, d.job.is_some()))
    }
}

#[test]
fn it_is_fetched_made_and_asked_for() {
    let mut rig = Rig::empty();
    let id = rig.create(spec());
    assert_eq!(rig.replies()[0].answer, Answer::Accepted);
    assert_eq!(rig.job().as_deref(), Some("start fetch 0"));
    assert_eq!(
        rig.told(),
        Some((DomainState::Shutoff, true)),
        "whoever does not hear of it knows that it is not coming"
    );
    let (op, what) = rig.begun();
    assert_eq!(what, Op::Fetch(Box::new(files())));
    rig.ended(op, Ok(None));
    assert_eq!(rig.job().as_deref(), Some("start begin 0"));
    let (op, what) = rig.begun();
    let Op::Create(made) = what else { panic!("{what:?}") };
    assert_eq!(made.settings.grant.as_deref(), Some(&grant("ferby", 1)), "the lease is kept with it");
    // a copy of the order changes nothing
    rig.send(
        &id,
        Order::Domain { name: name("small-1"), command: DomainCommand::Create { spec: Box::new(spec()) } },
    );
    assert_eq!(rig.replies()[0].answer, Answer::Accepted);
    rig.ended(op, Ok(None));
    assert_eq!(rig.told(), Some((DomainState::Shutoff, true)), "the call alone proves nothing");
    rig.is(Some(DomainState::Running));
    assert_eq!(rig.outcome().expect("started"), "small-1 is running");
}

#[test]
fn what_boots_from_its_disk_needs_no_files() {
    let mut rig = Rig::empty();
    rig.create(Spec { boot: None, ..spec() });
    assert!(matches!(rig.begun().1, Op::Create(_)));
    assert_eq!(rig.job().as_deref(), Some("start begin 0"));
}

#[test]
fn a_start_that_failed_is_told_once_then_nothing_is_left() {
    for fetched in [false, true] {
        let mut rig = Rig::empty();
        let id = rig.create(spec());
        let (mut op, _) = rig.begun();
        if fetched {
            rig.ended(op, Ok(None));
            op = rig.begun().0;
        }
        rig.changes();
        rig.ended(op, Err(HvError::NoRoom("ferby is full".into())));
        if fetched {
            rig.is(None);
        }
        let told = rig.changes();
        let [DomainChange::Is { domain }, DomainChange::Gone { .. }] = &told[..] else { panic!("{told:?}") };
        let last = domain.last.clone().expect("an outcome");
        assert_eq!((&last.id, domain.state, domain.job.is_some()), (&id, DomainState::Shutoff, false));
        let failure = last.result.expect_err("failed");
        assert_eq!(failure.code, Code::NoSpace);
        assert!(failure.text.ends_with("small-1: ferby is full"), "{}", failure.text);
        assert_eq!(rig.told(), None);
        assert!(rig.agent.works.is_empty());
    }
}

#[test]
fn a_call_that_broke_off_is_judged_by_what_is_there() {
    let mut rig = Rig::empty();
    rig.create(Spec { boot: None, ..spec() });
    let (op, _) = rig.begun();
    rig.ended(op, Err(HvError::Unreachable("connection broke".into())));
    rig.is(Some(DomainState::Running));
    assert_eq!(rig.outcome().expect("it runs"), "small-1 is running");
}

#[test]
fn what_is_there_is_not_made_again() {
    for state in [DomainState::Running, DomainState::Shutoff, DomainState::Incoming] {
        let mut rig = Rig::new(state);
        rig.create(spec());
        let failure = rig.failure();
        assert_eq!(failure.code, Code::Exists);
        assert!(failure.text.ends_with(&format!("which is {state}")), "{}", failure.text);
    }
    // one with another name and the same identity
    let mut rig = Rig::new(DomainState::Running);
    let other = Spec {
        name: name("b"),
        grant: Grant { config: ConfigName::parse("b").expect("valid"), ..grant("ferby", 1) },
        ..spec()
    };
    let other = Spec { grant: renamed(other.grant.clone()), ..other };
    rig.order(Order::Domain { name: name("b"), command: DomainCommand::Create { spec: Box::new(other) } });
    let failure = rig.failure();
    assert_eq!(failure.text, "cannot create b: small-1, which is running on ferby, has the same identity");
    // one that is being made
    let mut rig = Rig::empty();
    rig.create(spec());
    rig.out.clear();
    rig.create(spec());
    assert_eq!(rig.failure().code, Code::Exists);
}

/// Exports as they are named for its config.
fn renamed(mut grant: Grant) -> Grant {
    grant.disks[0].export = grant.stem();
    grant
}

#[test]
fn wrong_values_and_wrong_places_are_refused() {
    let pinned = DomainSettings { pin: Pin(vec![server("gerby")]), ..DomainSettings::default() };
    let loud = DomainSettings { priority: 101, ..DomainSettings::default() };
    for (bad, code, why) in [
        (Spec { vcpus: 0, ..spec() }, Code::Invalid, "0 vCPUs"),
        (Spec { vlan: Some(4095), ..spec() }, Code::Invalid, "VLAN"),
        (Spec { grant: grant("gerby", 1), ..spec() }, Code::Invalid, "on gerby, not on ferby"),
        (Spec { boot: Some(Files { port: 0, ..files() }), ..spec() }, Code::Invalid, "kernel"),
        (Spec { settings: loud, ..spec() }, Code::Invalid, "0 to 100"),
        (Spec { settings: pinned, ..spec() }, Code::Permission, "pinned to gerby"),
    ] {
        let mut rig = Rig::empty();
        rig.create(bad);
        let failure = rig.failure();
        assert!(failure.code == code && failure.text.contains(why), "{failure:?}");
        assert!(rig.agent.works.is_empty());
    }
    let mut rig = Rig::silent();
    rig.create(spec());
    assert_eq!(rig.failure().code, Code::Io, "nobody knows yet what is there");
}

#[test]
fn those_that_stay_apart_do() {
    let db = || Groups([GroupName::parse("db").expect("valid")].into());
    let mut rig = Rig::empty();
    let query = {
        rig.pass(1_000);
        rig.agent.mark()
    };
    let mut other = domain("other", DomainState::Running);
    other.uuid = Uuid::from_u128(8);
    other.settings.apart = db();
    assert!(rig.agent.records.one(Id(query.0 + 1), &name("other"), Some(other)));
    rig.create(Spec { settings: DomainSettings { apart: db(), ..DomainSettings::default() }, ..spec() });
    let failure = rig.failure();
    assert!(failure.code == Code::Permission && failure.text.contains("apart from other"), "{failure:?}");
}

#[test]
fn a_start_is_cancelled_while_it_fetches() {
    let mut rig = Rig::empty();
    rig.create(spec());
    let (op, _) = rig.begun();
    rig.tell(DomainCommand::Cancel);
    assert_eq!(rig.done(), "small-1 does not start");
    assert_eq!(rig.told(), None);
    rig.out.clear();
    rig.ended(op, Ok(None));
    assert!(
        rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none(),
        "nothing is made any more"
    );
}
