//! If this fails, agentd mistreats real domains: QEMU guests on several libvirt hosts of `tests/lab`. Without root or without the
//! programs each test prints `SKIP name: reason` and passes.

#[path = "../../tests/lab/lab.rs"]
mod lab;

use lab::Lab;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc::Receiver, watch};
use xvm_agentd::{
    hypervisor::{HvError, HvEvent, Hypervisor, Progress, Way},
    libvirt::{Libvirt, LibvirtConfig},
};
use xvm_model::{Domain, DomainName, DomainSettings, DomainState, Pin, Ratio, ServerName};

/// Far beyond anything that is right; a wait that reaches it fails the test.
const LONG: Duration = Duration::from_secs(120);

/// The lab, or a loud word why not.
macro_rules! lab {
    ($hosts:expr, $name:literal) => {
        match Lab::up($hosts) {
            Ok(lab) => lab,
            Err(why) => {
                eprintln!("SKIP {}: {why}", $name);
                return;
            }
        }
    };
}

/// An agent's view of one host.
struct Host {
    hv: Arc<Libvirt>,
    events: Receiver<HvEvent>,
}

impl Host {
    fn open(lab: &Lab, host: &str) -> Host {
        let mut config = LibvirtConfig::new(&lab.uri(host));
        config.migrate_uri = Some(lab.reach(host));
        config.cpu_stat = Some(lab.sh(&["cpu", host]).into()).filter(|f: &std::path::PathBuf| f.exists());
        let hv = Libvirt::open(config);
        Host { events: hv.events().expect("the first call"), hv }
    }

    async fn up(lab: &Lab, host: &str) -> Host {
        let mut host = Host::open(lab, host);
        host.event(|e| *e == HvEvent::Up).await;
        host
    }

    async fn event(&mut self, want: impl Fn(&HvEvent) -> bool) -> HvEvent {
        let find = async {
            loop {
                let event = self.events.recv().await.expect("open");
                if want(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(LONG, find).await.expect("the event comes")
    }

    async fn get(&self, name: &DomainName) -> Option<Domain> {
        self.hv.domain(name).await.expect("asked")
    }

    async fn state(&self, name: &DomainName) -> Option<DomainState> {
        self.get(name).await.map(|d| d.state)
    }

    async fn wait_state(&self, name: &DomainName, want: Option<DomainState>) {
        let check = async || self.state(name).await == want;
        until(&format!("{name} is {want:?}"), check).await;
    }
}

async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the guest's own sign of life.
async fn booted(lab: &Lab, host: &str, name: &str) {
    until("the guest ticks", async || lab.console(host, name).contains("TICK 2 ")).await;
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("valid")
}

fn nobody() -> watch::Sender<Progress> {
    watch::channel(Progress::default()).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_lives_on_qemu() {
    let lab = lab!(1, "a_domain_lives_on_qemu");
    let disk = lab.dir().join("small-1.img");
    std::fs::File::create(&disk).and_then(|f| f.set_len(64 << 20)).expect("scratch file");
    lab.sh(&["nbd-start", "small-1", &disk.to_string_lossy(), "10809"]);
    lab.define("ferby", "small-1", 1, &["tick=0.2", "vcpus=2", "spin=1"]);
    let (mut ferby, small) = (Host::up(&lab, "ferby").await, name("small-1"));
    assert_eq!(ferby.state(&small).await, Some(DomainState::Shutoff));
    assert!(matches!(ferby.hv.pause(&small).await, Err(HvError::WrongState(_))));

    ferby.hv.start(&small).await.expect("start");
    ferby.event(|e| *e == HvEvent::Changed(small.clone())).await;
    ferby.wait_state(&small, Some(DomainState::Running)).await;
    booted(&lab, "ferby", "small-1").await;
    ferby.hv.domains().await.expect("a first sample");
    until("its load is seen", async || {
        let all = ferby.hv.domains().await.expect("domains");
        let host = ferby.hv.host().await.expect("host");
        let d = &all[0];
        d.vcpus.len() == 2
            && d.load > Ratio::ZERO
            && d.vcpus.iter().any(|v| v.cpu.is_some())
            && d.memory.max == 96 * 1024
            && d.memory.resident.is_some_and(|r| r > 10_000)
            && d.disks.iter().any(|d| &*d.name == "vda" && d.written > 0 && d.capacity == Some(64 << 20))
            && d.nics.len() == 1
            && host.cpus.iter().any(|c| *c > Ratio::ZERO)
            && host.memory.free > 0
    })
    .await;

    ferby.hv.pause(&small).await.expect("pause");
    let paused = ferby.get(&small).await.expect("there");
    assert_eq!((paused.state, paused.reason.as_deref()), (DomainState::Paused, Some("by user")));
    assert!(paused.vcpus.iter().all(|v| v.cpu.is_none()));
    assert_eq!(lab.virsh("ferby", &["domstate", "small-1"]), "paused");
    ferby.hv.unpause(&small).await.expect("unpause");

    // behind the agent's back; how long the news take is printed, not judged
    for verb in ["suspend", "resume", "suspend", "resume"] {
        while ferby.events.try_recv().is_ok() {}
        let watcher = tokio::spawn(async move {
            ferby.event(|e| matches!(e, HvEvent::Changed(_))).await;
            (Instant::now(), ferby)
        });
        let began = Instant::now();
        lab.virsh("ferby", &[verb, "small-1"]);
        let virsh = began.elapsed();
        let (heard, back) = watcher.await.expect("watcher");
        ferby = back;
        let asked = Instant::now();
        let state = ferby.state(&small).await;
        println!(
            "virsh {verb}: took {virsh:?}, event {:?} after its begin, state read in {:?}",
            heard - began,
            asked.elapsed()
        );
        assert_eq!(state, Some(if verb == "suspend" { DomainState::Paused } else { DomainState::Running }));
    }

    ferby.hv.shutdown(&small).await.expect("shutdown");
    until("the guest powered off", async || {
        ferby.hv.state_or_again(&small).await == Some(DomainState::Shutoff)
    })
    .await;
    ferby.hv.start(&small).await.expect("start again");
    ferby.hv.destroy(&small).await.expect("destroy");
    assert_eq!(ferby.state(&small).await, Some(DomainState::Shutoff));
    lab.virsh("ferby", &["undefine", "small-1"]);
    ferby.wait_state(&small, None).await;
}

/// Asks for the power button again while the guest does not listen yet.
trait Again {
    async fn state_or_again(&self, name: &DomainName) -> Option<DomainState>;
}

impl Again for Arc<Libvirt> {
    async fn state_or_again(&self, name: &DomainName) -> Option<DomainState> {
        let state = self.domain(name).await.expect("asked").map(|d| d.state);
        if state == Some(DomainState::Running) {
            let _sent_or_too_late = self.shutdown(name).await;
        }
        state
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrates_there_and_back_with_progress_and_settings() {
    let lab = lab!(2, "migrates_there_and_back_with_progress_and_settings");
    lab.define("ferby", "small-1", 1, &["disk=0", "tick=0.2"]);
    let (ferby, gerby, small) =
        (Host::up(&lab, "ferby").await, Host::up(&lab, "gerby").await, name("small-1"));
    let settings = DomainSettings {
        priority: 70,
        pin: Pin(vec![ServerName::parse("gerby").expect("valid")]),
        ..DomainSettings::default()
    };
    ferby.hv.set(&small, &settings).await.expect("set");
    ferby.hv.start(&small).await.expect("start");
    booted(&lab, "ferby", "small-1").await;
    let uuid = ferby.get(&small).await.expect("there").uuid;

    let (progress, seen) = watch::channel(Progress::default());
    let moved =
        ferby.hv.migrate(&small, &Way::live(&gerby.hv.address()), None, progress).await.expect("moved");
    println!("there: {moved:?}, progress at the end {:?}", *seen.borrow());
    assert_eq!(seen.borrow().percent, 100);
    assert!(moved.down_ms.is_some(), "QEMU tells how long the guest stood");
    assert_eq!(ferby.state(&small).await, None, "the definition moved along");
    let there = gerby.get(&small).await.expect("there");
    assert_eq!((there.state, there.uuid, &there.settings), (DomainState::Running, uuid, &settings));
    let found = ferby.hv.locate(&gerby.hv.address(), &small, uuid).await.expect("asked").expect("there");
    assert_eq!(found.state, DomainState::Running);
    assert_eq!(gerby.hv.locate(&ferby.hv.address(), &small, uuid).await, Ok(None));
    assert!(gerby.hv.locate(&gerby.hv.address(), &name("other"), uuid).await.is_err(), "another name");

    // the paused stay paused; a definition that was changed on the way comes back too
    let changed = DomainSettings { priority: 10, ..DomainSettings::default() };
    gerby.hv.domains().await.expect("a sample");
    gerby.hv.set(&small, &changed).await.expect("set");
    assert_eq!(gerby.get(&small).await.expect("there").settings, changed, "read back at once");
    gerby.hv.pause(&small).await.expect("pause");
    gerby.hv.migrate(&small, &Way::live(&ferby.hv.address()), None, nobody()).await.expect("back");
    let back = ferby.get(&small).await.expect("back");
    assert_eq!((back.state, &back.settings), (DomainState::Paused, &changed));
    ferby.hv.unpause(&small).await.expect("unpause");
    ferby.hv.destroy(&small).await.expect("destroy");
    let off = ferby.get(&small).await.expect("the definition stays");
    assert_eq!((off.state, &off.settings), (DomainState::Shutoff, &changed));

    // one without a definition leaves none behind
    let file = lab.dir().join("small-1.xml");
    lab.virsh("ferby", &["undefine", "small-1"]);
    lab.virsh("ferby", &["create", &file.to_string_lossy()]);
    ferby.hv.migrate(&small, &Way::live(&gerby.hv.address()), None, nobody()).await.expect("there");
    gerby.hv.destroy(&small).await.expect("destroy");
    gerby.wait_state(&small, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_is_seen_from_both_sides_and_cancelled() {
    let lab = lab!(2, "a_migration_is_seen_from_both_sides_and_cancelled");
    lab.define("ferby", "small-1", 1, &["disk=0", "tick=0.2", "dirty=24"]);
    let (ferby, gerby, small) =
        (Host::up(&lab, "ferby").await, Host::up(&lab, "gerby").await, name("small-1"));
    ferby.hv.start(&small).await.expect("start");
    booted(&lab, "ferby", "small-1").await;
    lab.virsh("ferby", &["migrate-setspeed", "small-1", "4"]);
    assert!(matches!(ferby.hv.cancel_migration(&small).await, Err(HvError::WrongState(_))), "none runs");
    let (progress, mut seen) = watch::channel(Progress::default());
    let (hv, address, moving) = (ferby.hv.clone(), gerby.hv.address(), small.clone());
    let job = tokio::spawn(async move { hv.migrate(&moving, &Way::live(&address), None, progress).await });
    tokio::time::timeout(LONG, seen.wait_for(|p| p.percent > 5)).await.expect("progress").expect("it runs");
    assert_eq!(ferby.state(&small).await, Some(DomainState::Running));
    assert_eq!(gerby.state(&small).await, Some(DomainState::Incoming));
    assert!(matches!(
        ferby.hv.migrate(&small, &Way::live(&gerby.hv.address()), None, nobody()).await,
        Err(HvError::WrongState(_))
    ));
    // another life of the agent, which does not know of the migration, must not give an order that QEMU would lose
    let other = Host::up(&lab, "ferby").await;
    assert!(matches!(other.hv.pause(&small).await, Err(HvError::WrongState(_))));
    assert_eq!(ferby.hv.domains().await.expect("not blocked").len(), 1);
    let asked = Instant::now();
    ferby.hv.cancel_migration(&small).await.expect("cancel");
    assert_eq!(job.await.expect("task"), Err(HvError::Cancelled));
    println!("cancelled in {:?}", asked.elapsed());
    assert_eq!(ferby.state(&small).await, Some(DomainState::Running));
    gerby.wait_state(&small, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_writer_still_arrives() {
    let lab = lab!(2, "a_busy_writer_still_arrives");
    lab.define("ferby", "small-1", 1, &["disk=0", "tick=0.2", "dirty=32"]);
    let (ferby, gerby, small) =
        (Host::up(&lab, "ferby").await, Host::up(&lab, "gerby").await, name("small-1"));
    ferby.hv.start(&small).await.expect("start");
    booted(&lab, "ferby", "small-1").await;
    lab.virsh("ferby", &["migrate-setspeed", "small-1", "8"]);
    let moved =
        ferby.hv.migrate(&small, &Way::live(&gerby.hv.address()), None, nobody()).await.expect("arrives");
    println!("a busy writer: {moved:?}");
    assert_eq!(gerby.state(&small).await, Some(DomainState::Running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_migration_leaves_the_domain_where_it_was() {
    let lab = lab!(2, "a_failed_migration_leaves_the_domain_where_it_was");
    lab.define("ferby", "small-1", 1, &["disk=0", "tick=0.2", "dirty=24"]);
    let (ferby, mut gerby) = (Host::up(&lab, "ferby").await, Host::up(&lab, "gerby").await);
    let small = name("small-1");
    ferby.hv.start(&small).await.expect("start");
    booted(&lab, "ferby", "small-1").await;
    // refused in words: gerby has another domain of that name
    let other = lab.define("gerby", "small-1", 2, &["disk=0"]);
    let refused =
        ferby.hv.migrate(&small, &Way::live(&gerby.hv.address()), None, nobody()).await.expect_err("refused");
    println!("refused: {refused:?}");
    assert!(matches!(refused, HvError::Refused(_) | HvError::WrongState(_)));
    assert_eq!(ferby.state(&small).await, Some(DomainState::Running));
    lab.virsh("gerby", &["undefine", "small-1"]);
    drop(other);
    // nobody there, and an address that is none of ours
    let nowhere = lab.reach("herby");
    let failed =
        ferby.hv.migrate(&small, &Way::live(&nowhere), None, nobody()).await.expect_err("nobody there");
    println!("nobody there: {failed:?}");
    assert!(matches!(failed, HvError::Refused(_)));
    assert!(
        ferby
            .hv
            .migrate(&small, &Way::live("qemu+ext://gerby/system?command=/bin/true"), None, nobody())
            .await
            .is_err()
    );
    assert_eq!(ferby.state(&small).await, Some(DomainState::Running));
    // the destination's libvirtd dies in the middle
    lab.virsh("ferby", &["migrate-setspeed", "small-1", "4"]);
    let (progress, mut seen) = watch::channel(Progress::default());
    let (hv, address, moving) = (ferby.hv.clone(), gerby.hv.address(), small.clone());
    let job = tokio::spawn(async move { hv.migrate(&moving, &Way::live(&address), None, progress).await });
    tokio::time::timeout(LONG, seen.wait_for(|p| p.percent > 5)).await.expect("progress").expect("it runs");
    lab.sh(&["daemon-kill", "gerby", "KILL"]);
    let broken = tokio::time::timeout(LONG, job).await.expect("it ends").expect("task").expect_err("broken");
    println!("destination's libvirtd killed: {broken:?}");
    until(
        "it runs on",
        async || matches!(ferby.hv.domain(&small).await, Ok(Some(d)) if d.state == DomainState::Running),
    )
    .await;
    gerby.event(|e| matches!(e, HvEvent::Down(_))).await;
    lab.sh(&["daemon-start", "gerby"]);
    gerby.event(|e| *e == HvEvent::Up).await;
    let there = gerby.state(&small).await;
    println!("at the destination afterwards: {there:?}");
    assert_ne!(there, Some(DomainState::Running), "never twice");
    // and power lost in the middle
    let (progress, mut seen) = watch::channel(Progress::default());
    let (hv, address, moving) = (ferby.hv.clone(), gerby.hv.address(), small.clone());
    let job = tokio::spawn(async move { hv.migrate(&moving, &Way::live(&address), None, progress).await });
    tokio::time::timeout(LONG, seen.wait_for(|p| p.percent > 5)).await.expect("progress").expect("it runs");
    let start = Instant::now();
    lab.sh(&["crash", "gerby"]);
    let broken = tokio::time::timeout(LONG, job).await.expect("it ends").expect("task").expect_err("broken");
    println!("destination without power: {broken:?} after {:?}", start.elapsed());
    until(
        "it runs on",
        async || matches!(ferby.hv.domain(&small).await, Ok(Some(d)) if d.state == DomainState::Running),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libvirtd_dies_hangs_and_comes_back() {
    let lab = lab!(1, "libvirtd_dies_hangs_and_comes_back");
    lab.define("ferby", "small-1", 1, &["disk=0"]);
    let (mut ferby, small) = (Host::up(&lab, "ferby").await, name("small-1"));
    ferby.hv.start(&small).await.expect("start");

    lab.sh(&["daemon-kill", "ferby", "KILL"]);
    println!("killed: {:?}", ferby.event(|e| matches!(e, HvEvent::Down(_))).await);
    assert!(matches!(ferby.hv.domains().await, Err(HvError::Unreachable(_))));
    lab.sh(&["daemon-start", "ferby"]);
    ferby.event(|e| *e == HvEvent::Up).await;
    assert_eq!(ferby.state(&small).await, Some(DomainState::Running), "the guest went on");

    let pid = Stopped::new(lab.daemon("ferby"));
    let start = Instant::now();
    // each is answered within its limit, however long libvirtd hangs; that they end at all is judged, the times are printed
    for round in 0..4 {
        let asked = Instant::now();
        let (domains, host, one, pause) = tokio::join!(
            ferby.hv.domains(),
            ferby.hv.host(),
            ferby.hv.domain(&small),
            ferby.hv.pause(&small)
        );
        println!("hung, round {round}: {:?}: {domains:?} / {one:?} / {pause:?}", asked.elapsed());
        for answer in [domains.is_err(), host.is_err(), one.is_err(), pause.is_err()] {
            assert!(answer, "a hung libvirtd answers nothing");
        }
    }
    println!("hung: {:?} after {:?}", ferby.event(|e| matches!(e, HvEvent::Down(_))).await, start.elapsed());
    drop(pid);
    ferby.event(|e| *e == HvEvent::Up).await;
    println!("back after {:?}", start.elapsed());
    // orders whose sender had given up: at most the one that had begun came true
    let state = ferby.state(&small).await;
    assert!(matches!(state, Some(DomainState::Running | DomainState::Paused)));
    until("all is well", async || ferby.hv.domains().await.is_ok() && ferby.hv.host().await.is_ok()).await;
}

/// A process that stands until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Self {
        Self::signal(pid, "STOP");
        Stopped(pid)
    }

    fn signal(pid: i32, signal: &str) {
        let done =
            std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(done.is_ok_and(|s| s.success()), "kill -{signal} {pid}");
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        Self::signal(self.0, "CONT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sources_libvirtd_hangs_or_dies_in_mid_migration() {
    let lab = lab!(2, "the_sources_libvirtd_hangs_or_dies_in_mid_migration");
    lab.define("ferby", "small-1", 1, &["disk=0", "tick=0.2", "dirty=24"]);
    let (mut ferby, gerby, small) =
        (Host::up(&lab, "ferby").await, Host::up(&lab, "gerby").await, name("small-1"));
    ferby.hv.start(&small).await.expect("start");
    booted(&lab, "ferby", "small-1").await;
    let uuid = ferby.get(&small).await.expect("there").uuid;
    lab.virsh("ferby", &["migrate-setspeed", "small-1", "4"]);
    for fault in ["STOP", "KILL"] {
        // what the fault before has left may refuse the next migration for a while: then it is tried again
        let end = Instant::now() + LONG;
        let job = loop {
            let (progress, mut seen) = watch::channel(Progress::default());
            let (hv, address, moving) = (ferby.hv.clone(), gerby.hv.address(), small.clone());
            let job =
                tokio::spawn(async move { hv.migrate(&moving, &Way::live(&address), None, progress).await });
            let runs = tokio::time::timeout(LONG, seen.wait_for(|p| p.percent > 5)).await.expect("progress");
            if runs.is_ok() {
                break job;
            }
            let refused = job.await.expect("task").expect_err("it is too long to have ended");
            assert!(Instant::now() < end, "{refused:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let start = Instant::now();
        let hung = (fault == "STOP").then(|| Stopped::new(lab.daemon("ferby")));
        if hung.is_none() {
            lab.sh(&["daemon-kill", "ferby", "KILL"]);
        }
        let broken =
            tokio::time::timeout(LONG, job).await.expect("it ends").expect("task").expect_err("broken");
        println!("source's libvirtd, {fault}: {broken:?} after {:?}", start.elapsed());
        assert!(matches!(broken, HvError::Unreachable(_)), "nobody knows yet where it is");
        // the connection for events notices it by a clock of its own: one that goes on too soon has never been away for it
        ferby.event(|e| matches!(e, HvEvent::Down(_))).await;
        drop(hung);
        if fault == "KILL" {
            lab.sh(&["daemon-start", "ferby"]);
        }
        ferby.event(|e| *e == HvEvent::Up).await;
        // both are asked; what is under way may still come to its end, so ask until there is one answer
        until("it runs on one of the two", async || {
            let here = ferby.hv.domain(&small).await.ok().flatten().map(|d| d.state);
            let there =
                ferby.hv.locate(&gerby.hv.address(), &small, uuid).await.ok().flatten().map(|d| d.state);
            let running = [here, there].iter().filter(|s| **s == Some(DomainState::Running)).count();
            assert!(running < 2, "never twice");
            running == 1 && here != Some(DomainState::Incoming) && there != Some(DomainState::Incoming)
        })
        .await;
        if ferby.state(&small).await != Some(DomainState::Running) {
            println!("it arrived all the same");
            return;
        }
    }
}
