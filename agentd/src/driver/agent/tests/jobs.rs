//! Start and shutdown.

use super::*;

#[test]
fn a_shutdown_asks_again_and_gives_up_after_two_minutes() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    assert_eq!(rig.replies()[0].answer, Answer::Accepted);
    let mut asked = 0;
    for _ in 0..130 {
        if let Some((op, Op::Shutdown)) = rig.take(|e| match e {
            Effect::Begin { op, what, .. } => Some((*op, what.clone())),
            _ => None,
        }) {
            asked += 1;
            rig.ended(op, Ok(None));
            rig.is(Some(DomainState::Running));
        }
        rig.pass(1_000);
    }
    assert_eq!(asked, 40);
    let failure = rig.outcome().expect_err("gave up");
    assert!(failure.text.contains("`echo destroy > ctl` pulls the plug"), "{}", failure.text);
}

/// If this fails, a guest that does what it was asked for is told as one that could not be.
#[test]
fn a_guest_that_was_asked_may_be_between_on_and_off() {
    let between = || Err(HvError::WrongState("libvirt runs a job on it".into()));
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    for (result, state) in [
        (Ok(None), DomainState::Running),
        (between(), DomainState::Running),
        (between(), DomainState::Shutoff),
    ] {
        let (op, _) = rig.begun();
        rig.ended(op, result);
        rig.is(Some(state));
        rig.pass(3_000);
    }
    assert_eq!(rig.outcome().expect("done"), "small-1 is shut off");

    // one that was never asked is refused
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    let (op, _) = rig.begun();
    rig.ended(op, between());
    rig.is(Some(DomainState::Running));
    assert_eq!(rig.outcome().expect_err("refused").code, Code::Busy);
}

#[test]
fn a_shutdown_ends_when_the_domain_is_off_or_by_cancel() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    rig.is(Some(DomainState::Shutoff));
    assert_eq!(rig.outcome().expect("done"), "small-1 is shut off");

    // a transient domain vanishes: how it ended is told before
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    let (op, _) = rig.begun();
    rig.changes();
    rig.ended(op, Ok(None));
    rig.is(None);
    let told = rig.changes();
    let is = |c: &DomainChange| matches!(c, DomainChange::Is { domain } if domain.last.is_some());
    assert!(is(&told[0]), "{told:?}");
    assert!(matches!(&told[1..], [DomainChange::Gone { .. }]), "{told:?}");

    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Shutdown);
    let (op, _) = rig.begun();
    rig.tell(DomainCommand::Pause);
    assert_eq!(rig.failure().code, Code::Busy, "a job runs");
    rig.tell(DomainCommand::Cancel);
    assert_eq!(rig.done(), "small-1 is not asked to power off any more");
    assert_eq!(rig.outcome().expect_err("cancelled").code, Code::Busy);
    rig.ended(op, Ok(None));
    rig.pass(10_000);
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none());
}

#[test]
fn a_start_is_judged_by_the_domain() {
    let mut rig = Rig::new(DomainState::Shutoff);
    rig.tell(DomainCommand::Start);
    let (op, _) = rig.begun();
    assert_eq!(rig.job().as_deref(), Some("start begin 0"));
    rig.tell(DomainCommand::Cancel);
    assert!(rig.failure().text.contains("cannot cancel the start of small-1"));
    rig.ended(op, Ok(None));
    // the answer fails; it is asked again
    let query = rig.asked().expect("asked");
    let result = Err(HvError::Unreachable("gone".into()));
    rig.input(Input::Asked { query, name: name("small-1"), result });
    rig.now.mono = rig.now.mono.plus(1_000);
    rig.input(Input::Tick);
    rig.is(Some(DomainState::Running));
    assert_eq!(rig.outcome().expect("done"), "small-1 is running");
    let mut rig = Rig::new(DomainState::Shutoff);
    rig.tell(DomainCommand::Start);
    let (op, _) = rig.begun();
    rig.ended(op, Err(HvError::NoRoom("no memory".into())));
    rig.is(Some(DomainState::Shutoff));
    assert_eq!(rig.outcome().expect_err("no room").code, Code::NoSpace);
}
