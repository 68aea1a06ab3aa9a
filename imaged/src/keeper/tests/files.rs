//! Files that people edit.

use super::rig::{Rig, config};
use crate::keeper::step::{Effect, Input, Task};
use uuid::Uuid;
use xvm_model::{Config, ConfigState};

fn file(rig: &mut Rig, name: &str, read: Option<Result<Config, &str>>) {
    let read = read.map(|r| r.map(Box::new).map_err(Into::into));
    rig.input(Input::Files(vec![(config(name), read)]));
}

fn new(id: u128) -> Config {
    Config::new(Uuid::from_u128(id))
}

#[test]
fn a_file_that_is_dropped_there_becomes_a_config() {
    let mut rig = Rig::new();
    rig.easy = false;
    file(&mut rig, "small-9", Some(Ok(new(9))));
    let written = rig.open.iter().any(|e| matches!(e, Effect::Write { .. }));
    assert!(written, "its identity is written");
    assert!(matches!(rig.work().1, Task::Make { .. }));
    assert_eq!(rig.record("small-9").state, ConfigState::Creating);
}

#[test]
fn a_wrong_file_takes_nothing_away() {
    let mut rig = Rig::new();
    rig.made("small-6");
    let before = rig.record("small-6").config;
    file(&mut rig, "small-6", Some(Err("line 3: disk: too small")));
    let record = rig.record("small-6");
    assert_eq!((record.state, &record.config), (ConfigState::Ready, &before));
    assert_eq!(record.wrong.as_deref(), Some("line 3: disk: too small"));
    rig.runs("small-6", "ferby");
    file(&mut rig, "small-6", Some(Ok(before)));
    assert_eq!(rig.record("small-6").wrong, None);

    file(&mut rig, "other", Some(Err("line 1: what?")));
    assert_eq!(rig.record("other").state, ConfigState::Invalid);
    file(&mut rig, "other", None);
    assert!(!rig.keeper.configs.contains_key(&config("other")));
}

#[test]
fn an_edit_counts_at_once_or_as_soon_as_it_can() {
    let mut rig = Rig::new();
    rig.made("small-6");
    let before = rig.record("small-6").config;
    file(&mut rig, "small-6", Some(Ok(Config { memory: 512, ..before.clone() })));
    assert_eq!(rig.record("small-6").config.memory, 512);
    rig.runs("small-6", "ferby");
    file(&mut rig, "small-6", Some(Ok(Config { memory: 600, priority: 80, ..before.clone() })));
    let record = rig.record("small-6");
    assert_eq!(record.config.memory, 512);
    assert_eq!(record.wrong.as_deref(), Some("memory: waits until it does not run and no job goes on"));
    rig.gone("ferby", "small-6");
    let record = rig.record("small-6");
    assert_eq!((record.config.memory, record.config.priority, record.wrong), (600, 80, None));
    for (edit, says) in [
        (Config { disk: 100, ..record.config.clone() }, "disk: it has 2048 MiB, and only gets larger"),
        (Config { uuid: Uuid::from_u128(3), ..record.config.clone() }, "uuid: it is"),
    ] {
        file(&mut rig, "small-6", Some(Ok(edit)));
        let wrong = rig.record("small-6").wrong.expect("refused");
        assert!(wrong.starts_with(says), "{wrong}");
        assert_eq!(rig.record("small-6").config, record.config);
    }
    file(&mut rig, "small-6", Some(Ok(Config { disk: 4096, ..record.config.clone() })));
    assert_eq!(rig.record("small-6").config.disk, 4096, "the volume was made larger");
}

#[test]
fn a_removed_file_is_written_again() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.easy = false;
    file(&mut rig, "small-6", None);
    assert!(matches!(rig.open.last(), Some(Effect::Write { .. })));
    assert!(rig.record("small-6").wrong.expect("told").contains("rmdir configs/small-6"));
}

#[test]
fn what_cannot_be_written_is_taken_back() {
    let mut rig = Rig::new();
    rig.made("small-6");
    rig.easy = false;
    rig.order("small-6", xvm_model::ConfigCommand::Set { key: "memory".into(), value: "512".into() });
    let Some(Effect::Write { name, before, answer, .. }) = rig.open.pop() else { panic!("no write") };
    rig.input(Input::Written { name, before, answer, result: Err("no space left".into()) });
    assert_eq!(rig.record("small-6").config.memory, 256);
    let answer = Some(rig.last_reply().answer.clone());
    assert!(Rig::refused(answer).1.contains("cannot be written: no space left"));
}

/// If this fails, a mount tells that all configs are invalid whenever imaged is started anew.
#[test]
fn after_a_start_nothing_is_told_before_all_files_are_read() {
    let mut rig = Rig::new();
    for name in ["small-6", "small-7", "small-8"] {
        rig.made(name);
    }
    rig.told.clear();
    rig.restart();
    rig.pass(3_000, &[]);
    assert!(rig.told.len() >= 3, "it speaks");
    assert!(rig.told.iter().all(|s| *s == ConfigState::Ready), "{:?}", rig.told);
}
