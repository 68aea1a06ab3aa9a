//! What xvm needs of a hypervisor. [`crate::sim`] and [`crate::libvirt`] are siblings behind this trait; whatever is tested on one must
//! mean the same on the other.
//!
//! Calls may take long or never return: whoever calls them bounds them (see [`crate::driver`]). A call that was given up may still
//! take effect later, so its outcome is asked, never assumed.

use async_trait::async_trait;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use xvm_model::{
    Code, Cpu, Domain, DomainName, DomainSettings, Failure, Grant, HypervisorKind, Ratio, ServerMemory, Spec,
};

/// Why a hypervisor did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HvError {
    /// It cannot do this at all; the text says what works instead.
    #[error("{0}")]
    NotSupported(String),
    /// It knows no such domain.
    #[error("the hypervisor knows no domain {0}")]
    NoDomain(DomainName),
    /// The domain's state does not allow it.
    #[error("{0}")]
    WrongState(String),
    /// There is no room, in memory or on disk.
    #[error("{0}")]
    NoRoom(String),
    /// The job was cancelled by the user.
    #[error("cancelled")]
    Cancelled,
    /// It did not answer in time, or the connection broke: the outcome is unknown.
    #[error("{0}")]
    Unreachable(String),
    /// It said no, in its own words.
    #[error("{0}")]
    Refused(String),
}

impl HvError {
    /// As a refusal of `what` (`pause small-1`).
    pub fn failure(&self, what: &str) -> Failure {
        let code = match self {
            HvError::NotSupported(_) => Code::NotSupported,
            HvError::NoDomain(_) => Code::NoEntry,
            HvError::WrongState(_) => Code::Busy,
            HvError::NoRoom(_) => Code::NoSpace,
            HvError::Cancelled => Code::Busy,
            HvError::Unreachable(_) => Code::TimedOut,
            HvError::Refused(_) => Code::Io,
        };
        Failure::new(code, format!("cannot {what}: {self}"))
    }
}

/// What a call to a hypervisor gives.
pub type HvResult<T> = Result<T, HvError>;

/// The machine under the domains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// The load of each physical CPU since the last call.
    pub cpus: Vec<Ratio>,
    /// Its memory.
    pub memory: ServerMemory,
    /// Its processors, where the hypervisor tells.
    pub cpu: Option<Cpu>,
}

/// News that a hypervisor tells by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HvEvent {
    /// Something about this domain changed: ask again.
    Changed(DomainName),
    /// It is heard (again): ask for everything.
    Up,
    /// It is not heard, and why; domains run on.
    Down(String),
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The share of memory that is over, 0 to 100.
    pub percent: u8,
    /// Bytes that are over.
    pub sent: u64,
    /// Bytes that are still to come.
    pub remaining: u64,
}

/// What a finished migration took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// From begin to end, in milliseconds.
    pub total_ms: u64,
    /// How long the domain stood, in milliseconds, where the hypervisor tells.
    pub down_ms: Option<u64>,
}

/// Where and how a domain moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where the other hypervisor is.
    pub address: Box<str>,
    /// Its vCPUs stand meanwhile.
    pub paused: bool,
}

impl Way {
    /// To that hypervisor, while it runs.
    pub fn live(address: &str) -> Way {
        Way { address: address.into(), paused: false }
    }
}

/// One physical machine's hypervisor.
///
/// Records that it gives have no `job` and no `last`: those belong to the driver.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Which it is.
    fn kind(&self) -> HypervisorKind;

    /// Where other hypervisors of this kind reach it for a migration: `host:port`, or a libvirt URI.
    fn address(&self) -> String;

    /// The stream of news, once; `None` at further calls.
    fn events(&self) -> Option<mpsc::Receiver<HvEvent>>;

    /// The load since the last call, and memory.
    async fn host(&self) -> HvResult<Host>;

    /// All domains, with their load since the last call.
    async fn domains(&self) -> HvResult<Vec<Domain>>;

    /// One domain as it is now (its load may be that of the last [`Hypervisor::domains`]); `None` when it is not known.
    async fn domain(&self, name: &DomainName) -> HvResult<Option<Domain>>;

    /// Whether it boots domains from files of the server, so that these must be there before [`Hypervisor::create`], and before a
    /// migration brings one.
    fn boots_files(&self) -> bool {
        true
    }

    /// The directory in which it finds the exports of a lease as devices, each under its name, so that they must be there before
    /// [`Hypervisor::create`], and before a migration brings a domain; none when it opens exports itself.
    fn imports(&self) -> Option<PathBuf> {
        None
    }

    /// Makes a domain that is forgotten when it is off, and boots it; its settings are kept with it. `boot` is the directory with the
    /// files that it boots from. Refused when it knows a domain of that name or identity.
    async fn create(&self, spec: &Spec, boot: &Path) -> HvResult<()>;
    /// Boots a shut off domain.
    async fn start(&self, name: &DomainName) -> HvResult<()>;
    /// Stops the vCPUs.
    async fn pause(&self, name: &DomainName) -> HvResult<()>;
    /// Lets the vCPUs go on.
    async fn unpause(&self, name: &DomainName) -> HvResult<()>;
    /// Asks the guest to power off; returns when it was asked. Asking again does no harm.
    async fn shutdown(&self, name: &DomainName) -> HvResult<()>;
    /// Asks the guest to start anew; returns when it was asked.
    async fn reboot(&self, name: &DomainName) -> HvResult<()>;
    /// Pulls the plug; returns when the domain does not run any more.
    async fn destroy(&self, name: &DomainName) -> HvResult<()>;

    /// Moves a running or paused domain to another hypervisor; returns when that has ended one way or the other, and keeps
    /// `progress` fresh meanwhile. After an error the caller asks both sides where the domain is.
    ///
    /// With a `grant` it uses the volumes there by those exports, and the grant is kept with it in place of the one that it has here.
    async fn migrate(
        &self,
        name: &DomainName,
        way: &Way,
        grant: Option<&Grant>,
        progress: watch::Sender<Progress>,
    ) -> HvResult<Moved>;

    /// Ends a running migration; its [`Hypervisor::migrate`] then returns [`HvError::Cancelled`], or its success when it was too late.
    async fn cancel_migration(&self, name: &DomainName) -> HvResult<()>;

    /// Asks the hypervisor at `address` for a domain.
    async fn locate(&self, address: &str, name: &DomainName, uuid: Uuid) -> HvResult<Option<Domain>>;

    /// Makes the guest work; [`HvError::NotSupported`] where that needs an agent in the guest.
    async fn load(&self, name: &DomainName, share: Ratio, seconds: u32) -> HvResult<()>;

    /// Keeps what users set with the domain, so that it travels with it.
    async fn set(&self, name: &DomainName, settings: &DomainSettings) -> HvResult<()>;
}
