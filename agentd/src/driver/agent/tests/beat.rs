//! Heartbeats, news, settings, a hypervisor that is not heard.

use super::*;

#[test]
fn nothing_is_said_before_the_hypervisor_answered() {
    let mut rig = Rig::silent();
    rig.input(Input::Link(true));
    rig.input(Input::RollCall);
    assert_eq!(rig.beats(), 0);
    rig.tell(DomainCommand::Pause);
    let failure = rig.failure();
    assert_eq!(failure.code, Code::Io);
    assert!(failure.text.contains("the hypervisor of ferby is not heard"), "{}", failure.text);
}

#[test]
fn news_are_told_at_once_and_older_answers_do_not_count() {
    let mut rig = Rig::new(DomainState::Running);
    rig.pass(1_000);
    rig.now.mono = rig.now.mono.plus(1_000);
    rig.input(Input::Tick);
    let sample = rig.sample().expect("a sample is under way");
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(Some(DomainState::Paused));
    assert!(
        matches!(&rig.changes()[..], [DomainChange::Is { domain }] if domain.state == DomainState::Paused)
    );
    let domains = Ok(vec![domain("small-1", DomainState::Running)]);
    rig.input(Input::Sampled { query: sample, host: Ok(Host::default()), domains });
    assert_eq!(rig.agent.shown(&name("small-1")).expect("known").state, DomainState::Paused);
    // news during a question: one more question follows, never two at a time
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    let first = rig.asked().expect("asked");
    for _ in 0..10 {
        rig.input(Input::News(HvEvent::Changed(name("small-1"))));
        assert!(rig.asked().is_none());
    }
    let result = Ok(Some(domain("small-1", DomainState::Paused)));
    rig.input(Input::Asked { query: first, name: name("small-1"), result });
    assert!(rig.asked().is_some());
}

#[test]
fn a_hypervisor_that_hangs_is_stale_while_heartbeats_go_on() {
    let mut rig = Rig::new(DomainState::Running);
    rig.now.mono = rig.now.mono.plus(1_000);
    rig.input(Input::Tick);
    let query = rig.sample().expect("a sample is under way");
    for _ in 0..100 {
        rig.now.mono = rig.now.mono.plus(100);
        rig.input(Input::Tick);
        assert!(rig.sample().is_none(), "one sample at a time");
    }
    assert!(rig.beats() >= 5);
    let beat = rig.agent.heartbeat();
    assert!(beat.stale.expect("stale").contains("has not answered for 4 s"));
    assert_eq!(beat.domains.len(), 1, "what was heard last is told on");
    rig.tell(DomainCommand::Pause);
    assert_eq!(rig.failure().code, Code::Io);
    rig.input(Input::Sampled {
        query,
        host: Ok(Host::default()),
        domains: Ok(vec![domain("small-1", DomainState::Running)]),
    });
    assert_eq!(rig.agent.heartbeat().stale, None);
    assert_eq!(rig.beats(), 1, "everybody learns at once");
    rig.input(Input::News(HvEvent::Down("no libvirtd".into())));
    assert_eq!(rig.agent.heartbeat().stale.as_deref(), Some("no libvirtd"));
    rig.out.clear();
    rig.input(Input::News(HvEvent::Up));
    rig.pass(1);
    assert_eq!(rig.agent.heartbeat().stale, None);
}

#[test]
fn roll_calls_are_answered_five_times_a_second_at_most() {
    let mut rig = Rig::new(DomainState::Running);
    rig.beats();
    for _ in 0..1000 {
        rig.now.mono = rig.now.mono.plus(1);
        rig.input(Input::RollCall);
    }
    assert_eq!(rig.beats(), 5);
    rig.input(Input::Link(true));
    assert_eq!(rig.beats(), 1);
}

#[test]
fn settings_are_in_force_once_they_are_on_disk() {
    let mut rig = Rig::new(DomainState::Running);
    rig.order(Order::Server { command: ServerCommand::Accept { on: false } });
    rig.order(Order::Server { command: ServerCommand::Heartbeat { ms: 500 } });
    assert!(rig.agent.settings.accepting);
    let saves: Vec<_> = rig.out.iter().filter(|e| matches!(e, Effect::Save(_))).cloned().collect();
    assert!(matches!(saves[..], [_, Effect::Save(s)] if !s.accepting && s.heartbeat_ms == 500));
    rig.input(Input::Saved(Ok(())));
    rig.input(Input::Saved(Err("disk full".into())));
    assert!(!rig.agent.settings.accepting);
    assert_eq!(rig.agent.settings.heartbeat_ms, 2_000);
    let replies = rig.replies();
    let Some(News::Server { heartbeat }) = &replies[0].news else { panic!("no news") };
    assert!(!heartbeat.settings.accepting);
    assert!(matches!(&replies[1].answer, Answer::Failed { failure } if failure.text.contains("disk full")));
    for bad in [
        ServerCommand::Heartbeat { ms: 99 },
        ServerCommand::Watchdog { points: None, threshold: None, limit: Some(0), unit: None },
        ServerCommand::Watchdog { points: Some(1001), threshold: None, limit: None, unit: None },
    ] {
        rig.order(Order::Server { command: bad });
        assert_eq!(rig.failure().code, Code::Invalid);
    }
}
