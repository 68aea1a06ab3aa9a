//! The daemons outlive imaged, and imaged its daemons.

use crate::{
    client::Client,
    rig::{Rig, listed, output, pids, place, port, signal, wait_for, wanted},
};
use nix::sys::signal::{Signal, killpg};
use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use xvm_imaged::export::Exports;

/// A process that calls `set` and then waits to be killed: this program once more.
const LIFE: &str = "XVM_TEST_EXPORT_LIFE";

/// Not a test by itself: what runs in the process that is killed.
#[tokio::test]
async fn a_life_of_imaged() {
    let Ok(told) = std::env::var(LIFE) else { return };
    let words: Vec<&str> = told.split(' ').collect();
    let [how, port, dir] = words[..] else { panic!("how, port and directory") };
    let (exports, disk) = (Exports::new(place(Path::new(dir))), Path::new(dir).join("disk"));
    let want = |names: &[&str]| wanted(port.parse().expect("a port"), &disk, names);
    if how == "stays" {
        exports.set("a", &want(&["a.ferby.1", "a.gerby.2"])).await.expect("served");
    }
    println!("\nready");
    if how == "stays" {
        std::future::pending::<()>().await;
    }
    for i in 0.. {
        let (one, two) = (format!("a.ferby.{i}"), format!("a.gerby.{i}"));
        for names in [&[&*one][..], &[&*one, &*two], &[&*two], &[]] {
            exports.set("a", &want(names)).await.expect("served");
        }
    }
}

struct Life(Child);

impl Drop for Life {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Runs a life of imaged, in a process group of its own, until it has set two exports and `stays`, or begins to set others all the time.
fn life(how: &str, rig: &Rig, port: u16) -> Life {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "crash::a_life_of_imaged", "--nocapture"]);
    command.env(LIFE, format!("{how} {port} {}", rig.dir.path().display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut life = Life(command.spawn().expect("started"));
    let out = life.0.stdout.take().expect("piped");
    let ready = BufReader::new(out).lines().map_while(Result::ok).any(|l| l == "ready");
    assert!(ready, "it did not get ready");
    life
}

#[tokio::test]
async fn imaged_is_killed_and_its_disks_go_on() {
    let rig = Rig::new();
    let (port, disk) = (port(), rig.file("disk", 1 << 20));
    let mut first = life("stays", &rig, port);
    let pid = rig.pid("a");
    let mut guest = Client::open(port, "a.gerby.2").expect("it may use the disk");
    guest.write(0, &[1; 4096]).expect("written");
    let group = nix::unistd::Pid::from_raw(first.0.id() as i32);
    killpg(group, Signal::SIGKILL).expect("killed");
    first.0.wait().expect("it ended");
    guest.write(4096, &[2; 4096]).expect("the disk goes on");

    let exports = rig.exports();
    assert_eq!(exports.running().await, ["a"]);
    assert_eq!(exports.exported("a").await.expect("known"), ["a.ferby.1", "a.gerby.2"]);
    exports.set("a", &wanted(port, &disk, &["a.gerby.2", "a.herby.3"])).await.expect("served");
    assert_eq!(listed(port), ["a.gerby.2", "a.herby.3"]);
    assert_eq!(rig.pid("a"), pid, "the same daemon");
    guest.write(8192, &[3; 4096]).expect("the disk goes on");

    let mut deaths = exports.deaths();
    signal(pid, Signal::SIGKILL);
    assert_eq!(deaths.recv().await.as_deref(), Some("a"), "also one that an earlier life has started");
    exports.end("a").await.expect("ended");
}

/// Killed, or given up, in the middle of anything: the next call makes it true.
#[tokio::test]
async fn whatever_was_interrupted_is_mended_by_the_next_call() {
    let rig = Rig::new();
    let (port, disk) = (port(), rig.file("disk", 1 << 20));
    for round in 0..16u64 {
        let mut life = life("goes-on", &rig, port);
        // the moment is what varies: nothing is waited for
        tokio::time::sleep(Duration::from_micros(round * 4_700)).await;
        life.0.kill().expect("killed");
        life.0.wait().expect("it ended");
        let exports = rig.exports();
        if round % 3 == 0 {
            exports.end("a").await.expect("ended");
            assert!(pids(&rig.run("")).is_empty(), "round {round}");
        } else {
            exports.set("a", &wanted(port, &disk, &["a.herby.1"])).await.expect("served");
            assert_eq!((listed(port).len(), pids(&rig.run("")).len()), (1, 1), "round {round}");
        }
    }
    let exports = rig.exports();
    for round in 0..40u64 {
        let (one, two) = (format!("a.ferby.{round}"), format!("a.gerby.{round}"));
        let want = match round % 3 {
            0 => wanted(port, &disk, &[&one]),
            1 => wanted(port, &disk, &[&one, &two]),
            _ => wanted(port, &disk, &[]),
        };
        let bound = Duration::from_micros(round * 1_100);
        let _given_up = tokio::time::timeout(bound, exports.set("a", &want)).await;
        exports.set("a", &wanted(port, &disk, &[&two])).await.expect("served");
        assert_eq!(listed(port), [two.as_str()], "round {round}");
    }
}

#[tokio::test]
async fn a_daemon_that_died_is_told_and_comes_back_on_the_same_port() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    let mut deaths = exports.deaths();
    for round in 1..=3u8 {
        exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
        let mut guest = Client::open(port, "a.ferby.1").expect("it connects again");
        guest.write(0, &[round; 4096]).expect("written");
        guest.flush().expect("on disk");
        signal(rig.pid("a"), Signal::SIGKILL);
        assert_eq!(deaths.recv().await.as_deref(), Some("a"));
        assert!(guest.write(0, &[9; 4096]).is_err());
        assert_eq!(std::fs::read(&disk).expect("the disk")[..4096], [round; 4096]);
    }
    assert!(deaths.try_recv().is_err(), "each death is told once");
}

/// Writes must be on the disk when a flush is answered: a storage server may lose its power then.
#[tokio::test]
async fn a_flush_reaches_the_disk() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
    let log = rig.dir.path().join("strace");
    let mut trace = Life(
        Command::new("strace")
            .args(["-f", "-e", "trace=fdatasync,fsync", "-o"])
            .arg(&log)
            .args(["-p", &rig.pid("a").to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace"),
    );
    // kept open: it says more with each new thread
    let mut said = BufReader::new(trace.0.stderr.take().expect("piped"));
    let attached = said.by_ref().lines().map_while(Result::ok).any(|l| l.contains("attached"));
    assert!(attached, "strace watches it");
    let uri = format!("nbd://127.0.0.1:{port}/a.ferby.1");
    output("qemu-io", &["-f", "raw", "-c", "write 0 4096", "-c", "flush", &uri]);
    wait_for("it syncs", || std::fs::read_to_string(&log).unwrap_or_default().contains("fdatasync")).await;
}

#[tokio::test]
async fn garbage_in_the_run_directory_harms_nobody() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    std::fs::create_dir(rig.run("")).expect("run");
    let mut stranger = Life(Command::new("tail").args(["-f", "/dev/null"]).spawn().expect("a stranger"));
    std::fs::write(rig.run("a.pid"), format!("{}\n", stranger.0.id())).expect("a stale pid file");
    std::fs::write(rig.run("a.qmp"), "no socket").expect("garbage");
    std::fs::write(rig.run("a.log"), [0xff; 100]).expect("garbage");
    for (file, text) in [("b.pid", "-1"), ("c.pid", "0"), ("d.pid", "x"), ("e.pid", "1\n"), (".qmp", "")] {
        std::fs::write(rig.run(file), text).expect("garbage");
    }
    assert!(exports.running().await.is_empty());
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
    assert_eq!(listed(port), ["a.ferby.1"]);
    // the pid file of a daemon that lives names a stranger
    std::fs::write(rig.run("a.pid"), format!("{}\n", stranger.0.id())).expect("a wrong pid file");
    assert_eq!(exports.running().await, ["a"]);
    exports.end("a").await.expect("ended");
    for key in ["b", "c", "d", "e"] {
        exports.end(key).await.expect("nothing to do");
    }
    assert!(pids(&rig.run("")).is_empty(), "ours has ended");
    assert!(stranger.0.try_wait().expect("asked").is_none(), "the stranger lives");
}

#[tokio::test]
async fn a_daemon_is_found_though_its_files_have_gone() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
    std::fs::remove_dir_all(rig.run("")).expect("emptied");
    exports.set("a", &wanted(port, &disk, &["a.gerby.2"])).await.expect("served");
    assert_eq!(listed(port), ["a.gerby.2"]);
    assert_eq!(pids(&rig.run("")).len(), 1);
}

/// Somebody else's hold on the lock means that nobody knows whether the volumes are written: never `Ok`.
#[tokio::test]
async fn a_lock_that_nobody_explains_is_an_error() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    std::fs::create_dir(rig.run("")).expect("run");
    let lock = std::fs::File::create(rig.run("a.lock")).expect("a lock");
    lock.lock().expect("held");
    for result in [exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await, exports.end("a").await] {
        let e = result.expect_err("unknown").to_string();
        assert!(e.contains("is locked by a process that is not to be found"), "{e}");
    }
    drop(lock);
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
}
