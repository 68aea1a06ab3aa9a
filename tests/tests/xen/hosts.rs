//! The hosts, by `tests/lab/xen/host.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use xvm_tests::program::{program, workspace};
use xvm_tests::shell::{Done, run};

/// How long a command on a host may take: all is done in software, and libxl waits for what does not answer.
const LONG: Duration = Duration::from_secs(300);

/// xen1 and xen2, until this is dropped or this process has gone.
pub struct Hosts {
    lab: PathBuf,
    /// The port of xen1's SSH; xen2's is the next one.
    ssh: u16,
}

impl Hosts {
    /// Starts both, with this tree's programs; `lab` is a scratch folder.
    #[track_caller]
    pub fn up(lab: &Path, ssh: u16) -> Hosts {
        let hosts = Hosts { lab: lab.into(), ssh };
        hosts.share();
        for n in 1..=2 {
            hosts.boot(n);
        }
        for n in 1..=2 {
            hosts.ready(n);
        }
        hosts
    }

    /// What hosts see below /share: programs without what only a debugger reads, a kernel and its modules, what guests do.
    #[track_caller]
    fn share(&self) {
        let folder = PathBuf::from(self.run("build.sh", &[]).ok().trim());
        let share = self.lab.join("share");
        let overlay = share.join("overlay/etc");
        std::fs::create_dir_all(&overlay).expect("a scratch folder");
        for name in ["agentd", "imaged"] {
            let mut strip = Command::new("strip");
            run(strip.arg("-o").arg(share.join(name)).arg(program(name)), LONG).ok();
        }
        let mut copy = Command::new("cp");
        copy.arg("-r")
            .args(["vmlinuz", "vmlinux", "modules", "guest.gz"].map(|f| folder.join(f)))
            .arg(&share);
        run(&mut copy, LONG).ok();
        let writer = include_str!("../configs/qemu/writer.sh");
        std::fs::write(overlay.join("rc.local"), writer).expect("a scratch folder");
        run(Command::new("chmod").arg("755").arg(overlay.join("rc.local")), LONG).ok();
    }

    /// Powers a host on; returns at once.
    #[track_caller]
    pub fn boot(&self, n: usize) {
        self.host(&["start", &n.to_string()]).ok();
    }

    /// Waits until a host's libvirt answers, and brings the programs there.
    #[track_caller]
    pub fn ready(&self, n: usize) {
        self.host(&["wait", &n.to_string()]).ok();
        self.ssh(n, "cp /share/agentd /share/imaged /usr/local/sbin/; mkdir -p /lab; cp /share/vmlinux /share/guest.gz /lab/");
    }

    /// Runs `host.sh`.
    #[track_caller]
    pub fn host(&self, args: &[&str]) -> Done {
        self.run("host.sh", args)
    }

    /// What a command on a host prints; it must succeed.
    #[track_caller]
    pub fn ssh(&self, n: usize, command: &str) -> String {
        self.try_ssh(n, command).ok()
    }

    /// A command on a host.
    #[track_caller]
    pub fn try_ssh(&self, n: usize, command: &str) -> Done {
        self.host(&["ssh", &n.to_string(), command])
    }

    /// Waits there until a command succeeds: to ask from here each time would take much of what a host can do.
    #[track_caller]
    pub fn until(&self, n: usize, condition: &str) {
        self.ssh(n, &format!("until {condition}; do sleep 0.5; done"));
    }

    /// Copies the first MiB of what is under a path on a host, a file or a device, to a file here.
    #[track_caller]
    pub fn fetch(&self, n: usize, from: &str, mib: u32, to: &Path) {
        let file = std::fs::File::create(to).expect("a scratch folder");
        let mut command = self.command("host.sh");
        let status =
            command.args(["ssh", &n.to_string(), &format!("head -c {mib}M {from}")]).stdout(file).status();
        assert!(status.expect("bash").success(), "cannot read {from} on xen{n}");
    }

    /// Starts a daemon on a host, which ends with the host.
    #[track_caller]
    pub fn daemon(&self, n: usize, line: &str) {
        let name = line.split(' ').next().expect("a program");
        self.ssh(n, &format!("(setsid {line} < /dev/null >> /var/log/{name}.log 2>&1 &)"));
    }

    /// Where a domain is as Xen itself says it, not libvirt, and not the tree: the hosts on which it has memory and is no half one.
    #[track_caller]
    pub fn copies(&self, name: &str, hosts: &[usize]) -> Vec<usize> {
        let there = |n: &usize| self.try_ssh(*n, &format!("xl domid {name}")).status == 0;
        hosts.iter().copied().filter(there).collect()
    }

    /// Keeps what an HVM guest says on its serial line, its console, where Xen keeps the consoles of the others.
    #[track_caller]
    pub fn keep_serial(&self, n: usize, name: &str) {
        let line = format!("cat $(virsh -c xen:///system ttyconsole {name})");
        self.ssh(n, &format!("(setsid {line} < /dev/null >> {} 2>&1 &)", console(name)));
    }

    /// Waits until a guest has said something on its console on a host.
    #[track_caller]
    pub fn says(&self, n: usize, name: &str, words: &str) {
        self.says_more(n, name, words, 0);
    }

    /// Waits until a guest has said something on its console on a host more than so many times.
    #[track_caller]
    pub fn says_more(&self, n: usize, name: &str, words: &str, times: usize) {
        self.until(n, &format!("[ $({}) -gt {times} ]", count(name, words)));
    }

    /// How often a guest has said something on its console on a host.
    #[track_caller]
    pub fn said(&self, n: usize, name: &str, words: &str) -> usize {
        self.ssh(n, &count(name, words)).trim().parse().expect("a number")
    }

    #[track_caller]
    fn run(&self, script: &str, args: &[&str]) -> Done {
        run(self.command(script).args(args), LONG)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(workspace().join("tests/lab/xen").join(script));
        command.env("LAB", &self.lab).env("LAB_SSH", self.ssh.to_string());
        command.env("LAB_OWNER", std::process::id().to_string());
        command
    }
}

/// The file of what a guest has said on its console.
fn console(name: &str) -> String {
    format!("/var/log/xen/console/guest-{name}.log")
}

/// A command that prints how many lines of a guest's console hold `words`.
fn count(name: &str, words: &str) -> String {
    format!("cat {} 2> /dev/null | grep -c '{words}' || true", console(name))
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.host(&["stop"])));
        if !done.is_ok_and(|done| done.status == 0) {
            xvm_tests::say("the Xen hosts were not stopped");
        }
    }
}
