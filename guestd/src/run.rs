//! One test as a process: started, heard, measured, ended.
//!
//! ```text
//!   start ──▶ runs ──┬─ it ends ───────────────────┬─▶ CPU time ─▶ the rest of its group is killed ─▶ reaped ─▶ End
//!                    ├─ cancelled: group killed ───┤                                                  │
//!                    └─ its time is over: killed ──┘                         what is left in its pipe, 1 s at most
//! ```
//!
//! The process is the first of a group of its own. That it has ended is known before it is reaped: so the number of its group is
//! nobody else's when the group is killed. Of what it prints the end is kept, however much it is.

mod last;

use crate::allowed::Program;
use crate::machine::process;
use last::Last;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use xvm_model::guest::queue::End;
use xvm_model::guest::{TEXT_MAX, tail};

/// How long the pipe of a test that has ended is read: a process that left its group may hold it for ever.
const REST: Duration = Duration::from_secs(1);
/// What is read of the pipe at once.
const PART: usize = 64 * 1024;
/// The kernel ends a test first when memory runs out, not what the guest is there for.
const OOM_SCORE: &str = "500";
/// Where programs are looked for by a test's program.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a test until it ends, `kill` is notified, or `limit` is over. A future that is dropped kills it.
pub async fn run(program: &Program, limit: Duration, kill: &Notify) -> End {
    let begun = Instant::now();
    let mut running = match Running::start(program) {
        Ok(running) => running,
        Err(error) => {
            let why = format!("cannot start {}: {error}", program.path.display());
            return End { wall_ms: 0, cpu_ms: 0, status: Err(short(&why)), output: "".into() };
        }
    };
    let (mut last, mut part) = (Last::default(), vec![0; PART]);
    let (mut cancelled, mut late, mut open) = (false, false, true);
    loop {
        tokio::select! {
            biased;
            () = ended(running.group, &mut running.deaths) => break,
            () = kill.notified(), if !cancelled => {
                cancelled = true;
                running.kill();
            }
            () = sleep_until(begun + limit), if !late => {
                late = true;
                running.kill();
            }
            n = running.pipe.read(&mut part), if open => match n {
                Ok(n) if n > 0 => last.put(&part[..n]),
                _ => open = false,
            },
        }
    }
    let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let cpu_ms = running.cpu_ms();
    let status = running.reap();
    let rest = async {
        while let Ok(n @ 1..) = running.pipe.read(&mut part).await {
            last.put(&part[..n]);
        }
    };
    // an error means that somebody still holds the pipe: what was read counts
    drop(timeout(REST, rest).await);
    let status = match status {
        _ if cancelled => Err("cancelled".into()),
        _ if late => {
            Err(format!("ended after {} s, the longest that a test may take", limit.as_secs()).into())
        }
        Ok(status) => exit(status),
        Err(error) => Err(short(&format!("how it ended is not known: {error}"))),
    };
    End { wall_ms, cpu_ms, status, output: tail(last.bytes()) }
}

fn exit(status: ExitStatus) -> Result<i32, Box<str>> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(code),
        (None, Some(signal)) => Err(format!("ended by signal {signal}").into()),
        (None, None) => Err("it ended without a status".into()),
    }
}

fn short(text: &str) -> Box<str> {
    process::shown(text, TEXT_MAX)
}

/// Waits until a process has ended; it is not reaped then.
async fn ended(process: Pid, deaths: &mut Signal) {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // an error means that there is nothing to wait for
    while let Ok(None) = waitid(WaitId::Pid(process), look) {
        deaths.recv().await;
    }
}

/// A process that runs, or has ended and is not reaped.
struct Running {
    child: Child,
    group: Pid,
    /// Tells when a process has ended, this or another.
    deaths: Signal,
    pipe: pipe::Receiver,
    reaped: bool,
}

impl Running {
    fn start(program: &Program) -> io::Result<Self> {
        // before it starts, so that no end is missed
        let deaths = signal(SignalKind::child())?;
        let (reader, writer) = io::pipe()?;
        let pipe = pipe::Receiver::from_owned_fd(reader.into())?;
        let mut command = Command::new(&program.path);
        command.args(&program.args).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").current_dir("/");
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        if let Some(name) = &program.name {
            command.arg0(name);
        }
        let child = command.spawn()?;
        // it holds the writing ends
        drop(command);
        // a process has a number above 0
        let group = Pid::from_child(&child);
        // where that is not allowed it is as likely to be ended as any other
        drop(std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE));
        Ok(Running { child, group, deaths, pipe, reaped: false })
    }

    /// Kills the whole group. Never called after the process was reaped.
    fn kill(&self) {
        // an error means that nobody is left
        let _ = kill_process_group(self.group, rustix::process::Signal::KILL);
    }

    /// CPU time of the process that has ended and of the children that it has waited for.
    fn cpu_ms(&self) -> u64 {
        let stat = std::fs::read(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let ticks = process::parse_stat(&stat).map_or(0, |s| s.ticks.saturating_add(s.children));
        ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1)
    }

    /// Ends what is left of the group, and reaps the process that has ended.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // who is not dead yet is reaped by init, when guestd has ended
            drop(self.child.try_wait());
        }
    }
}
