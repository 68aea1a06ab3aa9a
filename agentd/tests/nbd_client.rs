//! Exports as block devices, in a virtual machine whose kernel has them (see `tests/lab/vm/`): the real nbd-client(8), and a real
//! qemu-storage-daemon that exports.

#[path = "nbd_client/server.rs"]
mod server;

use server::Server;
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use xvm_agentd::imports::nbd_client::{Imports, NbdError, User};
use xvm_model::spec::{GrantDisk, export_name};
use xvm_model::{ConfigName, Grant, ServerName};

/// Set in the machine only.
const HERE: &str = "XVM_TEST_NBD";
const MIB: u64 = 1 << 20;

/// If this fails, see the test in its output: it ran in the machine.
#[test]
fn in_a_machine_that_has_network_block_devices() {
    let there = |tool: &&str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|d| Path::new(d).join(tool).exists())
    };
    let needs =
        ["qemu-system-x86_64", "qemu-storage-daemon", "nbd-client", "busybox", "depmod", "modprobe", "cpio"];
    let mut missing: Vec<&str> = needs.into_iter().filter(|tool| !there(tool)).collect();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root");
    }
    if !missing.is_empty() {
        println!("SKIP in_a_machine_that_has_network_block_devices: needs {}", missing.join(", "));
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab/vm/run.sh");
    let out = Command::new(script)
        .args(["-m", "1024", "-t", "280"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--test-threads", "1", "--nocapture", "--skip", "in_a_machine"])
        .env(HERE, "1")
        .output()
        .expect("bash");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(out.status.success(), "{}", out.status);
    assert!(said.contains("test result: ok. 3 passed"), "all of them ran");
}

fn here() -> bool {
    std::env::var_os(HERE).is_some()
}

/// A lease of both volumes of `config`, of which the server exports `volumes`.
fn grant(server: &Server, config: &str, epoch: u64, volumes: &[&str]) -> Grant {
    let (config, ferby) =
        (ConfigName::parse(config).expect("name"), ServerName::parse("ferby").expect("name"));
    let disk = |(i, volume): (usize, &&str)| GrantDisk {
        target: ["vda", "vdb"][i].into(),
        volume: (*volume).into(),
        export: export_name(&config, &ferby, epoch, volume),
        size: 8 * MIB,
    };
    let disks: Vec<GrantDisk> = volumes.iter().enumerate().map(disk).collect();
    Grant { config, server: ferby, epoch, host: "127.0.0.1".into(), port: server.port, tls: false, disks }
}

fn user(grant: &Grant) -> User {
    (grant.config.domain(), Some(grant.stem()))
}

/// Writes past the page cache.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let file = File::options().write(true).custom_flags(nix::libc::O_SYNC).open(path)?;
    file.write_all_at(text.as_bytes(), 4096)
}

fn device(link: &Path) -> PathBuf {
    fs::read_link(link).expect("a link")
}

fn connected(device: &Path) -> bool {
    Path::new("/sys/block").join(device.file_name().expect("a device")).join("pid").exists()
}

fn nbd_client(args: &[&str]) {
    let out = Command::new("nbd-client").args(args).output().expect("nbd-client");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// If this fails, a domain of Xen has no disk, or keeps one when its lease is over.
#[tokio::test]
async fn the_life_of_imports() {
    if !here() {
        return;
    }
    let mut server = Server::start(&["small-1.ferby.1", "small-1.ferby.1.swap", "small-2.ferby.7", "others"]);
    let dir = server.dir().join("imports");
    let (one, two) =
        (grant(&server, "small-1", 1, &["disk", "swap"]), grant(&server, "small-2", 7, &["disk"]));
    let imports = Imports::open(&dir).expect("none yet");
    imports.attach(&one).await.expect("attached; the module is loaded");
    imports.attach(&two).await.expect("attached");
    let link = |export: &str| dir.join(export);
    let (disk, swap, other) =
        (link("small-1.ferby.1"), link("small-1.ferby.1.swap"), link("small-2.ferby.7"));
    for (path, export) in
        [(&disk, "small-1.ferby.1"), (&swap, "small-1.ferby.1.swap"), (&other, "small-2.ferby.7")]
    {
        write(path, export).expect("written");
        assert!(server.content(export)[4096..].starts_with(export.as_bytes()), "{export}");
    }
    // the connections are the kernel's: no process of theirs can be killed, nor ends with the agent
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let mut names = processes.filter_map(|e| fs::read_to_string(e.path().join("comm")).ok());
    assert!(!names.any(|name| name.trim() == "nbd-client"));
    // somebody else's
    nbd_client(&["-N", "others", "127.0.0.1", &server.port.to_string(), "/dev/nbd9"]);

    // a later life of the agent finds all of it, and what is well stays as it is
    let devices = [&disk, &swap, &other].map(|l| device(l));
    drop(imports);
    let imports = Imports::open(&dir).expect("read");
    imports.attach(&one).await.expect("attached already");
    let (users, grants) = ([user(&one), user(&two)], [one.clone(), two.clone()]);
    let update = async |imports: &Imports| imports.update(&users, &grants).await.map_err(|e| e.to_string());
    assert_eq!(update(&imports).await.expect("well"), "imports: 3 attached, 0 of them again, 0 dropped");
    assert_eq!([&disk, &swap, &other].map(|l| device(l)), devices);

    // cut off: errors, and no way back under that name
    server.cut("small-1.ferby.1");
    let failed = write(&disk, "too late").expect_err("cut off");
    assert_eq!(failed.raw_os_error(), Some(nix::libc::EIO), "{failed}");
    let failed = update(&imports).await.expect_err("gone");
    assert!(failed.starts_with("cannot attach small-1.ferby.1: nbd-client: "), "{failed}");
    write(&swap, "still").expect("the others go on");
    // it is there again: as the same device, which its domain has open
    server.export("small-1.ferby.1");
    assert_eq!(update(&imports).await.expect("mended"), "imports: 3 attached, 1 of them again, 0 dropped");
    assert_eq!(device(&disk), devices[0]);
    write(&disk, "again").expect("mended");

    // the server dies and comes back; one is disconnected by hand, one link is gone
    server.restart();
    nbd_client(&["-d", devices[1].to_str().expect("text")]);
    fs::remove_file(&other).expect("there");
    assert_eq!(update(&imports).await.expect("mended"), "imports: 3 attached, 3 of them again, 0 dropped");
    assert_eq!([&disk, &swap, &other].map(|l| device(l)), devices);
    write(&other, "again").expect("mended");

    // somebody else takes a device of ours: it is theirs, and ours is another
    nbd_client(&["-d", devices[2].to_str().expect("text")]);
    nbd_client(&["-N", "others", "127.0.0.1", &server.port.to_string(), devices[2].to_str().expect("text")]);
    assert_eq!(update(&imports).await.expect("mended"), "imports: 3 attached, 1 of them again, 0 dropped");
    let moved = device(&other);
    assert!(moved != devices[2] && connected(&devices[2]) && connected(&moved));
    nbd_client(&["-d", devices[2].to_str().expect("text")]);

    // nobody uses it: it waits for its domain, then it is dropped
    assert_eq!(imports.tidy(&users[..1]).await.expect("tidy"), 0, "its domain is about to come");
    let imports = imports.coming(Duration::ZERO);
    let name_only = (two.config.domain(), None);
    assert_eq!(
        imports.tidy(&[users[0].clone(), name_only]).await.expect("tidy"),
        0,
        "a lease that is not known"
    );
    let later = (two.config.domain(), Some("small-2.ferby.8".into()));
    assert_eq!(imports.tidy(&[users[0].clone(), later]).await.expect("tidy"), 1, "it has another lease now");
    assert!(fs::symlink_metadata(&other).is_err() && !connected(&moved) && disk.exists());
    assert_eq!(imports.tidy(&[]).await.expect("tidy"), 2);
    assert!(devices.iter().all(|d| !connected(d)));
    assert!(connected(Path::new("/dev/nbd9")), "others are left alone");
    nbd_client(&["-d", "/dev/nbd9"]);
    let left: Vec<_> = fs::read_dir(&dir).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, [".imports.json"]);
}

/// If this fails, half of a lease stays attached for ever, or a domain gets a disk that is not its own.
#[tokio::test]
async fn what_cannot_be_attached_leaves_nothing() {
    if !here() {
        return;
    }
    let server = Server::start(&["small-1.ferby.1"]);
    let dir = server.dir().join("imports");
    let imports = Imports::open(&dir).expect("none yet");
    let says = |e: NbdError, text: &str| assert!(e.to_string().contains(text), "{e}");
    let both = grant(&server, "small-1", 1, &["disk", "swap"]);
    says(
        imports.attach(&both).await.expect_err("no swap"),
        "cannot attach small-1.ferby.1.swap: nbd-client: ",
    );
    let mut large = grant(&server, "small-1", 1, &["disk"]);
    large.disks[0].size = 9 * MIB;
    says(imports.attach(&large).await.expect_err("too small"), "it has 8388608 bytes, not 9437184");
    let nobody = Grant { port: 1, ..grant(&server, "small-1", 1, &["disk"]) };
    says(imports.attach(&nobody).await.expect_err("nobody listens"), "cannot attach small-1.ferby.1: ");
    let flag = Grant { host: "-d".into(), ..nobody };
    says(imports.attach(&flag).await.expect_err("a flag"), "is no host");
    assert!((0..16).all(|d| !connected(Path::new(&format!("/dev/nbd{d}")))));
    let left: Vec<_> = fs::read_dir(&dir).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, [".imports.json"]);
    File::create(dir.join(".imports.json")).and_then(|mut f| f.write_all(b"{")).expect("written");
    says(Imports::open(&dir).expect_err("damaged"), ".imports.json");
}

/// If this fails, a crash between an import and its record leaves a device that nobody lets go.
#[tokio::test]
async fn a_crash_while_it_is_attached_is_made_good() {
    if !here() {
        return;
    }
    let server = Server::start(&["small-1.ferby.1"]);
    let dir = server.dir().join("imports");
    let one = grant(&server, "small-1", 1, &["disk"]);
    Imports::open(&dir).expect("none yet").attach(&one).await.expect("attached");
    let device = device(&dir.join("small-1.ferby.1"));
    let record = fs::read_to_string(dir.join(".imports.json")).expect("a record");
    let pid = fs::read_to_string(Path::new("/sys/block").join(device.file_name().expect("name")).join("pid"));
    let unknown = record.replace(&format!("\"pid\":{}", pid.expect("connected").trim()), "\"pid\":null");
    assert_ne!(record, unknown);
    fs::write(dir.join(".imports.json"), unknown).expect("written");
    fs::remove_file(dir.join("small-1.ferby.1")).expect("there");
    let imports = Imports::open(&dir).expect("read").coming(Duration::ZERO);
    let said = imports.update(&[user(&one)], std::slice::from_ref(&one)).await.expect("made good");
    assert_eq!(said, "imports: 1 attached, 0 of them again, 0 dropped");
    assert!(dir.join("small-1.ferby.1").exists());
    assert_eq!(imports.tidy(&[]).await.expect("tidy"), 1);
    assert!(!connected(&device));
}
