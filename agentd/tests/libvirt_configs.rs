//! If this fails, a domain that was made from a config does not run on real QEMU, or loses its disk when it moves: its exports are those
//! of a real storage daemon, and a lease that is taken back is gone.

#[path = "common/spec.rs"]
mod common;
#[path = "common/guest.rs"]
mod guest;
#[path = "../../tests/lab/lab.rs"]
mod lab;
#[path = "common/storage.rs"]
mod storage;

use common::grant;
use guest::guest;
use lab::Lab;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use storage::Storage;
use tokio::sync::watch;
use xvm_agentd::{
    hypervisor::{HvError, HvEvent, Hypervisor, Progress, Way},
    libvirt::{Libvirt, LibvirtConfig},
};
use xvm_model::{Domain, DomainName, DomainState, Grant};

/// Far beyond anything that is right; a wait that reaches it fails the test.
const LONG: Duration = Duration::from_secs(120);

async fn open(lab: &Lab, host: &str) -> Arc<Libvirt> {
    let mut config = LibvirtConfig::new(&lab.uri(host));
    config.migrate_uri = Some(lab.reach(host));
    (config.bridge, config.kvm) = (Some("br0".into()), Some(false));
    let hv = Libvirt::open(config);
    let mut events = hv.events().expect("the first call");
    let up = async { while events.recv().await.expect("open") != HvEvent::Up {} };
    tokio::time::timeout(LONG, up).await.expect("libvirt is there");
    hv
}

async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn nobody() -> watch::Sender<Progress> {
    watch::channel(Progress::default()).0
}

async fn get(hv: &Libvirt, name: &DomainName) -> Option<Domain> {
    hv.domain(name).await.expect("asked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_from_a_config_it_moves_to_its_second_lease_and_writes_on() {
    let lab = match Lab::up(2) {
        Ok(lab) => lab,
        Err(why) => {
            eprintln!("SKIP made_from_a_config_it_moves_to_its_second_lease_and_writes_on: {why}");
            return;
        }
    };
    let storage = Storage::start(&lab);
    let lease = |server: &str, epoch| Grant {
        host: lab.address("store").into(),
        port: storage::PORT,
        ..grant("small-1", server, epoch)
    };
    let (first, second) = (lease("ferby", 1), lease("gerby", 2));
    storage.export(&first.stem());
    let boot = lab.dir().join("kernels");
    std::fs::create_dir(&boot).expect("scratch folder");
    let spec = guest(&lab, &boot, first.clone());
    let name = spec.name.clone();
    let (ferby, gerby) = (open(&lab, "ferby").await, open(&lab, "gerby").await);

    ferby.create(&spec, &boot).await.expect("created");
    let here = get(&ferby, &name).await.expect("there");
    assert_eq!((here.state, here.uuid, &here.settings), (DomainState::Running, spec.uuid, &spec.settings));
    assert_eq!((here.memory.max, here.nics.len()), (spec.memory, 1));
    assert_eq!(
        lab.virsh("ferby", &["dominfo", "small-1"])
            .lines()
            .find(|l| l.starts_with("Persistent"))
            .map(|l| l.ends_with("no")),
        Some(true)
    );
    let again = ferby.create(&spec, &boot).await.expect_err("it is there");
    assert!(matches!(&again, HvError::WrongState(why) if why.ends_with("which is running")), "{again:?}");
    until("the guest writes", async || storage.tick().is_some_and(|t| t > 2)).await;

    // the destination's export is not there: it stays, and with it its lease
    let refused = ferby
        .migrate(&name, &Way::live(&gerby.address()), Some(&second), nobody())
        .await
        .expect_err("no export");
    println!("without its export: {refused:?}");
    assert_eq!(get(&ferby, &name).await.expect("stays").settings, spec.settings);
    let before = storage.tick();
    until("it writes on", async || storage.tick() > before).await;
    until("nothing of it is left on gerby", async || get(&gerby, &name).await.is_none()).await;

    storage.export(&second.stem());
    let moved =
        ferby.migrate(&name, &Way::live(&gerby.address()), Some(&second), nobody()).await.expect("moved");
    println!("moved: {moved:?}");
    assert_eq!(get(&ferby, &name).await, None, "it leaves no definition");
    let found = ferby.locate(&gerby.address(), &name, spec.uuid).await.expect("asked").expect("there");
    let there = get(&gerby, &name).await.expect("there");
    for seen in [&found, &there] {
        assert_eq!((seen.state, seen.uuid), (DomainState::Running, spec.uuid));
        assert_eq!(seen.settings.grant.as_deref(), Some(&second));
    }
    let xml = lab.virsh("gerby", &["dumpxml", "small-1"]);
    assert!(xml.contains("small-1.gerby.2") && !xml.contains("small-1.ferby.1"), "{xml}");

    storage.revoke(&first.stem());
    let before = storage.tick();
    until("it writes on by its second lease", async || storage.tick() > before.map(|t| t + 5)).await;
    assert_eq!(get(&gerby, &name).await.map(|d| d.state), Some(DomainState::Running));

    // settings that users change keep the lease, and the lease taken back stands the guest still
    let settings = xvm_model::DomainSettings { priority: 70, ..there.settings.clone() };
    gerby.set(&name, &settings).await.expect("set");
    assert_eq!(get(&gerby, &name).await.expect("there").settings, settings);
    storage.revoke(&second.stem());
    let stopped = async || {
        let seen = get(&gerby, &name).await.expect("there");
        (seen.state, seen.reason.as_deref()) == (DomainState::Paused, Some("io-error"))
    };
    until("it stands because of its disk", stopped).await;
    gerby.destroy(&name).await.expect("destroyed");
    assert_eq!(get(&gerby, &name).await, None, "it is forgotten");
}
