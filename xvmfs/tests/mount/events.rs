//! Following: `events` and `wait` with the programs that people use, poll(2), and that a held read can be killed.

use crate::kit::{Cluster, Mount, can_mount, wait_for};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A program that follows a file; killed when the test ends.
pub struct Follower(Child, BufReader<std::process::ChildStdout>);

impl Follower {
    pub fn new(m: &Mount, script: &str) -> Self {
        let mut child = Command::new("bash")
            .args(["-c", script])
            .current_dir(&m.path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Follower(child, out)
    }

    /// Whether it waits in read(2).
    pub fn is_held(&self) -> bool {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.0.id()));
        call.is_ok_and(|s| s.starts_with("0 "))
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn events_are_followed_by_the_programs_that_people_use() {
    if !can_mount("events_are_followed_by_the_programs_that_people_use") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    for script in [
        "exec cat events",
        "exec tail -f events",
        "exec tail -F events",
        "while read line; do echo \"$line\"; done < events",
        "exec python3 -c \"for l in open('events'): print(l, end='', flush=True)\"",
        "exec dd if=events bs=10 status=none",
        "exec sed -u s/x/x/ events",
        "exec grep --line-buffered . events",
    ] {
        let mut f = Follower::new(&m, script);
        assert!(f.line().ends_with("Z listening\n"), "{script}");
        for state in ["paused", "running"] {
            m.write("domains/small-1/ctl", if state == "paused" { "pause" } else { "unpause" }).unwrap();
            let line = f.line();
            assert!(line.contains(&format!("domain small-1 state {state}")), "{script}: {line}");
        }
    }
    let mut f = Follower::new(&m, "exec tail -n0 -f events");
    wait_for("tail", || {
        std::fs::read_dir(format!("/proc/{}/fd", f.0.id())).is_ok_and(|d| {
            d.flatten().any(|e| std::fs::read_link(e.path()).is_ok_and(|l| l.ends_with("events")))
        })
    });
    m.write("domains/small-1/ctl", "pause").unwrap();
    assert!(f.line().contains("small-1 state paused"));
}

#[test]
fn each_directory_hears_its_own_events() {
    if !can_mount("each_directory_hears_its_own_events") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let mut own = Follower::new(&m, "exec cat domains/small-1/events");
    let mut server = Follower::new(&m, "exec cat servers/gerby/events");
    assert!(own.line().ends_with("listening\n") && server.line().ends_with("listening\n"));
    m.write("domains/small-3/ctl", "pause").unwrap();
    m.write("domains/small-1/ctl", "pause").unwrap();
    assert!(own.line().contains("domain small-1"));
    assert!(server.line().contains("domain small-3"));
}

#[test]
fn a_held_read_can_be_killed() {
    if !can_mount("a_held_read_can_be_killed") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    c.world.migration(Duration::from_secs(60));
    m.write("domains/small-1/ctl", "migrate gerby").unwrap();
    for (file, signal) in [("events", "INT"), ("events", "KILL"), ("domains/small-1/wait", "TERM")] {
        // whoever runs this in the background may have SIGINT ignored
        let mut cat = Command::new("env");
        cat.args(["--default-signal=INT,TERM", "cat"]).arg(m.at(file)).stdout(Stdio::null());
        let mut child = cat.spawn().unwrap();
        wait_for("a held read", || {
            std::fs::read_to_string(format!("/proc/{}/syscall", child.id()))
                .is_ok_and(|s| s.starts_with("0 "))
        });
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        // the migration, and so the read of `wait`, would go on for a minute
        wait_for(&format!("the end of cat {file} by {signal}"), || child.try_wait().unwrap().is_some());
    }
}

#[test]
fn poll_says_when_a_read_would_not_block() {
    if !can_mount("poll_says_when_a_read_would_not_block") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let script = "
import os, select, sys
e = os.open('events', os.O_RDONLY | os.O_NONBLOCK)
w = os.open('domains/small-1/wait', os.O_RDONLY | os.O_NONBLOCK)
p = select.epoll(); p.register(e, select.EPOLLIN); p.register(w, select.EPOLLIN)
def ready(t): return sorted('e' if f == e else 'w' for f, _ in p.poll(t))
print(ready(5), len(os.read(e, 99)))
print(ready(0))
try: os.read(w, 99)
except BlockingIOError: print('again')
try: os.read(e, 99)
except BlockingIOError: print('again')
open('domains/small-3/ctl', 'w').write('pause')
print(ready(5), os.read(e, 999).count(b'small-3 state paused'))
open('domains/small-1/ctl', 'w').write('cancel')
while 'w' not in ready(5): os.read(e, 999)
print(os.read(w, 99))
";
    c.world.migration(Duration::from_secs(60));
    m.write("domains/small-1/ctl", "migrate gerby").unwrap();
    let out =
        Command::new("timeout").args(["20", "python3", "-c", script]).current_dir(&m.path).output().unwrap();
    let (text, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let want = "['e'] 35\n[]\nagain\nagain\n['e'] 1\nb'failed migrate: EBUSY cancelled\\n'\n";
    assert_eq!(text, want, "{err}");
}

#[test]
fn a_slow_reader_is_told_what_it_lost() {
    if !can_mount("a_slow_reader_is_told_what_it_lost") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let mut file = std::fs::File::open(m.at("events")).unwrap();
    for _ in 0..600 {
        m.write("domains/small-1/ctl", "pause\nunpause\n").unwrap();
    }
    let mut text = vec![0; 1 << 20];
    let n = file.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    assert!(text.lines().count() <= 1025 && text.lines().next().unwrap().contains(" lost "), "{text}");
    let fd = file.as_fd();
    let mut polled = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO), Ok(0));
}
