//! The life of machines on the two hosts.

use crate::guests::Guest;
use crate::records::Records;
use crate::scene::{QEMU, Scene, wait};
use std::time::Instant;
use xvm_tests::say;

/// Servers with a hypervisor's load, and no domain that is a server itself.
pub fn hosts_are_seen(s: &Scene) {
    let t = s.tree();
    for server in ["xen1", "xen2"] {
        let status = format!("servers/{server}/status");
        assert_eq!(t.value(&status, "hypervisor").as_deref(), Some("xen"));
        wait("its processors", || {
            (t.value(&status, "cpu").as_deref() == Some("x86_64/xenlab")).then_some(())
        });
        assert_eq!(t.value(&status, "cpus").as_deref(), Some("1"));
        // the first domain works for us: Xen tells, not its own /proc/stat
        wait("a load", || {
            (t.text(&format!("servers/{server}/load")).parse::<f64>().ok()? > 0.0).then_some(())
        });
    }
    assert_eq!(t.names("domains"), [QEMU]);
}

/// Waits until a boot of a guest has told on a host's console that it wrote more.
#[track_caller]
fn writes(s: &Scene, n: usize, name: &str, boot: usize) {
    let words = format!("boot {boot} wrote");
    s.hosts.says_more(n, name, &words, s.hosts.said(n, name, &words));
}

/// From `mkdir` to `rmdir`, and no byte is lost.
pub fn a_machine_lives(s: &Scene) {
    let t = s.tree();
    let begin = Instant::now();
    std::fs::create_dir(t.path("configs/small-6")).expect("it is made");
    assert_eq!(s.end("configs/small-6"), "done create: small-6 is ready");
    let volumes = s.hosts.ssh(1, "lvs --noheadings -o lv_name vg0");
    assert!(volumes.contains("xvm.small-6.disk") && volumes.contains("xvm.small-6.swap"), "{volumes}");
    say(&format!("mkdir to ready: {:.0} s", begin.elapsed().as_secs_f64()));

    let begin = Instant::now();
    let end = s.job("configs/small-6", "start xen1");
    assert_eq!(end, "done start: small-6 runs on xen1");
    s.hosts.says(1, "small-6", "small-6 is up");
    say(&format!("start to its word that it is up: {:.0} s", begin.elapsed().as_secs_f64()));
    writes(s, 1, "small-6", 1);
    assert_eq!(s.hosts.copies("small-6", &[1, 2]), [1]);
    assert!(t.text("domains/small-6/vcpus").starts_with("0 "), "{}", t.text("domains/small-6/vcpus"));
    assert!(
        t.json("domains/small-6/json")["disks"][0]["capacity"] == 64 << 20,
        "{}",
        t.text("domains/small-6/json")
    );

    // who serves its disk is killed, and imaged, which would mend it: it waits, and goes on
    let begin = Instant::now();
    s.hosts.ssh(1, "pkill -9 -x imaged; pkill -9 -x qemu-storage-da");
    let reason = || t.value("domains/small-6/status", "reason").unwrap_or_default();
    let waits = wait("why it waits", || Some(reason()).filter(|r| !r.is_empty()));
    assert!(waits.starts_with("waits for its disk: 10.7.0.1:"), "{waits}");
    say(&waits);
    s.imaged();
    writes(s, 1, "small-6", 1);
    wait("it to wait no more", || reason().is_empty().then_some(()));
    // by hand, while all is well: its devices are given other connections under it
    let answer = wait("its imports", || {
        let (done, answer) = t.talk("servers/xen1/ctl", "update-imports");
        done.is_ok().then_some(answer)
    });
    assert!(answer.contains("imports: 2 attached, 0 of them anew, 0 dropped"), "{answer}");
    writes(s, 1, "small-6", 1);
    say(&format!(
        "imaged and the exporter killed to its word that it writes: {:.0} s",
        begin.elapsed().as_secs_f64()
    ));

    s.order("small-6", "pause");
    s.settles("domains/small-6/state", "paused");
    s.order("small-6", "unpause");
    s.settles("domains/small-6/state", "running");
    writes(s, 1, "small-6", 1);

    // there and back
    let begin = Instant::now();
    t.rename("servers/xen1/domains/small-6", "servers/xen2/domains/small-6").expect("it moves");
    let end = s.end("domains/small-6");
    assert!(end.starts_with("done migrate: small-6 runs on xen2"), "{end}");
    say(&end);
    assert_eq!(s.hosts.copies("small-6", &[1, 2]), [2]);
    writes(s, 2, "small-6", 1);
    let end = s.job("domains/small-6", "migrate xen1");
    assert!(end.starts_with("done migrate: small-6 runs on xen1"), "{end}");
    say(&end);
    assert_eq!(s.hosts.copies("small-6", &[1, 2]), [1]);
    writes(s, 1, "small-6", 1);
    // its disks are no devices where it was
    t.order("servers/xen2/ctl", "update-imports");
    s.hosts.until(2, "[ -z \"$(ls /run/xvm/imports)\" ]");
    say(&format!(
        "there and back, each with its word that it writes: {:.0} s",
        begin.elapsed().as_secs_f64()
    ));

    let begin = Instant::now();
    let end = s.job("domains/small-6", "reboot");
    assert!(end.starts_with("done reboot"), "{end}");
    writes(s, 1, "small-6", 2);
    say(&format!("reboot to its word that it writes: {:.0} s", begin.elapsed().as_secs_f64()));
    let begin = Instant::now();
    t.order("domains/small-6/ctl", "shutdown");
    s.settles("configs/small-6/state", "ready");
    say(&format!("shutdown to its lease given back: {:.0} s", begin.elapsed().as_secs_f64()));
    let begin = Instant::now();
    assert_eq!(s.hosts.copies("small-6", &[1, 2]), [0; 0]);

    let swap = tempfile::NamedTempFile::new().expect("a scratch file");
    s.hosts.fetch(1, "/dev/vg0/xvm.small-6.swap", 8, swap.path());
    let records = Records::read(swap.path());
    records.one_writer();
    assert_eq!(records.boots, 2);
    assert_eq!(records.of[1].found, Some(records.of[0].wrote), "what was there before is there");
    say(&format!("{} and {} records, each of them whole", records.of[0].wrote, records.of[1].wrote));
    s.hosts.ssh(1, "e2fsck -fn /dev/vg0/xvm.small-6.disk");
    s.removes("small-6");
    say(&format!("a look at its volumes, rmdir: {:.0} s", begin.elapsed().as_secs_f64()));
}

/// The largest gap between two answers of a ping that went on, in seconds.
fn gap(said: &str) -> f64 {
    let at = |l: &str| l.strip_prefix('[')?.split_once(']')?.0.parse::<f64>().ok();
    let answers: Vec<f64> = said.lines().filter(|l| l.contains("time=")).filter_map(at).collect();
    assert!(answers.len() > 10, "it answers: {said}");
    answers.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max)
}

/// The same domain by xvm and by virsh, there and back.
pub fn a_migration_beside_virsh(s: &Scene) {
    let guest = Guest { name: "small-7", machine: "xenpvh", number: 107, busy: 0 };
    guest.start(s, 1);
    let mut rows = Vec::new();
    for (by, to) in [("xvm", 2), ("virsh", 1)] {
        let from = 3 - to;
        s.hosts.ssh(
            1,
            &format!("(setsid ping -D -i 0.1 {} > /tmp/ping 2>&1 < /dev/null &); sleep 2", guest.address()),
        );
        let begin = Instant::now();
        if by == "xvm" {
            let end = s.job("domains/small-7", &format!("migrate xen{to}"));
            assert!(end.starts_with(&format!("done migrate: small-7 runs on xen{to}")), "{end}");
        } else {
            s.hosts.ssh(
                from,
                &format!("virsh -c xen:///system migrate --live small-7 xen+tcp://xen{to}/system"),
            );
        }
        let took = begin.elapsed().as_secs_f64();
        s.settles("domains/small-7/server", &format!("xen{to}"));
        s.settles("domains/small-7/state", "running");
        assert_eq!(s.hosts.copies("small-7", &[1, 2]), [to]);
        let said = s.hosts.ssh(1, "sleep 2; pkill -INT -x ping; sleep 0.5; cat /tmp/ping");
        rows.push((by, took, gap(&said)));
    }
    for (by, took, gap) in rows {
        say(&format!("migration by {by}: {took:.1} s, largest gap of its ping {gap:.1} s"));
    }
    hears_nothing(s, &guest);
    guest.end(s);
}

/// A guest whose kernel hangs keeps nobody waiting when it is asked to power off: libvirt would let nobody ask for it meanwhile.
fn hears_nothing(s: &Scene, guest: &Guest) {
    let (t, name) = (s.tree(), guest.name);
    s.hosts.ssh(1, &format!("xl pause {name}"));
    t.order(&format!("domains/{name}/ctl"), "shutdown");
    assert_eq!(t.value(&format!("domains/{name}/job"), "kind").as_deref(), Some("shutdown"));
    s.hosts.until(1, "pgrep -f 'xl [s]hutdown'");
    let told = s.hosts.ssh(1, &format!("virsh -c xen:///system domstate {name}; pgrep -f 'xl [s]hutdown'"));
    assert!(told.starts_with("running"), "{told}");
    assert_eq!(t.text("servers/xen1/state"), "up");
    t.order(&format!("domains/{name}/ctl"), "cancel");
    let end = s.end(&format!("domains/{name}"));
    assert!(end.contains("cancelled; the guest was asked, and may still power off"), "{end}");
}
