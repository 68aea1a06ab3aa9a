//! A daemon under measurement: started from the folder of this program, ended when dropped.

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running daemon.
pub struct Process {
    child: Child,
    /// Its name, for sentences.
    name: String,
    /// What it wrote to standard error.
    log: PathBuf,
}

/// A program that was built beside this one.
pub fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is missing; `make bench` builds it", path.display());
    Ok(path)
}

impl Process {
    /// Starts `program`; its words go to a file in `dir`.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = tempfile::Builder::new().prefix(&name).suffix(".log").tempfile_in(dir)?.keep()?.1;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { child, name, log })
    }

    /// An error with its last words when it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let words = std::fs::read_to_string(&self.log).unwrap_or_default();
            anyhow::bail!("{} ended ({status}): {}", self.name, words.trim());
        }
        Ok(())
    }

    /// Seconds of CPU that it has used.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("/proc/PID/stat has another form")?;
        let second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        Ok((user + system) / second)
    }

    /// Bytes of memory that it has.
    pub fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A FUSE mount that a daemon serves. The daemon ends first, then what it left is taken away.
pub struct Mount {
    /// Who serves it.
    pub process: Process,
    /// Where.
    pub path: PathBuf,
}

impl Drop for Mount {
    fn drop(&mut self) {
        nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}
