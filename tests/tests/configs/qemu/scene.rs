//! What tests of configs on QEMU hosts share: hosts, imaged with a tiny system that writes, its console and its volume.

use super::records::Records;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use xvm_tests::{Cluster, Lab, Tree, shell};

/// The patience of [`wait_long`].
const LONG: Duration = Duration::from_secs(90);

/// Programs that these tests need besides those of a lab.
pub const NEEDS: [&str; 7] =
    ["/dev/fuse", "qemu-storage-daemon", "nbdinfo", "qemu-img", "mke2fs", "busybox", "openssl"];

/// Whether all is here; else it is said what lacks.
#[macro_export]
macro_rules! requires_lab {
    () => {
        for need in xvm_tests::lab::NEEDS.into_iter().chain($crate::scene::NEEDS) {
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            if !(if need == "root" { xvm_tests::root(&test) } else { xvm_tests::have(&test, need) }) {
                return;
            }
        }
    };
}

/// QEMU hosts, and imaged with systems as they are, and guestd in them.
#[track_caller]
pub fn plain_cluster(hosts: usize) -> Cluster {
    let mut cluster = Cluster::qemu(hosts, 0, |_| {});
    let guests = cluster.guest_forwarder();
    cluster.imaged(&["--guest-forwarder", &guests]);
    cluster
}

/// QEMU hosts, and imaged whose tiny systems write records without rest.
#[track_caller]
pub fn cluster(hosts: usize) -> Cluster {
    let mut cluster = Cluster::qemu(hosts, 0, |_| {});
    writers(&mut cluster, &[]);
    cluster
}

/// Starts imaged, with more flags, whose tiny systems write records without rest.
#[track_caller]
pub fn writers(cluster: &mut Cluster, flags: &[&str]) {
    tiny(cluster, include_str!("writer.sh"), flags);
    // guests that boot side by side are an overload, and nothing here is to move by itself
    cluster.tree.order("ctl", "balance off");
}

/// Starts imaged, with more flags, whose tiny systems boot and run a script.
#[track_caller]
pub fn tiny(cluster: &mut Cluster, script: &str, flags: &[&str]) {
    let overlay = cluster.dir().join("overlay");
    std::fs::create_dir_all(overlay.join("etc")).expect("a folder in the scratch folder");
    let file = overlay.join("etc/rc.local");
    std::fs::write(&file, script).expect("a file in the scratch folder");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    let kernel = Lab::kernel();
    let at = |file: &str| kernel.join(file).to_string_lossy().into_owned();
    let (vmlinuz, modules, overlay) = (at("vmlinuz"), at("modules"), overlay.to_string_lossy().into_owned());
    let own = ["--tiny-kernel", &vmlinuz, "--tiny-initrd", &modules, "--overlay", &overlay];
    cluster.imaged(&[&own, flags].concat());
}

/// As [`xvm_tests::wait_for`], for what waits for heartbeats that do not come and then for a guest that boots, all without KVM.
#[track_caller]
pub fn wait_long<T>(what: &str, answer: impl FnMut() -> Option<T>) -> T {
    xvm_tests::wait_within(LONG, what, answer)
}

/// Says how long something took.
pub fn took(what: &str, begin: Instant) {
    xvm_tests::say(&format!("{what}: {:.2} s", begin.elapsed().as_secs_f64()));
}

/// The file of a config's volume.
pub fn volume(cluster: &Cluster, name: &str, volume: &str) -> PathBuf {
    cluster.images_dir().join("store/volumes").join(name).join(volume)
}

/// How many records a boot of a guest has told on a host's console; none when it has not begun.
pub fn told(cluster: &Cluster, host: &str, name: &str, boot: usize) -> Option<usize> {
    let console = cluster.hosts().console(host, name);
    let front = format!("boot {boot} wrote ");
    let wrote = console.lines().rev().find_map(|l| l.trim().strip_prefix(&front)?.parse().ok());
    wrote.or_else(|| console.contains(&format!("boot {boot} found ")).then_some(0))
}

/// Waits until a boot has told `more` records more than now on a host's console; gives how many.
#[track_caller]
pub fn writes(cluster: &Cluster, host: &str, name: &str, boot: usize, more: usize) -> usize {
    let before = told(cluster, host, name, boot).unwrap_or(0);
    wait_long(&format!("records of {name}'s boot {boot} on {host}"), || {
        told(cluster, host, name, boot).filter(|now| *now >= before + more)
    })
}

/// Checks by other people's programs that exactly the leases are exported, each volume with its size, and can be read.
#[track_caller]
pub fn exports_work(tree: &Tree, name: &str, server: &str) -> String {
    let exports = crate::stage::exports_agree(tree, name);
    let (uri, _) = crate::stage::leases(tree, name);
    let uri = uri.expect("it is leased");
    for export in &exports {
        assert!(export.starts_with(&format!("{name}.{server}.")), "{export}");
        let size = if export.ends_with(".swap") { 16 } else { 64 };
        let mut info = Command::new("qemu-img");
        info.args(["info", "--output=json", "-f", "raw", &format!("{uri}{export}")]);
        let info = shell::run(&mut info, Duration::from_secs(20)).ok();
        let info: serde_json::Value = serde_json::from_str(&info).expect("qemu-img writes JSON");
        assert_eq!(info["virtual-size"], size << 20, "{export}");
    }
    uri
}

/// Checks that no guest met an error, and one wrote at a time; gives what they wrote.
#[track_caller]
pub fn records(cluster: &Cluster, name: &str) -> Records {
    let records = Records::read(&volume(cluster, name, "swap"));
    records.one_writer();
    records
}

/// Checks that the file system of a config that is off is whole.
#[track_caller]
pub fn sound(cluster: &Cluster, name: &str) {
    let mut check = Command::new("e2fsck");
    check.arg("-fn").arg(volume(cluster, name, "disk"));
    shell::run(&mut check, Duration::from_secs(60)).ok();
}

/// Fails when a guest's console tells of an error.
#[track_caller]
pub fn no_errors(cluster: &Cluster, host: &str, name: &str) {
    let console = cluster.hosts().console(host, name);
    for word in ["write error", "read error", "I/O error", "EXT4-fs error", "Kernel panic"] {
        assert!(!console.contains(word), "{name} on {host} had a disk error:\n{console}");
    }
}
