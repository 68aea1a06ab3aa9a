//! If this fails, guestd cannot be started, stopped or understood by who runs it: the real program over real sockets, its exit status and
//! its sentences.

#[path = "driver/ears.rs"]
#[allow(dead_code)] // the other test uses all of it
mod ears;

use ears::{Ears, me, name, topics, wait_for};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use xvm_bus::forwarder::{Config, Forwarder};
use xvm_bus::{BusConfig, Clock};
use xvm_model::guest::OUTPUT_MAX;
use xvm_model::{Boot, GuestCommand, RunState, Sender};

/// A running guestd; it ends with the test, also with one that panics.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // an error means that it has ended already
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Daemon {
    /// Asks it to end, and waits for that.
    async fn end(&mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill").success());
        wait_for("the end of guestd", || self.0.try_wait().expect("a child")).await.code()
    }

    /// A number of its `/proc/PID/status`, in KiB.
    fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).expect("a line");
        value.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    }
}

fn guestd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestd"));
    command.args(args);
    command
}

fn ended(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = guestd(args).output().expect("starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// A forwarder, somebody who listens, and how guestd finds it: by the file.
fn cluster(dir: &Path) -> (Forwarder, Ears, String) {
    let forwarder = Forwarder::start(Config::local()).expect("it listens");
    let config = BusConfig {
        forwarders: vec![forwarder.endpoint().clone()],
        sender: Sender::Client(me()),
        boot: Boot(1),
        subscriptions: topics(),
        clock: Clock::system(),
    };
    let (publisher, receiver) = xvm_bus::connect(config).expect("connected");
    let file = dir.join("guestd.toml");
    let text = format!(
        "forwarder = \"{}\"\nheartbeat = 0.2\n[tests]\nsleep = \"/bin/sleep 1000\"\nflood = \"/usr/bin/yes\"\nfiles = \"/bin/ls -l /proc/self/fd\"\n",
        forwarder.endpoint()
    );
    std::fs::write(&file, text).expect("written");
    (forwarder, Ears::new(publisher, receiver), file.to_str().expect("text").to_owned())
}

fn start(file: &str, dir: &Path) -> Daemon {
    let state = dir.join("state");
    let mut command = guestd(&["--name", name().as_str(), "--config", file, "--limit", "1", "--state"]);
    Daemon(command.arg(state).stderr(Stdio::null()).spawn().expect("starts"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_over_real_sockets() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let (_forwarder, ears, file) = cluster(dir.path());
    let mut daemon = start(&file, dir.path());
    let (text, _) = ears.run("fibonacci 10").await.expect("taken");
    assert_eq!(text, "fibonacci 10 is taken");
    assert_eq!((ears.last().await.state, &*ears.last().await.output), (RunState::Done, "55\n"));
    // a program that prints all that it can for a second: guestd does not grow with it
    let before = daemon.status("VmRSS");
    ears.run("flood").await.expect("taken");
    let run = ears.over("flood").await;
    assert!(run.output.len() <= OUTPUT_MAX && run.output.ends_with("y\n"));
    let after = daemon.status("VmHWM");
    assert!(after < before + 4096, "{before} KiB before, {after} KiB at most");
    println!("guestd: {before} KiB before a flood, {after} KiB at most");
    ears.run("files").await.expect("taken");
    let run = ears.over("files").await;
    // what the one who started it left open is passed on, nothing of its own
    let own = ["anon_inode:[eventpoll]", "state/lock"];
    assert!(
        run.output.contains("/dev/null") && !own.iter().any(|o| run.output.contains(o)),
        "{}",
        run.output
    );
    // the processes, itself among them
    ears.order(GuestCommand::Top { seconds: 30 }).await.expect("done");
    ears.until("processes", |h| h.tops.last().map(|_| ())).await;
    ears.run("sleep").await.expect("taken");
    let first = ears.heard(|h| h.at).expect("heard").0;
    assert_eq!(daemon.end().await, Some(0));
    // its next life does not remember, and says so to who knows the last one alone
    let _daemon = start(&file, dir.path());
    let next = ears.until("its next life", |h| h.at.map(|a| a.0).filter(|b| *b != first)).await;
    assert!(next > first);
    ears.run("fibonacci 11").await.expect("taken");
    let run = ears.over("fibonacci 11").await;
    assert_eq!(&*run.output, "89\n");
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let file = dir.path().join("x.toml");
    let path = file.to_str().expect("text");
    std::fs::write(&file, "heartbeat = 5\n[tests]\nx = \"true\"\n").expect("written");
    let (code, _, text) = ended(&["--config", path]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains(&format!("cannot use {path}, line 3: the test x is the absolute path of a program")),
        "{text}"
    );
    std::fs::write(&file, "").expect("written");
    let (code, _, text) = ended(&["--name", "x", "--config", path]);
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot find a forwarder: there is no --forwarder, no xvm.bus=ENDPOINT"), "{text}");
    let (code, _, _) = ended(&["--heartbeat", "x"]);
    assert_eq!(code, Some(2));
}

#[test]
fn tests_run_by_hand() {
    let (code, out, _) = ended(&["test", "fibonacci", "20"]);
    assert_eq!((code, out.as_str()), (Some(0), "6765\n"));
    let (code, _, text) = ended(&["test", "fibonacci", "99"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(2), "guestd test: fibonacci: N is 0 to 50, not \"99\"; usage: fibonacci [N]\n")
    );
    let (code, _, text) = ended(&["test", "no"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(2), "guestd test: there is no test \"no\"; there are fibonacci, image, memory, disk\n")
    );
    let (code, out, _) = ended(&["--help"]);
    assert!(code == Some(0) && out.contains("fibonacci [N]"));
}
