//! A real mount over the in-memory bus, in this process; it is gone when the value is dropped, also when a test panics.

use crate::agent::World;
use crate::guest::Guest;
use crate::images::Peer;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use xvm_bus::{Clock, Net};
use xvm_model::{Boot, Sender, Wall};
use xvmfs::{config::Config, run};

/// Says loudly why a test does not run here.
pub fn can_mount(test: &str) -> bool {
    let dev = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    if !dev {
        eprintln!("SKIP {test}: /dev/fuse is missing or cannot be opened");
    }
    dev
}

/// A cluster of three servers, and as many mounts of it as wanted.
pub struct Cluster {
    pub net: Net,
    pub world: World,
    clock: Clock,
    rt: tokio::runtime::Runtime,
}

pub const SERVERS: &[(&str, &[&str])] =
    &[("ferby", &["small-1", "small-2", "with space"]), ("gerby", &["small-3"]), ("herby", &["zwölf"])];

impl Cluster {
    pub fn new() -> Self {
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let entered = rt.enter();
        let (net, clock) = (Net::new(1), Clock::system());
        let world = World::new(&net, &clock, SERVERS);
        drop(entered);
        Cluster { net, world, clock, rt }
    }

    /// An imaged on kerby.
    pub fn images(&self) -> Peer {
        let _entered = self.rt.enter();
        Peer::new(&self.net, &self.clock)
    }

    /// A guestd in a domain.
    pub fn guest(&self, name: &str) -> Guest {
        let _entered = self.rt.enter();
        Guest::new(&self.net, &self.clock, name)
    }

    /// A guestd that says of each order which it can hear that it has done it; and how often it has.
    pub fn liar(&self, name: &str) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
        let _entered = self.rt.enter();
        crate::guest::liar(&self.net, &self.clock, name)
    }

    /// The same with a clock that is wrong.
    pub fn guest_with_clock(&self, name: &str, hours: i64) -> Guest {
        let _entered = self.rt.enter();
        let wall = self.clock.now().wall.0.saturating_add_signed(hours * 3_600_000);
        Guest::new(&self.net, &Clock::at(Wall(wall)), name)
    }

    pub fn mount(&self) -> Mount {
        self.mount_at(tempfile::tempdir().unwrap(), "rw")
    }

    pub fn mount_at(&self, dir: tempfile::TempDir, options: &str) -> Mount {
        let path = dir.path().canonicalize().unwrap();
        let args: Vec<OsString> =
            vec!["xvmfs".into(), "memory".into(), path.clone().into(), "-o".into(), options.into()];
        let config = Config::parse(args).unwrap();
        let sender = Sender::Client(config.client.clone());
        let bus = {
            let _entered = self.rt.enter();
            self.net.connect(sender, Boot(1), run::subscriptions(&config), self.clock.clone())
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let clock = self.clock.clone();
        let task = self.rt.spawn(async move {
            let told = move || ready.send(()).unwrap();
            run::serve(config, bus, clock, told, async { drop(stopped.await) }).await
        });
        let mount =
            Mount { path, stop: Some(stop), task: Some(task), rt: self.rt.handle().clone(), _dir: dir };
        is_ready.recv_timeout(Duration::from_secs(10)).expect("the mount is made");
        // the first view is there, and now all of it
        wait_for("all servers", || mount.list("servers").len() == SERVERS.len());
        mount
    }
}

pub struct Mount {
    pub path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
    rt: tokio::runtime::Handle,
    _dir: tempfile::TempDir,
}

impl Mount {
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        std::fs::write(self.at(name), text)
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.at(name)).unwrap();
        let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A shell command in the mount; it is killed when it takes longer than 20 s, which fails the test.
    pub fn sh(&self, script: &str) -> Output {
        let out = Command::new("timeout")
            .args(["-s", "KILL", "20", "bash", "-c", script])
            .current_dir(&self.path)
            .output()
            .unwrap();
        assert_ne!(out.status.code(), Some(137), "too slow: {script}");
        out
    }

    /// What it printed; it must succeed.
    pub fn shell(&self, script: &str) -> String {
        let out = self.sh(script);
        let (text, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{script}\n{text}\n{err}");
        text.into_owned()
    }

    /// Ends it, and says how that went.
    pub fn end(&mut self) -> anyhow::Result<()> {
        drop(self.stop.take());
        match self.task.take() {
            Some(task) => self.rt.block_on(task).unwrap(),
            None => Ok(()),
        }
    }

    /// How it ends by itself.
    pub fn ended(&mut self) -> anyhow::Result<()> {
        let task = self.task.take().unwrap();
        self.rt
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), task).await })
            .unwrap()
            .unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("{}: {e:#}", self.path.display());
        }
        if is_mounted(&self.path) {
            drop(xvmfs::mount::unmount(&self.path));
        }
    }
}

pub fn is_mounted(path: &Path) -> bool {
    xvmfs::mount::is_mounted(path)
}

pub fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !is() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(e) => e.raw_os_error().unwrap_or(-1),
    }
}
