//! Real Debian systems: from the mirror, from the cache, as clones, killed in the middle, and booted.

#[path = "image/bench.rs"]
mod bench;
#[path = "image/killed.rs"]
mod killed;

use bench::{Bench, KEY, Machine, cat, config, debugfs, exists, name, requires, sound};
use std::{fs, time::Instant};
use tokio_util::sync::CancellationToken;
use xvm_imaged::image::{self, BootFiles, PHASES, Personal};

const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// The part of a killed build.
#[tokio::test]
async fn child() {
    killed::child().await;
}

/// If this fails, Debian systems are not made, not sound, not locked, not their own, or do not start.
#[tokio::test]
async fn a_debian_system_from_the_mirror_to_the_login_prompt() {
    requires!("a_debian_system": root, "mmdebstrap", "mke2fs", "qemu-system-x86_64", "debugfs");
    let bench = Bench::new();
    let plain = config(1, &[("os", "debian/bookworm"), ("keys", KEY)]);
    let disk = bench.volume("disk", 2048);
    let first = timed("first build", &bench, &plain, &disk).await;
    let second = timed("second build, from the cache", &bench, &plain, &disk).await;
    assert_eq!(first, second, "the same kernel, kept once");
    is_its_own(&disk);

    let more = config(1, &[("os", "debian/bookworm"), ("packages", "hello")]);
    let other = bench.volume("other", 2048);
    timed("with one package more", &bench, &more, &other).await;
    assert!(exists(&other, "/usr/bin/hello") && !exists(&disk, "/usr/bin/hello"));
    assert!(!exists(&other, "/usr/sbin/policy-rc.d"));
    is_its_own_but_keys(&other);
    timed("that again, from the cache", &bench, &more, &other).await;
    assert!(exists(&other, "/usr/bin/hello"));

    killed_at_each_stage(&bench);
    let clone = a_clone_before_its_first_boot(&bench, &disk).await;
    boots(&bench, &first, &clone).await;
    assert!(!exists(&disk, HOST_KEY), "the model never ran");
}

/// If this fails, machines without mmdebstrap make no Debian systems.
#[tokio::test]
async fn debootstrap_makes_one_too() {
    requires!("debootstrap_makes_one_too": root, "debootstrap", "mke2fs", "debugfs");
    let mut bench = Bench::new();
    bench.site.debootstrap = true;
    bench.site.guestd = bench::guestd();
    let disk = bench.volume("disk", 2048);
    let config = config(1, &[("os", "debian/bookworm"), ("keys", KEY)]);
    timed("with debootstrap", &bench, &config, &disk).await;
    is_its_own(&disk);
    let enabled = "/etc/systemd/system/multi-user.target.wants/";
    for unit in ["systemd-networkd.service", "xvm-host-keys.service", "ssh.service", "xvm-guestd.service"] {
        assert!(
            debugfs(&disk, &format!("stat {enabled}{unit}")).contains("symlink"),
            "{unit} is not enabled"
        );
    }
    assert!(cat(&disk, "/etc/systemd/system/xvm-guestd.service").contains("=/usr/lib/xvm/guestd/guestd "));
    assert!(exists(&disk, "/usr/lib/xvm/guestd/libc.so.6"));
}

async fn timed(what: &str, bench: &Bench, config: &xvm_model::Config, disk: &std::path::Path) -> BootFiles {
    let begin = Instant::now();
    let done = bench.build(&name("small-1"), config, disk).await;
    println!("{what}: {:.1} s", begin.elapsed().as_secs_f64());
    bench.is_clean();
    done.unwrap_or_else(|e| panic!("{e}\n{}", bench.told(&name("small-1")))).expect("a kernel")
}

fn is_its_own(disk: &std::path::Path) {
    is_its_own_but_keys(disk);
    assert_eq!(cat(disk, "/root/.ssh/authorized_keys").trim(), KEY);
}

fn is_its_own_but_keys(disk: &std::path::Path) {
    sound(disk);
    assert_eq!(cat(disk, "/etc/hostname"), "small-1\n");
    let hosts = cat(disk, "/etc/hosts");
    assert!(hosts.contains("small-1") && hosts.lines().count() == 3, "{hosts}");
    assert!(debugfs(disk, "stat /etc/resolv.conf").contains("../run/systemd/resolve/stub-resolv.conf"));
    assert!(exists(disk, "/etc/machine-id") && cat(disk, "/etc/machine-id").is_empty());
    assert!(!exists(disk, HOST_KEY) && !exists(disk, "/etc/ssh/ssh_host_rsa_key"));
    assert!(cat(disk, "/etc/fstab").starts_with("LABEL=root / ext4"));
    let shadow = cat(disk, "/etc/shadow");
    assert!(
        shadow.lines().count() > 10 && shadow.lines().all(|l| l.contains(":*:") || l.contains(":!")),
        "{shadow}"
    );
    for file in
        debugfs(disk, "ls -p /etc/apt/apt.conf.d").split('/').filter(|f| f.starts_with(char::is_numeric))
    {
        let text = cat(disk, &format!("/etc/apt/apt.conf.d/{file}")).to_lowercase();
        assert!(!text.contains("proxy") && !text.contains("timeout"), "{file}: {text}");
    }
    let sources = cat(disk, "/etc/apt/sources.list");
    assert!(sources.contains("bookworm-security main") && !sources.contains("signed-by"), "{sources}");
}

/// kill -9 at the begin of each stage, and in the middle of the installation inside of the system.
fn killed_at_each_stage(bench: &Bench) {
    let begins = PHASES.iter().map(|p| format!("== {}", p.0));
    for when in begins.chain(["Setting up hello".into()]) {
        for archive in fs::read_dir(&bench.paths.cache).expect("cache").flatten() {
            // the installation is wanted again; the base stays
            let path = archive.path();
            if path.extension().is_some_and(|e| e == "tar") && path != base(bench) {
                fs::remove_file(path).expect("removed");
            }
        }
        let place = Bench::new();
        let settings = "os=debian/bookworm,packages=hello,disk=2048";
        let build = killed::begin(place.dir.path(), &bench.paths.cache, "", settings);
        assert!(build.reached(&when), "the build ended before {when}:\n{}", place_log(&place));
        build.kill();
        bench::nothing_but_files(place.dir.path());
        let paths = bench::paths(place.dir.path(), Some(&bench.paths.cache));
        let swept = image::sweep(&paths).expect("swept");
        println!("killed at {when}: {swept:?}");
        place.is_clean();
        assert!(
            fs::read_dir(&bench.paths.cache)
                .expect("cache")
                .flatten()
                .all(|e| !e.file_name().to_string_lossy().starts_with(".tmp."))
        );
    }
}

fn place_log(place: &Bench) -> String {
    fs::read_to_string(place.dir.path().join("log")).unwrap_or_default()
}

/// The oldest archive.
fn base(bench: &Bench) -> std::path::PathBuf {
    let tars = fs::read_dir(&bench.paths.cache).expect("cache").flatten().map(|e| e.path());
    let tars = tars.filter(|p| p.extension().is_some_and(|e| e == "tar"));
    tars.min_by_key(|p| fs::metadata(p).and_then(|m| m.modified()).expect("time")).expect("a base")
}

async fn a_clone_before_its_first_boot(bench: &Bench, disk: &std::path::Path) -> std::path::PathBuf {
    let clone = bench.dir.path().join("clone");
    fs::copy(disk, &clone).expect("copied");
    // as if its model had run
    let machine_id = bench.dir.path().join("id");
    fs::write(&machine_id, "0123456789abcdef0123456789abcdef\n").expect("id");
    let id = machine_id.display();
    bench::debugfs_write(
        &clone,
        &format!("cd /etc\nrm machine-id\nwrite {id} machine-id\ncd ssh\nwrite {id} ssh_host_ed25519_key\n"),
    );
    let twin = config(2, &[("address", "dhcp"), ("keys", KEY)]);
    let cancel = CancellationToken::new();
    image::personalise(&bench.paths, &bench.site, &name("small-2"), &twin, &clone, Personal::Clone, cancel)
        .await
        .expect("personal");
    assert!(!exists(&clone, HOST_KEY) && cat(&clone, "/etc/machine-id").is_empty());
    assert_eq!(cat(&clone, "/etc/hostname"), "small-2\n");
    clone
}

/// It really boots, with the default memory, and makes what is its own.
async fn boots(bench: &Bench, files: &BootFiles, clone: &std::path::Path) {
    let swap = bench.dir.path().join("small-1.swap");
    let mut machine = Machine::boot(bench, files, 256, &[clone, &swap], "console");
    machine.wait_for("small-2 login:");
    // the login prompt comes before the last services: host keys take their time on an emulated machine
    machine.wait_for_ssh();
    let console = machine.said();
    assert!(!console.contains("Failed to start"), "{console}");
    machine.power_button();
    assert!(cat(clone, "/etc/machine-id").trim().len() == 32, "a machine id of its own");
    assert!(exists(clone, HOST_KEY), "host keys of its own");
    let key = cat(clone, "/etc/ssh/ssh_host_ed25519_key.pub");
    // changed settings leave it who it is, also after it was used
    let settings = config(2, &[("address", "10.0.0.5/24 via 10.0.0.1")]);
    let (name, cancel) = (name("small-2"), CancellationToken::new());
    image::personalise(&bench.paths, &bench.site, &name, &settings, clone, Personal::Settings, cancel)
        .await
        .expect("personal");
    sound(clone);
    assert_eq!(cat(clone, "/etc/ssh/ssh_host_ed25519_key.pub"), key);
    assert!(cat(clone, "/etc/systemd/network/10-xvm.network").contains("Address=10.0.0.5/24"));
    assert_eq!(cat(clone, "/root/.ssh/authorized_keys"), "");
}
