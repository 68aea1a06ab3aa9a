//! A new daemon: in a session of its own, so that nothing that ends imaged ends it; its lock as standard input, which it keeps for life;
//! its TCP socket made here. By itself it lets the kernel hold back small answers until the last one is acknowledged (Nagle's algorithm),
//! which cost each client 90 ms as it connected; connections inherit `TCP_NODELAY` from the socket that listens.

use super::{
    ADDING, DYING, ExportError, Key, Place,
    files::SOCKET,
    process::{self, Process},
    qmp::Qmp,
};
use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::ErrorKind,
    net::TcpListener,
    os::fd::OwnedFd,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{process::Child, time::Instant};

/// How much of the log an error shows, in bytes from its end.
const LOG: usize = 500;

/// Starts the daemon of `key`, which must not run, with no exports. Returns when it listens on its port and answers.
pub(super) async fn start(
    place: &Arc<Place>,
    key: &Key,
    port: u16,
    tls: bool,
) -> Result<Process, ExportError> {
    let arguments = place.arguments(key, port, tls)?;
    directory(&place.run)?;
    let lock = lock(place, key).await?;
    for kind in ["qmp", "pid"] {
        remove(&place.file(key, kind))?;
    }
    let listener = listen(place, key, port)?;
    let log_path = place.file(key, "log");
    remove(&log_path)?;
    let log = open(&log_path)?;

    // `sh` for the umask, as the daemon makes its socket for orders itself, and to give the listener its number; both words leave the
    // process its own
    let mut command = tokio::process::Command::new("sh");
    let script = format!("umask 077; exec setsid \"$@\" {SOCKET}>&1 1>&2");
    command.args(["-c", &script, "sh"]).arg(&place.program);
    command.args(arguments).current_dir("/");
    command.stdin(Stdio::from(lock)).stdout(Stdio::from(listener)).stderr(Stdio::from(log));
    let mut child = command.spawn().map_err(io("start", &place.program))?;
    drop(command); // our copies of the lock and the listener
    let came_up = comes_up(place, key, &mut child).await;
    if came_up.is_err() {
        let _gone = child.start_kill();
    }
    // whoever is its parent must take note of its end
    tokio::spawn(async move { child.wait().await });
    came_up
}

/// The socket for its clients.
fn listen(place: &Place, key: &Key, port: u16) -> Result<OwnedFd, ExportError> {
    let address = place.address(port);
    let listener = TcpListener::bind(address).map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => ExportError::PortTaken { key: key.to_string(), address },
        _ => ExportError::Start { key: key.to_string(), why: format!("cannot listen on {address}: {e}") },
    })?;
    if let Err(e) = rustix::net::sockopt::set_tcp_nodelay(&listener, true) {
        tracing::warn!("the clients of {key} are answered late: {e}");
    }
    Ok(listener.into())
}

async fn comes_up(place: &Arc<Place>, key: &Key, child: &mut Child) -> Result<Process, ExportError> {
    let until = Instant::now() + ADDING;
    let failed = |why: String| ExportError::Start { key: key.to_string(), why };
    loop {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            let ended = || format!("{} ended without a word", place.program.display());
            return Err(failed(said(place, key).unwrap_or_else(ended)));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let words = said(place, key).map(|words| format!(": {words}")).unwrap_or_default();
            return Err(failed(format!("it does not answer within {} s{words}", ADDING.as_secs())));
        }
        // it waits for this call, and answers when all of its command line is carried out
        if Qmp::connect(&place.file(key, "qmp"), left).await.is_ok()
            && let Some(found) = process::find(place, key).await?
        {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The end of its log, in one line; none when it is empty.
fn said(place: &Place, key: &Key) -> Option<String> {
    let bytes = std::fs::read(place.file(key, "log")).unwrap_or_default();
    let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG)..]).into_owned();
    // that it waits for its caller is no trouble
    let lines: Vec<_> = end.trim().lines().filter(|l| !l.contains("info: QEMU waiting for")).collect();
    let words = lines.join("; ");
    (!words.is_empty()).then_some(words)
}

/// The lock of a daemon that does not run. Somebody who only looks, or a child between fork and exec, may hold it for a moment.
async fn lock(place: &Place, key: &Key) -> Result<File, ExportError> {
    let path = place.file(key, "lock");
    let file = open(&path)?;
    let until = Instant::now() + DYING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(ExportError::Stray { key: key.to_string(), lock: path });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock", &path)(e)),
        }
    }
}

/// Removes the files of a daemon that has ended. Nobody else may start it meanwhile.
pub(super) fn sweep(place: &Place, key: &Key) -> Result<(), ExportError> {
    ["qmp", "pid", "log", "lock"].into_iter().try_for_each(|kind| remove(&place.file(key, kind)))
}

/// The run directory, for this user alone.
fn directory(path: &Path) -> Result<(), ExportError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("make", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io("close to others", path))
}

fn open(path: &Path) -> Result<File, ExportError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).append(true).mode(0o600).open(path).map_err(io("open", path))
}

fn remove(path: &Path) -> Result<(), ExportError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io("remove", path)(e)),
        _ => Ok(()),
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ExportError + use<> {
    let path = PathBuf::from(path);
    move |source| ExportError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::tcp_nodelay;

    /// If this fails, a guest's disk takes 90 ms more to open: daemons do not ask for it themselves.
    #[test]
    fn clients_are_answered_without_delay() {
        let place = Place { run: "/x".into(), listen: [127, 0, 0, 1].into(), program: "x".into(), tls: None };
        let key = Key::parse("a", &place).expect("a key");
        let listener = TcpListener::from(listen(&place, &key, 0).expect("any port"));
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
        let (served, _) = listener.accept().expect("it connects");
        assert_eq!(tcp_nodelay(&served), Ok(true));
        assert_eq!(tcp_nodelay(&client), Ok(false), "what this machine does by itself");
    }
}
