//! The cluster of these tests: forwarder and mount here, an agent on each host, imaged with logical volumes on xen1. A host with QEMU is
//! one of its servers too.

use crate::hosts::Hosts;
use std::process::Command;
use std::time::{Duration, Instant};
use xvm_tests::lab::Lab;
use xvm_tests::shell::run;
use xvm_tests::{Cluster, Tree, say};

/// What must be here.
pub const NEEDS: [&str; 13] = [
    "root",
    "/dev/fuse",
    "qemu-system-x86_64",
    "mmdebstrap",
    "busybox",
    "mke2fs",
    "cpio",
    "ssh",
    "strip",
    "libvirtd",
    "virsh",
    "nbdkit",
    "ip",
];

/// The patience for hosts that are simulated instruction by instruction.
pub const LONG: Duration = Duration::from_secs(420);

/// The domain of the host with QEMU, which is off.
pub const QEMU: &str = "small-1";

/// Two hosts, one cluster.
pub struct Scene {
    cluster: Cluster,
    pub hosts: Hosts,
    /// Where hosts reach the forwarder.
    bus: String,
    begin: Instant,
    // last: the others write there
    _dir: tempfile::TempDir,
}

impl Scene {
    /// Starts all of it; some two minutes, four when the hosts must be built.
    #[track_caller]
    pub fn new() -> Scene {
        let begin = Instant::now();
        let dir = tempfile::tempdir().expect("a scratch folder");
        // other processes have other ones
        let port = 23_000 + u16::try_from(std::process::id() % 1_000).expect("less than 1000") * 4;
        let hosts = Hosts::up(dir.path(), port + 2);
        let bus = format!("tcp://127.0.0.1:{port}");
        let cluster = Cluster::qemu_at(&bus, 1, 1, |lab| lab.guest("ferby", QEMU, &[], false));
        let scene = Scene { cluster, hosts, bus: format!("10.0.2.2:{port}"), begin, _dir: dir };
        scene.hosts.ssh(1, "vgcreate -qq vg0 /dev/vdb");
        let defaults = "os = \\\"tiny\\\"\\nmemory = 96\\nswap = 16\\ndisk = 64\\naddress = \\\"none\\\"\\n";
        scene.hosts.ssh(
            1,
            &format!("mkdir -p /var/lib/xvm/imaged/configs; printf \"{defaults}\" > /var/lib/xvm/imaged/configs/defaults.toml"),
        );
        for n in 1..=2 {
            scene.agent(n);
        }
        scene.imaged();
        // until an act is about it
        scene.tree().order("ctl", "balance off");
        say(&format!("hosts, agents and imaged are up after {:.0} s", begin.elapsed().as_secs_f64()));
        scene
    }

    /// Starts a host's agent; waits until the tree has it.
    #[track_caller]
    pub fn agent(&self, n: usize) {
        let flags = format!("--name xen{n} --forwarder {} --hypervisor xen:///system", self.bus);
        let reach = format!("--migrate-uri xen+tcp://xen{n}/system --bridge xenbr0");
        self.hosts.daemon(n, &format!("agentd {flags} {reach}"));
        let name = format!("servers/xen{n}/status");
        wait("an agent in the tree", || self.tree().get(&name).ok()?.contains("state up").then_some(()));
    }

    /// Starts imaged on xen1.
    #[track_caller]
    pub fn imaged(&self) {
        let flags = format!("--name xen1 --forwarder {} --store lvm:vg0", self.bus);
        let exports = "--listen 10.7.0.1 --host 10.7.0.1 --insecure";
        let tiny = "--tiny-kernel /share/vmlinuz --tiny-initrd /share/modules --overlay /share/overlay";
        self.hosts.daemon(1, &format!("imaged {flags} {exports} {tiny}"));
        wait("imaged in the tree", || {
            self.tree().get("status").ok()?.contains("images xen1 up").then_some(())
        });
    }

    /// The host with QEMU: ferby.
    pub fn lab(&self) -> &Lab {
        self.cluster.hosts()
    }

    /// The mounted tree.
    pub fn tree(&self) -> &Tree {
        &self.cluster.tree
    }

    /// Plays an act, and tells how long it took. `XVM_XEN_ACTS` plays those alone whose names hold one of its words.
    pub fn act(&self, what: &str, act: impl FnOnce(&Scene)) {
        if let Ok(words) = std::env::var("XVM_XEN_ACTS")
            && !words.split(',').any(|word| what.contains(word))
        {
            return say(&format!("SKIP {what}: XVM_XEN_ACTS is {words}"));
        }
        let begin = Instant::now();
        act(self);
        let (took, at) = (begin.elapsed().as_secs_f64(), self.begin.elapsed().as_secs_f64());
        say(&format!("{what}: ok, {took:.0} s, at {at:.0} s"));
    }

    /// Waits until no job of a domain or config goes on, and gives what its last one says.
    #[track_caller]
    pub fn end(&self, thing: &str) -> String {
        let mut read = Command::new("cat");
        read.arg(self.tree().path(&format!("{thing}/wait")));
        run(&mut read, LONG).ok().trim_end().to_owned()
    }

    /// Orders a domain or config something that is a job, and waits for its end.
    #[track_caller]
    pub fn job(&self, thing: &str, line: &str) -> String {
        self.tree().order(&format!("{thing}/ctl"), line);
        self.end(thing)
    }

    /// Orders a domain something short. What takes seconds here may take more than an order is waited for: how it ends is seen later.
    #[track_caller]
    pub fn order(&self, name: &str, line: &str) {
        if let Err(e) = self.tree().put(&format!("domains/{name}/ctl"), format!("{line}\n")) {
            assert_eq!(e.raw_os_error(), Some(nix::libc::ETIMEDOUT), "{line}: {e}");
        }
    }

    /// Removes a config that is off, by rmdir.
    #[track_caller]
    pub fn removes(&self, name: &str) {
        let dir = self.tree().path(&format!("configs/{name}"));
        // tools of LVM take seconds here, perhaps more than an order may take
        match std::fs::remove_dir(&dir) {
            Err(e) if e.raw_os_error() != Some(nix::libc::ETIMEDOUT) => panic!("it is off: {e}"),
            _ => wait("its end", || (!dir.exists()).then_some(())),
        }
    }

    /// Waits until a file's text is `wanted`.
    #[track_caller]
    pub fn settles(&self, path: &str, wanted: &str) {
        wait(&format!("{path} to be {wanted}"), || {
            (self.tree().get(path).unwrap_or_default().trim_end() == wanted).then_some(())
        });
    }
}

/// Waits until there is an answer.
#[track_caller]
pub fn wait<T>(what: &str, answer: impl FnMut() -> Option<T>) -> T {
    xvm_tests::wait_within(LONG, what, answer)
}
