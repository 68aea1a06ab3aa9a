//! Migrations hither, which libxl's own processes receive.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A process of libxl that receives a domain: what it has read, and since when that has not changed.
static RECEIVERS: Mutex<BTreeMap<i32, (u64, Instant)>> = Mutex::new(BTreeMap::new());
/// After this silence the other end of a migration has gone.
const SILENT: Duration = Duration::from_secs(60);

/// Ends receivers that nothing has come to for a minute: the server that sent has lost power, say, which nobody tells libvirt's socket.
/// While one reads, its domain does not run here yet; ended, Xen forgets the half of it, and the domain is where it was.
pub fn sweep() {
    let mut known = RECEIVERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = Instant::now();
    let there: BTreeMap<i32, u64> = processes().filter_map(|pid| Some((pid, received(pid)?))).collect();
    known.retain(|pid, _| there.contains_key(pid));
    for (pid, bytes) in there {
        let (last, since) = known.entry(pid).or_insert((bytes, now));
        if *last != bytes {
            (*last, *since) = (bytes, now);
        } else if now.duration_since(*since) >= SILENT {
            tracing::warn!(
                pid,
                bytes,
                "nothing more comes of a domain that was to move here: it is given up"
            );
            end(pid);
            *since = now;
        }
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// The bytes that a process has read, when it is one of libxl's that receive a domain.
fn received(pid: i32) -> Option<u64> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|b| *b == 0);
    let name = words.next()?.rsplit(|b| *b == b'/').next()?;
    if name != b"libxl-save-helper" || words.next()? != b"--restore-domain" {
        return None;
    }
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|l| l.strip_prefix("rchar: ")?.parse().ok())
}

/// Ends a receiver, and nobody else who has got its number meanwhile.
fn end(pid: i32) {
    let handle = rustix::process::Pid::from_raw(pid)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    if let Some(handle) = handle.filter(|_| received(pid).is_some())
        && let Err(error) = rustix::process::pidfd_send_signal(handle, rustix::process::Signal::TERM)
    {
        tracing::warn!(pid, %error, "cannot end it");
    }
}
