//! Tests and orders: what is written arrives in order and once, what is refused says why, and `result` waits for the end.

use super::rows::{DIR, with_guest};
use crate::events::Follower;
use crate::kit::{can_mount, errno, wait_for};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use xvm_model::{GuestCommand, Ratio};

const EINVAL: i32 = 22;
const EHOSTDOWN: i32 = 112;

fn run(line: &str) -> GuestCommand {
    GuestCommand::Run { line: line.into() }
}

#[test]
fn a_result_waits_for_the_end_of_the_test() {
    if !can_mount("a_result_waits_for_the_end_of_the_test") {
        return;
    }
    let (_c, guest, m) = with_guest();
    m.write(&format!("{DIR}/run"), "fibonacci 38\n").unwrap();
    let mut events = Follower::new(&m, "exec cat domains/small-1/events");
    assert!(events.line().ends_with("listening\n"));
    let (path, (told, tells)) = (m.at(&format!("{DIR}/result")), std::sync::mpsc::channel());
    let reader = std::thread::spawn(move || {
        let mut file = std::fs::File::open(path).unwrap();
        told.send(file.metadata().unwrap().len()).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        (text.len() as u64 == file.metadata().unwrap().len(), text)
    });
    assert_eq!(tells.recv().unwrap(), 0);
    assert!(m.read(&format!("{DIR}/results")).contains(" running - 0.000 0.000 fibonacci 38\n"));
    assert!(m.read(&format!("{DIR}/ctl")).ends_with("# state up; runs fibonacci 38; 0 wait\n"));
    assert!(!reader.is_finished(), "it runs still");
    guest.finish(Ok(0), "39088169\n\u{1b}[1m");
    let (true_size, text) = reader.join().unwrap();
    let want = "test fibonacci 38\nstate done\nstatus 0\nwall 1.234\ncpu 1.200\nserver ferby\n\n39088169\n\u{fffd}[1m\n";
    assert_eq!(text, want);
    assert!(true_size);
    let size = std::fs::metadata(m.at(&format!("{DIR}/result"))).unwrap().len();
    assert_eq!((size, m.read(&format!("{DIR}/result"))), (want.len() as u64, want.to_owned()), "idle");
    assert!(events.line().ends_with("domain small-1 guest run done fibonacci 38: 1.234 s\n"));
    m.write(&format!("{DIR}/run"), "image 512\n").unwrap();
    guest.finish(Err("killed by\nsignal 9".into()), "");
    wait_for("its end", || {
        m.read(&format!("{DIR}/result"))
            == "test image 512\nstate failed\nstatus -\nwall 1.234\ncpu 1.200\nserver ferby\nwhy killed by signal 9\n\n"
    });
    let results = m.read(&format!("{DIR}/results"));
    let ends: Vec<&str> = results.lines().map(|l| l.split_once(' ').unwrap().1).collect();
    assert_eq!(ends, ["done 0 1.234 1.200 fibonacci 38", "failed - 1.234 1.200 image 512"]);
}

/// If this fails, a script waits for ever for a test that nobody runs any more, or takes its end for another's.
#[test]
fn who_waits_for_a_lost_test_is_told() {
    if !can_mount("who_waits_for_a_lost_test_is_told") {
        return;
    }
    let (_c, guest, m) = with_guest();
    m.write(&format!("{DIR}/run"), "fibonacci 38\n").unwrap();
    let mut wait = Follower::new(&m, &format!("exec cat {DIR}/result"));
    let mut events = Follower::new(&m, "exec cat domains/small-1/events");
    assert!(events.line().ends_with("listening\n"));
    wait_for("a held read", || wait.is_held());
    guest.change(|b| b.interval_ms = 100);
    guest.dead(true);
    assert!(events.line().ends_with("domain small-1 guest down\n"));
    assert_eq!(wait.line(), "state unknown\n");
    assert!(wait.line().contains("not heard any more") && wait.line().is_empty());
}

#[test]
fn lines_are_tests_in_order_up_to_the_first_that_is_refused() {
    if !can_mount("lines_are_tests_in_order_up_to_the_first_that_is_refused") {
        return;
    }
    let (c, guest, m) = with_guest();
    let (file, error) = (format!("{DIR}/run"), format!("{DIR}/error"));
    m.write(&file, "fibonacci 1\n\n# a comment\n image   2 \nfibonacci 3").unwrap();
    wait_for("the line that was closed", || guest.orders().len() == 3);
    assert_eq!(guest.orders(), [run("fibonacci 1"), run("image 2"), run("fibonacci 3")]);
    let text = m.read(&file);
    assert_eq!(
        text,
        "test fibonacci\ntest image\nrunning fibonacci 1\nwaiting image 2\nwaiting fibonacci 3\n"
    );
    assert_eq!(errno(m.write(&file, "image 4\nnonsense 5\nimage 6\n")), EINVAL);
    assert!(m.read(&error).ends_with(" EINVAL cannot run nonsense in small-1: it has fibonacci, image\n"));
    assert_eq!(guest.orders().len(), 5, "nothing after the refusal");
    m.write(&format!("{DIR}/ctl"), "cancel\n").unwrap();
    let results = m.read(&format!("{DIR}/results"));
    assert_eq!(results.matches(" cancelled - ").count(), 4, "{results}");
    // what is no line at all does not reach it; the answers of a dialogue do
    let orders = guest.orders().len();
    let mut long = vec![b'x'; 1 << 20];
    long.push(b'\n');
    for bad in
        [&long[..], b"\xff\xfe\n", b"fibo\0nacci\n", &[b"fibonacci ", &[b'1'; 2000][..], b"\n"].concat()]
    {
        assert_eq!(errno(std::fs::write(m.at(&file), bad)), EINVAL);
        assert_eq!(errno(std::fs::write(m.at(&format!("{DIR}/ctl")), bad)), EINVAL);
    }
    assert_eq!((guest.orders().len(), c.world.done()), (orders, 0));
    let script = format!(
        "exec 3<>{file}; echo image 7 >&3; read r <&3; echo \"$r\"; echo none >&3; read r <&3; echo \"$r\""
    );
    let answers = String::from_utf8(m.sh(&script).stdout).unwrap();
    assert_eq!(answers, "image 7 is taken\nEINVAL cannot run none in small-1: it has fibonacci, image\n");
}

#[test]
fn two_writers_at_once_do_not_mix() {
    if !can_mount("two_writers_at_once_do_not_mix") {
        return;
    }
    let (_c, guest, m) = with_guest();
    let writers: Vec<_> = ["fibonacci", "image"]
        .map(|test| {
            let path = m.at(&format!("{DIR}/run"));
            std::thread::spawn(move || {
                let mut file = OpenOptions::new().write(true).open(path).unwrap();
                (0..5).for_each(|i| file.write_all(format!("{test} {i}\n").as_bytes()).unwrap());
            })
        })
        .into();
    writers.into_iter().for_each(|w| w.join().unwrap());
    for test in ["fibonacci", "image"] {
        let of: Vec<_> = guest
            .orders()
            .into_iter()
            .filter(|o| matches!(o, GuestCommand::Run { line } if line.starts_with(test)))
            .collect();
        let want: Vec<_> = (0..5).map(|i| run(&format!("{test} {i}"))).collect();
        assert_eq!(of, want, "in the order of its writer, and once");
    }
}

#[test]
fn load_goes_to_the_guest_else_to_the_server() {
    if !can_mount("load_goes_to_the_guest_else_to_the_server") {
        return;
    }
    let (c, guest, m) = with_guest();
    m.write("domains/small-1/ctl", "load 80 60\n").unwrap();
    m.write(&format!("{DIR}/ctl"), "load 60\n").unwrap();
    let load = |share, seconds| GuestCommand::Load { share: Ratio::new(share), seconds };
    assert_eq!((guest.orders(), c.world.done()), (vec![load(0.8, 60), load(1.0, 60)], 0));
    wait_for("what it says of it", || {
        m.read(&format!("{DIR}/status")).contains("loading 100 % for 60 s more\n")
    });
    m.write("domains/small-2/ctl", "load 80 60\n").unwrap();
    assert_eq!((guest.orders().len(), c.world.done()), (2, 1), "no guest is heard there");
}

#[test]
fn a_guest_that_is_not_heard_is_told_nothing() {
    if !can_mount("a_guest_that_is_not_heard_is_told_nothing") {
        return;
    }
    let (c, guest, m) = with_guest();
    let (file, error) = (format!("{DIR}/run"), format!("{DIR}/error"));
    let mut open = OpenOptions::new().read(true).write(true).open(m.at(&file)).unwrap();
    guest.deaf(true);
    assert_eq!(errno(m.write(&file, "fibonacci 38\n")), 110, "ETIMEDOUT");
    assert!(
        m.read(&error)
            .contains("ETIMEDOUT cannot run fibonacci 38 in small-1: guestd in small-1 did not answer")
    );
    guest.deaf(false);
    let orders = guest.orders().len();
    guest.change(|b| b.interval_ms = 1000);
    guest.dead(true);
    wait_for("stale", || m.read(&format!("{DIR}/status")).contains("state stale\n"));
    assert_eq!(errno(m.write(&file, "fibonacci 38\n")), EHOSTDOWN);
    let text = m.read(&error);
    assert!(
        text.contains(" EHOSTDOWN cannot run fibonacci 38 in small-1: its guestd is not heard, last "),
        "{text}"
    );
    m.write("domains/small-1/ctl", "load 80 60\n").unwrap();
    assert_eq!(c.world.done(), 1, "its server is heard");
    wait_for("its end", || !m.at(DIR).exists());
    assert_eq!(errno(open.write_all(b"fibonacci 38\n")), EHOSTDOWN, "who has it open still");
    assert_eq!(guest.orders().len(), orders);
}
