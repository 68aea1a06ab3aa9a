//! How tools are run: in a mount, pid, UTS and IPC namespace of their own, that ends with them.
//!
//! What a tool mounts nobody else sees, and it is gone when the tool is. A tool dies with imaged, also by `kill -9`: the first process
//! asks the kernel for it (and looks whether imaged is still its parent, for it may have died before), and with the first process of
//! its pid namespace all others in it die. Every process has [`MARK`] in its environment, by which `sweep` finds what got away.

use super::{
    job::Log,
    nursery,
    tool::{Tool, Trouble, meaning},
};
use std::{
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

/// The environment variable that holds the directory of the build.
pub const MARK: &str = "XVM_BUILD";

/// What is kept of a tool's output, in bytes.
const KEPT: usize = 64 << 10;

/// setpriv's arguments: dies with its parent, which is the next argument's process.
const WITH_US: [&str; 6] =
    ["--pdeathsig", "KILL", "sh", "-c", r#"[ "$PPID" = "$1" ] || exit 125; shift; exec "$@""#, "sh"];

/// Namespaces of its own, and an end of all in them when their first process ends.
const ALONE: [&str; 11] = [
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--mount-proc",
    "--fork",
    "--kill-child=KILL",
    "--uts",
    "--ipc",
    "--",
];

/// How long the rest of a killed namespace may take to go.
const DEATH: Duration = Duration::from_secs(10);

/// Runs tools for one build.
pub struct Cage {
    /// The build's directory: where tools run, and where they make their temporary files.
    pub dir: PathBuf,
    /// Where their output goes besides.
    pub log: Option<Arc<Log>>,
    /// Ends them.
    pub cancel: CancellationToken,
}

impl Cage {
    /// Runs a tool to its end. The text is what it wrote, its end if that is much. When this future is dropped the tool is killed.
    pub async fn run(&self, tool: Tool) -> Result<String, Trouble> {
        if self.cancel.is_cancelled() {
            return Err(Trouble::Cancelled);
        }
        let name = tool.program;
        let failed = |e: io::Error| Trouble::Failed(format!("cannot run {name}: {e}"));
        let (source, write) = io::pipe().map_err(failed)?;
        let mut output = pipe::Receiver::from_owned_fd(source.into()).map_err(failed)?;
        if let Some(log) = &self.log {
            log.line(&tool.line());
        }
        let (limit, good) = (tool.limit, tool.good);
        let mut child = nursery::spawn(self.command(tool, write).map_err(failed)?).await.map_err(failed)?;

        let mut text = Vec::new();
        let mut reading = Box::pin(self.read(&mut output, &mut text));
        let mut read = false;
        let ended = {
            let ending = self.ending(&mut child, name, limit);
            tokio::pin!(ending);
            loop {
                tokio::select! {
                    ended = &mut ending => break ended,
                    () = &mut reading, if !read => read = true,
                }
            }
        };
        if ended.is_err() {
            child.start_kill().ok();
            tokio::time::timeout(DEATH, child.wait()).await.ok();
        }
        // the pipe ends when the last process of the namespace has: only then can its files be removed
        if !read {
            tokio::time::timeout(DEATH, &mut reading).await.ok();
        }
        drop(reading);
        let status = ended?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if status.code().is_some_and(|c| good.contains(&c)) {
            return Ok(text);
        }
        if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
            return Err(Trouble::NoSpace(format!("{name} could not write")));
        }
        Err(Trouble::Failed(format!("{name}: {}", meaning(&text).unwrap_or(&status.to_string()))))
    }

    /// Waits for the end of a tool, for its limit, or to be cancelled.
    async fn ending(&self, child: &mut Child, name: &str, limit: Duration) -> Result<ExitStatus, Trouble> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Trouble::Cancelled),
            ended = tokio::time::timeout(limit, child.wait()) => match ended {
                Ok(status) => status.map_err(|e| Trouble::Failed(format!("cannot wait for {name}: {e}"))),
                Err(_) => Err(Trouble::Failed(format!("{name} did not end within {} s", limit.as_secs()))),
            },
        }
    }

    /// Reads until all writers are gone.
    async fn read(&self, output: &mut pipe::Receiver, text: &mut Vec<u8>) {
        let mut part = vec![0; 16 << 10];
        while let Ok(n @ 1..) = output.read(&mut part).await {
            if let Some(log) = &self.log {
                log.write(&part[..n]);
            }
            text.extend_from_slice(&part[..n]);
            if text.len() > 2 * KEPT {
                text.drain(..text.len() - KEPT);
            }
        }
    }

    fn command(&self, tool: Tool, output: io::PipeWriter) -> io::Result<Command> {
        let mut command = Command::new("setpriv");
        command
            .args(WITH_US)
            .arg(std::process::id().to_string())
            .args(ALONE)
            .arg(tool.program)
            .args(&tool.args)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", &self.dir)
            .env("TMPDIR", &self.dir)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env(MARK, &self.dir)
            .envs(tool.env)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true);
        // a site's proxy serves the tools that fetch packages, and is written nowhere
        for key in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cage(dir: &tempfile::TempDir) -> Cage {
        Cage { dir: dir.path().to_owned(), log: None, cancel: CancellationToken::new() }
    }

    fn sh(script: &str) -> Tool {
        Tool::new("sh").args(["-c", script])
    }

    fn root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            println!("SKIP cage: needs root");
        }
        root
    }

    #[tokio::test]
    async fn what_a_tool_mounts_nobody_sees() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let cage = cage(&dir);
        let text =
            cage.run(sh("mkdir m; mount -t tmpfs xvmcage m; grep -c xvmcage /proc/self/mounts; echo $$"));
        assert_eq!(text.await.expect("runs"), "1\n1\n", "the mount, and the first process of its namespace");
        assert!(!std::fs::read_to_string("/proc/self/mounts").expect("mounts").contains("xvmcage"));
    }

    #[tokio::test]
    async fn the_end_of_a_tool_is_the_end_of_all_its_children() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let mut cage = cage(&dir);
        // output that stays open in a child would hold the reader: the namespace's end closes it
        let failed = cage.run(sh("sleep 1000 & echo 'cannot do it' >&2; exit 3")).await;
        assert!(matches!(&failed, Err(Trouble::Failed(why)) if why == "sh: cannot do it"), "{failed:?}");
        let late = cage.run(sh("sleep 1000 & sleep 1000").limit(Duration::from_millis(50))).await;
        assert!(matches!(&late, Err(Trouble::Failed(why)) if why.contains("did not end within")), "{late:?}");
        cage.cancel = CancellationToken::new();
        let cancel = cage.cancel.clone();
        let path = dir.path().join("begun");
        let canceller = tokio::spawn(async move {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        });
        let cancelled = cage.run(sh("setsid sleep 1000 & touch begun; wait")).await;
        assert!(matches!(cancelled, Err(Trouble::Cancelled)), "{cancelled:?}");
        canceller.await.expect("it ended");
        assert_eq!(crate::image::sweep::marked(dir.path()), Vec::<i32>::new(), "no process is left");
    }
}
