//! Real daemons: a forwarder, simulated agents, a mount.

use crate::{
    process::{Mount, Process, sibling},
    stats::wait_for,
};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// How long a daemon may take to be there.
pub const SOON: Duration = Duration::from_secs(10);

/// A forwarder and a place for files.
pub struct Cluster {
    /// The forwarder.
    pub forwarder: Process,
    /// Its address, as daemons are told.
    pub endpoint: String,
    /// Files of this run; gone with it.
    pub dir: TempDir,
}

/// Two free ports of the loopback, one after the other.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0")?;
        let port = first.local_addr()?.port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no two free ports one after the other")
}

impl Cluster {
    /// Starts a forwarder.
    pub fn start() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("xvm-bench-")?;
        let endpoint = format!("127.0.0.1:{}", free_port()?);
        let forwarder =
            Process::start(&sibling("xvm-forwarder")?, [format!("tcp://{endpoint}")], dir.path())?;
        Ok(Cluster { forwarder, endpoint, dir })
    }

    /// A file or directory of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a simulated server with these domains.
    pub fn agent(&self, name: &str, domains: &[String]) -> anyhow::Result<Process> {
        let state = self.file(name);
        std::fs::create_dir(&state)?;
        let mut args = vec![
            "--name".into(),
            name.into(),
            "--forwarder".into(),
            self.endpoint.clone(),
            "--state".into(),
            state.display().to_string(),
        ];
        for domain in domains {
            args.extend(["--domain".into(), domain.clone()]);
        }
        Process::start(&sibling("agentd")?, args, self.dir.path())
    }

    /// Mounts the tree.
    pub fn mount(&self) -> anyhow::Result<Mount> {
        let path = self.file("xvm");
        std::fs::create_dir(&path)?;
        let args = [self.endpoint.clone(), path.display().to_string(), "-f".into()];
        let process = Process::start(&sibling("xvmfs")?, &args, self.dir.path())?;
        mounted(process, path, "servers")
    }

    /// Mounts the empty file, see [`crate::empty`].
    pub fn empty(&self) -> anyhow::Result<Mount> {
        let path = self.file("empty");
        std::fs::create_dir(&path)?;
        let args = ["--empty".into(), path.display().to_string()];
        let process = Process::start(&std::env::current_exe()?, args, self.dir.path())?;
        mounted(process, path, crate::empty::FILE)
    }
}

/// Waits until `file` of a mount is there.
fn mounted(process: Process, path: PathBuf, file: &str) -> anyhow::Result<Mount> {
    let mut mount = Mount { process, path };
    let what = format!("{} at {}", file, mount.path.display());
    wait_for(&what, SOON, || {
        if let Err(e) = mount.process.check() {
            return Some(Err(e));
        }
        mount.path.join(file).exists().then_some(Ok(()))
    })??;
    Ok(mount)
}

/// Waits until a file is there and can be read.
pub fn readable(file: &Path) -> anyhow::Result<()> {
    wait_for(&file.display().to_string(), SOON, || std::fs::read(file).ok().filter(|t| !t.is_empty()))?;
    Ok(())
}
