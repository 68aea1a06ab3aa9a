//! One of the workspace's programs as a process.

use crate::wait_for;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// A process that is ended with this value. What it writes goes to a file, and to standard error when the test fails.
pub struct Daemon {
    /// What messages call it, and the log's name.
    name: String,
    /// The file that runs.
    program: PathBuf,
    /// Its arguments, the same at each start.
    args: Vec<String>,
    /// Where its output goes, of all its lives.
    log: PathBuf,
    /// The process; none after it was ended.
    child: Option<Child>,
}

impl Daemon {
    /// Starts `program` of the workspace; its log is `NAME.log` in `dir`.
    pub fn start(name: &str, program: &str, args: &[&str], dir: &Path) -> Daemon {
        let mut daemon = Daemon {
            name: name.into(),
            program: crate::program::program(program),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            log: dir.join(format!("{name}.log")),
            child: None,
        };
        daemon.launch();
        daemon
    }

    /// Starts it after it was ended, with the same arguments.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log in the test's own folder");
        let twin = log.try_clone().expect("a descriptor more");
        // dies with the thread that started it, also when the test is killed
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.args);
        command.env("RUST_BACKTRACE", "1").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(log).stderr(twin);
        self.child = Some(command.spawn().expect("setpriv of util-linux starts programs"));
    }

    /// Adds arguments for the next [`Daemon::launch`].
    pub fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|a| (*a).to_owned()));
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        Pid::from_raw(i32::try_from(child.id()).expect("Linux's numbers fit"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|e| panic!("cannot send {signal} to {}: {e}", self.name));
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.end();
    }

    /// SIGTERM; it must end by itself with status 0.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let name = self.name.clone();
        let status = self.end();
        assert!(status.success(), "{name} ended with {status} after SIGTERM");
    }

    /// SIGSTOP: it is there and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGKILL, and a new life at once.
    pub fn kill_and_launch(&mut self) {
        self.kill();
        self.launch();
    }

    /// Waits for it to end by itself.
    pub fn end(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        wait_for(&format!("the end of {}", self.name), || child.try_wait().expect("our own child"))
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().expect("our own child").is_none())
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
            // errors mean that it has ended, which is what is wanted
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGTERM);
            let start = std::time::Instant::now();
            while matches!(child.try_wait(), Ok(None)) {
                if start.elapsed().as_secs() >= 5 {
                    drop(child.kill());
                    drop(child.wait());
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("---- the end of what {} wrote:\n{}", self.name, tail.join("\n"));
        }
    }
}
