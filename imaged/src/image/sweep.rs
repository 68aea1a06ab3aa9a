//! What a crash left. Called once, before the first build: then whatever is there belongs to nobody.

use super::{Paths, cage::MARK};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How the names of files begin that are not whole yet.
pub const TEMPORARY: &str = ".tmp.";

/// What was found and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes that were killed.
    pub processes: usize,
    /// Directories of builds, and files that were not whole.
    pub files: Vec<PathBuf>,
}

/// Ends the processes of earlier builds and removes their files. Bounded by 10 seconds besides the removal itself.
pub fn sweep(paths: &Paths) -> io::Result<Swept> {
    for dir in [&paths.cache, &paths.work, &paths.images, &paths.boot] {
        fs::create_dir_all(dir)?;
    }
    let mut swept = Swept::default();
    let work = fs::canonicalize(&paths.work)?;
    swept.processes = end_all(&work)?;
    for entry in fs::read_dir(&work)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
        swept.files.push(path);
    }
    for dir in [&paths.cache, &paths.boot] {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                fs::remove_file(entry.path())?;
                swept.files.push(entry.path());
            }
        }
    }
    Ok(swept)
}

/// Kills until none is left.
fn end_all(work: &Path) -> io::Result<usize> {
    let found = marked(work).len();
    let begin = Instant::now();
    loop {
        let left = marked(work);
        if left.is_empty() {
            return Ok(found);
        }
        if begin.elapsed() > Duration::from_secs(10) {
            let why = format!("processes of earlier builds do not end: {left:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        for pid in left {
            // gone by itself: as good
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that work for builds below a directory. Dead ones that wait to be reaped have no environment and do not count.
pub fn marked(work: &Path) -> Vec<i32> {
    let Ok(work) = fs::canonicalize(work) else { return Vec::new() };
    let mark = format!("{MARK}=");
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .filter_map(|p| p.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
            environment.split(|b| *b == 0).any(|var| {
                let value = var.strip_prefix(mark.as_bytes()).and_then(|v| std::str::from_utf8(v).ok());
                value.is_some_and(|v| Path::new(v).starts_with(&work))
            })
        })
        .collect()
}
