//! Tiny systems: built by the real tools, looked at with debugfs, cloned, grown, booted.

#[path = "image/bench.rs"]
mod bench;

use bench::{Bench, KEY, Machine, cat, config, exists, name, requires, sound};
use std::{fs, time::Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xvm_imaged::image::{self, BuildError, PHASES, Personal, Stage};

/// If this fails, `mkdir configs/NAME` with the embedded defaults makes no system.
#[tokio::test]
async fn a_tiny_system_is_whole_and_locked() {
    requires!("a_tiny_system_is_whole_and_locked": root, "mke2fs", "debugfs", "busybox");
    let bench = Bench::new();
    let (name, config) = (name("small-1"), config(1, &[("os", "tiny"), ("disk", "64"), ("keys", KEY)]));
    let disk = bench.volume("disk", 64);
    let (progress, mut seen) = watch::channel(Stage::default());
    let begin = Instant::now();
    let watcher = tokio::spawn(async move {
        let mut phases = Vec::new();
        while seen.changed().await.is_ok() {
            let now = *seen.borrow();
            if phases.last() != Some(&now.phase) {
                phases.push(now.phase);
            }
        }
        (phases, *seen.borrow())
    });
    bench.build_with(&name, &config, &disk, progress, CancellationToken::new()).await.expect("built");
    println!("tiny: {:.2} s", begin.elapsed().as_secs_f64());
    let (phases, last) = watcher.await.expect("watched");
    let order: Vec<_> = PHASES.iter().map(|p| p.0).filter(|p| phases.contains(p)).collect();
    assert_eq!(phases, order, "the stages in their order");
    assert_eq!((last.percent, last.remaining), (100, Some(0)));

    bench.is_clean();
    sound(&disk);
    assert_eq!(cat(&disk, "/etc/hostname"), "small-1\n");
    assert!(cat(&disk, "/etc/hosts").contains("127.0.1.1\tsmall-1"));
    assert!(cat(&disk, "/etc/shadow").starts_with("root:*:"), "root is locked");
    assert_eq!(cat(&disk, "/root/.ssh/authorized_keys").trim(), KEY);
    let swap = fs::read(bench.dir.path().join("small-1.swap")).expect("swap");
    assert_eq!(&swap[4086..4096], b"SWAPSPACE2");
    assert!(bench.told(&name).contains("== done"));

    // the second build knows how long it takes
    let (progress, mut seen) = watch::channel(Stage::default());
    let disk = bench.volume("disk2", 64);
    let first = tokio::spawn(async move {
        seen.changed().await.expect("told");
        *seen.borrow()
    });
    bench.build_with(&name, &config, &disk, progress, CancellationToken::new()).await.expect("built");
    assert!(first.await.expect("seen").remaining.is_some());
}

/// If this fails, a clone answers to its model's name or lets its model's users in.
#[tokio::test]
async fn a_clone_is_somebody_else() {
    requires!("a_clone_is_somebody_else": root, "mke2fs", "debugfs", "busybox");
    let bench = Bench::new();
    let model = config(1, &[("os", "tiny"), ("disk", "64"), ("keys", KEY)]);
    let disk = bench.volume("disk", 64);
    bench.build(&name("small-1"), &model, &disk).await.expect("built");
    let clone = bench.dir.path().join("clone");
    fs::copy(&disk, &clone).expect("copied");
    let twin = config(2, &[("os", "tiny"), ("address", "10.0.0.5/24 via 10.0.0.1")]);
    let cancel = CancellationToken::new;
    let begin = Instant::now();
    image::personalise(&bench.paths, &bench.site, &name("small-2"), &twin, &clone, Personal::Clone, cancel())
        .await
        .expect("personal");
    println!("personalise: {:.2} s", begin.elapsed().as_secs_f64());
    sound(&clone);
    bench.is_clean();
    assert_eq!(cat(&clone, "/etc/hostname"), "small-2\n");
    assert_eq!(cat(&clone, "/etc/address"), "10.0.0.5/24 10.0.0.1\n");
    assert_eq!(cat(&clone, "/root/.ssh/authorized_keys"), "");
    let uuid =
        |disk| bench::debugfs(disk, "stats -h").lines().find(|l| l.contains("UUID")).map(str::to_owned);
    assert!(uuid(&clone).is_some() && uuid(&clone) != uuid(&disk));
    let mode = bench::debugfs(&clone, "stat /root/.ssh/authorized_keys");
    assert!(mode.contains("Mode:  0600") && mode.contains("User:     0"), "{mode}");

    // a system that turned its own /etc into something else is told, and nothing else is written
    bench::debugfs_write(&clone, "rm /etc/hostname\nmkdir /etc/hostname\n");
    let before = fs::read(bench.dir.path().join("disk")).expect("disk");
    let failed = image::personalise(
        &bench.paths,
        &bench.site,
        &name("x"),
        &twin,
        &clone,
        Personal::Settings,
        cancel(),
    )
    .await;
    assert!(
        matches!(&failed, Err(BuildError::Failed { why, .. }) if why.contains("etc/hostname")),
        "{failed:?}"
    );
    assert_eq!(fs::read(&disk).expect("disk"), before);

    // it grows with its disk
    fs::File::options().write(true).open(&disk).expect("disk").set_len(200 << 20).expect("grown");
    image::grow(&bench.paths, &disk, cancel()).await.expect("grown");
    sound(&disk);
    assert!(bench::debugfs(&disk, "stats -h").contains("Block count:              51200"));
    assert_eq!(cat(&disk, "/etc/hostname"), "small-1\n");
}

/// If this fails, a tiny system does not start.
#[tokio::test]
async fn a_tiny_system_boots() {
    requires!("a_tiny_system_boots": root, "mke2fs", "busybox", "qemu-system-x86_64", "patchelf", "strip");
    let mut bench = Bench::new();
    bench.site.tiny_kernel = Some(bench::kernel());
    bench.site.guestd = bench::guestd();
    let overlay = bench.dir.path().join("overlay");
    fs::create_dir_all(overlay.join("etc")).expect("overlay");
    let script = "#!/bin/sh\nread -r a b < /proc/swaps; echo overlay $(grep -c vdb /proc/swaps)\n/usr/lib/xvm/guestd/guestd --version\n";
    fs::write(overlay.join("etc/rc.local"), script).expect("script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(overlay.join("etc/rc.local"), mode).expect("mode");
    bench.site.overlay = Some(overlay);
    let (name, config) = (name("small-1"), config(1, &[("os", "tiny"), ("disk", "64")]));
    let disk = bench.volume("disk", 64);
    let boot = bench.build(&name, &config, &disk).await.expect("built").expect("a kernel");
    let swap = bench.dir.path().join("small-1.swap");
    let mut machine = Machine::boot(&bench, &boot, 96, &[&disk, &swap], "console");
    for text in [
        "small-1 is up",
        "overlay 1",
        "sort (GNU coreutils)",
        "small-1 has the address 10.0.2.15",
        "small-1 login:",
    ] {
        machine.wait_for(text);
    }
    machine.power_button();
    sound(&disk);
}

/// If this fails, a system is said to be built that nobody can build.
#[tokio::test]
async fn systems_are_known_or_refused() {
    let bench = Bench::new();
    let systems = image::systems(&bench.paths, &bench.site);
    println!("systems here: {systems:?}");
    let disk = bench.volume("disk", 16);
    let refused = bench.build(&name("x"), &config(1, &[("os", "plan9/fourth")]), &disk).await;
    assert!(
        matches!(&refused, Err(BuildError::UnknownOs { allowed, .. }) if *allowed == systems),
        "{refused:?}"
    );
    assert!(!exists(&disk, "/"));
}

/// If this fails, a system that does not fit is said to be fine, or the reason is not told.
#[tokio::test]
async fn a_disk_that_is_too_small() {
    requires!("a_disk_that_is_too_small": root, "mke2fs", "busybox");
    let mut bench = Bench::new();
    let overlay = bench.dir.path().join("overlay");
    fs::create_dir(&overlay).expect("overlay");
    fs::write(overlay.join("big"), vec![7; 20 << 20]).expect("big file");
    bench.site.overlay = Some(overlay);
    let disk = bench.volume("disk", 16);
    let failed = bench.build(&name("x"), &config(1, &[("os", "tiny"), ("disk", "16")]), &disk).await;
    let says = |why: &str| why.starts_with("a disk of 16 MiB is too small for its system of 2");
    assert!(matches!(&failed, Err(BuildError::Failed { stage: "pack", why }) if says(why)), "{failed:?}");
    bench.is_clean();
}
