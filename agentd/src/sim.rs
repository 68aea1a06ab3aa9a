//! The embedded simulated hypervisor: a server with CPUs and memory, and domains that want some of both, start, stop and move.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | what the server is |
//! | [`spec`] | a domain as a flag names it |
//! | [`demand`] | what a guest wants at a moment |
//! | `shares` | who gets how much of which CPU |
//! | `precopy` | the rounds of a migration |
//! | [`store`] | what outlives the process |
//! | `core`, `state` | all that changes, and the one way to change it |
//! | `sample` | loads, counters, records |
//! | `life` | start, pause, shutdown and the like |
//! | `create` | domains that are made from a config |
//! | `talk`, `wire` | what two of them say to each other, and how |
//! | `migrate_out`, `migrate_in`, `ask` | the two sides of a migration, and how its outcome is found out |
//! | [`faults`] | what goes wrong on request |
//!
//! A domain is a line in a file: with a state directory it runs on while this process is away, as QEMU's do while libvirtd is.
//!
//! `migrate` runs as a task of its own: who gives its call up does not end it. Past the point of return it returns only when it is
//! known which side has the domain, however long the other side takes to answer; until then the domain stands here (`paused`, reason
//! `asking HOST:PORT`) and nothing else can be done with it.

use crate::hypervisor::{Host, HvEvent, HvResult, Hypervisor, Moved, Progress, Way};
use async_trait::async_trait;
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};
use uuid::Uuid;
use xvm_model::{Domain, DomainName, DomainSettings, Grant, HypervisorKind, Ratio, Spec};

mod ask;
pub mod config;
mod core;
mod create;
pub mod demand;
pub mod faults;
mod life;
mod migrate_in;
mod migrate_out;
mod precopy;
mod sample;
mod shares;
pub mod spec;
mod state;
pub mod store;
mod talk;
mod wire;

pub use config::{SimConfig, SimError};
pub use demand::Demand;
pub use faults::{Fault, FaultError, FaultSpec};
pub use spec::{DomainSpec, SpecError};

/// A simulated hypervisor. Dropping it ends it, as if its process was killed.
#[derive(Debug)]
pub struct Sim {
    core: Arc<core::Core>,
}

/// Takes the address; when any port will do, the one of last time: others may have an answer out that they ask for there.
async fn bind(listen: SocketAddr, last: Option<u16>) -> std::io::Result<TcpListener> {
    if let (0, Some(port)) = (listen.port(), last)
        && let Ok(listener) = TcpListener::bind(SocketAddr::new(listen.ip(), port)).await
    {
        return Ok(listener);
    }
    TcpListener::bind(listen).await
}

impl Sim {
    /// Starts one: reads what is kept, listens for migrations, asks how unfinished hand-overs ended.
    pub async fn start(config: SimConfig) -> Result<Arc<Sim>, SimError> {
        let name = config.name.clone();
        config.check().map_err(|why| SimError::Config(name.clone(), why))?;
        let place = config.state.clone().unwrap_or_default();
        let (store, kept) =
            store::Store::open(config.state.as_deref()).map_err(|why| SimError::State(place, why))?;
        let no_socket = |e| SimError::Listen(config.listen, e);
        let listener = bind(config.listen, kept.as_ref().and_then(|k| k.port)).await.map_err(no_socket)?;
        let local = listener.local_addr().map_err(no_socket)?;
        let address = config.advertised(local);
        let core = core::Core::new(config, address, local.port(), store, kept)
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

    fn boots_files(&self) -> bool {
        false
    }

    async fn create(&self, spec: &Spec, _: &Path) -> HvResult<()> {
        self.core.ready().await?;
        self.core.create(spec)
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
        // what is simulated moves in one way
        way: &Way,
        grant: Option<&Grant>,
        progress: watch::Sender<Progress>,
    ) -> HvResult<Moved> {
        self.core.ready().await?;
        let out = migrate_out::Out::begin(&self.core, name, &way.address, grant, progress)?;
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
