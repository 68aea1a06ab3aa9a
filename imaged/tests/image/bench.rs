//! What the tests of images share: a place with everything that a build needs, looks into images, and real machines that boot them.

#![allow(dead_code)] // each test uses a part

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xvm_bus::Endpoint;
use xvm_imaged::image::{self, BootFiles, BuildError, Guestd, Order, Paths, Site, Stage};
use xvm_model::{ConfigName, config::Config};

/// Ends the test, loudly, when the machine lacks something.
#[allow(unused_macros)]
macro_rules! requires {
    ($name:literal: root $(, $tool:literal)*) => {
        let mut missing: Vec<&str> = Vec::new();
        if !nix::unistd::geteuid().is_root() {
            missing.push("root");
        }
        $(if !bench::there($tool) { missing.push($tool); })*
        if !missing.is_empty() {
            println!("SKIP {}: needs {}", $name, missing.join(", "));
            return;
        }
    };
}
#[allow(unused_imports)]
pub(crate) use requires;

/// Whether a program is there.
pub fn there(tool: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|d| Path::new(d).join(tool).exists())
}

/// A key of nobody.
pub const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF0000000000000000000000000000000000000000000 somebody@here";

/// A config's name.
pub fn name(text: &str) -> ConfigName {
    ConfigName::parse(text).expect("a name")
}

/// A config with changes.
pub fn config(number: u128, settings: &[(&str, &str)]) -> Config {
    let mut config = Config::new(Uuid::from_u128(number));
    for (key, value) in settings {
        xvm_model::config::settings::set(&mut config, key, value).expect("allowed");
    }
    config
}

/// A place for builds. Whatever is in it goes with it.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub paths: Paths,
    pub site: Site,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_cache(None)
    }

    /// One whose cache is elsewhere and stays.
    pub fn with_cache(cache: Option<&Path>) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = paths(dir.path(), cache);
        fs::create_dir_all(&paths.images).expect("images");
        Bench { dir, paths, site: Site::default() }
    }

    /// An empty volume.
    pub fn volume(&self, name: &str, mib: u64) -> PathBuf {
        volume(self.dir.path(), name, mib)
    }

    /// Builds without looking at progress.
    pub async fn build(
        &self,
        name: &ConfigName,
        config: &Config,
        disk: &Path,
    ) -> Result<Option<BootFiles>, BuildError> {
        let (progress, _keep) = watch::channel(Stage::default());
        self.build_with(name, config, disk, progress, CancellationToken::new()).await
    }

    pub async fn build_with(
        &self,
        name: &ConfigName,
        config: &Config,
        disk: &Path,
        progress: watch::Sender<Stage>,
        cancel: CancellationToken,
    ) -> Result<Option<BootFiles>, BuildError> {
        let swap = self.volume(&format!("{name}.swap"), 16);
        let log = self.log(name);
        let build = Uuid::new_v4().to_string();
        let order = Order { build: &build, name, config, disk, swap: Some(&swap), log: &log };
        image::build(&self.paths, &self.site, order, progress, cancel).await
    }

    pub fn log(&self, name: &ConfigName) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// The end of a build's log, for messages.
    pub fn told(&self, name: &ConfigName) -> String {
        let text = fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Nothing of a build is left that a sweep would have to remove, and nothing that it could not.
    pub fn is_clean(&self) {
        nothing_but_files(self.dir.path());
        let left: Vec<_> =
            fs::read_dir(&self.paths.work).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "left in the work directory: {left:?}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // a test that failed may leave what it was to find
        for pid in processes(self.dir.path()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}

/// The directories below one.
pub fn paths(dir: &Path, cache: Option<&Path>) -> Paths {
    Paths {
        cache: cache.map_or_else(|| dir.join("cache"), Path::to_owned),
        work: dir.join("work"),
        images: dir.join("images"),
        boot: dir.join("boot"),
    }
}

/// An empty sparse file.
pub fn volume(dir: &Path, name: &str, mib: u64) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).expect("a volume").set_len(mib << 20).expect("its length");
    path
}

/// No mount, no loop device and no process has to do with a directory.
pub fn nothing_but_files(dir: &Path) {
    let dir = fs::canonicalize(dir).expect("there");
    let text = dir.to_str().expect("text");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    // the directory itself may be a mount of the test
    let left: Vec<&str> = mounts.lines().filter(|l| l.contains(&format!("{text}/"))).collect();
    assert!(left.is_empty(), "left mounted: {left:?}");
    let loops = Command::new("losetup").arg("-a").output().expect("losetup");
    assert!(!String::from_utf8_lossy(&loops.stdout).contains(text), "left as a loop device");
    wait_for("the end of all processes of the build", || processes(&dir).is_empty());
}

/// Processes that work for builds in a directory.
pub fn processes(dir: &Path) -> Vec<i32> {
    let mark = format!("XVM_BUILD={}", dir.display());
    let all = fs::read_dir("/proc").expect("proc").flatten();
    let pids = all.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v.starts_with(mark.as_bytes()))
    })
    .collect()
}

/// Waits for a condition, 30 seconds at most.
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited 30 s for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The answer of debugfs, a tool that is not ours.
pub fn debugfs(disk: &Path, request: &str) -> String {
    let out = Command::new("debugfs")
        .args(["-R", request])
        .arg(disk)
        .stderr(Stdio::null())
        .output()
        .expect("debugfs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Changes an image behind its owner's back.
pub fn debugfs_write(disk: &Path, script: &str) {
    let mut child = Command::new("debugfs")
        .args(["-w", "-f", "-"])
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("debugfs");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("written");
    assert!(child.wait().expect("debugfs").success());
}

/// A file inside of an image; empty when it is not there.
pub fn cat(disk: &Path, path: &str) -> String {
    debugfs(disk, &format!("cat {path}"))
}

/// Whether there is something of that name.
pub fn exists(disk: &Path, path: &str) -> bool {
    debugfs(disk, &format!("stat {path}")).contains("Inode:")
}

/// The file system is sound.
pub fn sound(disk: &Path) {
    let out = Command::new("e2fsck").args(["-f", "-n"]).arg(disk).output().expect("e2fsck");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

/// In guestd's place a program that ends at once, and says who it is; its libraries are nowhere else in a tiny system.
pub fn guestd() -> Option<Guestd> {
    let forwarder = Endpoint::parse("10.0.2.2").expect("an address");
    Some(
        Guestd::new("/usr/bin/sort".into(), vec![forwarder], [1; 32].into())
            .expect("coreutils, binutils and patchelf"),
    )
}

/// Debian's kernel for tiny systems.
pub fn kernel() -> (PathBuf, PathBuf) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image/kernel.sh");
    let out = Command::new(script).stderr(Stdio::inherit()).output().expect("kernel.sh");
    assert!(out.status.success(), "kernel.sh failed");
    let dir = PathBuf::from(String::from_utf8(out.stdout).expect("text").trim());
    (dir.join("vmlinuz"), dir.join("modules"))
}

/// A machine, emulated, that boots an image. It ends with this.
pub struct Machine {
    qemu: Child,
    console: PathBuf,
    ssh: u16,
    begun: Instant,
}

impl Machine {
    pub fn boot(bench: &Bench, boot: &BootFiles, mib: u64, disks: &[&Path], console: &str) -> Machine {
        let console = bench.dir.path().join(console);
        // freed at once for the machine
        let ssh = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,tb-size=64", "-m", &mib.to_string(), "-display", "none", "-no-reboot"])
            .args(["-serial", &format!("file:{}", console.display()), "-monitor", "stdio"])
            .args(["-nic", &format!("user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{ssh}-:22")])
            .arg("-kernel")
            .arg(bench.paths.boot.join(boot.kernel.name()))
            .args(["-append", &boot.cmdline]);
        if let Some(initrd) = &boot.initrd {
            qemu.arg("-initrd").arg(bench.paths.boot.join(initrd.name()));
        }
        for disk in disks {
            qemu.args(["-drive", &format!("file={},format=raw,if=virtio", disk.display())]);
        }
        let qemu = qemu.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("qemu");
        Machine { qemu, console, ssh, begun: Instant::now() }
    }

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits for a text on its console: emulated machines take minutes.
    pub fn wait_for(&mut self, text: &str) {
        while !self.said().contains(text) {
            let ended = self.qemu.try_wait().expect("qemu");
            let late = self.begun.elapsed() > Duration::from_secs(300);
            assert!(ended.is_none() && !late, "no {text:?} on its console ({ended:?}):\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{text:?} after {:.1} s", self.begun.elapsed().as_secs_f64());
    }

    /// Waits until its SSH server answers: it has an address and host keys.
    pub fn wait_for_ssh(&mut self) {
        loop {
            let mut banner = [0; 4];
            let answered = TcpStream::connect(("127.0.0.1", self.ssh)).and_then(|mut s| {
                s.set_read_timeout(Some(Duration::from_secs(5)))?;
                s.read_exact(&mut banner)
            });
            if answered.is_ok() && &banner == b"SSH-" {
                break;
            }
            let late = self.begun.elapsed() > Duration::from_secs(400);
            assert!(!late && self.qemu.try_wait().expect("qemu").is_none(), "no SSH:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("SSH answers after {:.1} s", self.begun.elapsed().as_secs_f64());
    }

    /// Presses the power button and waits until it is off.
    pub fn power_button(&mut self) {
        self.qemu.stdin.as_mut().expect("monitor").write_all(b"system_powerdown\n").expect("pressed");
        let begin = Instant::now();
        while self.qemu.try_wait().expect("qemu").is_none() {
            assert!(begin.elapsed() < Duration::from_secs(180), "still on:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.qemu.kill());
        drop(self.qemu.wait());
    }
}
