//! What two simulated hypervisors say to each other.
//!
//! ```text
//!   source                     destination        who asks              who is asked
//!   hello prepare ───────────▶                    hello locate ───────▶
//!          ◀──────── prepared or refused                 ◀───────────── located
//!   pages, pages ... ────────▶
//!   commit ──────────────────▶                    hello settle ───────▶
//!          ◀─────── committed or refused                 ◀───────────── settled or stranger
//!   forget ──────────────────▶                    forget ─────────────▶
//! ```

use super::{
    demand::Demand,
    spec::{MEMORY_MAX, VCPUS_MAX},
    store::Record,
};
use crate::hypervisor::HvError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xvm_model::{Domain, DomainName, DomainSettings, Ratio};

/// The version of this talk.
pub const VERSION: u32 = 1;
/// Most bytes of memory after one frame.
pub const PAGES_MAX: u32 = 1 << 20;

/// The first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`]; its odd name tells others' talk apart.
    pub xvm_sim: u32,
    /// What is wanted.
    pub ask: Ask,
}

/// What the one who connects wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// To bring a domain.
    Prepare(Box<Prepare>),
    /// To know whether this domain is there.
    Locate {
        /// Its name.
        name: DomainName,
        /// Its identity.
        uuid: Uuid,
    },
    /// To know whether a migration was committed; when it was not, it never will be.
    Settle {
        /// The hypervisor that is meant.
        host: Uuid,
        /// The migration.
        session: Uuid,
    },
}

/// A domain on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// The migration.
    pub session: Uuid,
    /// The hypervisor that it comes from.
    pub host: Uuid,
    /// Its name.
    pub name: DomainName,
    /// Its identity.
    pub uuid: Uuid,
    /// How many virtual CPUs.
    pub vcpus: u16,
    /// Its memory in KiB.
    pub memory: u64,
    /// What its guest wants.
    pub demand: Demand,
    /// What makes its wandering its own.
    pub key: u64,
    /// Bytes of memory that the running guest changes in a second.
    pub dirty: u64,
    /// Milliseconds after its start in which it wants all of its vCPUs.
    pub boot_ms: u64,
    /// Milliseconds that the guest takes to power off.
    pub shutdown_ms: u64,
    /// What users set.
    pub settings: DomainSettings,
    /// It is forgotten when it is off.
    #[serde(default)]
    pub transient: bool,
}

impl Prepare {
    /// The domain as it leaves.
    pub fn new(session: Uuid, host: Uuid, name: &DomainName, r: &Record) -> Self {
        Prepare {
            session,
            host,
            name: name.clone(),
            uuid: r.uuid,
            vcpus: r.vcpus,
            memory: r.memory,
            demand: r.demand.clone(),
            key: r.key,
            dirty: r.dirty,
            boot_ms: r.boot_ms,
            shutdown_ms: r.shutdown_ms,
            settings: r.settings.clone(),
            transient: r.transient,
        }
    }

    /// Whether all numbers are in their ranges.
    pub fn is_valid(&self) -> bool {
        (1..=VCPUS_MAX).contains(&self.vcpus)
            && (1..=MEMORY_MAX).contains(&self.memory)
            && self.demand.is_valid()
            && self.dirty <= 1 << 50
            && self.boot_ms.max(self.shutdown_ms) <= 86_400_000
            && self.settings.priority <= 100
    }
}

/// What a migration says after its first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Say {
    /// A piece of memory.
    Pages {
        /// What it stands for, in bytes.
        bytes: u64,
        /// Bytes that follow, at most [`PAGES_MAX`].
        len: u32,
    },
    /// All is sent, the domain stands at the source: it is the destination's when it says so.
    Commit(Commit),
    /// The source has forgotten the domain: nobody will ask for this migration again.
    Forget {
        /// The migration.
        session: Uuid,
    },
}

/// What changed while the memory was copied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// All bytes that the pages stood for.
    pub sent: u64,
    /// Whether it is to stay paused.
    pub paused: bool,
    /// Milliseconds since it booted. Not a time of day: the two servers' clocks may differ.
    pub age_ms: u64,
    /// The work that it was told to do, and for how many milliseconds more.
    pub busy: Option<(Ratio, u64)>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The domain may come.
    Prepared {
        /// The hypervisor that says so.
        host: Uuid,
    },
    /// It may not, or not any more.
    Refused(Refusal),
    /// It is ours.
    Committed,
    /// What is known of a domain.
    Located(Option<Box<Domain>>),
    /// Whether the migration was committed.
    Settled(bool),
    /// Another hypervisor is meant.
    Stranger,
}

/// Why a domain may not come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// There is no room.
    NoRoom(String),
    /// A domain of that name is in the way.
    Exists(String),
    /// Something else.
    Other(String),
}

impl From<Refusal> for HvError {
    fn from(r: Refusal) -> HvError {
        let short = |t: String| t.chars().take(500).collect();
        match r {
            Refusal::NoRoom(t) => HvError::NoRoom(short(t)),
            Refusal::Exists(t) => HvError::WrongState(short(t)),
            Refusal::Other(t) => HvError::Refused(short(t)),
        }
    }
}
