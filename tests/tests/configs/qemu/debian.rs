//! A Debian machine, from `create` to its login prompt and back: the real mmdebstrap, a real boot, a real migration.

use crate::scene::{plain_cluster, sound, took, volume};
use crate::stage::{exports_agree, start};
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};
use xvm_tests::{shell, wait_for};

/// The patience for what runs without KVM, or fetches packages.
const LONG: Duration = Duration::from_secs(600);

#[track_caller]
fn wait_minutes<T>(what: &str, answer: impl FnMut() -> Option<T>) -> T {
    xvm_tests::wait_within(LONG, what, answer)
}

/// What its SSH service says first, heard from the outside over the lab's network.
fn greeting(address: &str) -> Option<String> {
    let to = format!("{address}:22").parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut bytes = [0; 64];
    let n = stream.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..n]).trim().to_owned())
}

#[test]
fn a_debian_machine_boots_moves_and_powers_off() {
    crate::requires_lab!();
    xvm_tests::requires!("mmdebstrap", "debugfs");
    let cluster = plain_cluster(2);
    let t = &cluster.tree;
    let machine = cluster.hosts().address();
    let address = format!("{}.100", machine.rsplit_once('.').expect("four numbers").0);
    let begin = Instant::now();
    t.order(
        "ctl",
        &format!("create deb-1 os=debian/bookworm disk=1024 memory=512 swap=0 address={address}/24"),
    );
    let mut stages = Vec::new();
    wait_minutes("its image", || {
        let stage = t.value("configs/deb-1/progress", "stage").unwrap_or_default();
        if stages.last().is_none_or(|(last, _)| *last != stage) {
            stages.push((stage, begin.elapsed().as_secs()));
        }
        (t.text("configs/deb-1/state") != "creating").then_some(())
    });
    let log = || t.text("configs/deb-1/log");
    assert_eq!(t.until_end("configs/deb-1/wait"), "done create: deb-1 is ready", "{}", log());
    took("debian: create to ready", begin);
    xvm_tests::say(&format!("its stages, and when they began: {stages:?}"));

    let begin = Instant::now();
    start(t, "deb-1", "ferby");
    wait_minutes("its login prompt", || {
        cluster.hosts().console("ferby", "deb-1").contains("deb-1 login:").then_some(())
    });
    took("debian: start to its login prompt", begin);
    let hello = wait_minutes("its SSH service", || greeting(&address).filter(|g| g.starts_with("SSH-2.0")));
    xvm_tests::say(&format!("it greets by {hello}"));
    exports_agree(t, "deb-1");

    // guestd came up with it, as a unit; a test runs while it moves
    let status = wait_minutes("its guestd", || t.get("domains/deb-1/guest/status").ok());
    assert!(status.starts_with("name deb-1\nstate up\nsigned yes\n"), "{status}");
    let top = t.text("domains/deb-1/guest/top");
    assert!(["/sbin/init", "/usr/lib/xvm/guestd/guestd"].iter().all(|p| top.contains(p)), "{top}");
    t.order("domains/deb-1/guest/run", "memory 8 20");
    let results = || t.text("domains/deb-1/guest/results");
    wait_for("a test that runs", || results().contains(" running ").then_some(()));

    let begin = Instant::now();
    t.rename("servers/ferby/domains/deb-1", "servers/gerby/domains/deb-1").expect("it moves");
    let end = t.until_end("domains/deb-1/wait");
    assert!(end.starts_with("done migrate: deb-1 runs on gerby"), "{end}");
    took("debian: migration", begin);
    xvm_tests::say(&end);
    assert_eq!(cluster.once("deb-1", "running"), "gerby");
    wait_for("it greets from there", || greeting(&address).filter(|g| *g == hello));
    wait_minutes("the end of its test", || results().contains(" done 0 ").then_some(()));
    let result = t.text("domains/deb-1/guest/result");
    assert!(result.contains("\nstate done\nstatus 0\n") && result.contains("\nserver gerby\n"), "{result}");

    let begin = Instant::now();
    t.order("domains/deb-1/ctl", "shutdown");
    wait_minutes("it is off", || (t.text("configs/deb-1/state") == "ready").then_some(()));
    took("debian: shutdown by its power button", begin);
    sound(&cluster, "deb-1");

    let begin = Instant::now();
    t.order("configs/deb-1/ctl", "clone deb-2");
    assert_eq!(t.until_end("configs/deb-2/wait"), "done clone: deb-2 is ready");
    took("debian: clone", begin);
    let mut cat = Command::new("debugfs");
    cat.args(["-R", "cat /etc/hostname"]).arg(volume(&cluster, "deb-2", "disk"));
    assert_eq!(shell::run(&mut cat, Duration::from_secs(20)).ok(), "deb-2\n");
    for name in ["deb-1", "deb-2"] {
        std::fs::remove_dir(t.path(&format!("configs/{name}"))).expect("it is off");
    }
    assert_eq!(t.names("configs"), Vec::<String>::new());
}
