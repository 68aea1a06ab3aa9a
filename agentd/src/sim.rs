//! The embedded simulated hypervisor.

use crate::hypervisor::{Host, HvError, HvEvent, HvResult, Hypervisor, Moved, Progress};
use async_trait::async_trait;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use xvm_model::{Domain, DomainName, DomainSettings, HypervisorKind, Ratio, ServerName};

pub mod demand;
pub mod faults;
pub mod spec;

pub use demand::Demand;
pub use faults::{Fault, FaultError, FaultSpec};
pub use spec::{DomainSpec, SpecError};

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
    /// The host name or address that others are told; without it that of `listen`.
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

/// A simulated hypervisor.
#[derive(Debug)]
pub struct Sim {}

impl Sim {
    /// Starts one: reads what is kept, listens for migrations, asks how unfinished hand-overs ended.
    pub async fn start(config: SimConfig) -> Result<Arc<Sim>, SimError> {
        drop(config);
        Ok(Arc::new(Sim {}))
    }

    /// Ends it as `kill -9` of its process would: nothing is said and nothing written any more. Returns when its port is free.
    pub async fn kill(&self) {}
}

#[async_trait]
impl Hypervisor for Sim {
    fn kind(&self) -> HypervisorKind {
        HypervisorKind::Sim
    }
    fn address(&self) -> String {
        String::new()
    }
    fn events(&self) -> Option<mpsc::Receiver<HvEvent>> {
        None
    }
    async fn host(&self) -> HvResult<Host> {
        Ok(Host::default())
    }
    async fn domains(&self) -> HvResult<Vec<Domain>> {
        Ok(Vec::new())
    }
    async fn domain(&self, _: &DomainName) -> HvResult<Option<Domain>> {
        Ok(None)
    }
    async fn start(&self, name: &DomainName) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn pause(&self, name: &DomainName) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn unpause(&self, name: &DomainName) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn shutdown(&self, name: &DomainName) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn reboot(&self, name: &DomainName) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn destroy(&self, name: &DomainName) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn migrate(&self, name: &DomainName, _: &str, _: watch::Sender<Progress>) -> HvResult<Moved> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn cancel_migration(&self, name: &DomainName) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn locate(&self, _: &str, _: &DomainName, _: Uuid) -> HvResult<Option<Domain>> {
        Ok(None)
    }
    async fn load(&self, name: &DomainName, _: Ratio, _: u32) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
    async fn set(&self, name: &DomainName, _: &DomainSettings) -> HvResult<()> {
        Err(HvError::NoDomain(name.clone()))
    }
}
