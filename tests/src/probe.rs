//! A reader that never rests: while something breaks it reads, lists and asks, and records how long each call took.

use crate::{Calls, tree::errno};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Runs until it is dropped or ended.
pub struct Probe {
    over: Arc<AtomicBool>,
    /// The milliseconds since `begun` at which the call that runs began; 0 between calls.
    since: Arc<AtomicU64>,
    begun: Instant,
    thread: Option<JoinHandle<BTreeMap<String, u64>>>,
}

impl Probe {
    /// Reads the tree at `root`, with a short rest after each round.
    pub fn start(root: &Path, calls: &Calls) -> Probe {
        let (root, calls) = (root.to_path_buf(), calls.clone());
        let (over, since, begun) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Instant::now());
        let (ended, running) = (over.clone(), since.clone());
        let thread = std::thread::spawn(move || {
            let mut errors = BTreeMap::new();
            let mut one = |what: &str, call: &dyn Fn() -> io::Result<()>| {
                let start = Instant::now();
                running.store((start - begun).as_millis() as u64 + 1, Relaxed);
                let result = call();
                running.store(0, Relaxed);
                calls.add(&format!("probe: {what}"), start.elapsed());
                if let Err(e) = result {
                    *errors.entry(errno(&e)).or_default() += 1;
                }
            };
            while !ended.load(Relaxed) {
                one("ls -l", &|| walk(&root, 3));
                one("statfs", &|| Ok(nix::sys::statvfs::statvfs(&root).map(drop)?));
                for file in ["status", "README", "metrics", "ctl", "error"] {
                    one(&format!("read {file}"), &|| fs::read_to_string(root.join(file)).map(drop));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            errors
        });
        Probe { over, since, begun, thread: Some(thread) }
    }

    /// Ends it; which errors there were and how often.
    pub fn end(mut self) -> BTreeMap<String, u64> {
        self.over.store(true, Relaxed);
        let thread = self.thread.take().expect("taken only here, which takes the probe");
        while !thread.is_finished() {
            let since = self.since.load(Relaxed);
            let now = self.begun.elapsed().as_millis() as u64;
            assert!(since == 0 || now < since + 15_000, "a call of the probe hangs");
            std::thread::sleep(Duration::from_millis(10));
        }
        thread.join().expect("the probe does not panic")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

/// Attributes of all, and the text of all files that do not block.
fn walk(dir: &Path, depth: u32) -> io::Result<()> {
    let names: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|e| e.path()).collect();
    for path in names {
        let about = match fs::symlink_metadata(&path) {
            Ok(about) => about,
            // it went while we looked
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let name = path.file_name().unwrap_or_default();
        if about.is_dir() && depth > 0 {
            match walk(&path, depth - 1) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        } else if about.is_file() && name != "events" && name != "wait" {
            match fs::read(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}
