//! `top`: asked for while somebody reads; cat ends, tail -f goes on, and nobody waits for ever.

use super::rows::{DIR, with_guest};
use crate::events::Follower;
use crate::kit::{can_mount, errno, wait_for};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

fn top() -> String {
    format!("{DIR}/top")
}

#[test]
fn cat_gives_one_snapshot_and_ends() {
    if !can_mount("cat_gives_one_snapshot_and_ends") {
        return;
    }
    let (_c, guest, m) = with_guest();
    assert_eq!(std::fs::metadata(m.at(&top())).unwrap().len(), 0);
    assert_eq!(guest.asked(), 0, "stat asks nobody");
    let to = tempfile::tempdir().unwrap();
    for script in
        [format!("cat {}", top()), format!("cp {0} {1}/top && cat {1}/top", top(), to.path().display())]
    {
        let text = m.shell(&script);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("Z load 0.75 of 2 CPUs, ") && lines[0].ends_with(" processes"), "{text}");
        assert_eq!(lines[1], "    PID USER   CPU       MEM      TIME COMMAND", "{text}");
        assert_eq!(
            lines[2..],
            [
                "     42 root  1.50      2048     12.34 burn  [2Jcpu",
                "      1 root  0.00      2048     12.34 [init]"
            ]
        );
    }
    let mut file = std::fs::File::open(m.at(&top())).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let meta = file.metadata().unwrap();
    assert!(meta.len() >= text.len() as u64, "the open file has grown");
    let mtime = meta.modified().unwrap().elapsed().unwrap();
    assert!(mtime.as_secs() < 60, "{mtime:?}");
}

#[test]
fn followers_get_the_next_ones_and_ask_only_while_they_read() {
    if !can_mount("followers_get_the_next_ones_and_ask_only_while_they_read") {
        return;
    }
    let (_c, guest, m) = with_guest();
    let script = format!(
        "import time\nwith open('{}') as f:\n while True:\n  print(f.read(), end='', flush=True); time.sleep(0.05)",
        top()
    );
    let mut followers = vec![
        Follower::new(&m, &format!("exec tail -n +1 -f {}", top())),
        Follower::new(&m, &format!("exec tail -n +1 -F {}", top())),
        Follower::new(&m, &format!("exec python3 -c \"{script}\"")),
    ];
    for f in &mut followers {
        let mut numbers = Vec::new();
        while numbers.len() < 3 {
            let line = f.line();
            assert!(!line.is_empty(), "it has ended");
            if let Some(n) = line.strip_suffix(" processes\n").and_then(|l| l.rsplit(' ').next()) {
                numbers.push(n.parse::<u32>().unwrap());
            }
        }
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    }
    // one order at a time for all three, again and again
    let asked = guest.asked();
    wait_for("it is asked again", || guest.asked() > asked);
    drop(followers);
    // it is asked for 5 s at a time, so this comes only when nobody asks any more
    wait_for("nobody asks", || !guest.is_watched());
    let asked = guest.asked();
    m.shell(&format!("cat {}", top()));
    assert_eq!(guest.asked(), asked + 1);
}

#[test]
fn without_a_snapshot_a_read_ends_in_time_and_says_why() {
    if !can_mount("without_a_snapshot_a_read_ends_in_time_and_says_why") {
        return;
    }
    let (_c, guest, m) = with_guest();
    guest.blind(true);
    assert_eq!(errno(std::fs::read(m.at(&top()))), 110, "ETIMEDOUT");
    let error = m.read(&format!("{DIR}/error"));
    assert!(
        error.contains(" ETIMEDOUT cannot read the processes of small-1: its guestd sent none within 5 s"),
        "{error}"
    );
    // the same open file may be read again, once it is there
    let file = std::fs::File::open(m.at(&top())).unwrap();
    assert_eq!(errno(file.read_at(&mut [0; 9], 0)), 110);
    guest.blind(false);
    let mut text = [0; 40];
    wait_for("a snapshot", || file.read_at(&mut text, 0).is_ok_and(|n| n == 40));
    guest.dead(true);
    wait_for("stale", || m.read(&format!("{DIR}/status")).contains("state stale\n"));
    assert_eq!(errno(std::fs::read(m.at(&top()))), 112, "EHOSTDOWN at once");
    assert!(
        m.read(&format!("{DIR}/error"))
            .contains("EHOSTDOWN cannot read the processes of small-1: its guestd is not heard, last ")
    );
}

#[test]
fn poll_says_when_there_is_a_next_snapshot() {
    if !can_mount("poll_says_when_there_is_a_next_snapshot") {
        return;
    }
    let (_c, _guest, m) = with_guest();
    let script = "
import os, select
f = os.open('domains/small-1/guest/top', os.O_RDONLY | os.O_NONBLOCK)
p = select.epoll(); p.register(f, select.EPOLLIN)
try: os.read(f, 99)
except BlockingIOError: print('again')
for i in range(3):
  print(len(p.poll(15)), os.read(f, 9999).count(b'COMMAND'))
  if not p.poll(0): print('nothing yet', os.read(f, 9999))
";
    let out = m.sh(&format!("exec python3 -c \"{script}\""));
    let text = String::from_utf8_lossy(&out.stdout).replace("nothing yet b''\n", "");
    assert_eq!(text, "again\n1 1\n1 1\n1 1\n", "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_reader_that_waits_can_be_killed() {
    if !can_mount("a_reader_that_waits_can_be_killed") {
        return;
    }
    let (_c, guest, m) = with_guest();
    guest.blind(true);
    m.write(&format!("{DIR}/run"), "fibonacci 38\n").unwrap();
    for (file, signal) in [("top", "INT"), ("top", "KILL"), ("result", "TERM"), ("result", "KILL")] {
        let mut cat = Command::new("env");
        cat.args(["--default-signal=INT,TERM", "cat"])
            .arg(m.at(&format!("{DIR}/{file}")))
            .stdout(Stdio::null());
        let mut child = cat.spawn().unwrap();
        wait_for("a held read", || {
            std::fs::read_to_string(format!("/proc/{}/syscall", child.id()))
                .is_ok_and(|s| s.starts_with("0 "))
        });
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        let mut status = None;
        wait_for(&format!("the end of cat {file} by {signal}"), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), None, "the signal ended it, not an error");
    }
}
