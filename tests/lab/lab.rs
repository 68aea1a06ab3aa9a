//! A lab (see README.md) as a value: it is up while it lives, and removed when it is dropped, also by a panic.
//!
//! For tests of several crates: `#[path = "../../tests/lab/lab.rs"] mod lab;`
#![allow(dead_code)] // each test uses its part

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Programs without which there is no lab.
const NEEDS: [&str; 9] =
    ["libvirtd", "virsh", "qemu-system-x86_64", "nbdkit", "ip", "nsenter", "unshare", "gcc", "cpio"];

/// Some hosts.
pub struct Lab {
    dir: tempfile::TempDir,
    id: String,
    net: String,
    /// One lab at a time in one process: more only make each other slow.
    _turn: MutexGuard<'static, ()>,
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab")
}

impl Lab {
    /// Starts `hosts` hosts (ferby, gerby, herby, ...); says why when this machine cannot.
    pub fn up(hosts: usize) -> Result<Lab, String> {
        static TURN: Mutex<()> = Mutex::new(());
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if !status.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0")) {
            return Err("needs root".into());
        }
        for program in NEEDS {
            let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
                .iter()
                .any(|d| Path::new(d).join(program).exists());
            if !found {
                return Err(format!("needs {program}, see tests/lab/README.md"));
            }
        }
        let mut probe = Command::new("unshare");
        probe.args(["--mount", "--net", "--pid", "--fork", "true"]).stderr(Stdio::null());
        if !probe.status().is_ok_and(|s| s.success()) {
            return Err("needs the right to make namespaces".into());
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (pid, n) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("xvm-lab-").tempdir().map_err(|e| e.to_string())?;
        let id = format!("x{:03x}{:02x}", pid % 0x1000, n % 0x100);
        let net = format!("10.{}.{}", 64 + pid % 128, (pid / 128 + n) % 256);
        let lab = Lab { dir, id, net, _turn: turn };
        let build = lab.command(&scripts().join("guest/build.sh")).output().map_err(|e| e.to_string())?;
        if !build.status.success() {
            return Err(format!(
                "the guest cannot be built: {}",
                String::from_utf8_lossy(&build.stderr).trim()
            ));
        }
        // whoever can all this must get its hosts: from here on it is a failure
        lab.sh(&["up", &hosts.to_string()]);
        Ok(lab)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("LAB", self.dir.path())
            .env("LAB_ID", &self.id)
            .env("LAB_NET", &self.net)
            .env("LAB_OWNER", std::process::id().to_string())
            .stdin(Stdio::null());
        command
    }

    /// The lab's scratch folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs hosts.sh; its output, or what it says when it fails.
    pub fn try_sh(&self, args: &[&str]) -> Result<String, String> {
        let out = self.command(&scripts().join("hosts.sh")).args(args).output().map_err(|e| e.to_string())?;
        let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if out.status.success() {
            Ok(said.trim().to_owned())
        } else {
            Err(format!("{args:?}: {} {}", said.trim(), wrong.trim()))
        }
    }

    /// Runs hosts.sh, which must succeed.
    #[track_caller]
    pub fn sh(&self, args: &[&str]) -> String {
        self.try_sh(args).expect("hosts.sh")
    }

    /// Runs virsh on a host, which must succeed.
    #[track_caller]
    pub fn virsh(&self, host: &str, args: &[&str]) -> String {
        self.sh(&[&["virsh", host, "-q"], args].concat())
    }

    /// The URI of a host's libvirtd over its UNIX socket.
    pub fn uri(&self, host: &str) -> String {
        self.sh(&["uri", host])
    }

    /// The URI by which others reach a host.
    pub fn reach(&self, host: &str) -> String {
        self.sh(&["reach", host])
    }

    /// The address of a host, or of `store`.
    pub fn address(&self, host: &str) -> String {
        let reach = self.reach(host);
        reach.trim_start_matches("qemu+tcp://").trim_end_matches("/system").to_owned()
    }

    /// Defines a guest; `keys` are those of domxml.sh.
    #[track_caller]
    pub fn define(&self, host: &str, name: &str, number: u32, keys: &[&str]) -> PathBuf {
        let mut command = self.command(&scripts().join("domxml.sh"));
        let out = command.args([name, &number.to_string()]).args(keys).output().expect("domxml.sh");
        assert!(out.status.success(), "domxml.sh: {}", String::from_utf8_lossy(&out.stderr));
        let file = self.dir.path().join(format!("{name}.xml"));
        std::fs::write(&file, out.stdout).expect("scratch folder");
        self.virsh(host, &["define", &file.to_string_lossy()]);
        file
    }

    /// What a guest wrote on its console on a host.
    pub fn console(&self, host: &str, name: &str) -> String {
        let file = self.dir.path().join(format!("hosts/{host}/log/{name}.console"));
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    /// The PID of a host's libvirtd.
    pub fn daemon(&self, host: &str) -> i32 {
        self.sh(&["daemon-pid", host]).parse().expect("a PID")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(e) = self.try_sh(&["clean"]) {
            eprintln!("the lab {} was not removed: {e}", self.id);
        }
    }
}
