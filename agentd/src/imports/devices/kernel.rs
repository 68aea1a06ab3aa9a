//! The kernel's network block devices, `/dev/nbdN`: which there are, and which are connected to what.
//!
//! A connection is given to the kernel and belongs to no process: it stays when the agent ends, or when all that it has started is
//! ended with it.

use super::netlink::{self, Command, Link};
use crate::imports::negotiate::Opened;
use rustix::io::Errno;
use std::io;
use std::process::Stdio;
use std::time::Duration;

/// How many devices the module gets when it is loaded here.
const DEVICES: u32 = 64;
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long the kernel may take to let a device go.
const GONE: Duration = Duration::from_secs(10);
/// Who waits for a device whose connection is lost waits so long until it is an error, in seconds: a day.
const LOST_S: u64 = 86_400;
/// How much of a program's complaint an error shows, in characters.
const COMPLAINT: usize = 300;

/// `/dev/nbdN`.
pub(super) fn path(device: u32) -> String {
    format!("/dev/nbd{device}")
}

/// What a device is told that it is, and says of itself as long as it is connected.
fn identifier(export: &str) -> String {
    format!("xvm {export}")
}

/// The numbers of all devices, in order; none while the module is not loaded.
fn all() -> Vec<u32> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("nbd")?.parse().ok();
    let mut all: Vec<u32> = entries.filter_map(|e| number(e.file_name().to_str()?)).collect();
    all.sort_unstable();
    all
}

fn attribute(device: u32, name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/sys/block/nbd{device}/{name}")).ok()
}

/// Whether somebody has connected a device.
pub(super) fn connected(device: u32) -> bool {
    attribute(device, "pid").is_some()
}

/// Whether a device is connected to an export, and by xvm.
pub(super) fn is(device: u32, export: &str) -> bool {
    connected(device) && attribute(device, "backend").is_some_and(|b| b.trim_end() == identifier(export))
}

/// The devices that nobody has connected. The module is loaded when it is not.
pub(super) async fn free() -> Result<Vec<u32>, String> {
    if all().is_empty() {
        load().await?;
    }
    let all = all();
    let free: Vec<u32> = all.iter().copied().filter(|d| !connected(*d)).collect();
    if free.is_empty() {
        return Err(format!(
            "all {} network block devices are in use; the module nbd takes nbds_max=N",
            all.len()
        ));
    }
    Ok(free)
}

/// Loads the module.
async fn load() -> Result<(), String> {
    // partitions of a guest's disk are not the server's to look for
    let args = ["nbd", &format!("nbds_max={DEVICES}"), "max_part=0"];
    let mut command = tokio::process::Command::new("modprobe");
    command.args(args).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let out = tokio::time::timeout(LIMIT, command.output())
        .await
        .map_err(|_| format!("modprobe nbd did not end within {} s", LIMIT.as_secs()))?
        .map_err(|e| format!("modprobe does not run: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&out.stderr).trim().chars().take(COMPLAINT).collect();
    Err(format!("the kernel has no network block devices (its module nbd): {said}"))
}

/// What came of [`connect`].
pub(super) enum Connected {
    Done,
    /// Somebody else took the device at the same moment.
    Taken,
}

/// Connects a device to an export that was opened. A request that is not answered for `request` ends the connection, and waits with all
/// others for the next one, see [`reconnect`].
pub(super) async fn connect(
    device: u32,
    export: &str,
    to: &Opened,
    request: Duration,
) -> Result<Connected, String> {
    let link = Link {
        identifier: &identifier(export),
        socket: &to.socket,
        new: Some(netlink::New {
            size: to.size,
            flags: to.flags,
            request_s: request.as_secs().max(1),
            lost_s: LOST_S,
        }),
    };
    match netlink::order(Command::Connect, device, Some(link)).await {
        Ok(()) if is(device, export) => Ok(Connected::Done),
        Ok(()) => Err(format!(
            "{} does not say what it is connected to: this kernel is too old, Linux 5.14 or later does",
            path(device)
        )),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::BUSY) => Ok(Connected::Taken),
        Err(e) => Err(format!("{} cannot be connected: {e}", path(device))),
    }
}

/// Gives a device a new connection if it has lost its own; whoever uses it goes on. The kernel does not tell whether it had.
pub(super) async fn reconnect(device: u32, export: &str, to: &Opened) -> Result<(), String> {
    let link = Link { identifier: &identifier(export), socket: &to.socket, new: None };
    match netlink::order(Command::Reconfigure, device, Some(link)).await {
        Ok(()) => Ok(()),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => Err(format!(
            "somebody has disconnected {} while it is in use; it can be connected again when its domain is off",
            path(device)
        )),
        Err(e) => Err(format!("{} cannot be connected again: {e}", path(device))),
    }
}

/// Ends a device's connection, whoever uses it: their requests are errors from now on.
pub(super) async fn disconnect(device: u32) -> Result<(), String> {
    // one that is not connected is as good
    let said = netlink::order(Command::Disconnect, device, None).await;
    let gone = async {
        while connected(device) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(GONE, gone).await {
        Ok(()) => Ok(()),
        Err(_) => {
            let why = said.err().map_or_else(|| "somebody has it open".into(), |e: io::Error| e.to_string());
            Err(format!("{} cannot be let go: {why}", path(device)))
        }
    }
}
