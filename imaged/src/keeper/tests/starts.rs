//! Starts, migrations and servers that are away: who holds the disk.

use super::rig::{Rig, config, news, server};
use crate::keeper::step::{Effect, Input, Tag};
use xvm_model::lease::Phase;
use xvm_model::{
    Answer, Code, ConfigCommand, ConfigState, DomainCommand, DomainState, Failure, JobKind, Order,
};

fn start(on: Option<&str>) -> ConfigCommand {
    ConfigCommand::Start { on: on.map(server) }
}

#[test]
fn nothing_is_exported_or_ordered_before_it_is_kept() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.easy = false;
    rig.order("small-6", start(Some("ferby")));
    assert_eq!(rig.kept.configs[&config("small-6")].leases.held.len(), 1);
    assert!(rig.take_order().is_none(), "the agent is told when the export is there");
    let (wish, names) = rig
        .open
        .iter()
        .find_map(|e| match e {
            Effect::Export { wish, names, .. } => Some((*wish, names.clone())),
            _ => None,
        })
        .expect("an export");
    assert_eq!(
        names.iter().map(|(e, _)| &**e).collect::<Vec<_>>(),
        ["small-6.ferby.1", "small-6.ferby.1.swap"]
    );
    rig.input(Input::Exported { name: config("small-6"), wish: wish - 1, result: Ok(()) });
    assert!(rig.take_order().is_none(), "an older wish says nothing");
    rig.input(Input::Exported { name: config("small-6"), wish, result: Ok(()) });
    assert!(rig.take_order().is_some());
}

#[test]
fn a_start_before_servers_were_heard_waits_for_them() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.restart();
    assert_eq!(rig.order("small-6", start(Some("gerby"))), Some(Answer::Working));
    let id = rig.last_reply().id.clone();
    rig.beat("ferby");
    assert_eq!(rig.answer(&id), Some(Answer::Working));
    rig.beat("gerby");
    assert_eq!(rig.answer(&id), Some(Answer::Accepted));
    assert_eq!(rig.order("small-6", start(Some("nobody"))), Some(Answer::Working));
    let id = rig.last_reply().id.clone();
    rig.pass(4_000, &["ferby", "gerby"]);
    assert!(matches!(rig.answer(&id), Some(Answer::Failed { .. })));
}

#[test]
fn it_runs_once_and_is_given_back_when_it_is_off() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.runs("small-6", "ferby");
    let (code, text) = Rig::refused(rig.order("small-6", start(Some("gerby"))));
    assert_eq!((code, &*text), (Code::Busy, "cannot start small-6: ferby runs it"));
    assert_eq!(rig.record("small-6").state, ConfigState::Running);
    rig.gone("ferby", "small-6");
    assert_eq!((rig.record("small-6").state, rig.exports("small-6").len()), (ConfigState::Ready, 0));
    assert_eq!(rig.runs("small-6", "gerby"), 2);
}

#[test]
fn a_start_that_is_refused_gives_the_lease_back() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.order("small-6", start(Some("ferby")));
    let (_, tag, _) = rig.take_order().expect("an order");
    let failure = Failure::new(Code::NoSpace, "cannot create small-6: too little memory");
    rig.reply("small-6", tag, Err(failure));
    let e = rig.outcome("small-6").expect_err("refused");
    assert_eq!((e.code, &*e.text), (Code::NoSpace, "cannot start small-6 on ferby: too little memory"));
    assert!(rig.exports("small-6").is_empty());
}

#[test]
fn a_start_whose_answer_is_lost_is_judged_by_what_runs() {
    for runs in [true, false] {
        let mut rig = Rig::new();
        rig.made("small-6");
        rig.order("small-6", start(Some("ferby")));
        let (_, tag, _) = rig.take_order().expect("an order");
        rig.reply("small-6", tag, Err(Failure::new(Code::TimedOut, "nobody knows")));
        assert!(rig.record("small-6").job.is_some(), "it is not known yet");
        rig.beat("ferby");
        assert_eq!(rig.exports("small-6").len(), 2, "a word from before the deadline says nothing");
        if runs {
            rig.domain("ferby", "small-6", |d| d.state = DomainState::Running);
            assert!(rig.outcome("small-6").is_ok());
        }
        rig.pass(8_000, &["ferby", "gerby", "herby"]);
        assert_eq!(rig.exports("small-6").len(), if runs { 2 } else { 0 });
        assert_eq!(rig.outcome("small-6").is_ok(), runs);
    }
}

#[test]
fn a_migration_has_two_leases_until_it_has_ended() {
    for arrives in [true, false] {
        let mut rig = Rig::new();
        rig.made("small-6");
        rig.runs("small-6", "ferby");
        rig.domain("ferby", "small-6", |d| d.job = Some(Box::new(job("m1"))));
        let lend = ConfigCommand::Lend { from: server("ferby"), to: server("gerby"), job: "m1".into() };
        assert_eq!(rig.order("small-6", lend), Some(Answer::Working));
        let (to, tag, order) = rig.take_order().expect("the destination gets ready");
        assert_eq!((&*to, tag), ("gerby", Tag::Prepare(2)));
        assert!(matches!(order, Order::Domain { command: DomainCommand::Prepare { .. }, .. }));
        rig.reply("small-6", tag, Ok("p"));
        let record = news(rig.last_reply()).expect("the record").clone();
        assert_eq!(record.leases[1].job.as_deref(), Some("m1"));
        assert_eq!(
            (&*record.leases[1].grant.stem(), record.leases[1].phase),
            ("small-6.gerby.2", Phase::Arriving)
        );
        rig.pass(10_000, &["ferby", "gerby", "herby"]);
        assert_eq!(rig.exports("small-6").len(), 4, "as long as it moves");
        if arrives {
            rig.gone("ferby", "small-6");
            assert_eq!(rig.exports("small-6").len(), 4, "gerby has not spoken");
            let grant = record.leases[1].grant.clone();
            rig.domain("gerby", "small-6", |d| d.settings.grant = Some(Box::new(grant)));
            assert_eq!(rig.exports("small-6"), ["small-6.gerby.2", "small-6.gerby.2.swap"]);
        } else {
            rig.domain("ferby", "small-6", |d| {
                (d.job, d.last) = (None, Rig::ended("m1", Err(Failure::busy("cancelled"))));
            });
            assert_eq!(rig.exports("small-6"), ["small-6.ferby.1", "small-6.ferby.1.swap"]);
        }
    }
}

/// If this fails, a domain cannot open its disk where it moves to, or a server goes on using one that another has.
#[test]
fn a_lease_is_served_as_it_began_and_tls_lets_in_who_holds_one() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.runs("small-6", "ferby");
    rig.tls = true;
    rig.restart();
    for name in ["ferby", "gerby", "herby"] {
        rig.beat(name);
    }
    let lend = |from: &str, to: &str, job: &str| ConfigCommand::Lend {
        from: server(from),
        to: server(to),
        job: job.into(),
    };
    let moves = |rig: &mut Rig, from: &str, to: &str, id: &str| {
        rig.domain(from, "small-6", |d| d.job = Some(Box::new(job(id))));
        rig.order("small-6", lend(from, to, id));
        let both = rig.let_in.clone();
        let (_, tag, _) = rig.take_order().expect("the destination gets ready");
        rig.reply("small-6", tag, Ok("p"));
        let grant = rig.record("small-6").leases[1].grant.clone();
        rig.gone(from, "small-6");
        rig.domain(to, "small-6", |d| d.settings.grant = Some(Box::new(grant.clone())));
        (grant.tls, both, rig.let_in.clone())
    };
    assert_eq!(moves(&mut rig, "ferby", "gerby", "m1"), (false, None, None), "it began without TLS");
    rig.gone("gerby", "small-6");

    rig.runs("small-6", "ferby");
    let names = |all: &[&str]| Some(all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    assert!(rig.record("small-6").leases[0].grant.tls);
    assert_eq!(rig.let_in, names(&["ferby"]));
    let moved = moves(&mut rig, "ferby", "gerby", "m2");
    assert_eq!(moved, (true, names(&["ferby", "gerby"]), names(&["gerby"])));
}

fn job(id: &str) -> xvm_model::Job {
    let (phase, since) = ("copy".into(), xvm_model::Wall(0));
    xvm_model::Job { id: id.into(), kind: JobKind::Migrate, phase, percent: 1, to: None, since, note: None }
}

#[test]
fn a_destination_that_cannot_have_it_costs_nothing() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.runs("small-6", "ferby");
    let lend = |to: &str| ConfigCommand::Lend { from: server("ferby"), to: server(to), job: "m1".into() };
    rig.order("small-6", lend("gerby"));
    let (_, tag, _) = rig.take_order().expect("prepare");
    rig.reply("small-6", tag, Err(Failure::new(Code::NoSpace, "no room for the kernel")));
    let answer = Some(rig.last_reply().answer.clone());
    assert_eq!(
        Rig::refused(answer),
        (Code::NoSpace, "cannot migrate small-6 to gerby: no room for the kernel".into())
    );
    assert_eq!(rig.exports("small-6"), ["small-6.ferby.1", "small-6.ferby.1.swap"]);
    assert_eq!(Rig::refused(rig.order("small-6", lend("nobody"))).0, Code::Busy);
    let stranger = ConfigCommand::Lend { from: server("herby"), to: server("gerby"), job: "m2".into() };
    assert_eq!(Rig::refused(rig.order("small-6", stranger)).0, Code::Busy);
}

#[test]
fn a_server_that_is_down_keeps_its_lease_unless_restart_is_always() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.runs("small-6", "ferby");
    rig.pass(60_000, &["gerby", "herby"]);
    assert_eq!(rig.record("small-6").state, ConfigState::Lost);
    assert!(Rig::refused(rig.order("small-6", start(None))).1.contains("ferby is down and may run it still"));
    let set = ConfigCommand::Set { key: "restart".into(), value: "always".into() };
    assert!(matches!(rig.order("small-6", set), Some(Answer::Done { .. })));
    rig.pass(4_000, &["gerby", "herby"]);
    let (to, _, order) = rig.take_order().expect("it is started elsewhere");
    assert_ne!(to, "ferby");
    let Order::Domain { command: DomainCommand::Create { spec }, .. } = order else { panic!() };
    assert_eq!(spec.grant.epoch, 2);
    assert!(!rig.exports("small-6").iter().any(|e| e.contains("ferby")));
    // the old server is back, and still has it
    rig.domain(&to, "small-6", |d| d.settings.grant = Some(Box::new(spec.grant.clone())));
    rig.pass(2_000, &["ferby", "gerby", "herby"]);
    let (to, tag, order) = rig.take_order().expect("it is ended where it has no disk");
    assert_eq!((&*to, tag), ("ferby", Tag::Fence));
    assert!(matches!(order, Order::Domain { command: DomainCommand::Fence { epoch: 1 }, .. }));
    assert_eq!(rig.record("small-6").state, ConfigState::Running);
}

#[test]
fn leases_survive_a_restart_and_so_does_an_unfinished_start() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.made("small-7");
    rig.runs("small-6", "ferby");
    rig.order("small-7", start(Some("gerby")));
    rig.restart();
    assert_eq!(rig.record("small-6").leases[0].grant.epoch, 1);
    rig.pass(20_000, &["ferby", "gerby", "herby"]);
    assert_eq!(rig.record("small-6").state, ConfigState::Running);
    assert!(rig.exports("small-7").is_empty(), "what nobody runs is given back: {:?}", rig.record("small-7"));
    assert_eq!(rig.runs("small-7", "gerby"), 2);
}

#[test]
fn a_lost_state_is_learnt_from_what_runs_and_ends_nothing() {
    let mut rig = Rig::new();
    rig.made("small-6");
    let old = rig.kept.clone();
    rig.runs("small-6", "ferby");
    rig.kept = old;
    rig.restart();
    rig.pass(4_000, &["ferby", "gerby", "herby"]);
    assert_eq!(rig.record("small-6").state, ConfigState::Running);
    assert!(rig.take_order().is_none(), "nothing is ended");
    assert_eq!(rig.exports("small-6")[0], "small-6.ferby.1");
}

#[test]
fn the_best_server_is_the_one_with_the_least_on_its_way() {
    let mut rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.made(name);
        rig.order(name, start(None));
    }
    let mut to: Vec<String> = std::iter::from_fn(|| rig.take_order()).map(|(to, ..)| to).collect();
    to.sort();
    assert_eq!(to, ["ferby", "gerby", "herby"]);
    rig.made("d");
    let set = ConfigCommand::Set { key: "memory".into(), value: "99999".into() };
    rig.order("d", set);
    let (code, text) = Rig::refused(rig.order("d", start(None)));
    assert_eq!(code, Code::NoSpace);
    assert!(text.contains("ferby: it has ") && text.contains("the domain needs 99999"), "{text}");
    rig.pass(4_000, &["ferby", "gerby", "herby"]);
    let (code, text) = Rig::refused(rig.order("d", start(Some("nobody"))));
    assert_eq!(
        (code, &*text),
        (Code::NoEntry, "cannot start d on nobody: no such server; servers are ferby, gerby, herby")
    );
}

/// If this fails, a machine stays off although it is to be restarted always, for the one end of its migration is down and the other
/// says that it does not have it; or one is started a second time that arrived.
#[test]
fn a_migration_that_loses_an_end_is_started_anew_or_has_arrived() {
    let always = || ConfigCommand::Set { key: "restart".into(), value: "always".into() };
    let lend = || ConfigCommand::Lend { from: server("ferby"), to: server("gerby"), job: "m1".into() };
    for arrives in [false, true] {
        let mut rig = Rig::new();
        rig.made("small-6");
        rig.order("small-6", always());
        rig.runs("small-6", "ferby");
        rig.domain("ferby", "small-6", |d| d.job = Some(Box::new(job("m1"))));
        rig.order("small-6", lend());
        let (_, tag, order) = rig.take_order().expect("prepare");
        let Order::Domain { command: DomainCommand::Prepare { grant, .. }, .. } = order else { panic!() };
        rig.reply("small-6", tag, Ok("p"));
        if arrives {
            rig.domain("gerby", "small-6", |d| d.settings.grant = Some(grant.clone()));
            assert_eq!(rig.exports("small-6")[0], "small-6.gerby.2", "its source has lost it");
        }
        rig.pass(60_000, &["gerby", "herby"]);
        if arrives {
            assert!(rig.take_order().is_none(), "it runs");
            continue;
        }
        let (to, _, order) = rig.take_order().expect("it is started anew");
        assert_ne!(to, "ferby");
        let Order::Domain { command: DomainCommand::Create { spec }, .. } = order else { panic!() };
        assert_eq!(spec.grant.epoch, 3);
    }
    // the source knows only that it has left
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.order("small-6", always());
    rig.runs("small-6", "ferby");
    rig.order("small-6", lend());
    let (_, tag, _) = rig.take_order().expect("prepare");
    rig.reply("small-6", tag, Ok("p"));
    rig.domain("ferby", "small-6", |d| {
        d.state = DomainState::Shutoff;
        d.job = Some(Box::new(job("m1")));
    });
    rig.pass(4_000, &["ferby", "herby"]);
    assert!(rig.take_order().is_none(), "gerby may run it");
    rig.pass(60_000, &["ferby", "herby"]);
    assert!(rig.take_order().is_some_and(|(to, ..)| to != "gerby"), "gerby is down");
}

/// If this fails, a machine that is to be restarted stays off, for imaged died after it had taken its disk away.
#[test]
fn a_restart_is_not_forgotten() {
    let mut rig = Rig::new();
    rig.made("small-6");
    let always = ConfigCommand::Set { key: "restart".into(), value: "always".into() };
    rig.order("small-6", always);
    rig.runs("small-6", "ferby");
    // all are away: it cannot be started anywhere
    rig.pass(60_000, &[]);
    assert!(rig.exports("small-6").is_empty() && rig.kept.configs[&config("small-6")].restart);
    rig.restart();
    let next = |rig: &mut Rig| {
        let mut looks = std::iter::repeat_with(|| {
            rig.pass(500, &["gerby"]);
            rig.take_order()
        });
        looks.by_ref().take(40).flatten().next()
    };
    let (to, tag, order) = next(&mut rig).expect("it is started");
    assert_eq!(to, "gerby");
    let Order::Domain { command: DomainCommand::Create { spec }, .. } = order else { panic!() };
    rig.reply("small-6", tag, Err(Failure::new(Code::NoSpace, "no room")));
    let (_, tag, order) = next(&mut rig).expect("and again");
    let Order::Domain { command: DomainCommand::Create { spec: second }, .. } = order else { panic!() };
    assert!(second.grant.epoch > spec.grant.epoch);
    rig.reply("small-6", tag, Ok("j"));
    rig.domain("gerby", "small-6", |d| d.settings = second.settings.clone());
    assert!(!rig.kept.configs[&config("small-6")].restart, "it runs");
    rig.gone("gerby", "small-6");
    rig.pass(12_000, &["gerby"]);
    assert!(rig.take_order().is_none(), "who powers it off is obeyed");
}

/// If this fails, a migration waits for minutes for a destination that is known to be down, and nothing else can be done meanwhile.
#[test]
fn a_destination_that_goes_down_gets_no_lease() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.runs("small-6", "ferby");
    let lend = ConfigCommand::Lend { from: server("ferby"), to: server("gerby"), job: "m1".into() };
    rig.order("small-6", lend);
    rig.pass(30_000, &["ferby", "herby"]);
    let answer = Some(rig.last_reply().answer.clone());
    assert_eq!(
        Rig::refused(answer),
        (Code::HostDown, "cannot migrate small-6 to gerby: gerby is down".into())
    );
    assert_eq!(rig.exports("small-6"), ["small-6.ferby.1", "small-6.ferby.1.swap"]);
}
