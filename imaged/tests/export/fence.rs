//! What is not wanted any more cannot be written any more.

use crate::{
    client::Client,
    rig::{Frozen, Rig, listed, port, signal, wait_for, wanted},
};
use nix::sys::signal::Signal;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use xvm_imaged::export::{DYING, ExportError, FENCE, Wanted};

const BLOCK: usize = 64 << 10;
const BLOCKS: u64 = 64;

/// Writes blocks of one byte all over the disk until it fails or is told to stop; gives whether it failed.
fn writer(
    port: u16,
    export: &'static str,
    byte: u8,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> std::thread::JoinHandle<bool> {
    std::thread::spawn(move || {
        let mut client = Client::open(port, export).expect("it may use the disk");
        for i in 0u64.. {
            if stop.load(Ordering::Acquire) {
                return false;
            }
            if client.write(i % BLOCKS * BLOCK as u64, &[byte; BLOCK]).is_err() {
                return true;
            }
            done.fetch_add(1, Ordering::AcqRel);
        }
        false
    })
}

#[tokio::test]
async fn the_removed_one_is_cut_off_in_the_middle_of_writing_and_the_other_goes_on() {
    let rig = Rig::new();
    let (exports, port) = (rig.exports(), port());
    let disk = rig.file("disk", BLOCKS * BLOCK as u64);
    exports.set("a", &wanted(port, &disk, &["a.ferby.1", "a.gerby.2"])).await.expect("served");
    let counts = [(); 2].map(|()| (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0))));
    let old = writer(port, "a.ferby.1", 0xaa, counts[0].0.clone(), counts[0].1.clone());
    let new = writer(port, "a.gerby.2", 0xbb, counts[1].0.clone(), counts[1].1.clone());
    wait_for("both write", || counts.iter().all(|c| c.1.load(Ordering::Acquire) > 20)).await;

    exports.set("a", &wanted(port, &disk, &["a.gerby.2"])).await.expect("served");
    // from here on nothing of the old one may reach the disk, and all of it is written over
    let from = counts[1].1.load(Ordering::Acquire);
    assert!(Client::open(port, "a.ferby.1").is_err(), "it cannot come back");
    assert_eq!(listed(port), ["a.gerby.2"]);
    wait_for("the other goes on", || counts[1].1.load(Ordering::Acquire) > from + BLOCKS + 1).await;
    assert!(old.join().expect("no panic"), "its write failed");
    counts[1].0.store(true, Ordering::Release);
    assert!(!new.join().expect("no panic"), "the other's never");
    assert!(std::fs::read(&disk).expect("the disk").iter().all(|b| *b == 0xbb), "only the other wrote");
}

/// Requests that were sent before, and not answered yet, must not be carried out after `set` has returned. If this fails, a write of a
/// server that was cut off hits the disk that its successor uses.
#[tokio::test]
async fn nothing_that_was_under_way_arrives_late() {
    let rig = Rig::new();
    let (exports, port) = (rig.exports(), port());
    let disk = rig.file("disk", BLOCKS * BLOCK as u64);
    for round in 0..20u32 {
        let (old, new) = (format!("a.ferby.{round}"), format!("a.gerby.{round}"));
        exports.set("a", &wanted(port, &disk, &[&old])).await.expect("served");
        let mut client = Client::open(port, &old).expect("it may use the disk");
        let sender = std::thread::spawn(move || {
            // until the connection is cut
            while (0..BLOCKS).all(|i| client.send_write(i * BLOCK as u64, &[0xaa; BLOCK]).is_ok()) {}
        });
        wait_for("it writes", || std::fs::read(&disk).expect("the disk").contains(&0xaa)).await;
        exports.set("a", &wanted(port, &disk, &[&new])).await.expect("served");
        let zeros = vec![0; (BLOCKS * BLOCK as u64) as usize];
        std::fs::write(&disk, &zeros).expect("the successor's content");
        sender.join().expect("no panic");
        assert!(std::fs::read(&disk).expect("the disk") == zeros, "round {round}: a late write");
    }
}

/// Whether a thread of it waits for a disk.
fn waits_for_disk(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let state = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("stat")).ok();
    threads.filter_map(state).any(|s| s.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D')))
}

/// A disk that does not answer cannot be fenced by killing: the write that it has taken may come true when it answers again. If this
/// fails, `set` says that a server is cut off while its last write is still to come.
#[tokio::test]
async fn while_a_write_hangs_in_its_disk_nobody_says_that_it_is_fenced() {
    let rig = Rig::new();
    let (exports, port, slow) = (rig.exports(), port(), Frozen::new(&rig));
    let disk = slow.mount.join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).expect("a volume");
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
    let (mut old, pid) = (Client::open(port, "a.ferby.1").expect("it may use the disk"), rig.pid("a"));
    slow.freeze(true);
    old.send_write(4096, &[0xaa; 4096]).expect("sent");
    wait_for("the write is under way", || waits_for_disk(pid)).await;

    let began = Instant::now();
    let e = exports.set("a", &wanted(port, &disk, &["a.gerby.2"])).await.expect_err("it is not gone");
    assert!(matches!(e, ExportError::Lives { .. }), "{e}");
    assert!(began.elapsed() < FENCE + DYING + Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(old.answer().is_err(), "its client is cut off all the same");
    exports.end("a").await.expect_err("still not");

    slow.freeze(false);
    exports.set("a", &wanted(port, &disk, &["a.gerby.2"])).await.expect("served");
    let mut new = Client::open(port, "a.gerby.2").expect("it may use the disk");
    new.write(0, &[0xbb; 8192]).expect("written");
    assert_eq!(std::fs::read(&disk).expect("the disk")[..8192], [0xbb; 8192]);
    assert_eq!(listed(port), ["a.gerby.2"]);
    exports.end("a").await.expect("ended");
}

#[tokio::test]
async fn a_hung_daemon_is_killed_within_the_bound_and_what_is_wanted_goes_on() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    exports.set("a", &wanted(port, &disk, &["a.ferby.1", "a.gerby.2"])).await.expect("served");
    let mut old = Client::open(port, "a.ferby.1").expect("it may use the disk");
    old.write(0, &[0xaa; 4096]).expect("written");
    let pid = rig.pid("a");
    signal(pid, Signal::SIGSTOP);
    // sent into the hung daemon's socket: whoever wakes it must not find it
    old.send_write(0, &[0xcc; 4096]).expect("the kernel takes it");
    let began = Instant::now();
    exports.set("a", &wanted(port, &disk, &["a.gerby.2"])).await.expect("fenced");
    assert!(began.elapsed() < FENCE + DYING + Duration::from_secs(5), "{:?}", began.elapsed());
    assert_ne!(rig.pid("a"), pid);
    assert!(old.answer().is_err());
    assert_eq!(listed(port), ["a.gerby.2"]);
    let mut new = Client::open(port, "a.gerby.2").expect("it comes back");
    assert_eq!(new.read(0, 4096).expect("read"), [0xaa; 4096]);
    assert!(exports.deaths().try_recv().is_err(), "its end was our doing");
}

#[tokio::test]
async fn a_hung_daemon_is_ended_at_once_when_nothing_is_wanted() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
    signal(rig.pid("a"), Signal::SIGSTOP);
    let began = Instant::now();
    exports.set("a", &Wanted::default()).await.expect("ended");
    assert!(began.elapsed() < FENCE, "there is nothing to ask: {:?}", began.elapsed());
    assert!(exports.running().await.is_empty());
}

#[tokio::test]
async fn two_sets_of_one_key_come_one_after_the_other() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    let wants: Vec<Wanted> = ["a.b.1", "a.c.2", "a.d.3"].map(|n| wanted(port, &disk, &[n])).into();
    for _ in 0..5 {
        let (x, y, z) = tokio::join!(
            exports.set("a", &wants[0]),
            exports.set("a", &wants[1]),
            exports.set("a", &wants[2])
        );
        x.and(y).and(z).expect("each was true when it returned");
        assert_eq!(listed(port).len(), 1);
        let (x, y) = tokio::join!(exports.set("a", &wants[0]), exports.end("a"));
        x.and(y).expect("each was true when it returned");
    }
}
