//! Several libvirt hosts with QEMU on this machine: `tests/lab/hosts.sh`, one lab at a time in a process.

use crate::{
    program::workspace,
    shell::{Done, run},
    wait_for,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a test of real hosts needs, for [`crate::requires`].
pub const NEEDS: [&str; 6] = ["root", "libvirtd", "virsh", "qemu-system-x86_64", "nbdkit", "ip"];

static ONE: Mutex<()> = Mutex::new(());

/// Hosts that run until this value is dropped, or this process has gone.
pub struct Lab {
    /// The names of the hosts: ferby, gerby, herby, ...
    hosts: Vec<String>,
    /// Its scratch folder.
    dir: PathBuf,
    /// How many guests were made.
    guests: u32,
    /// The CPUs of hosts that do not have all.
    cpus: BTreeMap<String, String>,
    /// Labs of this process run one after the other: two cores carry no more.
    _one: MutexGuard<'static, ()>,
}

impl Lab {
    /// Starts `n` hosts and the storage host; their files lie in `dir`.
    #[track_caller]
    pub fn up(n: usize, dir: &Path) -> Lab {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let names = ["ferby", "gerby", "herby", "ierby"];
        let hosts = names[..n].iter().map(|n| (*n).to_owned()).collect();
        let lab = Lab { hosts, dir: dir.into(), guests: 0, cpus: BTreeMap::new(), _one: one };
        lab.script("guest/build.sh", &[]).ok();
        lab.hosts_sh(&["up", &n.to_string()]).ok();
        lab
    }

    /// The hosts' names.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Runs `hosts.sh`.
    #[track_caller]
    pub fn hosts_sh(&self, args: &[&str]) -> Done {
        self.script("hosts.sh", args)
    }

    /// Runs virsh on a host; what it prints.
    #[track_caller]
    pub fn virsh(&self, host: &str, args: &[&str]) -> Done {
        let all: Vec<&str> = ["virsh", host, "-q"].iter().chain(args).copied().collect();
        self.hosts_sh(&all)
    }

    /// One line that `hosts.sh` prints: `uri HOST`, `reach HOST`, `cpu HOST`.
    #[track_caller]
    pub fn ask(&self, what: &str, host: &str) -> String {
        self.hosts_sh(&[what, host]).ok().trim().to_owned()
    }

    /// Gives a host these CPUs of the machine (`0`, `0-1`), and its agent shows no others; before its guests are made.
    #[track_caller]
    pub fn limit(&mut self, host: &str, cpus: &str) {
        self.hosts_sh(&["cpus", host, cpus]).ok();
        self.cpus.insert(host.into(), cpus.into());
    }

    /// The CPUs that [`Lab::limit`] gave a host.
    pub fn cpus(&self, host: &str) -> Option<&str> {
        self.cpus.get(host).map(String::as_str)
    }

    /// Defines a tiny guest with a disk and an interface, and starts it when `start`; waits until its guest's clock ticks.
    #[track_caller]
    pub fn guest(&mut self, host: &str, name: &str, options: &[&str], start: bool) {
        self.guests += 1;
        let (number, port) = (self.guests.to_string(), (10_808 + self.guests).to_string());
        let image = self.dir.join(format!("{name}.img"));
        let file = std::fs::File::create(&image).expect("a file in the test's own folder");
        file.set_len(64 << 20).expect("a sparse file");
        let image = image.to_string_lossy().into_owned();
        self.hosts_sh(&["nbd-start", name, &image, &port]).ok();
        let nbd = format!("nbd={}.20:{port}", self.net());
        let args: Vec<&str> = [name, &number, &nbd].into_iter().chain(options.iter().copied()).collect();
        let xml = self.script("domxml.sh", &args).ok();
        let file = self.dir.join(format!("{name}.xml"));
        std::fs::write(&file, xml).expect("a file in the test's own folder");
        self.virsh(host, &["define", &file.to_string_lossy()]).ok();
        if start {
            self.virsh(host, &["start", name]).ok();
            self.ticks(host, name);
        }
    }

    /// Waits until the guest ticks on this host: before that it does not hear the power button.
    #[track_caller]
    pub fn ticks(&self, host: &str, name: &str) {
        let console = self.dir.join(format!("hosts/{host}/log/{name}.console"));
        let count = || std::fs::read_to_string(&console).unwrap_or_default().matches("TICK ").count();
        let before = count();
        wait_for(&format!("ticks of {name} on {host}"), || (count() >= before + 2).then_some(()));
    }

    /// Makes certificates, a server's for imaged on `kerby` at the machine's address and one for each host, and gives the hosts theirs. Gives
    /// the folder of all, below `dir` of [`Lab::up`].
    #[track_caller]
    pub fn certificates(&self) -> PathBuf {
        let all = self.dir.join("certificates");
        let mut make = Command::new(workspace().join("examples/certificates.sh"));
        make.arg(&all).args(["kerby", &self.address()]).args(&self.hosts);
        run(&mut make, Duration::from_secs(60)).ok();
        for host in &self.hosts {
            for file in ["ca-cert.pem", "client-cert.pem", "client-key.pem"] {
                let to = self.dir.join(format!("hosts/{host}/etc/nbd")).join(file);
                std::fs::copy(all.join(host).join(file), to).expect("the lab is ours");
            }
        }
        all
    }

    /// What a domain that was made from a config wrote on its console on a host.
    pub fn console(&self, host: &str, name: &str) -> String {
        let file = self.dir.join(format!("hosts/{host}/log/qemu/{name}.console"));
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Empties these consoles on all hosts; while the domain is off.
    #[track_caller]
    pub fn forget_consoles(&self, name: &str) {
        for host in &self.hosts {
            let file = self.dir.join(format!("hosts/{host}/log/qemu/{name}.console"));
            if file.exists() {
                std::fs::write(file, "").expect("the lab is ours");
            }
        }
    }

    /// What guests wrote on their consoles last, to standard error.
    fn tell_consoles(&self) {
        for host in &self.hosts {
            let dir = self.dir.join(format!("hosts/{host}/log/qemu"));
            let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
            for file in files.filter(|f| f.extension().is_some_and(|e| e == "console")) {
                let text = std::fs::read(&file).unwrap_or_default();
                let end = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned();
                eprintln!("---- the end of what {} says on {host}:\n{end}", file.display());
            }
        }
    }

    /// The program that fetches the kernel which tiny systems boot here; gives its folder.
    #[track_caller]
    pub fn kernel() -> PathBuf {
        let mut command = Command::new(workspace().join("imaged/tests/image/kernel.sh"));
        PathBuf::from(run(&mut command, Duration::from_secs(180)).ok().trim())
    }

    /// What virsh says of a domain's state on a host: `running`, `paused`, `shut off`; `none` when it is not there.
    #[track_caller]
    pub fn state(&self, host: &str, name: &str) -> String {
        let done = self.virsh(host, &["domstate", name]);
        if done.status == 0 { done.out.trim().to_owned() } else { "none".into() }
    }

    fn id() -> String {
        format!("x{:04x}", std::process::id() & 0xffff)
    }

    /// The machine's own address in its network.
    pub fn address(&self) -> String {
        format!("{}.1", self.net())
    }

    /// The first three numbers of its network: another one for each process.
    fn net(&self) -> String {
        let n = std::process::id() % 40_000;
        format!("10.{}.{}", 80 + n / 250, n % 250)
    }

    #[track_caller]
    fn script(&self, script: &str, args: &[&str]) -> Done {
        let mut command = Command::new(workspace().join("tests/lab").join(script));
        command.args(args).env("LAB", &self.dir).env("LAB_ID", Self::id()).env("LAB_NET", self.net());
        command.env("LAB_OWNER", std::process::id().to_string());
        // the first build of the guest fetches a kernel
        run(&mut command, Duration::from_secs(180))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_consoles();
        }
        // a lab that cannot be removed now is removed by its guard when this process has gone
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.hosts_sh(&["clean"])));
        if let Ok(done) = done
            && done.status != 0
        {
            crate::say(&format!("the lab was not removed: {}{}", done.out, done.err));
        }
    }
}
