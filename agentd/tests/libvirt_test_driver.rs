//! If this fails, agentd does not understand libvirt at all: this is libvirt's own test driver, which needs no daemon, no rights and
//! no hypervisor. It has no migration and no bulk statistics, so that the one-by-one way is the one that is tried.

#[path = "common/spec.rs"]
mod common;

use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{mpsc::Receiver, watch};
use uuid::Uuid;
use xvm_agentd::{
    hypervisor::{HvError, HvEvent, Hypervisor, Progress, Way},
    libvirt::{Libvirt, LibvirtConfig},
};
use xvm_model::{DomainName, DomainSettings, DomainState, HypervisorKind, Pin, Ratio, ServerName};

const URI: &str = "test:///default";

/// Defines and starts domains; all tests of this process share one test host, so each has names of its own.
async fn open(domains: &[&str]) -> (Arc<Libvirt>, Receiver<HvEvent>) {
    let hv = Libvirt::open(LibvirtConfig::new(URI));
    let mut events = hv.events().expect("the first call");
    assert_eq!(wait(&mut events).await, HvEvent::Up);
    let conn = virt::connect::Connect::open(Some(URI)).expect("test driver");
    for name in domains {
        let xml = format!(
            "<domain type='test'><name>{name}</name><memory>1048576</memory><vcpu>2</vcpu><os><type>hvm</type></os><devices>
             <disk type='file' device='disk'><source file='/x.img'/><target dev='vda'/></disk></devices></domain>"
        );
        conn.define_domain_xml(&xml).expect("define").create().expect("start");
    }
    (hv, events)
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("valid")
}

async fn wait(events: &mut Receiver<HvEvent>) -> HvEvent {
    tokio::time::timeout(Duration::from_secs(60), events.recv()).await.expect("an event").expect("open")
}

#[tokio::test]
async fn lists_what_libvirt_has() {
    let (hv, _events) = open(&["list-2", "list-1", ".list-hidden"]).await;
    assert_eq!(hv.kind(), HypervisorKind::Test);
    assert!(hv.events().is_none());
    let domains = hv.domains().await.expect("domains");
    let mine: Vec<_> = domains.iter().filter(|d| d.name.as_str().contains("list-")).collect();
    let names: Vec<&str> = mine.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["list-1", "list-2"], "sorted, and without a name that cannot be a directory");
    let small = mine[0];
    assert_eq!((small.state, small.vcpus.len(), small.memory.max), (DomainState::Running, 2, 1_048_576));
    assert_eq!(small.disks.iter().map(|d| &*d.name).collect::<Vec<_>>(), ["vda"]);
    assert_eq!(hv.domain(&name("nobody")).await, Ok(None));
    let host = hv.host().await.expect("host");
    assert!(!host.cpus.is_empty() && host.memory.total > 0 && host.memory.free <= host.memory.total);
}

#[tokio::test]
async fn a_domain_lives_and_says_so() {
    let (hv, mut events) = open(&["life"]).await;
    let small = name("life");
    let state = async || hv.domain(&small).await.expect("asked").expect("there").state;
    hv.pause(&small).await.expect("pause");
    assert_eq!(state().await, DomainState::Paused);
    assert!(matches!(hv.pause(&small).await, Err(HvError::WrongState(_))), "pausing the paused");
    hv.unpause(&small).await.expect("unpause");
    assert_eq!(state().await, DomainState::Running);
    hv.reboot(&small).await.expect("reboot");
    hv.shutdown(&small).await.expect("shutdown");
    assert_eq!(state().await, DomainState::Shutoff);
    hv.start(&small).await.expect("start");
    assert!(matches!(hv.start(&small).await, Err(HvError::WrongState(_))));
    hv.destroy(&small).await.expect("destroy");
    assert_eq!(state().await, DomainState::Shutoff);
    assert_eq!(hv.destroy(&name("nobody")).await, Err(HvError::NoDomain(name("nobody"))));
    while wait(&mut events).await != HvEvent::Changed(small.clone()) {}
}

#[tokio::test]
async fn settings_are_kept_with_the_domain() {
    let (hv, _events) = open(&["settings"]).await;
    let small = name("settings");
    let settings = DomainSettings {
        priority: 70,
        pin: Pin(vec![ServerName::parse("ferby").expect("valid")]),
        ..DomainSettings::default()
    };
    let read = async || hv.domain(&small).await.expect("asked").expect("there").settings;
    assert_eq!(read().await, DomainSettings::default());
    hv.set(&small, &settings).await.expect("set");
    hv.destroy(&small).await.expect("destroy");
    hv.start(&small).await.expect("start");
    assert_eq!(read().await, settings);
}

#[tokio::test]
async fn what_it_cannot_do_it_says() {
    let (hv, _events) = open(&["cannot"]).await;
    let (small, uuid) = (name("cannot"), Uuid::nil());
    let (progress, _seen) = watch::channel(Progress::default());
    let unsupported = |e: HvError| matches!(e, HvError::NotSupported(_));
    assert!(unsupported(
        hv.migrate(&small, &Way::live("test:///default"), None, progress).await.expect_err("no migration")
    ));
    assert!(unsupported(hv.cancel_migration(&small).await.expect_err("no migration")));
    assert!(unsupported(hv.locate("test:///default", &small, uuid).await.expect_err("no migration")));
    assert!(unsupported(hv.load(&small, Ratio::ONE, 1).await.expect_err("no guestd")));
}

#[tokio::test]
async fn opening_never_waits_and_tells_what_is_wrong() {
    let hv = Libvirt::open(LibvirtConfig::new("qemu+unix:///system?socket=/nonexistent/xvm-test"));
    let mut events = hv.events().expect("the first call");
    assert!(matches!(hv.domains().await, Err(HvError::Unreachable(_))));
    match wait(&mut events).await {
        HvEvent::Down(why) => assert!(why.contains("/nonexistent/xvm-test"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(hv.pause(&name("small-1")).await, Err(HvError::Unreachable(_))));
}

#[tokio::test]
async fn what_is_made_from_a_config_is_forgotten_when_it_is_off() {
    let (hv, _events) = open(&["taken"]).await;
    let spec = common::spec("made", common::grant("made", "ferby", 1));
    let boot = Path::new("/nonexistent");
    hv.create(&spec, boot).await.expect("created");
    let seen = hv.domain(&spec.name).await.expect("asked").expect("there");
    assert_eq!((seen.state, seen.uuid, &seen.settings), (DomainState::Running, spec.uuid, &spec.settings));
    let refused = hv.create(&spec, boot).await.expect_err("it is there");
    assert!(matches!(&refused, HvError::WrongState(why) if why.ends_with("which is running")), "{refused:?}");
    let taken = common::spec("taken", common::grant("taken", "ferby", 1));
    assert!(matches!(hv.create(&taken, boot).await, Err(HvError::WrongState(_))), "another domain's name");
    let twin = xvm_model::Spec { uuid: spec.uuid, ..common::spec("twin", common::grant("twin", "ferby", 1)) };
    assert!(matches!(hv.create(&twin, boot).await, Err(HvError::WrongState(_))), "another domain's identity");
    hv.destroy(&spec.name).await.expect("destroyed");
    assert_eq!(hv.domain(&spec.name).await, Ok(None));
}
