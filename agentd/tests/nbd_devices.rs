//! Exports as block devices, in a virtual machine whose kernel has them (see `tests/lab/vm/`), and a real qemu-storage-daemon that
//! exports. Other people's devices are made by nbd-client(8).

#[path = "nbd_devices/server.rs"]
mod server;

use server::Server;
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use xvm_agentd::imports::devices::{Imports, NbdError, User, Waiting};
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
    assert!(said.contains("test result: ok. 5 passed"), "all of them ran");
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

/// The one export of most of these tests.
const EXPORT: &str = "small-1.ferby.1";

/// A server that exports [`EXPORT`], a directory for imports, and the lease that names it.
fn scene() -> (Server, PathBuf, Grant) {
    let server = Server::start(&[EXPORT]);
    let (dir, one) = (server.dir().join("imports"), grant(&server, "small-1", 1, &["disk"]));
    (server, dir, one)
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
    assert_eq!(update(&imports).await.expect("well"), "imports: 3 attached, 0 of them anew, 0 dropped");
    assert_eq!([&disk, &swap, &other].map(|l| device(l)), devices);

    // cut off: no way back under that name
    server.cut("small-1.ferby.1");
    let failed = update(&imports).await.expect_err("gone");
    let port = server.port;
    assert_eq!(
        failed,
        format!("cannot attach small-1.ferby.1: 127.0.0.1:{port}: it exports no small-1.ferby.1")
    );
    write(&swap, "still").expect("the others go on");
    // it is there again: as the same device, which its domain has open
    server.export("small-1.ferby.1");
    assert_eq!(update(&imports).await.expect("mended"), "imports: 3 attached, 0 of them anew, 0 dropped");
    assert_eq!(device(&disk), devices[0]);
    write(&disk, "again").expect("mended");

    // the server dies and comes back; one is disconnected by hand, one link is gone
    server.restart();
    nbd_client(&["-d", devices[1].to_str().expect("text")]);
    fs::remove_file(&other).expect("there");
    assert_eq!(update(&imports).await.expect("mended"), "imports: 3 attached, 1 of them anew, 0 dropped");
    assert_eq!([&disk, &swap, &other].map(|l| device(l)), devices);
    write(&other, "again").expect("mended");

    // somebody else takes a device of ours: it is theirs, and ours is another
    nbd_client(&["-d", devices[2].to_str().expect("text")]);
    nbd_client(&["-N", "others", "127.0.0.1", &server.port.to_string(), devices[2].to_str().expect("text")]);
    assert_eq!(update(&imports).await.expect("mended"), "imports: 3 attached, 1 of them anew, 0 dropped");
    let moved = device(&other);
    assert!(moved != devices[2] && connected(&devices[2]) && connected(&moved));
    nbd_client(&["-d", devices[2].to_str().expect("text")]);

    // nobody uses it: it waits for its domain, then it is dropped
    let imports = Imports::open(&dir).expect("read");
    assert_eq!(imports.tidy(&users[..1]).await.expect("tidy"), 0, "its domain is about to come");
    assert_eq!(imports.tidy(&users).await.expect("tidy"), 0, "it has come");
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
        &format!(
            "cannot attach small-1.ferby.1.swap: 127.0.0.1:{}: it exports no small-1.ferby.1.swap",
            server.port
        ),
    );
    let mut large = grant(&server, "small-1", 1, &["disk"]);
    large.disks[0].size = 9 * MIB;
    says(imports.attach(&large).await.expect_err("too small"), "it has 8388608 bytes, not 9437184");
    let nobody = Grant { port: 1, ..grant(&server, "small-1", 1, &["disk"]) };
    says(imports.attach(&nobody).await.expect_err("nobody listens"), "cannot attach small-1.ferby.1: ");
    assert!((0..16).all(|d| !connected(Path::new(&format!("/dev/nbd{d}")))));
    let left: Vec<_> = fs::read_dir(&dir).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, [".imports.json"]);
    File::create(dir.join(".imports.json")).and_then(|mut f| f.write_all(b"{")).expect("written");
    says(Imports::open(&dir).expect_err("damaged"), ".imports.json");
}

/// Writes past the page cache and reads it again, over and over, with the device open all the time, as a hypervisor has it.
struct Writer {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: thread::JoinHandle<std::io::Result<()>>,
}

impl Writer {
    fn start(device: &Path) -> Writer {
        let (over, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (ended, told) = (over.clone(), rounds.clone());
        let file = File::options().read(true).write(true).custom_flags(nix::libc::O_SYNC).open(device);
        let file = file.expect("a device");
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let round = told.load(Ordering::Acquire);
                file.write_all_at(&round.to_le_bytes(), 8192)?;
                told.store(round + 1, Ordering::Release);
            }
            Ok(())
        });
        Writer { over, rounds, thread }
    }

    /// Waits until it has written more.
    async fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Acquire);
        let end = Instant::now() + Duration::from_secs(60);
        while self.rounds.load(Ordering::Acquire) < before + 3 {
            assert!(Instant::now() < end && !self.thread.is_finished(), "it writes no more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it; how often it has written, or the error that it met.
    fn end(self) -> std::io::Result<usize> {
        self.over.store(true, Ordering::Release);
        self.thread.join().expect("no panic")?;
        Ok(self.rounds.load(Ordering::Acquire))
    }
}

/// Waits until something is told.
async fn within<T>(told: impl Future<Output = T>, what: &str) {
    let end = tokio::time::timeout(Duration::from_secs(60), told).await;
    assert!(end.is_ok(), "it was not told: {what}");
}

/// If this fails, a guest of Xen meets errors of its disk when imaged's host starts anew.
#[tokio::test]
async fn who_uses_a_device_outlives_the_server() {
    if !here() {
        return;
    }
    let (mut server, dir, one) = scene();
    let open = || Arc::new(Imports::open(&dir).expect("read").request(Duration::from_secs(2)));
    let imports = open();
    let watching = tokio::spawn(imports.clone().watch(watch::channel(Waiting::new()).0));
    imports.attach(&one).await.expect("attached");
    let path = dir.join(EXPORT);
    let writer = Writer::start(&path);
    writer.goes_on().await;
    for _ in 0..2 {
        server.restart();
        writer.goes_on().await;
    }
    // its agent is away when the server goes, and comes back later
    watching.abort();
    server.restart();
    let imports = {
        drop(imports);
        open()
    };
    let watching = tokio::spawn(imports.clone().watch(watch::channel(Waiting::new()).0));
    writer.goes_on().await;
    // by hand, without an agent that watches
    watching.abort();
    server.cut(EXPORT);
    server.export(EXPORT);
    let said = imports.update(&[user(&one)], std::slice::from_ref(&one)).await.expect("mended");
    assert_eq!(said, "imports: 1 attached, 0 of them anew, 0 dropped");
    writer.goes_on().await;
    let rounds = writer.end().expect("no error");
    assert_eq!(server.content(EXPORT)[8192..8200], (rounds - 1).to_le_bytes());
    let imports = Arc::into_inner(imports).expect("nobody else has it").coming(Duration::ZERO);
    assert_eq!(imports.tidy(&[]).await.expect("tidy"), 1);
}

/// If this fails, a domain whose lease is over hangs for ever with its server, or its device stays for ever.
#[tokio::test]
async fn who_waits_for_a_device_that_is_dropped_meets_an_error() {
    if !here() {
        return;
    }
    let (mut server, dir, one) = scene();
    let imports = Arc::new(Imports::open(&dir).expect("none yet").coming(Duration::ZERO));
    let (waiting, mut told) = watch::channel(Waiting::new());
    let watching = tokio::spawn(imports.clone().watch(waiting));
    imports.attach(&one).await.expect("attached");
    let path = device(&dir.join(EXPORT));
    let writer = Writer::start(&path);
    writer.goes_on().await;
    server.cut(EXPORT);
    let waits =
        |w: &Waiting| w.get(&one.config.domain()).is_some_and(|why| why.contains("it exports no small-1"));
    within(told.wait_for(waits), "who waits").await;
    let last = server.content(EXPORT);
    // the writer has the device open, and perhaps waits: it meets an error, and the device is free when the writer has closed it
    let first = imports.tidy(&[]).await;
    let failed = writer.thread.join().expect("no panic").expect_err("cut off");
    assert_eq!(failed.raw_os_error(), Some(nix::libc::EIO), "{failed}");
    if let Err(error) = first {
        assert!(error.to_string().contains("cannot be let go"), "{error}");
        assert_eq!(imports.tidy(&[]).await.expect("tidy"), 1);
    }
    assert!(!connected(&path));
    within(told.wait_for(Waiting::is_empty), "nobody waits").await;
    assert_eq!(server.content(EXPORT), last, "nothing was written");

    // somebody disconnects what a domain has open: it cannot be mended, and that is said
    server.export(EXPORT);
    imports.attach(&one).await.expect("attached");
    let path = device(&dir.join(EXPORT));
    let held = File::open(&path).expect("a device");
    nbd_client(&["-d", path.to_str().expect("text")]);
    let failed = imports.update(&[user(&one)], std::slice::from_ref(&one)).await.expect_err("it is in use");
    let why = format!("somebody has disconnected {} while it is in use", path.display());
    assert!(failed.to_string().contains(&why), "{failed}");
    drop(held);
    let said = imports.update(&[user(&one)], std::slice::from_ref(&one)).await.expect("mended");
    assert_eq!(said, "imports: 1 attached, 1 of them anew, 0 dropped");
    watching.abort();
    assert_eq!(imports.tidy(&[]).await.expect("tidy"), 1);
}

/// If this fails, a crash between an import's record and its connection, or before its link, leaves a device that nobody lets go.
#[tokio::test]
async fn a_crash_while_it_is_attached_is_made_good() {
    if !here() {
        return;
    }
    let (_server, dir, one) = scene();
    let first = Imports::open(&dir).expect("none yet");
    first.attach(&one).await.expect("attached");
    let device = device(&dir.join(EXPORT));
    let update = async |imports: &Imports| {
        imports.update(&[user(&one)], std::slice::from_ref(&one)).await.expect("made good")
    };
    // no link yet
    fs::remove_file(dir.join(EXPORT)).expect("there");
    let imports = Imports::open(&dir).expect("read").coming(Duration::ZERO);
    assert_eq!(update(&imports).await, "imports: 1 attached, 0 of them anew, 0 dropped");
    assert!(dir.join(EXPORT).exists());
    // no connection yet
    nbd_client(&["-d", device.to_str().expect("text")]);
    let imports = Imports::open(&dir).expect("read").coming(Duration::ZERO);
    assert_eq!(update(&imports).await, "imports: 1 attached, 1 of them anew, 0 dropped");
    assert_eq!(imports.tidy(&[]).await.expect("tidy"), 1);
    assert!(!connected(&device));
}
