//! What is known of one server: the body of its heartbeat.

use crate::{Cpu, Departed, Domain, Job, Outcome, Platform, Ratio, Wall, domain::words};
use serde::{Deserialize, Serialize};

/// Milliseconds between two heartbeats when nobody chose.
pub const HEARTBEAT_DEFAULT_MS: u32 = 2_000;
/// The range of `servers/NAME/heartbeat`: 0.1 s to one minute.
pub const HEARTBEAT_RANGE_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// The settings of the overload counter (the rule of 2007): each unit of time in which all CPUs are at `threshold` or more and
/// at least one CPU serves more than one busy domain gives a point, each other unit takes one; at `limit` the server is overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// The load from which a CPU counts as full.
    pub threshold: Ratio,
    /// Points at which a server is overloaded, 1 to 1000.
    pub limit: u16,
    /// The unit of time in seconds, 1 to 3600.
    pub unit: u16,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog { threshold: Ratio::new(0.8), limit: 5, unit: 1 }
    }
}

words! {
    /// Who decides about moves; a table, so that a policy is one row.
    PolicyName {
        /// The counter of [`Watchdog`].
        Points = "points",
        /// Moves steady load where that saves the most CPU time, see [`crate::policy::adaptive`].
        Adaptive = "adaptive",
    }
}

words! {
    /// Whether servers help each other by themselves.
    BalanceMode {
        /// They do.
        On = "on",
        /// They do not; `evacuate` and `restore` work all the same.
        Off = "off",
        /// They negotiate and record who would have helped, and move nothing.
        DryRun = "dry-run",
    }
}

/// What the whole cluster was told about balancing. Each agent keeps it; of two the one with the later `at` is in force, and
/// whoever hears an older one says the newer, so that it reaches an agent that was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// What.
    pub mode: BalanceMode,
    /// When it was told, by the clock of who told it, and later than all that it knew of; 0 when nobody chose.
    pub at: Wall,
}

impl Default for Balance {
    fn default() -> Self {
        Balance { mode: BalanceMode::On, at: Wall(0) }
    }
}

impl Balance {
    /// Whether this one is in force beside `other`. Two that were told in the same millisecond: the more careful one.
    pub fn wins(&self, other: &Balance) -> bool {
        let care = |b: &Balance| match b.mode {
            BalanceMode::On => 0,
            BalanceMode::DryRun => 1,
            BalanceMode::Off => 2,
        };
        (self.at, care(self)) > (other.at, care(other))
    }
}

/// What users set of a server; its agent keeps it on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// Milliseconds between two heartbeats, see [`HEARTBEAT_RANGE_MS`].
    pub heartbeat_ms: u32,
    /// Whether it takes domains from others; `off` is shown as `maintenance`.
    pub accepting: bool,
    /// The overload counter.
    pub watchdog: Watchdog,
    /// The policy.
    pub policy: PolicyName,
    /// Whether `adaptive` also evens out servers that are below its upper threshold.
    pub even: bool,
    /// What the cluster was told about balancing.
    pub balance: Balance,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            heartbeat_ms: HEARTBEAT_DEFAULT_MS,
            accepting: true,
            watchdog: Watchdog::default(),
            policy: PolicyName::Points,
            even: true,
            balance: Balance::default(),
        }
    }
}

words! {
    /// Kinds of hypervisors. A domain moves only between servers of one kind.
    HypervisorKind {
        /// Embedded in agentd: simulated.
        Sim = "sim",
        /// libvirt's QEMU driver.
        Qemu = "qemu",
        /// libvirt's Xen driver (libxl).
        Xen = "xen",
        /// libvirt's test driver.
        Test = "test",
        /// Another driver of libvirt.
        Other = "other",
    }
}

/// A server's memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServerMemory {
    /// All that there is.
    pub total: u64,
    /// What a new domain could take.
    pub free: u64,
}

/// The whole state of a server, said at each heartbeat: nothing that this does not say is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What users set.
    pub settings: ServerSettings,
    /// The overload counter's value now.
    pub points: u16,
    /// Which hypervisor it is.
    pub hypervisor: HypervisorKind,
    /// Its processors, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Where other servers' hypervisors reach this one for a migration: a libvirt URI, or `host:port` for sim.
    pub address: Box<str>,
    /// Why the hypervisor is not heard, when it is not; `domains` is then what was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Box<str>>,
    /// The load of each physical CPU over the last second.
    pub cpus: Vec<Ratio>,
    /// Its memory.
    pub memory: ServerMemory,
    /// All domains that its hypervisor knows.
    pub domains: Vec<Domain>,
    /// What goes on with the server as a whole: an evacuation, a restoration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<Job>>,
    /// How the last job of the server as a whole ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Box<Outcome>>,
    /// Domains that left by migration during the last minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departed: Vec<Departed>,
}

impl Heartbeat {
    /// What its domains run on.
    pub fn platform(&self) -> Platform {
        Platform { hypervisor: self.hypervisor, cpu: self.cpu.clone() }
    }

    /// The mean load of all CPUs.
    pub fn load(&self) -> Ratio {
        Ratio::mean(self.cpus.iter().copied())
    }
}
