//! A run directory and its volumes, which go with the test, also when it panics: the daemons are killed.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use xvm_imaged::export::{Exports, Place, Volume, Wanted};

/// Scratch.
pub struct Rig {
    pub dir: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Rig {
        Rig { dir: tempfile::tempdir().expect("scratch folder") }
    }

    pub fn place(&self) -> Place {
        place(self.dir.path())
    }

    pub fn exports(&self) -> Exports {
        Exports::new(self.place())
    }

    pub fn run(&self, file: &str) -> PathBuf {
        self.dir.path().join("run").join(file)
    }

    /// A file of `size` bytes.
    pub fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        File::create(&path).and_then(|f| f.set_len(size)).expect("a volume");
        path
    }

    /// The process of a daemon.
    pub fn pid(&self, key: &str) -> i32 {
        pids(&self.run(&format!("{key}.qmp"))).into_iter().next().expect("a daemon runs")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for pid in pids(&self.dir.path().join("run")) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A file system of its own that can be made to hang.
pub struct Frozen {
    pub mount: PathBuf,
}

impl Frozen {
    pub fn new(rig: &Rig) -> Frozen {
        let (image, mount) = (rig.file("file-system", 64 << 20), rig.dir.path().join("mount"));
        std::fs::create_dir(&mount).expect("a directory");
        let (from, to) = (image.to_str().expect("a path"), mount.to_str().expect("a path"));
        output("mkfs.ext4", &["-q", from]);
        output("mount", &["-o", "loop", from, to]);
        Frozen { mount }
    }

    /// From now on writes do not come back, or do again.
    pub fn freeze(&self, on: bool) {
        output("fsfreeze", &[if on { "-f" } else { "-u" }, self.mount.to_str().expect("a path")]);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for (program, flag) in [("fsfreeze", "-u"), ("umount", "-l")] {
            let _done = Command::new(program).arg(flag).arg(&self.mount).output();
        }
    }
}

/// The place in a scratch folder.
pub fn place(dir: &Path) -> Place {
    Place {
        run: dir.join("run"),
        listen: [127, 0, 0, 1].into(),
        program: "qemu-storage-daemon".into(),
        tls: None,
    }
}

/// The storage daemons that have `path` in their command line.
pub fn pids(path: &Path) -> Vec<i32> {
    let path = path.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let line = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    numbers
        .filter(|pid| {
            let line = String::from_utf8_lossy(&line(pid)).into_owned();
            line.contains("storage-daemon") && line.contains(&path)
        })
        .collect()
}

/// A port that was free a moment ago.
pub fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// One volume `disk`, exported under these names.
pub fn wanted(port: u16, path: &Path, names: &[&str]) -> Wanted {
    Wanted {
        port,
        volumes: vec![Volume { node: "disk".into(), path: path.into(), writable: true }],
        exports: names.iter().map(|n| ((*n).into(), "disk".into())).collect(),
        servers: None,
    }
}

/// What nbdinfo sees, sorted.
pub fn listed(port: u16) -> Vec<String> {
    listed_by(&format!("nbd://127.0.0.1:{port}")).expect("somebody listens")
}

/// What nbdinfo sees, sorted; none when it is not let in.
pub fn listed_by(uri: &str) -> Option<Vec<String>> {
    let out = Command::new("nbdinfo").args(["--list", uri]).output().expect("nbdinfo");
    let text = out.status.success().then_some(String::from_utf8_lossy(&out.stdout))?;
    let names = text.lines().filter_map(|l| l.strip_prefix("export=\"")?.strip_suffix("\":"));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    Some(names)
}

/// Runs a program that must succeed.
pub fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().expect(program);
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Waits for a condition, 20 seconds at most.
pub async fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends a signal.
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}
