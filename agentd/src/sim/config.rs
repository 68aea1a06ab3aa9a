//! What a simulated hypervisor is, and why one does not start.

use super::{faults::FaultSpec, spec::DomainSpec};
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};
use xvm_model::ServerName;

/// What a simulated hypervisor is.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// The server's name, for sentences.
    pub name: ServerName,
    /// How many physical CPUs, 1 to 4096.
    pub cpus: u16,
    /// Its memory in KiB.
    pub memory: u64,
    /// Where it listens for migrations; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The host name or address that others are told; without it that of `listen`, or `name` when that is any address.
    pub advertise: Option<String>,
    /// The directory that keeps its state over restarts; without it the domains end with the process.
    pub state: Option<PathBuf>,
    /// The domains that are created when nothing is kept yet.
    pub domains: Vec<DomainSpec>,
    /// Bytes a second that one migration moves.
    pub bandwidth: u64,
    /// One byte on the wire stands for so many bytes of memory.
    pub scale: u32,
    /// Makes the domains' wandering repeat.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Vec<FaultSpec>,
    /// Whether the `die-` faults abort the whole process; otherwise only this hypervisor ends, as if killed.
    pub die: bool,
}

impl SimConfig {
    /// 4 CPUs, 16 GiB, no domains, nothing kept, a free port of the loopback, 1 GiB/s.
    pub fn new(name: ServerName) -> Self {
        SimConfig {
            name,
            cpus: 4,
            memory: 16 << 20,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            state: None,
            domains: Vec::new(),
            bandwidth: 1 << 30,
            scale: 16,
            seed: 0,
            faults: Vec::new(),
            die: false,
        }
    }
}

/// Why a simulated hypervisor does not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A number of the configuration is out of its range, or a domain twice.
    #[error("cannot start the simulated hypervisor {0}: {1}")]
    Config(ServerName, String),
    /// The socket cannot be had.
    #[error("cannot listen at {0} for migrations: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// What is kept cannot be read or written.
    #[error("cannot use the state directory {0}: {1}")]
    State(PathBuf, String),
}

impl SimConfig {
    /// Whether the numbers are in their ranges, and no domain is named twice.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=4096).contains(&self.cpus) {
            return Err(format!("{} CPUs; allowed are 1 to 4096", self.cpus));
        }
        if self.memory == 0 || self.bandwidth == 0 || self.scale == 0 {
            return Err("memory, bandwidth and scale must be at least 1".into());
        }
        let mut names = BTreeSet::new();
        match self.domains.iter().find(|d| !names.insert(&d.name)) {
            Some(twice) => Err(format!("the domain {} is named twice", twice.name)),
            None => Ok(()),
        }
    }

    /// What others are told of the socket `local`.
    pub(super) fn advertised(&self, local: SocketAddr) -> String {
        match &self.advertise {
            Some(host) if host.contains(':') && !host.starts_with('[') => {
                format!("[{host}]:{}", local.port())
            }
            Some(host) => format!("{host}:{}", local.port()),
            None if local.ip().is_unspecified() => format!("{}:{}", self.name, local.port()),
            None => local.to_string(),
        }
    }
}
