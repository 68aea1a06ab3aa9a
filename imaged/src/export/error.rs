//! Why a daemon does not serve what is wanted.

use std::{net::SocketAddr, path::PathBuf};

/// Why a daemon does not serve what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The key can name no daemon.
    #[error("cannot use {key:?} as the key of an export daemon: {why}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else listens on its port.
    #[error(
        "cannot serve {key} on {address}: the port is taken by another program; end that, or give {key} another port"
    )]
    PortTaken {
        /// Whose daemon.
        key: String,
        /// Where it should listen.
        address: SocketAddr,
    },
    /// The daemon did not come up.
    #[error("cannot start the export daemon of {key}: {why}")]
    Start {
        /// Whose daemon.
        key: String,
        /// In its own words.
        why: String,
    },
    /// It runs and does not answer. What it exports is not known.
    #[error("cannot reach the export daemon of {key}: {why}")]
    Silent {
        /// Whose daemon.
        key: String,
        /// What it was asked, and for how long.
        why: String,
    },
    /// It answered in time before, and is slow to take something. What was not wanted any more is gone.
    #[error("cannot export {what}: {why}")]
    Slow {
        /// The export or volume.
        what: String,
        /// What it was asked, and for how long.
        why: String,
    },
    /// It was killed and does not end (its disk does not answer). **Its volumes may still be written.**
    #[error(
        "cannot end the export daemon of {key}: process {pid} was killed and has not ended; its volumes may still be written until it does"
    )]
    Lives {
        /// Whose daemon.
        key: String,
        /// Its process.
        pid: i32,
    },
    /// The lock of the daemon is held, and no process looks like the daemon. **Its volumes may still be written.**
    #[error("cannot tell whether the export daemon of {key} runs: {} is locked by a process that is not to be found; `fuser -v` names it", lock.display())]
    Stray {
        /// Whose daemon.
        key: String,
        /// Its lock.
        lock: PathBuf,
    },
    /// One volume or export is not to be had.
    #[error("cannot export {what}: {why}")]
    Refused {
        /// The export or volume.
        what: String,
        /// In the words of who refused.
        why: String,
    },
    /// The run directory cannot be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}
