//! Going to the background, as mount(8) expects it of its helpers: the first process starts itself again in the foreground, waits
//! until that one says that the mount is made, and ends. So no process is forked that has threads.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};

/// What the second process says on stdout.
const READY: &str = "ready";

/// The first process: its exit status is that of the start. The second one's complaints go to the same stderr.
pub fn start() -> std::io::Result<ExitCode> {
    // by its own path, not /proc/self/exe: so ps(1) and pgrep(1) call it by its name
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--foreground", "--ready"])
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.trim() == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1).max(1)))
}

/// The second process: the mount is made, the terminal is let go.
pub fn ready() -> std::io::Result<()> {
    println!("{READY}");
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null.as_fd())?;
    nix::unistd::dup2_stderr(null.as_fd())?;
    // fails for the leader of a process group only, which then has its own already
    nix::unistd::setsid().map(drop).or(Ok(()))
}
