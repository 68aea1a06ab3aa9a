//! A second lease for a migration.

use super::create::grant;
use super::*;
use crate::hypervisor::Way;
use xvm_model::{Grant, Spec};

impl Rig {
    /// On ferby, with small-1 that uses its volumes by lease 1.
    fn leased() -> Rig {
        let mut rig = Rig::new(DomainState::Running);
        let mut d = domain("small-1", DomainState::Running);
        d.settings.grant = Some(Box::new(grant("ferby", 1)));
        let query = rig.agent.next_id();
        assert!(rig.agent.records.one(query, &name("small-1"), Some(d)));
        rig
    }

    /// Orders a migration to gerby; gives the number of the request for a lease, and the job.
    fn leasing(&mut self) -> (Id, Box<str>) {
        let id = self.tell(DomainCommand::Migrate {
            to: Some(server("gerby")),
            address: "there:1".into(),
            paused: false,
        });
        let pick = |e: &Effect| match e {
            Effect::Lend { op, config, to, job, .. } => {
                Some((*op, config.to_string(), to.clone(), job.clone()))
            }
            _ => None,
        };
        let (op, config, to, job) = self.take(pick).expect("imaged is asked");
        assert_eq!((config.as_str(), to, &job), ("small-1", server("gerby"), &id));
        (op, job)
    }

    fn lent(&mut self, op: Id, result: Result<Grant, Failure>) {
        self.input(Input::Lent { op, name: name("small-1"), result: result.map(Box::new) });
    }

    fn begins_nothing(&mut self) {
        let begun = self.take(|e| if let Effect::Begin { what, .. } = e { Some(what.clone()) } else { None });
        assert_eq!(begun, None);
    }
}

#[test]
fn a_lease_is_taken_before_it_leaves_and_goes_along() {
    let mut rig = Rig::leased();
    let (op, _) = rig.leasing();
    assert_eq!(rig.replies()[0].answer, Answer::Accepted);
    assert_eq!(rig.job().as_deref(), Some("migrate lease 0"), "imaged sees that it is about to move");
    rig.begins_nothing();
    rig.lent(op, Ok(grant("gerby", 2)));
    assert_eq!(rig.job().as_deref(), Some("migrate begin 0"));
    // a second answer changes nothing
    rig.lent(op, Ok(grant("gerby", 2)));
    let (op, what) = rig.begun();
    let Op::Set(settings) = what else { panic!("{what:?}") };
    assert_eq!(settings.came.expect("a mark").from, server("ferby"));
    assert_eq!(settings.grant.as_deref(), Some(&grant("ferby", 1)), "it is here still");
    rig.ended(op, Ok(None));
    let (_, what) = rig.begun();
    let lent = Some(Box::new(grant("gerby", 2)));
    assert_eq!(what, Op::Migrate { way: Way { address: "there:1".into(), paused: false }, grant: lent });
    rig.begins_nothing();
}

#[test]
fn without_a_lease_nothing_changes() {
    let mut rig = Rig::leased();
    let (op, job) = rig.leasing();
    rig.lent(op, Err(Failure::new(Code::HostDown, "imaged, which lends its disk, was never heard")));
    rig.begins_nothing();
    let failure = rig.outcome().expect_err("failed");
    assert_eq!(failure.code, Code::HostDown);
    assert_eq!(
        failure.text,
        "cannot migrate small-1 to gerby: imaged, which lends its disk, was never heard"
    );
    let last = rig.agent.shown(&name("small-1")).expect("here").last.expect("told");
    assert_eq!(last.id, job, "imaged knows by this that the lease is not needed");
    // whatever comes later is not for it
    rig.lent(op, Ok(grant("gerby", 2)));
    rig.begins_nothing();
    assert_eq!(rig.job(), None);
}

#[test]
fn another_lease_than_the_one_that_was_asked_for_is_none() {
    let other = |change: fn(&mut Grant)| {
        let mut grant = grant("gerby", 2);
        change(&mut grant);
        grant.disks[0].export = grant.stem();
        grant
    };
    for wrong in [
        grant("herby", 2),
        grant("gerby", 1),
        other(|g| g.config = xvm_model::ConfigName::parse("small-2").expect("valid")),
        other(|g| g.disks[0].target = "vdb".into()),
        Grant { port: 0, ..grant("gerby", 2) },
    ] {
        let mut rig = Rig::leased();
        let (op, _) = rig.leasing();
        rig.lent(op, Ok(wrong));
        rig.begins_nothing();
        let failure = rig.outcome().expect_err("refused");
        assert!(
            failure.text.starts_with("cannot migrate small-1 to gerby: imaged lent "),
            "{}",
            failure.text
        );
    }
}

#[test]
fn it_is_cancelled_while_it_waits_for_its_lease() {
    let mut rig = Rig::leased();
    let (op, job) = rig.leasing();
    rig.tell(DomainCommand::Pause);
    assert_eq!(rig.failure().code, Code::Busy, "a job runs");
    rig.tell(DomainCommand::Cancel);
    assert_eq!(rig.done(), "small-1 does not migrate");
    let unlent = rig.take(|e| if let Effect::Unlend { op } = e { Some(*op) } else { None });
    assert_eq!(unlent, Some(op), "nobody asks any more");
    let failure = rig.outcome().expect_err("cancelled");
    assert!(failure.text.contains("cancelled before it began"), "{}", failure.text);
    assert_eq!(rig.agent.shown(&name("small-1")).expect("here").last.expect("told").id, job);
    // the next one is not served by the first one's answer
    let (next, _) = rig.leasing();
    rig.lent(op, Ok(grant("gerby", 2)));
    rig.begins_nothing();
    rig.lent(next, Ok(grant("gerby", 3)));
    assert!(matches!(rig.begun().1, Op::Set(_)));
}

#[test]
fn one_that_went_off_meanwhile_does_not_move() {
    let mut rig = Rig::leased();
    let (op, _) = rig.leasing();
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    rig.is(None);
    rig.changes();
    rig.lent(op, Ok(grant("gerby", 2)));
    rig.begins_nothing();
    let told = rig.changes();
    let [DomainChange::Is { domain }, DomainChange::Gone { .. }] = &told[..] else { panic!("{told:?}") };
    let last = domain.last.clone().expect("told once");
    assert!(last.result.expect_err("failed").text.contains("does not run any more"));
    assert!(rig.agent.works.is_empty());
}

/// If this fails, a machine whose destination died at the end of its migration can start nowhere until that is repaired.
#[test]
fn an_order_by_a_newer_lease_ends_the_question_where_it_went() {
    let mut rig = Rig::leased();
    let (op, _) = rig.leasing();
    rig.lent(op, Ok(grant("gerby", 2)));
    let (op, _) = rig.begun();
    rig.ended(op, Ok(None));
    let (op, _) = rig.begun();
    let create = |epoch| {
        let spec = Spec { grant: grant("ferby", epoch), ..super::create::spec() };
        DomainCommand::Create { spec: Box::new(spec) }
    };
    rig.replies();
    rig.tell(create(3));
    rig.failure();
    assert_eq!(rig.job().as_deref(), Some("migrate begin 0"), "it is here still");
    rig.ended(op, Err(HvError::Unreachable("connection broke".into())));
    rig.is(None);
    rig.there(Err(HvError::Unreachable("no answer".into())));
    assert_eq!(rig.job().as_deref(), Some("migrate ask 0"));
    rig.tell(create(1));
    rig.failure();
    assert_eq!(rig.job().as_deref(), Some("migrate ask 0"), "an old order tells nothing");
    rig.tell(create(3));
    assert_eq!(rig.replies()[0].answer, Answer::Accepted);
    assert_eq!(rig.job().as_deref(), Some("start fetch 0"));
}
