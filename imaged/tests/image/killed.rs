//! A build in a process of its own, that is killed in the middle: this test program again, told so by its environment.

use crate::bench;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xvm_imaged::image::{self, Order, Stage};

/// Says which settings the child builds with, and where.
const TOLD: &str = "XVM_TEST_BUILD";

/// The child: does nothing in a usual run of the tests.
pub async fn child() {
    let Some(told) = std::env::var(TOLD).ok() else { return };
    let mut words = told.split('|');
    let mut next = || words.next().expect("directory|cache|mirror|settings");
    let (dir, cache, mirror) = (Path::new(next()), Path::new(next()), next());
    let pairs: Vec<(&str, &str)> = next().split(',').filter_map(|p| p.split_once('=')).collect();
    let config = bench::config(1, &pairs);
    let paths = bench::paths(dir, Some(cache));
    let mut site = image::Site::default();
    if !mirror.is_empty() {
        site.debian = image::Mirror { url: mirror.into(), security: None, ..site.debian };
    }
    let (progress, mut seen) = watch::channel(Stage::default());
    tokio::spawn(async move {
        while seen.changed().await.is_ok() {
            println!("stage {}", seen.borrow().phase);
        }
    });
    let name = bench::name("small-1");
    let (disk, log) = (bench::volume(dir, "disk", config.disk), dir.join("log"));
    let order = Order { build: "killed", name: &name, config: &config, disk: &disk, swap: None, log: &log };
    // a stage that is over in no time is seen all the same: it waits for the one who watches
    let done = image::build(&paths, &site, order, progress, CancellationToken::new()).await;
    println!("ended {done:?}");
}

/// Starts the child.
pub fn begin(dir: &Path, cache: &Path, mirror: &str, settings: &str) -> Build {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(TOLD, format!("{}|{}|{mirror}|{settings}", dir.display(), cache.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = child.stdout.take().expect("piped");
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|l| send.send(l)).ok();
    });
    Build { child, lines, log: dir.join("log") }
}

/// A child; it is killed with this.
pub struct Build {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: std::path::PathBuf,
}

impl Build {
    /// Waits until the log or the progress says it. False when the build has ended before.
    pub fn reached(&self, what: &str) -> bool {
        for _ in 0..60_000 {
            let logged = fs::read_to_string(&self.log).unwrap_or_default();
            if logged.contains(what) {
                return true;
            }
            match self.lines.recv_timeout(Duration::from_millis(5)) {
                Ok(line) if line.contains(what) => return true,
                Ok(line) if line.contains("ended ") => return false,
                Ok(_) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
        }
        panic!("waited 5 minutes for {what:?}");
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
