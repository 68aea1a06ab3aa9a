//! A whole cluster of real processes: a forwarder, an agent for each server, a mount. Everything lies in one scratch folder.

use crate::{Calls, Daemon, Lab, Probe, Tree, wait_eq, wait_for};
use nix::mount::{MntFlags, umount2};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A forwarder, agents and a mount. Dropped, it ends them in order, checks that no mount is left and that no call took too long.
pub struct Cluster {
    /// The mount's files.
    pub tree: Tree,
    /// xvmfs; first, so that it ends before those it speaks with.
    pub mount: Daemon,
    /// imaged; none until [`Cluster::imaged`].
    pub images: Option<Daemon>,
    /// The agents by server.
    pub agents: BTreeMap<String, Daemon>,
    /// The forwarder.
    pub forwarder: Daemon,
    /// The hosts; none for simulated servers.
    pub lab: Option<Lab>,
    /// The record of all calls on the mount.
    pub calls: Calls,
    /// The address of its forwarder.
    bus: String,
    /// Scratch folder; last, since all others use it.
    dir: TempDir,
}

impl Cluster {
    /// Simulated servers with the flags of their agents, and a mount; returns when all that the flags name is in the tree.
    #[track_caller]
    pub fn sim(servers: &[(&str, &[&str])]) -> Cluster {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let agents = servers
            .iter()
            .map(|(name, flags)| ((*name).to_owned(), flags.iter().map(|f| (*f).to_owned()).collect()));
        let domains: usize =
            servers.iter().map(|(_, flags)| flags.iter().filter(|f| **f == "--domain").count()).sum();
        let bus = bus(dir.path());
        Self::start(dir, bus, agents.collect(), None, domains)
    }

    /// ferby, gerby and herby with four CPUs, a heartbeat each 0.2 s, and small-1 to small-5 dealt out among them.
    #[track_caller]
    pub fn three() -> Cluster {
        let cluster = Self::sim(&[
            ("ferby", &["--domain", "small-1,vcpus=2", "--domain", "small-4"]),
            ("gerby", &["--domain", "small-2", "--domain", "small-5,state=shutoff"]),
            ("herby", &["--domain", "small-3"]),
        ]);
        cluster.heartbeat("0.2");
        cluster
    }

    /// QEMU hosts of a lab. `prepare` makes the guests; `domains` is how many.
    #[track_caller]
    pub fn qemu(hosts: usize, domains: usize, prepare: impl FnOnce(&mut Lab)) -> Cluster {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let bus = bus(dir.path());
        Self::hosted(dir, bus, hosts, domains, prepare)
    }

    /// [`Cluster::qemu`] with the forwarder at this address: others are elsewhere.
    #[track_caller]
    pub fn qemu_at(bus: &str, hosts: usize, domains: usize, prepare: impl FnOnce(&mut Lab)) -> Cluster {
        let dir = tempfile::tempdir().expect("a scratch folder");
        Self::hosted(dir, bus.into(), hosts, domains, prepare)
    }

    #[track_caller]
    fn hosted(
        dir: TempDir,
        bus: String,
        hosts: usize,
        domains: usize,
        prepare: impl FnOnce(&mut Lab),
    ) -> Cluster {
        let mut lab = Lab::up(hosts, dir.path());
        prepare(&mut lab);
        let mut agents = Vec::new();
        for host in lab.hosts() {
            let mut flags = vec![
                "--hypervisor".into(),
                lab.ask("uri", host),
                "--migrate-uri".into(),
                lab.ask("reach", host),
                "--bridge".into(),
                "br0".into(),
                "--domain-type".into(),
                "qemu".into(),
            ];
            let cpu = lab.ask("cpu", host);
            if Path::new(&cpu).exists() {
                flags.extend(["--cpu-stat".into(), cpu]);
            }
            if let Some(cpus) = lab.cpus(host) {
                flags.extend(["--cpu-list".into(), cpus.into()]);
            }
            agents.push((host.clone(), flags));
        }
        let cluster = Self::start(dir, bus, agents, Some(lab), domains);
        cluster.heartbeat("0.5");
        cluster
    }

    #[track_caller]
    fn start(
        dir: TempDir,
        bus: String,
        agents: Vec<(String, Vec<String>)>,
        lab: Option<Lab>,
        domains: usize,
    ) -> Cluster {
        let path = dir.path();
        let servers = agents.len();
        let mut args = vec!["--name", "main", &bus];
        let guests = lab.as_ref().map(|lab| guests(&lab.address()));
        if let Some(guests) = &guests {
            args.extend(["--guests", guests]);
        }
        let forwarder = Daemon::start("forwarder", "xvm-forwarder", &args, path);
        let mut daemons = BTreeMap::new();
        for (name, flags) in agents {
            let state = path.join(&name).to_string_lossy().into_owned();
            let mut args = vec!["--name", &name, "--forwarder", &bus, "--state", &state];
            args.extend(flags.iter().map(String::as_str));
            let daemon = Daemon::start(&name, "agentd", &args, path);
            daemons.insert(name, daemon);
        }
        let calls = Calls::default();
        let root = path.join("xvm");
        std::fs::create_dir(&root).expect("a folder in the scratch folder");
        let tree = Tree::new(&root, calls.clone());
        let at = root.to_string_lossy().into_owned();
        let tests = format!("tests={}", path.join("tests").display());
        let mount = Daemon::start("xvmfs", "xvmfs", &["--foreground", &bus, &at, "-o", &tests], path);
        let mut cluster =
            Cluster { tree, mount, images: None, agents: daemons, forwarder, lab, calls, bus, dir };
        cluster.mounted();
        let heard = format!("bus {} up", cluster.bus);
        wait_for("a mount that hears the forwarder", || {
            cluster.tree.get("status").ok()?.contains(&heard).then_some(())
        });
        wait_eq("the number of servers", servers, || cluster.tree.names("servers").len());
        wait_eq("the number of domains", domains, || cluster.tree.names("domains").len());
        cluster
    }

    /// Starts imaged on the server kerby, which makes tiny systems by itself, with more flags; waits until the tree shows it. With a lab
    /// its exports are at the machine's own address in the lab's network.
    #[track_caller]
    pub fn imaged(&mut self, flags: &[&str]) {
        let state = self.images_dir();
        std::fs::create_dir_all(state.join("configs")).expect("a folder in the scratch folder");
        let defaults = "os = \"tiny\"\nmemory = 96\nswap = 16\ndisk = 64\naddress = \"none\"\n";
        std::fs::write(state.join("configs/defaults.toml"), defaults).expect("a file in the scratch folder");
        // tests run side by side, in one process and in several
        let count = PORTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let first = 20_000 + (std::process::id() as usize * 7 + count) % 250 * 40;
        let (boot, ports) = (first.to_string(), format!("{}-{}", first + 1, first + 39));
        let (bus, state) = (self.bus(), state.to_string_lossy().into_owned());
        let mut args = vec!["--name", "kerby", "--forwarder", &bus, "--state", &state, "--heartbeat", "0.5"];
        args.extend(["--boot-port", &boot, "--ports", &ports]);
        let address = self.lab.as_ref().map(Lab::address);
        if let Some(address) = &address {
            args.extend(["--listen", address, "--insecure"]);
        }
        args.extend(flags);
        self.images = Some(Daemon::start("kerby", "imaged", &args, self.dir.path()));
        wait_for("imaged in the tree", || {
            self.tree.get("status").ok()?.contains("images kerby up").then_some(())
        });
    }

    /// imaged's state directory.
    pub fn images_dir(&self) -> PathBuf {
        self.dir.path().join("kerby")
    }

    /// imaged's process.
    #[track_caller]
    pub fn images(&mut self) -> &mut Daemon {
        self.images.as_mut().expect("a cluster with imaged")
    }

    /// The processes that export disks for this cluster's imaged.
    pub fn exporters(&self) -> Vec<i32> {
        exporters(&format!("{}/run/", self.images_dir().display()))
    }

    /// Waits until the mount is there; fails when xvmfs ends instead.
    #[track_caller]
    pub fn mounted(&mut self) {
        let root = self.root();
        wait_for("the mount", || {
            assert!(self.mount.is_alive(), "xvmfs ended");
            is_mounted(&root).then_some(())
        });
        // what a killed xvmfs left is in the table too
        wait_for("a mount that answers", || self.tree.get("status").ok());
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("xvm")
    }

    /// Its scratch folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The address of its forwarder.
    pub fn bus(&self) -> String {
        self.bus.clone()
    }

    /// Where guests on the hosts reach the forwarder.
    #[track_caller]
    pub fn guest_forwarder(&self) -> String {
        guests(&self.hosts().address())
    }

    /// Sets the heartbeat of all servers, in seconds: what takes three heartbeats is seen soon.
    #[track_caller]
    pub fn heartbeat(&self, seconds: &str) {
        for server in self.agents.keys() {
            self.tree.order(&format!("servers/{server}/heartbeat"), seconds);
        }
    }

    /// A server's agent.
    #[track_caller]
    pub fn agent(&mut self, server: &str) -> &mut Daemon {
        self.agents.get_mut(server).unwrap_or_else(|| panic!("there is no agent {server}"))
    }

    /// The hosts of a cluster that was made by [`Cluster::qemu`].
    #[track_caller]
    pub fn hosts(&self) -> &Lab {
        self.lab.as_ref().expect("a cluster of QEMU hosts")
    }

    /// Lets the simulated hypervisor of a server fail: `WORD [COUNT]` lines; an empty text ends all.
    #[track_caller]
    pub fn fault(&self, server: &str, words: &str) {
        let path = self.dir.path().join(server).join("sim/faults");
        std::fs::write(path, format!("{words}\n")).expect("the agent made its folder");
    }

    /// Reads the tree without rest until it is ended.
    pub fn probe(&self) -> Probe {
        Probe::start(&self.root(), &self.calls)
    }

    /// Where a domain really has memory, as each hypervisor says it and not the tree: `SERVER STATE`, sorted.
    #[track_caller]
    pub fn copies(&self, domain: &str) -> Vec<String> {
        let mut copies = Vec::new();
        for server in self.agents.keys() {
            let state = match &self.lab {
                Some(lab) => lab.state(server, domain),
                None => self.sim_state(server, domain),
            };
            if state != "none" && state != "shut off" && state != "shutoff" {
                copies.push(format!("{server} {state}"));
            }
        }
        copies
    }

    /// What the simulated hypervisor of a server keeps of a domain; `none` when it is not there.
    #[track_caller]
    fn sim_state(&self, server: &str, domain: &str) -> String {
        let file = self.dir.path().join(server).join("sim/sim.json");
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
        let kept: serde_json::Value = serde_json::from_str(&text).expect("sim.json is whole at every moment");
        let record = &kept["domains"][domain];
        match (&record["state"], &record["handover"]) {
            (serde_json::Value::String(state), serde_json::Value::Null) => state.clone(),
            (serde_json::Value::String(_), _) => "handover".into(),
            _ => "none".into(),
        }
    }

    /// Waits until a domain is in `state` on one server, and the tree and all hypervisors agree on it; gives the server.
    #[track_caller]
    pub fn once(&self, domain: &str, state: &str) -> String {
        let mut seen = String::new();
        wait_for(&format!("{domain} {state} exactly once"), || {
            let copies = self.copies(domain);
            let shown = |row: &str| {
                self.tree.get(&format!("domains/{domain}/{row}")).unwrap_or_default().trim_end().to_owned()
            };
            let (is, server, job) = (shown("state"), shown("server"), shown("job"));
            let now = format!("copies {copies:?}, the tree says {is} on {server}, job {job:?}");
            if now != seen {
                seen = now;
                if std::env::var_os("XVM_TEST_VERBOSE").is_some() {
                    crate::say(&seen);
                }
            }
            (copies == [format!("{server} {state}")] && is == state && job == "none").then_some(server)
        })
    }
}

/// Counts the clusters of this process that have imaged: each has ports of its own.
static PORTS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Numbers of the `qemu-storage-daemon` processes whose command line holds `text`.
fn exporters(text: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("it is mounted");
    let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let is = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.starts_with("qemu-storage-daemon") && line.contains(text)
    };
    numbers.filter(is).collect()
}

fn bus(dir: &Path) -> String {
    format!("ipc://{}/bus", dir.display())
}

/// Where a lab's guests reach the forwarder: the address is the lab's own.
fn guests(address: &str) -> String {
    format!("{address}:5750")
}

/// Whether something of type `fuse.xvmfs` is mounted at `root`.
pub fn is_mounted(root: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let root = root.to_string_lossy();
    mounts.lines().any(|l| {
        let mut words = l.split(' ').skip(1);
        words.next() == Some(&root) && words.next() == Some("fuse.xvmfs")
    })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        let root = self.root();
        // what exports disks outlives imaged, and must not outlive the test
        drop(self.images.take());
        for pid in self.exporters() {
            // errors mean that it has ended
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if self.mount.is_alive() && !failing {
            self.mount.thaw();
            self.mount.stop();
        }
        let left = is_mounted(&root);
        if left {
            // nothing more can be done than this
            let _ = umount2(&root, MntFlags::MNT_DETACH);
        }
        if !failing {
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            self.calls.check(&test);
            assert!(!left, "xvmfs ended and left its mount");
        }
    }
}
