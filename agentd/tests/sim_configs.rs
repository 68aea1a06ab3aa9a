//! Domains of the simulated hypervisor that are made from configs.
//!
//! What breaks when these fail: a domain that is there twice, or is still there when it is off, so that its disk is never given back;
//! or one that goes on with the exports of the server that it left.

#[path = "common/spec.rs"]
mod common;

use common::{grant, spec};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::watch;
use xvm_agentd::{
    hypervisor::{HvError, HvResult, Hypervisor, Progress, Way},
    sim::{Sim, SimConfig},
};
use xvm_model::{Domain, DomainName, DomainState, ServerName, Spec};

const NO_FILES: &str = "/nonexistent";

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("name")
}

async fn sim(server: &str, state: Option<&Path>) -> Arc<Sim> {
    let mut config = SimConfig::new(ServerName::parse(server).expect("name"));
    config.state = state.map(Into::into);
    (config.memory, config.scale) = (256 << 10, 256);
    Sim::start(config).await.expect("starts")
}

async fn create(sim: &Sim, spec: &Spec) -> HvResult<()> {
    sim.create(spec, Path::new(NO_FILES)).await
}

async fn see(sim: &Sim, what: &str) -> Option<Domain> {
    sim.domain(&name(what)).await.expect("answered")
}

#[tokio::test]
async fn one_is_made_and_forgotten_when_it_is_off() {
    let dir = tempfile::tempdir().expect("dir");
    let ferby = sim("ferby", Some(dir.path())).await;
    let a = Spec { vcpus: 2, ..spec("a", grant("a", "ferby", 1)) };
    create(&ferby, &a).await.expect("made");
    let seen = see(&ferby, "a").await.expect("there");
    assert_eq!((seen.state, seen.uuid, seen.vcpus.len()), (DomainState::Running, a.uuid, 2));
    assert_eq!((seen.memory.max, &seen.settings), (a.memory, &a.settings));
    assert!(matches!(create(&ferby, &a).await, Err(HvError::WrongState(_))), "it is there");
    let twin = Spec { uuid: a.uuid, ..spec("b", grant("b", "ferby", 1)) };
    assert!(matches!(create(&ferby, &twin).await, Err(HvError::WrongState(_))), "its identity is there");

    // it runs on while its process is away, and is still one that goes when it is off
    ferby.kill().await;
    let ferby = sim("ferby", Some(dir.path())).await;
    assert_eq!(see(&ferby, "a").await.map(|d| d.state), Some(DomainState::Running));
    ferby.destroy(&name("a")).await.expect("destroyed");
    assert_eq!(see(&ferby, "a").await, None);
    assert_eq!(ferby.start(&name("a")).await, Err(HvError::NoDomain(name("a"))));

    create(&ferby, &a).await.expect("made again");
    ferby.shutdown(&name("a")).await.expect("asked");
    let off = async {
        while see(&ferby, "a").await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), off).await.expect("it powers off, and is gone");
    assert_eq!(ferby.host().await.expect("host").memory.free, 256 << 10);
}

#[tokio::test]
async fn memory_is_admitted() {
    let ferby = sim("ferby", None).await;
    create(&ferby, &Spec { memory: 200 << 10, ..spec("a", grant("a", "ferby", 1)) }).await.expect("room");
    let b = spec("b", grant("b", "ferby", 1));
    let refused = create(&ferby, &b).await.expect_err("no room");
    assert_eq!(refused.to_string(), "b needs 65536 KiB of memory; 57344 of 262144 KiB are free");
    assert_eq!(refused.failure("start b").code, xvm_model::Code::NoSpace);
    assert_eq!(see(&ferby, "b").await, None);
}

#[tokio::test]
async fn one_arrives_with_its_new_lease() {
    let (ferby, gerby) = (sim("ferby", None).await, sim("gerby", None).await);
    let a = spec("a", grant("a", "ferby", 1));
    create(&ferby, &a).await.expect("made");
    let new = grant("a", "gerby", 2);
    let progress = watch::channel(Progress::default()).0;
    ferby.migrate(&name("a"), &Way::live(&gerby.address()), Some(&new), progress).await.expect("moved");
    assert_eq!(see(&ferby, "a").await, None);
    let there = see(&gerby, "a").await.expect("there");
    assert_eq!((there.state, there.settings.grant.as_deref()), (DomainState::Running, Some(&new)));
    // what it is travels along
    gerby.destroy(&name("a")).await.expect("destroyed");
    assert_eq!(see(&gerby, "a").await, None);
}

#[tokio::test]
async fn one_that_does_not_arrive_keeps_its_lease() {
    let ferby = sim("ferby", None).await;
    let a = spec("a", grant("a", "ferby", 1));
    create(&ferby, &a).await.expect("made");
    let progress = watch::channel(Progress::default()).0;
    let new = grant("a", "gerby", 2);
    ferby
        .migrate(&name("a"), &Way::live("127.0.0.1:1"), Some(&new), progress)
        .await
        .expect_err("nobody there");
    assert_eq!(see(&ferby, "a").await.expect("stays").settings, a.settings);
}
