//! The kernel's network block devices, `/dev/nbdN`: which there are, which are connected, and nbd-client(8), which connects them.
//!
//! A connection is given to the kernel and belongs to no process: it stays when the agent ends, or when all that it has started is
//! ended with it.

use std::{process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

/// How many devices the module gets when it is loaded here.
const DEVICES: u32 = 64;
/// How long a program may take: a server that does not answer makes nbd-client wait.
const LIMIT: Duration = Duration::from_secs(15);
/// How long a device may take to answer for its first block.
const READ: Duration = Duration::from_secs(10);
/// How long the kernel may take to let a device go.
const GONE: Duration = Duration::from_secs(10);
/// A request that was not answered for so long, in seconds, is an error for who made it, and ends the connection.
const REQUEST_S: u32 = 60;
/// How much of a program's complaint an error shows, in characters.
const COMPLAINT: usize = 300;

/// Runs a program for at most `limit`; the error is what it complains of.
async fn run(limit: Duration, program: &str, args: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let out = timeout(limit, command.output())
        .await
        .map_err(|_| format!("{program} did not end within {} s", limit.as_secs()))?
        .map_err(|e| format!("{program} does not run: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last: String =
        said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("").chars().take(COMPLAINT).collect();
    Err(if last.is_empty() {
        format!("{program} ended with {}", out.status)
    } else {
        format!("{program}: {last}")
    })
}

/// `/dev/nbdN`.
pub(super) fn path(device: u32) -> String {
    format!("/dev/nbd{device}")
}

/// The numbers of all devices, in order; none while the module is not loaded.
fn all() -> Vec<u32> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("nbd")?.parse().ok();
    let mut all: Vec<u32> = entries.filter_map(|e| number(e.file_name().to_str()?)).collect();
    all.sort_unstable();
    all
}

/// The process that connected a device, which may have ended since; none when it is not connected.
pub(super) fn connected(device: u32) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/block/nbd{device}/pid")).ok()?.trim().parse().ok()
}

/// A device's bytes.
pub(super) fn size(device: u32) -> Option<u64> {
    let sectors = std::fs::read_to_string(format!("/sys/block/nbd{device}/size")).ok()?;
    Some(sectors.trim().parse::<u64>().ok()? * 512)
}

/// The devices that nobody has connected. The module is loaded when it is not.
pub(super) async fn free() -> Result<Vec<u32>, String> {
    if all().is_empty() {
        let devices = format!("nbds_max={DEVICES}");
        // partitions of a guest's disk are not the server's to look for
        run(LIMIT, "modprobe", &["nbd", &devices, "max_part=0"]).await?;
    }
    let all = all();
    let free: Vec<u32> = all.iter().copied().filter(|d| connected(*d).is_none()).collect();
    if free.is_empty() {
        return Err(format!(
            "all {} network block devices are in use; the module nbd takes nbds_max=N",
            all.len()
        ));
    }
    Ok(free)
}

/// Connects a device; the process that did it.
pub(super) async fn attach(device: u32, host: &str, port: u16, export: &str) -> Result<u32, String> {
    if host.starts_with('-') {
        return Err(format!("{host:?} is no host"));
    }
    let (port, request) = (port.to_string(), REQUEST_S.to_string());
    let args = ["-N", export, host, &port, &path(device), "-timeout", &request];
    run(LIMIT, "nbd-client", &args).await?;
    connected(device).ok_or_else(|| format!("{} is not connected although nbd-client says so", path(device)))
}

/// Ends a device's connection, whoever uses it: their requests are errors from now on.
pub(super) async fn detach(device: u32) -> Result<(), String> {
    // one that is not connected is as good
    let said = run(LIMIT, "nbd-client", &["-d", &path(device)]).await;
    let gone = async {
        while connected(device).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(GONE, gone).await {
        Ok(()) => Ok(()),
        Err(_) => {
            let why = said.err().unwrap_or_else(|| "the kernel keeps it connected".into());
            Err(format!("{} cannot be let go: {why}", path(device)))
        }
    }
}

/// Whether what a device is connected to answers: its first block is read, not from memory.
pub(super) async fn answers(device: u32) -> bool {
    let from = format!("if={}", path(device));
    run(READ, "dd", &[&from, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"]).await.is_ok()
}
