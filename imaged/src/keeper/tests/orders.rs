//! Creating, cloning, changing, removing: every refusal has its sentence, and what fails leaves nothing.

use super::rig::{Rig, config, news};
use crate::keeper::step::{Effect, Input, Made, Task, Undone};
use xvm_model::config::Rights;
use xvm_model::images::Resizable;
use xvm_model::{Answer, Code, ConfigCommand, ConfigState, Failure};

fn create(settings: &[(&str, &str)]) -> ConfigCommand {
    let settings = settings.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    ConfigCommand::Create { settings, rights: Rights { uid: 1000, gid: 1000, mode: 0o755 } }
}

fn set(key: &str, value: &str) -> ConfigCommand {
    ConfigCommand::Set { key: key.into(), value: value.into() }
}

#[test]
fn a_config_is_made_with_its_settings_and_belongs_to_who_asked() {
    let mut rig = Rig::new();
    rig.easy = false;
    assert_eq!(rig.order("small-7", create(&[("memory", "512"), ("vlan", "12")])), Some(Answer::Accepted));
    let record = news(rig.last_reply()).expect("the record comes along").clone();
    assert_eq!(
        (record.state, record.config.memory, record.config.rights.uid),
        (ConfigState::Creating, 512, 1000)
    );
    let (build, task) = rig.work();
    assert!(matches!(task, Task::Make { config } if config.vlan == Some(12)));
    let stage = |percent| Input::Stage {
        build: build.clone(),
        phase: "packages".into(),
        percent,
        remaining: Some(9),
        log: 7,
    };
    rig.input(stage(40));
    let record = rig.record("small-7");
    assert_eq!(
        (record.job.as_ref().map(|j| j.percent), record.remaining, record.log),
        (Some(40), Some(9), 7)
    );
    let (code, text) = Rig::refused(rig.order("small-7", ConfigCommand::Start { on: None }));
    assert_eq!(code, Code::Busy);
    assert!(text.starts_with("cannot start small-7: its create goes on (packages, 40 %)"), "{text}");
    rig.work_ends(build, Ok(Made::default()));
    assert_eq!(rig.record("small-7").state, ConfigState::Ready);
    assert_eq!(Rig::refused(rig.order("small-7", create(&[]))).0, Code::Exists);
}

#[test]
fn bad_values_are_refused_before_anything_is_made() {
    let mut rig = Rig::new();
    for (settings, says) in [
        (("memory", "1"), "memory: \"1\" is not a whole number from 16"),
        (("os", "plan9"), "os plan9 is not known here; it may be tiny, debian/bookworm"),
        (("colour", "red"), "unknown key \"colour\""),
    ] {
        let (code, text) = Rig::refused(rig.order("small-7", create(&[settings])));
        assert_eq!(code, Code::Invalid);
        assert!(text.starts_with("cannot create small-7: ") && text.contains(says), "{text}");
    }
    assert!(rig.keeper.configs.is_empty() && rig.open.is_empty());
}

#[test]
fn what_is_cancelled_or_fails_says_so_and_can_be_rebuilt() {
    let mut rig = Rig::new();
    rig.easy = false;
    rig.order("small-6", create(&[]));
    let (build, _) = rig.work();
    assert!(matches!(rig.order("small-6", ConfigCommand::Cancel), Some(Answer::Done { .. })));
    assert!(rig.open.iter().any(|e| matches!(e, Effect::Stop { build: b } if *b == build)));
    rig.work_ends(build, Err(Undone::Cancelled));
    let e = rig.outcome("small-6").expect_err("cancelled");
    assert_eq!(e.text, "cannot create small-6: cancelled; `echo rebuild > ctl` begins anew");
    assert_eq!(rig.record("small-6").state, ConfigState::Failed);
    assert_eq!(Rig::refused(rig.order("small-6", ConfigCommand::Start { on: None })).0, Code::Busy);
    assert_eq!(rig.order("small-6", ConfigCommand::Rebuild), Some(Answer::Accepted));
    let (build, _) = rig.work();
    let full = Failure::new(Code::NoSpace, "no room for the disk");
    rig.work_ends(build, Err(Undone::Failed(full)));
    assert_eq!(rig.outcome("small-6").expect_err("full").code, Code::NoSpace);
    assert_eq!(
        Rig::refused(rig.order("small-6", ConfigCommand::Cancel)).1,
        "cannot cancel small-6: no job runs"
    );
}

#[test]
fn a_build_that_imaged_did_not_survive_is_failed_and_one_that_ended_is_not() {
    let mut rig = Rig::new();
    rig.made("small-5");
    rig.easy = false;
    rig.order("small-6", create(&[]));
    rig.restart();
    assert_eq!(rig.record("small-5").state, ConfigState::Ready);
    assert_eq!(rig.record("small-6").state, ConfigState::Failed);
    let text = rig.outcome("small-6").expect_err("interrupted").text;
    assert!(text.contains("imaged ended in the middle") && text.contains("rebuild"), "{text}");
}

#[test]
fn a_clone_has_an_identity_of_its_own_and_its_origin_waits() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.easy = false;
    rig.order("small-6", ConfigCommand::Rebuild);
    let (build, _) = rig.work();
    let kernel = xvm_model::spec::Blob { sha256: "a".repeat(64).into(), size: 9 };
    let files = crate::image::BootFiles { kernel, initrd: None, cmdline: "quiet".into() };
    rig.work_ends(build, Ok(Made { boot: Some(files), config: None }));
    let clone = ConfigCommand::Clone { new: config("small-8"), rights: Rights::default() };
    assert_eq!(rig.order("small-6", clone.clone()), Some(Answer::Accepted));
    let (a, b) = (rig.record("small-6").config, rig.record("small-8").config);
    assert!(a.uuid != b.uuid && a.mac != b.mac && a.disk == b.disk);
    let (code, text) = Rig::refused(rig.order("small-6", ConfigCommand::Start { on: None }));
    assert_eq!((code, &*text), (Code::Busy, "cannot start small-6: small-8 is being made of it"));
    assert_eq!(Rig::refused(rig.order("small-6", clone.clone())).0, Code::Busy);
    let (build, _) = rig.work();
    rig.work_ends(build, Ok(Made::default()));
    assert_eq!(Rig::refused(rig.order("small-6", clone)).0, Code::Exists);
    let boot = rig.record("small-8").boot;
    assert!(boot.is_some() && boot == rig.record("small-6").boot, "a clone boots from the same files");
    rig.easy = true;
    rig.runs("small-6", "ferby");
}

#[test]
fn settings_by_when_they_may_change() {
    let mut rig = Rig::new();
    rig.made("small-6");
    assert!(matches!(rig.order("small-6", set("memory", "300")), Some(Answer::Done { .. })));
    assert_eq!(rig.record("small-6").config.memory, 300);
    let Some(Answer::Done { text }) = rig.order("small-6", set("packages", "vim")) else { panic!() };
    assert!(text.contains("from the next rebuild on"), "{text}");
    rig.easy = false;
    assert_eq!(rig.order("small-6", set("address", "10.0.0.5/24")), Some(Answer::Working));
    let (build, task) = rig.work();
    let Task::Change { before, after } = task else { panic!("{task:?}") };
    assert!(before.address != after.address && rig.record("small-6").config.address == before.address);
    rig.work_ends(build, Ok(Made::default()));
    assert_eq!(rig.record("small-6").config.address, after.address);
    assert!(matches!(rig.last_reply().answer, Answer::Done { .. }));
    rig.easy = true;
    let (code, text) = Rig::refused(rig.order("small-6", set("disk", "100")));
    assert_eq!(
        (code, &*text),
        (Code::Invalid, "cannot set disk of small-6: a disk only gets larger, and it has 2048 MiB")
    );
    let resize = ConfigCommand::Resize { what: Resizable::Disk, to: 4096 };
    assert!(matches!(rig.order("small-6", resize), Some(Answer::Done { .. })));
    assert_eq!(rig.record("small-6").config.disk, 4096);
    rig.runs("small-6", "ferby");
    assert!(matches!(rig.order("small-6", set("priority", "70")), Some(Answer::Done { .. })));
    let (code, text) = Rig::refused(rig.order("small-6", set("memory", "400")));
    assert_eq!(code, Code::Busy);
    assert!(text.starts_with("cannot set memory of small-6: ferby runs it; shut it down first"), "{text}");
}

#[test]
fn what_is_removed_can_be_brought_back_for_a_day() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.runs("small-6", "ferby");
    assert_eq!(Rig::refused(rig.order("small-6", ConfigCommand::Remove)).0, Code::Busy);
    rig.gone("ferby", "small-6");
    assert!(matches!(rig.order("small-6", ConfigCommand::Remove), Some(Answer::Done { .. })));
    assert!(rig.keeper.configs.is_empty());
    assert_eq!(Rig::refused(rig.order("nobody", ConfigCommand::Restore)).0, Code::NoEntry);
    let epoch = rig.kept.removed[&config("small-6")].config.leases.epoch;
    assert!(matches!(rig.order("small-6", ConfigCommand::Restore), Some(Answer::Done { .. })));
    assert_eq!(rig.record("small-6").state, ConfigState::Ready);
    assert!(rig.runs("small-6", "ferby") > epoch, "an old export's name never comes back");
    rig.gone("ferby", "small-6");
    rig.order("small-6", ConfigCommand::Remove);
    rig.easy = false;
    rig.pass(crate::keeper::KEEP_MS + 5_000, &[]);
    let (_, task) = rig.work();
    assert_eq!(task, Task::Purge);
    assert!(rig.kept.removed.is_empty());
}

#[test]
fn an_order_is_carried_out_once_and_a_question_leaves_no_trace() {
    let mut rig = Rig::new();
    rig.easy = false;
    rig.order("small-6", create(&[]));
    let n = rig.open.len();
    let admitted = rig.keeper.receipts.len();
    rig.order("small-6", ConfigCommand::Log { from: 0 });
    assert!(matches!(rig.open.last(), Some(Effect::Log { from: 0, .. })) && rig.open.len() == n + 1);
    assert_eq!(rig.keeper.receipts.len(), admitted);
    assert_eq!(Rig::refused(rig.order("nobody", ConfigCommand::Log { from: 0 })).0, Code::NoEntry);
}
