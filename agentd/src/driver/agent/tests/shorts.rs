//! Orders that end at once: refused, judged, timed out.

use super::*;
use crate::hypervisor::Way;

#[test]
fn a_pause_is_answered_by_what_the_domain_is() {
    let mut rig = Rig::new(DomainState::Running);
    let id = rig.tell(DomainCommand::Pause);
    assert_eq!(rig.replies()[0].answer, Answer::Working);
    let (op, what) = rig.begun();
    assert_eq!(what, Op::Pause);
    // the call failed, and the domain is paused all the same
    rig.ended(op, Err(HvError::Refused("job lock".into())));
    rig.is(Some(DomainState::Paused));
    let at = |rig: &Rig, topic: &str| {
        rig.out.iter().position(|e| matches!(e, Effect::Publish(t, _) if t.to_string().starts_with(topic)))
    };
    assert!(at(&rig, "domain.") < at(&rig, "reply."), "the change is told before the reply");
    let reply = rig.replies().pop().expect("answered");
    assert_eq!(reply.answer, Answer::Done { text: "small-1 is paused".into() });
    let Some(News::Domain { change }) = reply.news else { panic!("no news") };
    assert!(matches!(*change, DomainChange::Is { domain } if domain.state == DomainState::Paused));
    // a copy of the order gets the same answer, with the news of now, and nothing begins
    rig.send(&id, Order::Domain { name: name("small-1"), command: DomainCommand::Pause });
    let again = rig.replies().pop().expect("answered again");
    assert_eq!(again.answer, reply.answer);
    assert!(again.news.is_some());
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none());
}

#[test]
fn a_call_that_lies_or_fails_is_told() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Pause);
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    rig.is(Some(DomainState::Running));
    assert!(rig.failure().text.contains("says that it was done, but it is running"));
    rig.tell(DomainCommand::Destroy);
    let (op, _) = rig.begun();
    rig.ended(op, Err(HvError::NotSupported("no".into())));
    rig.is(Some(DomainState::Running));
    assert_eq!(rig.failure().code, Code::NotSupported);
    // a transient domain vanishes when it is destroyed
    rig.tell(DomainCommand::Destroy);
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    rig.is(None);
    assert_eq!(rig.done(), "small-1 is off");
    assert!(matches!(rig.changes().pop(), Some(DomainChange::Gone { .. })));
    assert!(rig.agent.works.is_empty());
}

#[test]
fn a_call_that_hangs_is_unknown_after_four_seconds_and_busy_until_it_ends() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Pause);
    let (op, _) = rig.begun();
    rig.pass(3_999);
    assert_eq!(rig.replies().len(), 1, "only working");
    rig.pass(1);
    assert_eq!(rig.failure().code, Code::TimedOut);
    rig.tell(DomainCommand::Unpause);
    let busy = rig.failure();
    assert_eq!(busy.code, Code::Busy);
    assert!(busy.text.contains("its pause has not ended after 4 s"), "{}", busy.text);
    rig.ended(op, Ok(None));
    rig.is(Some(DomainState::Paused));
    assert!(rig.replies().is_empty(), "it was answered before");
    assert!(matches!(&rig.changes()[..], [DomainChange::Is { .. }]));
    rig.tell(DomainCommand::Unpause);
    assert_eq!(rig.begun().1, Op::Unpause);
}

#[test]
fn wrong_orders_are_refused_with_code_and_sentence() {
    let mut rig = Rig::new(DomainState::Paused);
    let to = |to: &str, address: &str| DomainCommand::Migrate {
        to: Some(server(to)),
        address: address.into(),
        paused: false,
    };
    for (command, code, text) in [
        (DomainCommand::Pause, Code::Busy, "it is paused; it must be running"),
        (DomainCommand::Cancel, Code::Busy, "no job runs"),
        (to("ferby", "x:1"), Code::Exists, "it is on ferby already"),
        (to("gerby", "here:1"), Code::Exists, "it is on ferby already"),
        (to("gerby", ""), Code::Invalid, "does not say where its hypervisor is"),
        (
            DomainCommand::Migrate { to: None, address: "".into(), paused: false },
            Code::Invalid,
            "names no server",
        ),
        (DomainCommand::Priority { value: 101 }, Code::Invalid, "0 to 100"),
    ] {
        rig.tell(command);
        let failure = rig.failure();
        assert_eq!(failure.code, code, "{}", failure.text);
        assert!(failure.text.contains(text), "{}", failure.text);
    }
    rig.order(Order::Domain { name: name("nobody"), command: DomainCommand::Pause });
    assert_eq!(rig.failure().code, Code::NoEntry);
    // a pin holds
    let mut pinned = domain("small-1", DomainState::Running);
    pinned.settings.pin = Pin(vec![server("ferby")]);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    let query = rig.asked().expect("asked");
    rig.input(Input::Asked { query, name: name("small-1"), result: Ok(Some(pinned)) });
    rig.tell(to("gerby", "x:1"));
    assert_eq!(rig.failure().code, Code::Permission);
    // what cannot move while it runs moves while it stands
    let mut fixed = domain("small-1", DomainState::Running);
    fixed.fixed = Some("it is a PV guest".into());
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    let query = rig.asked().expect("asked");
    rig.input(Input::Asked { query, name: name("small-1"), result: Ok(Some(fixed)) });
    rig.tell(to("gerby", "x:1"));
    let failure = rig.failure();
    assert_eq!(failure.code, Code::NotSupported);
    assert_eq!(
        &*failure.text,
        "cannot migrate small-1 while it runs: it is a PV guest; `migrate --paused [SERVER]` moves it while it stands"
    );
    rig.tell(DomainCommand::Migrate { to: Some(server("gerby")), address: "x:1".into(), paused: true });
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    let (_, what) = rig.begun();
    assert_eq!(what, Op::Migrate { way: Way { address: "x:1".into(), paused: true }, grant: None });
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none(), "nothing began");
}

#[test]
fn an_order_to_another_life_or_too_late_does_nothing() {
    let mut rig = Rig::new(DomainState::Running);
    let client = xvm_model::ClientName::parse("c").expect("valid");
    let order = Order::Domain { name: name("small-1"), command: DomainCommand::Destroy };
    for (boot, deadline) in [(Boot(4), Wall(1_010_000)), (Boot(5), Wall(999_999))] {
        let command =
            Command { id: "c.1.9".into(), client: client.clone(), boot, deadline, order: order.clone() };
        rig.input(Input::Command(Box::new(command)));
        assert_eq!(rig.failure().code, Code::TimedOut);
    }
    assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none());
}
