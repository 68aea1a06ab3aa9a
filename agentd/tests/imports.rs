//! If one of these fails, a server boots a kernel that nobody meant, or none; or a crash leaves something behind.
//!
//! The exports are those of a real qemu-storage-daemon.

use sha2::{Digest, Sha256};
use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use xvm_agentd::imports::{self, FETCH, ImportError, fetch, fetch_within, sweep};
use xvm_model::spec::{Blob, Boot};

/// A process that goes with the test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Serves files read-only under names; gives the port when it answers.
fn serve(files: &[(&Path, String)]) -> (Guarded, u16) {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-storage-daemon"]);
    command.arg("--nbd-server").arg(format!("addr.type=inet,addr.host=127.0.0.1,addr.port={port}"));
    for (i, (path, name)) in files.iter().enumerate() {
        command.arg("--blockdev");
        command.arg(format!("driver=file,node-name=v{i},read-only=on,filename={}", path.display()));
        command.arg("--export").arg(format!("type=nbd,id=x{i},node-name=v{i},name={name}"));
    }
    let server = Guarded(command.stderr(Stdio::null()).spawn().expect("a storage daemon"));
    wait_for("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (server, port)
}

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what} does not come true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn blob(content: &[u8]) -> Blob {
    let digest = Sha256::digest(content);
    let sha256: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    Blob { sha256: sha256.into(), size: content.len() as u64 }
}

fn boot(port: u16, kernel: &Blob, initrd: Option<&Blob>) -> Boot {
    let (kernel, initrd) = (kernel.clone(), initrd.cloned());
    Boot { host: "127.0.0.1".into(), port, kernel, initrd, cmdline: "quiet".into() }
}

fn bytes(length: u32, seed: u32) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(seed) >> 7) as u8).collect()
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// How many children copy into a directory below `dir`.
fn copying(dir: &Path) -> usize {
    let dir = dir.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    let lines = lines.map(|l| String::from_utf8_lossy(&l).into_owned());
    lines.filter(|l| l.contains("qemu-img") && l.contains(&dir)).count()
}

struct Rig {
    dir: tempfile::TempDir,
    cache: PathBuf,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().expect("scratch folder");
        Rig { cache: dir.path().join("cache,1"), dir }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }
}

#[tokio::test]
async fn both_files_come_whole_and_once() {
    let rig = Rig::new();
    let (k, i) = (bytes(3_000_001, 2_654_435_761), bytes(513, 40_503));
    let (kernel, initrd) = (blob(&k), blob(&i));
    let paths = (rig.file("kernel", &k), rig.file("initrd", &i));
    let (server, port) = serve(&[(&paths.0, kernel.name()), (&paths.1, initrd.name())]);
    let boot = boot(port, &kernel, Some(&initrd));
    fetch(&rig.cache, &boot).await.expect("fetched");
    let mut both = [kernel.name(), initrd.name()];
    both.sort();
    assert_eq!(names(&rig.cache), both, "and nothing else");
    assert!(std::fs::read(rig.cache.join(kernel.name())).expect("the kernel") == k);
    assert!(std::fs::read(rig.cache.join(initrd.name())).expect("the initrd") == i);

    // one of another size is not taken for it
    std::fs::write(rig.cache.join(initrd.name()), "short").expect("damaged");
    fetch(&rig.cache, &boot).await.expect("fetched");
    assert!(std::fs::read(rig.cache.join(initrd.name())).expect("the initrd") == i);
    drop(server);
    fetch(&rig.cache, &boot).await.expect("nobody is asked for what is here");
    std::fs::remove_file(rig.cache.join(initrd.name())).expect("removed");
    let e = fetch(&rig.cache, &boot).await.expect_err("nobody is there");
    assert!(matches!(e, ImportError::Source { .. }), "{e}");
    assert!(e.to_string().contains("Connection refused"), "{e}");
}

#[tokio::test]
async fn other_content_is_refused_by_its_hash() {
    let rig = Rig::new();
    let content = bytes(10_000, 7);
    let wanted = blob(&content);
    for (wrong, what) in [
        (bytes(10_000, 9), "another content"),
        (bytes(9_000, 7), "a shorter one"),
        (bytes(1_000_000, 11), "a longer one"),
    ] {
        let path = rig.file("wrong", &wrong);
        let (_server, port) = serve(&[(&path, wanted.name())]);
        let e = fetch(&rig.cache, &boot(port, &wanted, None)).await.expect_err(what);
        assert!(e.to_string().contains(&*wanted.sha256), "{what}: {e}");
        assert_eq!(names(&rig.cache), [""; 0], "{what}");
    }
    // right up to its size, and longer: the content is what counts
    let longer = rig.file("longer", &[content.clone(), vec![1; 5000]].concat());
    let (_server, port) = serve(&[(&longer, wanted.name())]);
    fetch(&rig.cache, &boot(port, &wanted, None)).await.expect("fetched");
    let e = fetch(&rig.cache, &boot(port, &blob(b"x"), None)).await.expect_err("no such export");
    assert!(matches!(e, ImportError::Source { .. }), "{e}");
    for bad in ["../../etc/passwd", "", &"A".repeat(64)] {
        let bad = Blob { sha256: bad.into(), size: 1 };
        let e = fetch(&rig.cache, &boot(port, &bad, None)).await.expect_err("no hash");
        assert!(matches!(e, ImportError::Described(_)), "{e}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let rig = Rig::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its address").port();
    let began = Instant::now();
    let boot = boot(port, &blob(b"kernel"), None);
    let e = fetch_within(&rig.cache, &boot, Duration::from_millis(700)).await.expect_err("late");
    assert_eq!(
        e.to_string(),
        format!("cannot fetch the files to boot from 127.0.0.1 port {port}: they did not come within 0.7 s")
    );
    assert!(began.elapsed() < FETCH / 2, "{:?}", began.elapsed());
    let _asked = silent.accept().expect("it was asked");
    wait_for("the child has ended", || copying(rig.dir.path()) == 0);
    assert_eq!(names(&rig.cache), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_fetches_of_one_file_at_once() {
    let rig = Rig::new();
    let content = bytes(2_000_000, 2_654_435_761);
    let (path, kernel) = (rig.file("kernel", &content), blob(&content));
    let (_server, port) = serve(&[(&path, kernel.name())]);
    let fetches: Vec<_> = (0..8)
        .map(|_| {
            let (cache, boot) = (rig.cache.clone(), boot(port, &kernel, None));
            tokio::spawn(async move { fetch(&cache, &boot).await })
        })
        .collect();
    while fetches.iter().any(|f| !f.is_finished()) {
        sweep(&rig.cache, std::slice::from_ref(&kernel)).expect("a sweep disturbs none of them");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for fetch in fetches {
        fetch.await.expect("no panic").expect("fetched");
    }
    assert_eq!(names(&rig.cache), [kernel.name()]);
    assert!(std::fs::read(rig.cache.join(kernel.name())).expect("the kernel") == content);
}

#[test]
fn a_sweep_keeps_what_is_needed_and_what_is_not_ours() {
    let rig = Rig::new();
    sweep(&rig.cache, &[]).expect("there is nothing yet");
    std::fs::create_dir(&rig.cache).expect("a cache");
    let (kept, unused) = (blob(b"kept"), blob(b"unused"));
    for name in [kept.name(), unused.name(), ".fetch-abc".into(), "README".into()] {
        std::fs::write(rig.cache.join(name), "x").expect("a file");
    }
    sweep(&rig.cache, std::slice::from_ref(&kept)).expect("swept");
    assert_eq!(names(&rig.cache), ["README".into(), kept.name()]);
}

/// A process that fetches from a server that says nothing, until it is killed: this program once more.
const LIFE: &str = "XVM_TEST_IMPORT_LIFE";

/// Not a test by itself: what runs in the process that is killed.
#[tokio::test]
async fn a_life_of_agentd() {
    let Ok(told) = std::env::var(LIFE) else { return };
    let (cache, port) = told.rsplit_once(' ').expect("directory and port");
    let boot = boot(port.parse().expect("a port"), &blob(b"kernel"), None);
    println!("\nready");
    fetch(Path::new(cache), &boot).await.expect_err("nobody answers");
}

#[test]
fn agentd_is_killed_and_leaves_no_process_and_what_a_sweep_removes() {
    let rig = Rig::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its address").port();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "a_life_of_agentd", "--nocapture"]);
    command.env(LIFE, format!("{} {port}", rig.cache.display()));
    let mut life = Guarded(command.stdout(Stdio::piped()).spawn().expect("started"));
    let out = BufReader::new(life.0.stdout.take().expect("piped"));
    assert!(out.lines().map_while(Result::ok).any(|l| l == "ready"));
    let _asked = silent.accept().expect("it asks");
    assert_eq!((copying(rig.dir.path()), names(&rig.cache).len()), (1, 1));
    sweep(&rig.cache, &[]).expect("swept");
    assert_eq!(names(&rig.cache).len(), 1, "it is still coming");

    life.0.kill().expect("killed");
    life.0.wait().expect("it ended");
    wait_for("its child has ended too", || copying(rig.dir.path()) == 0);
    sweep(&rig.cache, &[]).expect("swept");
    assert_eq!(names(&rig.cache), [""; 0]);
}

/// If this fails, a machine whose disk is back stands still, or one whose lease is over is let go on.
#[tokio::test]
async fn an_export_answers_or_not() {
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("disk");
    std::fs::write(&file, bytes(4096, 3)).expect("disk");
    let name = |text: &str| xvm_model::ConfigName::parse(text).expect("valid");
    let ferby = xvm_model::ServerName::parse("ferby").expect("valid");
    let (server, port) = serve(&[(&file, "small-1.ferby.1".into()), (&file, "small-1.ferby.1.swap".into())]);
    let disk = |epoch: u64, volume: &str| xvm_model::spec::GrantDisk {
        target: "vda".into(),
        volume: volume.into(),
        export: xvm_model::spec::export_name(&name("small-1"), &ferby, epoch, volume),
        size: 4096,
    };
    let grant = |epoch, volumes: &[&str]| xvm_model::Grant {
        config: name("small-1"),
        server: ferby.clone(),
        epoch,
        host: "127.0.0.1".into(),
        port,
        tls: false,
        disks: volumes.iter().map(|v| disk(epoch, v)).collect(),
    };
    assert_eq!(imports::answer(&grant(1, &["disk", "swap"])).await, Ok(()));
    let over = imports::answer(&grant(2, &["disk"])).await.expect_err("over");
    assert!(over.ends_with("exports no small-1.ferby.2"), "{over}");
    drop(server);
    imports::answer(&grant(1, &["disk"])).await.expect_err("nobody listens");
}

/// If this fails, whoever answers at imaged's address can end an agent, or make it wait for ever.
#[tokio::test]
async fn a_server_that_speaks_nonsense_is_an_error() {
    use std::io::{Read, Write};
    let greeting = [b"NBDMAGICIHAVEOPT".as_slice(), &[0, 3]].concat();
    // an answer to the option that uses an export: what kind it is of, how long it says it is, what comes
    let said = |kind: u32, length: u32, rest: &[u8]| {
        let head = 0x0003_e889_0455_65a9_u64.to_be_bytes();
        [&greeting, &head[..], &7u32.to_be_bytes(), &kind.to_be_bytes(), &length.to_be_bytes(), rest].concat()
    };
    let strange = "it does not speak NBD as it should";
    let size = [&[0, 0], &8192u64.to_be_bytes()[..], &[0, 1]].concat();
    let ack = said(1, 0, b"")[greeting.len()..].to_vec();
    let cases = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), strange),
        (greeting.clone(), "unexpected end of file"),
        (said(3, 3, &[0, 0, 0]), "unexpected end of file"),
        (said(3, u32::MAX, &size), strange),
        (said(1, 0, b""), strange),
        (said(0x8000_0006, 0, b""), "it exports no small-1.ferby.1"),
        ([said(3, 12, &size), ack].concat(), "it has 8192 bytes, not 4096"),
    ];
    for (answer, why) in cases {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            client.write_all(&answer).expect("said");
            // a client that has read enough may have gone already
            client.shutdown(std::net::Shutdown::Write).ok();
            // until the client goes, too
            client.read_to_end(&mut Vec::new()).ok();
        });
        let dir = tempfile::tempdir().expect("a directory");
        let imports = xvm_agentd::imports::devices::Imports::open(dir.path()).expect("none yet");
        let grant = xvm_model::Grant {
            config: xvm_model::ConfigName::parse("small-1").expect("name"),
            server: xvm_model::ServerName::parse("ferby").expect("name"),
            epoch: 1,
            host: "127.0.0.1".into(),
            port,
            tls: false,
            disks: vec![xvm_model::spec::GrantDisk {
                target: "vda".into(),
                volume: "disk".into(),
                export: "small-1.ferby.1".into(),
                size: 4096,
            }],
        };
        let failed = imports.attach(&grant).await.expect_err("nonsense").to_string();
        assert!(failed.starts_with("cannot attach small-1.ferby.1: ") && failed.contains(why), "{failed}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0, "nothing is left");
        server.join().expect("no panic");
    }
}
