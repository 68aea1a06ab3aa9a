//! A server that is cut off and whose agent is frozen: its machine is started elsewhere, and when it is back it changes nothing on the
//! disk any more. The same in each moment of a migration, at both ends.

use crate::scene::{cluster, no_errors, records, sound, told, took, volume, wait_long, writes};
use crate::stage::{exported, exports_agree, leases, make, start};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xvm_tests::{Cluster, wait_for};

const NAME: &str = "small-6";

/// Takes a host away: its agent stands still, its cable is out.
#[track_caller]
fn cut(cluster: &Cluster, host: &str) {
    cluster.agents[host].freeze();
    cluster.hosts().hosts_sh(&["cut", host]).ok();
}

/// The cable is in again, and its agent goes on; `first` says which of the two comes first.
#[track_caller]
fn heal(cluster: &Cluster, host: &str, cable_first: bool) {
    if cable_first {
        cluster.hosts().hosts_sh(&["heal", host]).ok();
        // it runs and wants to write, and nobody can stop it but the lack of a disk
        wait_long("the old copy stands still", || {
            (cluster.hosts().state(host, NAME) != "running").then_some(())
        });
    }
    cluster.agents[host].thaw();
    if !cable_first {
        cluster.hosts().hosts_sh(&["heal", host]).ok();
    }
}

/// The host that is not this one.
fn other(host: &str) -> &'static str {
    if host == "ferby" { "gerby" } else { "ferby" }
}

/// An empty volume and empty consoles for the next round.
#[track_caller]
fn wipe(cluster: &Cluster) {
    cluster.hosts().forget_consoles(NAME);
    let file = std::fs::File::options().write(true).open(volume(cluster, NAME, "swap")).expect("its swap");
    file.set_len(0).and_then(|()| file.set_len(16 << 20)).expect("a sparse file");
}

/// Powers it off by its button; its disk must be whole.
#[track_caller]
fn off(cluster: &Cluster) {
    cluster.tree.order(&format!("domains/{NAME}/ctl"), "shutdown");
    cluster.tree.settles(&format!("configs/{NAME}/state"), "ready");
    assert_eq!(cluster.copies(NAME), Vec::<String>::new());
    sound(cluster, NAME);
}

#[test]
fn a_machine_that_was_started_elsewhere_has_lost_its_disk_where_it_was() {
    crate::requires_lab!();
    let cluster = cluster(2);
    let t = &cluster.tree;
    make(t, NAME);
    t.order(&format!("configs/{NAME}/restart"), "always");
    start(t, NAME, "ferby");
    let mut host = "ferby";
    for (round, cable_first) in [true, false].into_iter().enumerate() {
        let boot = round + 1;
        writes(&cluster, host, NAME, boot, 16);
        let begin = Instant::now();
        cut(&cluster, host);
        let next = other(host);
        wait_long("it is started elsewhere", || told(&cluster, next, NAME, boot + 1));
        took("cut off until it writes elsewhere", begin);
        assert!(leases(t, NAME).1.iter().all(|e| e.contains(next)), "its old lease is revoked");
        assert!(exports_agree(t, NAME).iter().all(|e| e.contains(next)));
        writes(&cluster, next, NAME, boot + 1, 16);
        let begin = Instant::now();
        heal(&cluster, host, cable_first);
        assert_eq!(cluster.once(NAME, "running"), next);
        took("back until exactly one runs", begin);
        writes(&cluster, next, NAME, boot + 1, 8);
        no_errors(&cluster, next, NAME);
        host = next;
    }
    off(&cluster);
    let all = records(&cluster, NAME);
    xvm_tests::say(&format!("{all:?}"));
    assert_eq!(all.boots, 3);
    assert!(all.of[1].found.is_some_and(|f| f >= 16) && all.of[2].found.is_some_and(|f| f >= 16), "{all:?}");
}

/// When a host is cut off in a migration.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// When the job is in this phase, with the memory moved slowly.
    Phase(&'static str),
    /// So many milliseconds after the copy began, at full speed: around its end.
    After(u64),
}

/// Whether two copies run at the same time with a disk that each of them reaches, looked at again and again until `over`.
fn two_writers(cluster: &Cluster, cut: &Mutex<Option<&str>>, over: &AtomicBool) -> Option<String> {
    let uri = leases(&cluster.tree, NAME).0?;
    let lab = cluster.hosts();
    let both = || ["ferby", "gerby"].iter().all(|h| lab.state(h, NAME) == "running");
    while !over.load(Ordering::Acquire) {
        let before = *cut.lock().expect("no panic");
        if before.is_none() && both() {
            let names = exported(&uri);
            let disks = ["ferby", "gerby"].iter().filter(|h| names.iter().any(|n| n.contains(**h))).count();
            if disks == 2 && both() && cut.lock().expect("no panic").is_none() {
                return Some(format!("both run, and are exported: {names:?}"));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    None
}

/// One migration from ferby to gerby in which a host is cut off; what became of it.
#[track_caller]
fn round(cluster: &Cluster, moment: Moment, victim: &'static str) -> String {
    let t = &cluster.tree;
    wipe(cluster);
    start(t, NAME, "ferby");
    writes(cluster, "ferby", NAME, 1, 8);
    let speed = if matches!(moment, Moment::Phase(_)) { "4" } else { "200" };
    cluster.hosts().virsh("ferby", &["migrate-setspeed", NAME, speed]).ok();
    let (gone, over) = (Mutex::new(None), AtomicBool::new(false));
    std::thread::scope(|s| {
        let watcher = s.spawn(|| two_writers(cluster, &gone, &over));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            t.order(&format!("domains/{NAME}/ctl"), "migrate gerby");
            let job = || t.text(&format!("domains/{NAME}/job"));
            let phase = |job: &str| job.lines().find_map(|l| l.strip_prefix("phase ").map(str::to_owned));
            let met = wait_for("the moment", || {
                let job = job();
                match moment {
                    _ if job == "none" => Some("after its end".to_owned()),
                    Moment::Phase(wanted) => phase(&job).filter(|p| p == wanted),
                    Moment::After(ms) => phase(&job).filter(|p| p != "lease" && p != "begin").map(|_| {
                        std::thread::sleep(Duration::from_millis(ms));
                        phase(&self::job(cluster)).unwrap_or_else(|| "after its end".into())
                    }),
                }
            });
            *gone.lock().expect("no panic") = Some(victim);
            cut(cluster, victim);
            let begin = Instant::now();
            // whoever is left runs it, and it writes
            let left = other(victim);
            let before = told(cluster, left, NAME, 1);
            let boot = wait_long("it writes at the other end", || {
                [2, 1].into_iter().find(|boot| {
                    let lease = leases(t, NAME).1;
                    let now = told(cluster, left, NAME, *boot);
                    let writes = if *boot == 1 { now > before } else { now.is_some() };
                    lease.len() == 2 && lease.iter().all(|e| e.contains(left)) && writes
                })
            });
            writes(cluster, left, NAME, boot, 8);
            let alone = begin.elapsed().as_secs_f64();
            heal(cluster, victim, true);
            *gone.lock().expect("no panic") = None;
            assert_eq!(cluster.once(NAME, "running"), left);
            writes(cluster, left, NAME, boot, 8);
            no_errors(cluster, left, NAME);
            let begin_off = Instant::now();
            off(cluster);
            let all = records(cluster, NAME);
            assert_eq!(all.boots, boot, "{all:?}");
            format!(
                "{victim} cut at {moment:?} (in {met}): boot {boot} on {left} writes after {alone:.1} s, off in {:.1} s, {} records",
                begin_off.elapsed().as_secs_f64(),
                all.of.iter().map(|b| b.wrote).sum::<usize>()
            )
        }));
        over.store(true, Ordering::Release);
        let two = watcher.join().expect("no panic");
        match result {
            Ok(said) => {
                assert_eq!(two, None, "{said}");
                said
            }
            Err(panic) => {
                xvm_tests::say(&format!("{victim} cut at {moment:?}; two writers: {two:?}"));
                std::panic::resume_unwind(panic)
            }
        }
    })
}

fn job(cluster: &Cluster) -> String {
    cluster.tree.text(&format!("domains/{NAME}/job"))
}

#[test]
fn a_host_that_is_lost_in_a_migration_never_makes_a_second_writer() {
    crate::requires_lab!();
    let cluster = cluster(2);
    make(&cluster.tree, NAME);
    cluster.tree.order(&format!("configs/{NAME}/restart"), "always");
    let moments = [
        (Moment::Phase("lease"), "ferby"),
        (Moment::Phase("copy"), "ferby"),
        (Moment::After(100), "ferby"),
        (Moment::After(400), "ferby"),
        (Moment::Phase("lease"), "gerby"),
        (Moment::Phase("copy"), "gerby"),
        (Moment::After(200), "gerby"),
    ];
    for (moment, victim) in moments {
        xvm_tests::say(&round(&cluster, moment, victim));
    }
}
