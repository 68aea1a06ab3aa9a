//! How a daemon begins: its name, its log, and the signals that end it.

use std::future::Future;
use std::io::{self, IsTerminal as _};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use xvm_model::ServerName;

/// Log lines go to standard error: those that the environment variable `XVM_LOG` names, else `usual`. Once in a process.
pub fn log(usual: &str) {
    let filter = EnvFilter::try_from_env("XVM_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
}

/// Ends with SIGTERM or SIGINT. Called first of all: a signal that comes while the rest starts must not be lost.
pub fn ending() -> io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

/// The name of this server: the flag's, or the host's. The error says how to give one.
pub fn server_name(flag: Option<&ServerName>) -> Result<ServerName, String> {
    if let Some(name) = flag {
        return Ok(name.clone());
    }
    let cannot = |why: String| format!("cannot use this machine's host name, {why}; give a name by --name");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_err(|e| cannot(format!("it is not known: {e}")))?;
    ServerName::parse(host.trim()).map_err(|e| cannot(e.to_string()))
}
