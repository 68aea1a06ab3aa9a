//! Other people's programs, with an end to their patience.

use crate::PATIENCE;
use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a program did.
#[derive(Debug)]
pub struct Done {
    /// Its exit status; 128 + signal as in a shell.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Done {
    /// The standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status == 0, "status {}: {}{}", self.status, self.out, self.err);
        self.out
    }
}

/// Runs a line of bash; `$1` and so on are `args`.
#[track_caller]
pub fn bash(line: &str, args: &[&str]) -> Done {
    let mut command = Command::new("bash");
    command.args(["-c", line, "bash"]).args(args);
    run(&mut command, 2 * PATIENCE)
}

/// Runs a program to its end; after `patience` it is killed and the test fails.
#[track_caller]
pub fn run(command: &mut Command, patience: Duration) -> Done {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || text(out));
    let err = std::thread::spawn(move || text(err));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break status;
        }
        if start.elapsed() > patience {
            let group = nix::unistd::Pid::from_raw(-i32::try_from(child.id()).expect("Linux's numbers fit"));
            let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
            drop(child.wait());
            panic!("{command:?} has not ended in {patience:?}; it wrote {:?} {:?}", out.join(), err.join());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Done {
        status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        out: out.join().expect("reading does not panic"),
        err: err.join().expect("reading does not panic"),
    }
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // what was read before an error is still worth showing
        drop(pipe.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
