//! Builds that end badly: killed, cancelled, without room, without an answer from the mirror. Nothing may be left.

#[path = "image/bench.rs"]
mod bench;
#[path = "image/killed.rs"]
mod killed;

use bench::{Bench, config, name, requires};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xvm_imaged::image::{self, BuildError, PHASES, Site, Stage};

/// The part of a killed build.
#[tokio::test]
async fn child() {
    killed::child().await;
}

/// If this fails, `kill -9` of imaged leaves processes, mounts or files that the next start does not remove.
#[test]
fn a_killed_build_is_swept() {
    requires!("a_killed_build_is_swept": root, "mke2fs", "busybox");
    for (phase, _) in PHASES.iter().filter(|p| p.0 != "packages") {
        let bench = Bench::new();
        let build = killed::begin(bench.dir.path(), &bench.paths.cache, "", "os=tiny,disk=64");
        assert!(build.reached(&format!("== {phase}")), "ended before {phase}");
        build.kill();
        bench::nothing_but_files(bench.dir.path());
        println!("killed at {phase}: {:?}", image::sweep(&bench.paths).expect("swept"));
        bench.is_clean();
    }
}

/// If this fails, a build that is killed while packages are installed leaves the mounts of the system that is made.
#[test]
fn a_killed_bootstrap_is_swept() {
    requires!("a_killed_bootstrap_is_swept": root, "mmdebstrap");
    let bench = Bench::new();
    let build = killed::begin(bench.dir.path(), &bench.paths.cache, "", "os=debian/bookworm,disk=2048");
    assert!(build.reached("installing remaining packages"), "it ended before");
    build.kill();
    bench::nothing_but_files(bench.dir.path());
    let swept = image::sweep(&bench.paths).expect("swept");
    assert_eq!(swept.files.len(), 1, "the directory of the build: {swept:?}");
    bench.is_clean();
}

/// If this fails, `cancel` does not end a build at once, or leaves something.
#[tokio::test]
async fn a_build_is_cancelled_at_each_stage() {
    requires!("a_build_is_cancelled_at_each_stage": root, "mke2fs", "busybox");
    for (at, (phase, _)) in PHASES.iter().enumerate().filter(|(_, p)| p.0 != "packages") {
        let bench = Bench::new();
        let disk = bench.volume("disk", 64);
        let (progress, mut seen) = watch::channel(Stage::default());
        let cancel = CancellationToken::new();
        let canceller = cancel.clone();
        tokio::spawn(async move {
            seen.wait_for(|s| PHASES.iter().skip(at).any(|p| p.0 == s.phase)).await.expect("reached");
            canceller.cancel();
        });
        let config = config(1, &[("os", "tiny"), ("disk", "64")]);
        let ended = bench.build_with(&name("small-1"), &config, &disk, progress, cancel).await;
        assert_eq!(ended, Err(BuildError::Cancelled), "{phase}");
        bench.is_clean();
    }
}

/// If this fails, a driver that gives up on a build leaves its processes.
#[tokio::test]
async fn a_build_that_nobody_waits_for_ends() {
    requires!("a_build_that_nobody_waits_for_ends": root, "mmdebstrap");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut bench = Bench::new();
    bench.site = silent_mirror(&silent, 600);
    let disk = bench.volume("disk", 2048);
    let (small, config) = (name("small-1"), config(1, &[("os", "debian/bookworm")]));
    let build = bench.build(&small, &config, &disk);
    let begun = async {
        while !bench.told(&small).contains("running apt-get update") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = build => panic!("it ended: {done:?}"),
        () = begun => {}
    }
    bench.is_clean();
}

/// A mirror that takes connections and never answers.
fn silent_mirror(silent: &TcpListener, patience: u64) -> Site {
    let site = Site::default();
    let url = format!("http://{}/debian", silent.local_addr().expect("address"));
    let debian = image::Mirror { url: url.into(), security: None, ..site.debian.clone() };
    Site { debian, patience: Duration::from_secs(patience), ..site }
}

/// If this fails, a mirror that does not answer holds a build for ever.
#[tokio::test]
async fn a_silent_mirror() {
    requires!("a_silent_mirror": root, "mmdebstrap", "debootstrap");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    for debootstrap in [false, true] {
        let mut bench = Bench::new();
        bench.site = Site { debootstrap, ..silent_mirror(&silent, 1) };
        let disk = bench.volume("disk", 2048);
        let begin = Instant::now();
        let (small, config) = (name("small-1"), config(1, &[("os", "debian/bookworm")]));
        let build = bench.build(&small, &config, &disk);
        let ended = tokio::time::timeout(Duration::from_secs(120), build).await.expect("it ends by itself");
        println!("debootstrap {debootstrap}: {ended:?} after {:.1} s", begin.elapsed().as_secs_f64());
        assert!(matches!(ended, Err(BuildError::Failed { stage: "base", .. })), "{ended:?}");
        bench.is_clean();
    }
    // and cancel does not wait for it
    let mut bench = Bench::new();
    bench.site = silent_mirror(&silent, 600);
    let disk = bench.volume("disk", 2048);
    let (progress, mut seen) = watch::channel(Stage::default());
    let cancel = CancellationToken::new();
    let canceller = cancel.clone();
    tokio::spawn(async move {
        seen.wait_for(|s| s.phase == "base").await.expect("reached");
        canceller.cancel();
    });
    let config = config(1, &[("os", "debian/bookworm")]);
    let ended = bench.build_with(&name("small-1"), &config, &disk, progress, cancel).await;
    assert_eq!(ended, Err(BuildError::Cancelled));
    bench.is_clean();
}

/// A small file system of its own; gone with this.
struct Small<'a>(&'a Path);

impl Small<'_> {
    fn mount(dir: &Path, mib: u64) -> Small<'_> {
        fs::create_dir_all(dir).expect("a directory");
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).status();
        assert!(done.expect("mount").success());
        Small(dir)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0).status().ok();
    }
}

/// If this fails, a full disk is not told as such, or leaves half a build.
#[tokio::test]
async fn a_full_disk() {
    requires!("a_full_disk": root, "mke2fs", "busybox", "mmdebstrap");
    // too little for the system; for its file system; for its kernel; for a bootstrap
    for (full, mib, os) in
        [("work", 1, "tiny"), ("volumes", 2, "tiny"), ("boot", 2, "tiny"), ("work", 60, "debian/bookworm")]
    {
        let mut bench = Bench::new();
        if full == "boot" {
            bench.site.tiny_kernel = Some(bench::kernel());
        }
        let place = bench.dir.path().join(full);
        let small = Small::mount(&place, mib);
        fs::create_dir_all(bench.dir.path().join("volumes")).expect("volumes");
        let disk = bench.volume("volumes/disk", 2048);
        let ended = bench.build(&name("small-1"), &config(1, &[("os", os)]), &disk).await;
        println!("{full} is full: {ended:?}");
        assert!(matches!(ended, Err(BuildError::NoSpace(_))), "{full}: {ended:?}");
        assert!(fs::read_dir(&bench.paths.work).expect("work").next().is_none(), "nothing is left");
        let whole = |name: std::ffi::OsString| name.to_string_lossy().starts_with("boot.");
        assert!(
            fs::read_dir(&bench.paths.boot).expect("boot").flatten().all(|e| whole(e.file_name())),
            "no half file"
        );
        drop(small);
        bench.is_clean();
    }
}
