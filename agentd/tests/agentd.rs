//! If this fails, agentd cannot be started, stopped or understood by who runs it: the real program, its exit status and its sentences.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running agentd; it ends with the test, also with one that panics.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // an error means that it has ended already
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn agentd(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentd"));
    // nobody listens at port 9: the agent waits for its forwarder for ever
    command.args(["--name", "ferby", "--forwarder", "127.0.0.1:9", "--state"]).arg(state).args(args);
    command.stderr(Stdio::piped());
    command
}

fn start(state: &Path) -> Daemon {
    let mut daemon = Daemon(agentd(state, &["--domain", "small-1"]).spawn().expect("starts"));
    let stderr = daemon.0.stderr.take().expect("piped");
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("agent runs")), "it ended before it ran");
    // what it says later must find a reader
    std::thread::spawn(move || lines.for_each(drop));
    daemon
}

fn refused(state: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = agentd(state, args).output().expect("starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn it_ends_by_a_signal_and_starts_again() {
    let dir = tempfile::tempdir().expect("scratch folder");
    for signal in ["-TERM", "-INT"] {
        let mut daemon = start(dir.path());
        let (code, text) = refused(dir.path(), &[]);
        assert_eq!(code, Some(1));
        assert!(text.contains("another agentd uses it; give each its own by --state DIR"), "{text}");
        let pid = daemon.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        let end = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = daemon.0.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < end, "{signal} did not end it");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0), "{signal}");
    }
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let dir = tempfile::tempdir().expect("scratch folder");
    std::fs::write(dir.path().join("settings.toml"), "accepting = 3\n").expect("written");
    let (code, text) = refused(dir.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("agentd: cannot use ") && text.contains("settings.toml: line 1: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let clean = tempfile::tempdir().expect("scratch folder");
    for (args, status, why) in [
        (&["--listen", "0.0.0.0:0"][..], 1, "add --insecure"),
        (&["--hypervisor", "nonsense"], 1, "neither sim nor a libvirt URI"),
        (&["--cpus", "0"], 2, "1..=4096"),
        (&["--domain", "x,y=1"], 2, "allowed are vcpus"),
    ] {
        let (code, text) = refused(clean.path(), args);
        assert_eq!(code, Some(status), "{args:?}: {text}");
        assert!(text.contains(why), "{args:?}: {text}");
    }
}
