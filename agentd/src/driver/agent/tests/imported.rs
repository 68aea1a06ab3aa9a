//! Devices made of exports: made before a domain is made or comes, told who uses them.

use super::create::{files, grant, spec};
use super::*;
use crate::imports::devices::User;
use xvm_model::{Grant, Spec};

impl Rig {
    /// On ferby, without domains; its hypervisor does not open exports itself.
    fn importing() -> Rig {
        let mut rig = Rig::empty();
        rig.agent.me.imports = true;
        rig
    }

    /// A sample comes with these domains.
    fn sampled(&mut self, domains: Vec<Domain>) {
        let query = loop {
            if let Some(query) = self.sample() {
                break query;
            }
            self.now.mono = self.now.mono.plus(1000);
            self.input(Input::Tick);
        };
        self.input(Input::Sampled { query, host: Ok(Host::default()), domains: Ok(domains) });
    }

    fn tidied(&mut self) -> Option<Vec<User>> {
        self.take(|e| if let Effect::Tidy { users } = e { Some(users.clone()) } else { None })
    }
}

/// small-1 by a lease, or by one that is not known.
fn leased(grant: Option<Grant>, state: DomainState) -> Domain {
    let mut domain = domain("small-1", state);
    domain.settings.grant = grant.map(Box::new);
    domain
}

fn user(epoch: u64) -> User {
    (name("small-1"), Some(grant("ferby", epoch).stem()))
}

/// If this fails, Xen makes a domain whose disk is not there.
#[test]
fn its_disks_are_here_before_it_is_made() {
    let mut rig = Rig::importing();
    rig.tell(DomainCommand::Create { spec: Box::new(spec()) });
    let (op, what) = rig.begun();
    assert_eq!(what, Op::Fetch(Box::new(files())));
    rig.ended(op, Ok(None));
    assert_eq!(rig.job().as_deref(), Some("start import 0"));
    let (op, what) = rig.begun();
    assert_eq!(what, Op::Import(Box::new(grant("ferby", 1))));
    rig.ended(op, Ok(None));
    assert_eq!(rig.job().as_deref(), Some("start begin 0"));
    assert!(matches!(rig.begun().1, Op::Create(_)));

    // one that boots from its disk
    let mut rig = Rig::importing();
    rig.tell(DomainCommand::Create { spec: Box::new(Spec { boot: None, ..spec() }) });
    assert_eq!(rig.job().as_deref(), Some("start import 0"));
    let (op, what) = rig.begun();
    assert_eq!(what, Op::Import(Box::new(grant("ferby", 1))));
    rig.changes();
    rig.ended(op, Err(HvError::Refused("cannot attach small-1.ferby.1: no such export".into())));
    let told = rig.changes();
    let [DomainChange::Is { domain }, DomainChange::Gone { .. }] = &told[..] else { panic!("{told:?}") };
    let failure = domain.last.clone().expect("an outcome").result.expect_err("failed");
    assert_eq!(&*failure.text, "cannot create small-1: cannot attach small-1.ferby.1: no such export");

    // one that is not wanted any more
    let mut rig = Rig::importing();
    rig.tell(DomainCommand::Create { spec: Box::new(Spec { boot: None, ..spec() }) });
    let (op, _) = rig.begun();
    rig.tell(DomainCommand::Cancel);
    assert_eq!(rig.done(), "small-1 does not start");
    rig.out.clear();
    rig.ended(op, Ok(None));
    assert!(!rig.out.iter().any(|e| matches!(e, Effect::Begin { .. })), "{:?}", rig.out);
}

/// If this fails, a migration brings a domain to a server that has no disk for it.
#[test]
fn its_disks_are_here_before_it_comes() {
    let mut rig = Rig::importing();
    let prepare = |rig: &mut Rig, boot: bool| {
        let boot = boot.then(|| Box::new(files()));
        rig.tell(DomainCommand::Prepare { grant: Box::new(grant("ferby", 2)), boot });
    };
    for boot in [true, false] {
        prepare(&mut rig, boot);
        if boot {
            let (op, what) = rig.begun();
            assert_eq!(what, Op::Fetch(Box::new(files())));
            rig.ended(op, Ok(None));
        }
        assert_eq!(rig.replies().pop().expect("one").answer, Answer::Working);
        let (op, what) = rig.begun();
        assert_eq!(what, Op::Import(Box::new(grant("ferby", 2))));
        rig.ended(op, Ok(None));
        assert_eq!(rig.done(), "small-1 may come: all that it boots from is here");
    }
    prepare(&mut rig, true);
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    let (op, _) = rig.begun();
    rig.ended(op, Err(HvError::Refused("no such export".into())));
    assert_eq!(rig.failure().text, "cannot prepare small-1: no such export");
    prepare(&mut rig, false);
    rig.pass(45_001);
    assert_eq!(rig.failure().code, Code::TimedOut);
}

/// If this fails, a server keeps the disk of a domain that has gone, or takes that of one that is here.
#[test]
fn who_uses_them_is_told_some_seconds_after_one_has_gone() {
    let mut rig = Rig::importing();
    let running = || vec![leased(Some(grant("ferby", 1)), DomainState::Running)];
    rig.sampled(running());
    assert_eq!(rig.tidied(), None, "a life begins: all that is here is heard first");
    rig.pass(5_000);
    assert_eq!(rig.tidied(), Some(vec![user(1)]));

    // away for a moment
    rig.sampled(vec![leased(Some(grant("ferby", 1)), DomainState::Shutoff)]);
    rig.sampled(running());
    rig.pass(5_000);
    assert_eq!(rig.tidied(), Some(vec![user(1)]));

    // by another lease: the one before is over, and this one has come
    rig.sampled(vec![leased(Some(grant("ferby", 2)), DomainState::Running)]);
    rig.pass(5_000);
    assert_eq!(rig.tidied(), Some(vec![user(2)]));
    // gone, and another one has come: told as soon, so that it is not waited for when it goes
    rig.sampled(vec![]);
    rig.pass(5_000);
    assert_eq!(rig.tidied(), Some(vec![]));
    rig.sampled(running());
    rig.pass(5_000);
    assert_eq!(rig.tidied(), Some(vec![user(1)]), "one has come");

    // gone, while another lease is prepared for
    rig.sampled(vec![]);
    rig.tell(DomainCommand::Prepare { grant: Box::new(grant("ferby", 3)), boot: None });
    rig.pass(4_000);
    assert_eq!(rig.tidied(), None);
    rig.pass(1_001);
    assert_eq!(rig.tidied(), Some(vec![(name("small-1"), None)]), "whatever lease it comes by");
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));

    // it is told now and then without any change, and never while the hypervisor is not heard
    rig.pass(60_000);
    assert_eq!(rig.tidied(), Some(vec![]));
    rig.sampled(vec![leased(None, DomainState::Paused)]);
    rig.input(Input::News(crate::hypervisor::HvEvent::Down("it was stopped".into())));
    for _ in 0..100 {
        rig.now.mono = rig.now.mono.plus(1000);
        rig.input(Input::Tick);
    }
    assert_eq!(rig.tidied(), None);
}

/// If this fails, a guest stands still, and nobody reads why.
#[test]
fn who_waits_for_a_disk_is_told() {
    let mut rig = Rig::importing();
    let why = "10.7.0.1:10810: it exports no small-1.ferby.1";
    let waiting = |who: &[&str]| Input::Waiting(who.iter().map(|n| (name(n), why.into())).collect());
    let reasons = |rig: &mut Rig| -> Vec<Option<Box<str>>> {
        let is = |change| {
            if let DomainChange::Is { domain } = change { domain.reason } else { panic!("{change:?}") }
        };
        rig.changes().into_iter().map(is).collect()
    };
    // one that is not known yet is no domain
    rig.input(waiting(&["small-1", "small-2"]));
    assert_eq!(reasons(&mut rig), []);
    rig.sampled(vec![leased(Some(grant("ferby", 1)), DomainState::Running)]);
    let wanted = [Some(format!("waits for its disk: {why}").into())];
    assert_eq!(reasons(&mut rig), wanted);
    // the same again is no news
    rig.input(waiting(&["small-1"]));
    assert_eq!(reasons(&mut rig), []);
    rig.input(waiting(&[]));
    assert_eq!(reasons(&mut rig), [None]);
    rig.input(waiting(&["small-1"]));
    assert_eq!(reasons(&mut rig), wanted);
    // one that is off waits for nothing, whatever its import does until it is dropped
    rig.sampled(vec![leased(Some(grant("ferby", 1)), DomainState::Shutoff)]);
    assert_eq!(reasons(&mut rig), [None]);
}

#[test]
fn an_update_has_all_leases_of_this_server() {
    let mut rig = Rig::importing();
    let update = |rig: &mut Rig| {
        rig.order(Order::Server { command: ServerCommand::UpdateImports });
        let pick = |e: &Effect| match e {
            Effect::Update { users, grants, .. } => Some((users.clone(), grants.clone())),
            _ => None,
        };
        let found = rig.take(pick).expect("an update");
        rig.input(Input::Updated(Ok("well".into())));
        found
    };
    rig.sampled(vec![leased(Some(grant("ferby", 4)), DomainState::Running)]);
    assert_eq!(update(&mut rig), (vec![user(4)], vec![grant("ferby", 4)]));
    // one that was kept with the domain on another server
    rig.sampled(vec![leased(Some(grant("gerby", 4)), DomainState::Running)]);
    assert_eq!(update(&mut rig).1, vec![]);
    rig.agent.me.imports = false;
    assert_eq!(update(&mut rig), (vec![], vec![]), "this hypervisor opens exports itself");
    rig.pass(120_000);
    while let Some(users) = rig.tidied() {
        assert_eq!(users, vec![], "{users:?}");
    }
}
