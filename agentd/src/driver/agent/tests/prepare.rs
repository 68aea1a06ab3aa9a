//! What domains boot from.

use super::create::{files, grant};
use super::*;
use xvm_model::Grant;
use xvm_model::spec::Boot as Files;

impl Rig {
    fn prepare(&mut self, grant: Grant, boot: Option<Files>) {
        let boot = boot.map(Box::new);
        self.tell(DomainCommand::Prepare { grant: Box::new(grant), boot });
    }

    fn update(&mut self) -> Option<Vec<DomainName>> {
        self.order(Order::Server { command: ServerCommand::UpdateImports });
        self.take(|e| if let Effect::Update { here, .. } = e { Some(here.clone()) } else { None })
    }
}

#[test]
fn a_domain_that_is_not_here_is_prepared_for() {
    let mut rig = Rig::empty();
    rig.prepare(grant("ferby", 2), Some(files()));
    assert_eq!(rig.replies()[0].answer, Answer::Working);
    let (op, what) = rig.begun();
    assert_eq!(what, Op::Fetch(Box::new(files())));
    rig.ended(op, Ok(None));
    assert_eq!(rig.done(), "small-1 may come: all that it boots from is here");
    assert!(rig.agent.heartbeat().domains.is_empty());

    rig.prepare(grant("ferby", 3), None);
    assert_eq!(rig.done(), "small-1 may come: it boots from its disk");

    rig.prepare(grant("ferby", 4), Some(files()));
    let (op, _) = rig.begun();
    rig.ended(op, Err(HvError::Refused("no such export".into())));
    let failure = rig.failure();
    assert_eq!((failure.code, &*failure.text), (Code::Io, "cannot prepare small-1: no such export"));
}

#[test]
fn whatever_goes_on_with_a_domain_here_does_not_matter() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    let _shutdown = rig.begun();
    rig.prepare(grant("ferby", 2), Some(files()));
    let (op, _) = rig.begun();
    rig.replies();
    rig.ended(op, Ok(None));
    assert!(rig.done().starts_with("small-1 may come"));
    assert_eq!(rig.job().as_deref(), Some("shutdown wait 0"));
}

#[test]
fn bad_values_are_refused_and_a_late_end_is_told_as_such() {
    let mut rig = Rig::empty();
    for (bad, boot) in [
        (grant("gerby", 2), Some(files())),
        (Grant { disks: vec![], ..grant("ferby", 2) }, None),
        (grant("ferby", 2), Some(Files { cmdline: "a\nb".into(), ..files() })),
    ] {
        rig.prepare(bad, boot);
        assert_eq!(rig.failure().code, Code::Invalid);
    }
    rig.prepare(grant("ferby", 2), Some(files()));
    let (op, _) = rig.begun();
    rig.pass(44_000);
    assert_eq!(rig.replies().pop().expect("one").answer, Answer::Working);
    rig.pass(1_001);
    assert_eq!(rig.failure().code, Code::TimedOut);
    rig.ended(op, Ok(None));
    assert!(rig.replies().is_empty());
}

#[test]
fn imports_are_updated_one_order_at_a_time() {
    let mut rig = Rig::new(DomainState::Shutoff);
    let mut coming = grant("ferby", 2);
    coming.config = xvm_model::ConfigName::parse("b").expect("valid");
    coming.disks[0].export = coming.stem();
    let command = DomainCommand::Prepare { grant: Box::new(coming), boot: Some(Box::new(files())) };
    rig.order(Order::Domain { name: name("b"), command });
    assert_eq!(rig.update(), Some(vec![name("small-1"), name("b")]), "here, and about to come");
    assert_eq!(rig.update(), None);
    assert_eq!(rig.failure().code, Code::Busy);
    rig.input(Input::Updated(Ok("2 files".into())));
    assert_eq!(rig.done(), "2 files");
    // one that takes long goes on
    assert!(rig.update().is_some());
    rig.pass(4_000);
    assert_eq!(rig.failure().code, Code::TimedOut);
    rig.update();
    assert_eq!(rig.failure().code, Code::Busy);
    rig.input(Input::Updated(Err("the disk is full".into())));
    assert!(rig.replies().is_empty());
    assert!(rig.update().is_some());
    rig.input(Input::Updated(Err("the disk is full".into())));
    assert_eq!(rig.failure().text, "cannot update the imports of ferby: the disk is full");

    let mut silent = Rig::silent();
    assert_eq!(silent.update(), None, "whatever is here would be dropped");
    assert_eq!(silent.failure().code, Code::Io);
}
