//! Domains whose disk gave errors.

use super::create::grant;
use super::*;

impl Rig {
    /// small-1, leased, in a state for a reason.
    fn becomes(&mut self, state: DomainState, reason: Option<&str>) {
        let mut d = domain("small-1", state);
        d.reason = reason.map(Into::into);
        d.settings.grant = Some(Box::new(grant("ferby", 1)));
        self.input(Input::News(HvEvent::Changed(name("small-1"))));
        // an answer to a question of before counts no more, and is followed by another question
        while let Some(query) = self.asked() {
            self.input(Input::Asked { query, name: name("small-1"), result: Ok(Some(d.clone())) });
        }
        assert_eq!(self.agent.records.get(&name("small-1")).map(|d| d.state), Some(state));
    }

    /// What began to let it go on.
    fn resumes(&mut self) -> Option<Id> {
        self.take(|e| match e {
            Effect::Begin { op, what: Op::Resume(_), .. } => Some(*op),
            _ => None,
        })
    }
}

/// If this fails, a machine stands still for ever after the process that exported its disk died.
#[test]
fn it_goes_on_when_its_exports_answer() {
    let mut rig = Rig::new(DomainState::Running);
    rig.becomes(DomainState::Paused, Some("io-error"));
    assert_eq!(rig.resumes(), None, "whoever exports has a moment");
    rig.pass(300);
    let op = rig.resumes().expect("its exports are asked for");
    rig.pass(5_000);
    assert_eq!(rig.resumes(), None, "one question at a time");
    rig.ended(op, Err(HvError::Unreachable("no such export".into())));
    rig.pass(1_100);
    let op = rig.resumes().expect("asked for again");
    rig.ended(op, Ok(None));
    rig.becomes(DomainState::Running, None);
    rig.pass(3_600_000);
    assert_eq!(rig.resumes(), None);
    assert_eq!(rig.agent.resume.wake(), None, "forgotten");
}

/// If this fails, a disk that is full for hours makes its machine stop and go many times a second.
#[test]
fn one_that_stops_again_waits_longer_each_time() {
    let mut rig = Rig::new(DomainState::Running);
    rig.becomes(DomainState::Paused, Some("io-error"));
    let mut tries = 0;
    for _ in 0..6_000 {
        rig.pass(100);
        if let Some(op) = rig.resumes() {
            tries += 1;
            rig.ended(op, Ok(None));
            rig.becomes(DomainState::Running, None);
            rig.becomes(DomainState::Paused, Some("io-error"));
        }
    }
    assert!((15..40).contains(&tries), "{tries} in ten minutes");
}

/// If this fails, a machine that its user paused goes on by itself, or one that has no lease, or in the middle of a job.
#[test]
fn no_other_one_is_touched() {
    let mut rig = Rig::new(DomainState::Running);
    rig.becomes(DomainState::Paused, Some("by user"));
    rig.pass(60_000);
    assert_eq!(rig.resumes(), None);
    let mut rig = Rig::new(DomainState::Running);
    rig.becomes(DomainState::Running, None);
    rig.tell(DomainCommand::Migrate { to: Some(server("gerby")), address: "there:1".into(), paused: false });
    rig.becomes(DomainState::Paused, Some("io-error"));
    rig.pass(20_000);
    assert_eq!(rig.resumes(), None, "a migration goes on");
    let mut rig = Rig::new(DomainState::Running);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    let query = rig.asked().expect("it is asked");
    let bare = Domain { reason: Some(REASON.into()), ..domain("small-1", DomainState::Paused) };
    rig.input(Input::Asked { query, name: name("small-1"), result: Ok(Some(bare)) });
    rig.pass(60_000);
    assert_eq!(rig.resumes(), None, "no lease of ours");
}

const REASON: &str = "io-error";
