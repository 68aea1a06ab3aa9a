//! Migrations, and how they end.

use super::*;

#[test]
fn a_migration_ends_when_both_sides_told_where_the_domain_is() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.changes();
    for percent in 0..=100 {
        rig.now.mono = rig.now.mono.plus(10);
        let progress = Progress { percent, sent: 0, remaining: u64::from(100 - percent) };
        rig.input(Input::Progress { op, name: name("small-1"), progress });
    }
    assert!(rig.changes().len() <= 6, "five a second at most");
    rig.pass(200);
    assert_eq!(rig.job().as_deref(), Some("migrate switch 100"));
    assert_eq!(rig.changes().len(), 1, "the last is told late, but told");
    // the source loses it before the call returns: nobody sees a gap
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(None);
    assert_eq!(rig.agent.heartbeat().domains.len(), 1);
    assert!(
        rig.changes().iter().all(|c| matches!(c, DomainChange::Is { domain } if domain.state.is_active()))
    );
    rig.ended(op, Ok(Some(Moved { total_ms: 612, down_ms: Some(41) })));
    assert_eq!(rig.job().as_deref(), Some("migrate ask 100"));
    rig.there(Ok(Some(DomainState::Running)));
    assert!(rig.job().is_some(), "only one side told");
    rig.is(None);
    let Some(DomainChange::Departed { departed }) = rig.changes().pop() else { panic!("not told") };
    assert_eq!(departed.to, server("gerby"));
    let outcome = departed.domain.last.expect("the outcome comes along");
    assert_eq!(outcome.result, Ok("small-1 runs on gerby: 612 ms, down 41 ms".into()));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.pass(59_000);
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.pass(1_001);
    assert!(rig.agent.heartbeat().departed.is_empty());
    assert!(rig.agent.works.is_empty());
}

#[test]
fn a_migration_that_failed_says_why_and_where_the_domain_is() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Err(HvError::NoRoom("gerby is full".into())));
    rig.is(Some(DomainState::Running));
    rig.there(Ok(None));
    let failure = rig.outcome().expect_err("failed");
    assert_eq!(failure.code, Code::NoSpace);
    assert_eq!(failure.text, "cannot migrate small-1 to gerby: gerby is full; it is running on ferby");
}

#[test]
fn a_migration_whose_call_failed_but_that_moved_is_a_success() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Err(HvError::Unreachable("connection broke".into())));
    rig.is(None);
    rig.there(Ok(Some(DomainState::Running)));
    let Some(DomainChange::Departed { departed }) = rig.changes().pop() else { panic!("not told") };
    let text = departed.domain.last.expect("outcome").result.expect("moved");
    assert_eq!(&*text, "small-1 runs on gerby (the call said: connection broke)");
}

/// Answers all questions the same way for `ms` milliseconds.
fn answer_for(rig: &mut Rig, ms: u64, here: Option<DomainState>, there: &HvResult<Option<DomainState>>) {
    for _ in 0..ms / 500 {
        if let Some(query) = rig.asked() {
            let result = Ok(here.map(|s| domain("small-1", s)));
            rig.input(Input::Asked { query, name: name("small-1"), result });
        }
        if let Some(query) = rig.locate() {
            let result = there.clone().map(|s| s.map(|s| domain("small-1", s)));
            rig.input(Input::Located { query, name: name("small-1"), result });
        }
        rig.pass(500);
    }
}

#[test]
fn a_silent_destination_ends_the_job_only_while_the_domain_is_active_here() {
    let dead = Err(HvError::Unreachable("no route".into()));
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Err(HvError::Unreachable("keepalive".into())));
    answer_for(&mut rig, 29_000, Some(DomainState::Running), &dead);
    assert_eq!(rig.job().as_deref(), Some("migrate ask 0"));
    answer_for(&mut rig, 3_000, Some(DomainState::Running), &dead);
    let failure = rig.outcome().expect_err("failed");
    assert!(failure.text.contains("gerby does not answer; it is running on ferby"), "{}", failure.text);

    // it left, and the destination is silent: asked without end, and not shown as running here
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(Some(Moved::default())));
    answer_for(&mut rig, 600_000, None, &dead);
    assert_eq!(rig.job().as_deref(), Some("migrate ask 0"));
    assert_eq!(rig.agent.heartbeat().domains[0].state, DomainState::Shutoff);
    answer_for(&mut rig, 2_000, None, &Ok(Some(DomainState::Running)));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    assert!(rig.agent.heartbeat().domains.is_empty());
}

#[test]
fn both_and_neither_are_told() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    answer_for(&mut rig, 9_000, Some(DomainState::Running), &Ok(Some(DomainState::Running)));
    assert!(rig.job().is_some());
    answer_for(&mut rig, 3_000, Some(DomainState::Running), &Ok(Some(DomainState::Running)));
    assert!(rig.outcome().expect_err("both").text.contains("it runs on both ferby and gerby"));

    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    answer_for(&mut rig, 8_000, Some(DomainState::Shutoff), &Ok(None));
    assert!(rig.outcome().expect_err("neither").text.contains("neither on ferby nor on gerby"));

    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    answer_for(&mut rig, 8_000, None, &Ok(None));
    let told = rig.changes();
    let told: Vec<_> = told.iter().rev().take(2).collect();
    let [DomainChange::Gone { .. }, DomainChange::Is { domain }] = told[..] else { panic!("{told:?}") };
    assert!(domain.last.as_ref().is_some_and(|o| o.kind == JobKind::Migrate && o.result.is_err()));
}

#[test]
fn a_migration_can_be_cancelled_until_it_switches() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.tell(DomainCommand::Pause);
    assert_eq!(rig.failure().code, Code::Busy);
    rig.tell(DomainCommand::Cancel);
    let (cancel, what) = rig.begun();
    assert_eq!(what, Op::CancelMigration);
    rig.ended(cancel, Ok(None));
    assert_eq!(rig.done(), "the migration of small-1 is being cancelled");
    rig.ended(op, Err(HvError::Cancelled));
    rig.is(Some(DomainState::Running));
    rig.there(Ok(None));
    let text = rig.outcome().expect_err("cancelled").text;
    assert_eq!(text, "cannot migrate small-1 to gerby: cancelled; it is running on ferby");
}

#[test]
fn a_domain_that_comes_back_has_not_departed() {
    let mut rig = Rig::new(DomainState::Running);
    let op = rig.migrate();
    rig.ended(op, Ok(None));
    rig.is(None);
    rig.there(Ok(Some(DomainState::Running)));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(Some(DomainState::Incoming));
    assert_eq!(rig.agent.heartbeat().departed.len(), 1);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(Some(DomainState::Running));
    assert!(rig.agent.heartbeat().departed.is_empty());
}
