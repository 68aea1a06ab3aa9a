//! The embedded simulated hypervisor: a server with CPUs and memory, and domains that want some of both, start, stop and move.
//!
//! | file | what |
//! |---|---|
//! | [`spec`] | a domain as a flag names it |
//! | [`demand`] | what a guest wants at a moment |
//! | `shares` | who gets how much of which CPU |
//! | `precopy` | the rounds of a migration |
//! | [`store`] | what outlives the process |
//! | `core` | the state, and the one way to change it |
//! | `sample` | loads, counters, records |
//! | `life` | start, pause, shutdown and the like |
//! | `wire` | what two of them say to each other |
//! | `migrate_out`, `migrate_in`, `ask` | the two sides of a migration, and how its outcome is found out |
//! | [`faults`] | what goes wrong on request |
//!
//! A domain is a line in a file: with a state directory it runs on while this process is away, as QEMU's do while libvirtd is.
//!
//! `migrate` runs as a task of its own: who gives its call up does not end it. Past the point of return it returns only when it is
//! known which side has the domain, however long the other side takes to answer; until then the domain stands here (`paused`, reason
//! `asking HOST:PORT`) and nothing else can be done with it.

use crate::hypervisor::{Host, HvEvent, HvResult, Hypervisor, Moved, Progress};
use async_trait::async_trait;
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};
use uuid::Uuid;
use xvm_model::{Domain, DomainName, DomainSettings, HypervisorKind, Ratio, ServerName};

mod ask;
mod core;
pub mod demand;
pub mod faults;
mod life;
mod migrate_in;
mod migrate_out;
mod precopy;
mod sample;
mod shares;
pub mod spec;
pub mod store;
mod wire;

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

/// A simulated hypervisor. Dropping it ends it, as if its process was killed.
#[derive(Debug)]
pub struct Sim {
    core: Arc<core::Core>,
}

/// Whether the numbers are in their ranges.
fn check(config: &SimConfig) -> Result<(), String> {
    if !(1..=4096).contains(&config.cpus) {
        return Err(format!("{} CPUs; allowed are 1 to 4096", config.cpus));
    }
    if config.memory == 0 || config.bandwidth == 0 || config.scale == 0 {
        return Err("memory, bandwidth and scale must be at least 1".into());
    }
    let mut names = BTreeSet::new();
    match config.domains.iter().find(|d| !names.insert(&d.name)) {
        Some(twice) => Err(format!("the domain {} is named twice", twice.name)),
        None => Ok(()),
    }
}

/// What others are told of a socket.
fn advertised(config: &SimConfig, local: SocketAddr) -> String {
    match &config.advertise {
        Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{}", local.port()),
        Some(host) => format!("{host}:{}", local.port()),
        None if local.ip().is_unspecified() => format!("{}:{}", config.name, local.port()),
        None => local.to_string(),
    }
}

impl Sim {
    /// Starts one: reads what is kept, listens for migrations, asks how unfinished hand-overs ended.
    pub async fn start(config: SimConfig) -> Result<Arc<Sim>, SimError> {
        let name = config.name.clone();
        check(&config).map_err(|why| SimError::Config(name.clone(), why))?;
        let place = config.state.clone().unwrap_or_default();
        let (store, kept) =
            store::Store::open(config.state.as_deref()).map_err(|why| SimError::State(place, why))?;
        let no_socket = |e| SimError::Listen(config.listen, e);
        let listener = TcpListener::bind(config.listen).await.map_err(no_socket)?;
        let address = advertised(&config, listener.local_addr().map_err(no_socket)?);
        let core = core::Core::new(config, address, store, kept)
            .map_err(|e| SimError::Config(name, e.to_string()))?;
        let core = Arc::new(core);
        core.spawn(migrate_in::listen(core.clone(), listener));
        let names: Vec<DomainName> = core.state().kept.domains.keys().cloned().collect();
        for name in &names {
            core.power_off_later(name);
        }
        ask::resume(&core);
        Ok(Arc::new(Sim { core }))
    }

    /// Ends it as `kill -9` of its process would: nothing is said and nothing written any more. Returns when its port is free.
    pub async fn kill(&self) {
        self.core.kill().await;
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.core.halt();
    }
}

#[async_trait]
impl Hypervisor for Sim {
    fn kind(&self) -> HypervisorKind {
        HypervisorKind::Sim
    }

    fn address(&self) -> String {
        self.core.address.clone()
    }

    fn events(&self) -> Option<mpsc::Receiver<HvEvent>> {
        self.core.news()
    }

    async fn host(&self) -> HvResult<Host> {
        self.core.ready().await?;
        Ok(self.core.host())
    }

    async fn domains(&self) -> HvResult<Vec<Domain>> {
        self.core.ready().await?;
        Ok(self.core.domains())
    }

    async fn domain(&self, name: &DomainName) -> HvResult<Option<Domain>> {
        self.core.ready().await?;
        Ok(self.core.domain(name))
    }

    async fn start(&self, name: &DomainName) -> HvResult<()> {
        self.core.ready().await?;
        self.core.boot(name)
    }

    async fn pause(&self, name: &DomainName) -> HvResult<()> {
        self.core.ready().await?;
        self.core.pause(name)
    }

    async fn unpause(&self, name: &DomainName) -> HvResult<()> {
        self.core.ready().await?;
        self.core.unpause(name)
    }

    async fn shutdown(&self, name: &DomainName) -> HvResult<()> {
        self.core.ready().await?;
        self.core.shutdown(name)
    }

    async fn reboot(&self, name: &DomainName) -> HvResult<()> {
        self.core.ready().await?;
        self.core.reboot(name)
    }

    async fn destroy(&self, name: &DomainName) -> HvResult<()> {
        self.core.ready().await?;
        self.core.destroy(name)
    }

    async fn migrate(
        &self,
        name: &DomainName,
        address: &str,
        progress: watch::Sender<Progress>,
    ) -> HvResult<Moved> {
        self.core.ready().await?;
        let out = migrate_out::Out::begin(&self.core, name, address, progress)?;
        let (done, outcome) = oneshot::channel();
        // nobody may wait any more; then the outcome is asked
        self.core.spawn(async move { drop(done.send(out.run().await)) });
        outcome.await.unwrap_or_else(|_| Err(core::gone()))
    }

    async fn cancel_migration(&self, name: &DomainName) -> HvResult<()> {
        self.core.ready().await?;
        self.core.cancel_migration(name)
    }

    async fn locate(&self, address: &str, name: &DomainName, uuid: Uuid) -> HvResult<Option<Domain>> {
        self.core.ready().await?;
        ask::locate(address, name, uuid).await
    }

    async fn load(&self, name: &DomainName, share: Ratio, seconds: u32) -> HvResult<()> {
        self.core.ready().await?;
        self.core.load(name, share, seconds)
    }

    async fn set(&self, name: &DomainName, settings: &DomainSettings) -> HvResult<()> {
        self.core.ready().await?;
        self.core.set(name, settings)
    }
}
