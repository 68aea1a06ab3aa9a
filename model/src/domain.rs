//! What is known of one domain: the record that travels in heartbeats and that the files of `domains/NAME` show.

use crate::{DomainName, Failure, Grant, GroupName, Ratio, ServerName, Wall};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $v:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $v,)* }

        impl $name {
            /// All of them, in the order of the table.
            pub const ALL: &'static [$name] = &[$($name::$v),*];

            /// The word that files and messages use.
            pub fn word(self) -> &'static str {
                match self { $($name::$v => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What a hypervisor says of a domain. The state machine is drawn in [`crate::lifecycle`].
    DomainState {
        /// Its vCPUs run.
        Running = "running",
        /// It has memory, and its vCPUs stand.
        Paused = "paused",
        /// A migration brings it here; it does not run here yet.
        Incoming = "incoming",
        /// Only its definition is there.
        Shutoff = "shutoff",
        /// It died by itself; only its definition is there.
        Crashed = "crashed",
    }
}

impl DomainState {
    /// Whether it has memory on this server: it counts for room, and only one server may say so.
    pub fn is_active(self) -> bool {
        matches!(self, DomainState::Running | DomainState::Paused)
    }
}

/// One virtual CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vcpu {
    /// The share of the last second in which it ran.
    pub load: Ratio,
    /// The physical CPU it ran on last, counted from 0; none while it stands or where the hypervisor does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u16>,
}

/// A domain's memory, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DomainMemory {
    /// What the definition allows at most.
    pub max: u64,
    /// What it has now (the balloon).
    pub current: u64,
    /// What it takes of the server's memory, where the hypervisor tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident: Option<u64>,
}

/// One disk, bytes counted since the domain's start on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// As the guest's definition names it: `vda`.
    pub name: Box<str>,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Its size in bytes, where the hypervisor tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
}

/// One network interface, bytes counted since the domain's start on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// As the server names it: `vnet0`.
    pub name: Box<str>,
    /// Bytes that the guest received.
    pub received: u64,
    /// Bytes that the guest sent.
    pub sent: u64,
}

words! {
    /// What goes on with a domain for longer than one command takes.
    JobKind {
        /// Its vCPUs come up.
        Start = "start",
        /// It was asked to power off.
        Shutdown = "shutdown",
        /// It was asked to start anew.
        Reboot = "reboot",
        /// It moves to another server while it runs.
        Migrate = "migrate",
        /// A config: its volumes and image are made.
        Create = "create",
        /// A config: its image is made anew.
        Rebuild = "rebuild",
        /// A config: its content is copied from another.
        Clone = "clone",
        /// A config: a volume changes its size.
        Resize = "resize",
        /// A config: something is written into its image.
        Set = "set",
        /// A server: all its domains move to others.
        Evacuate = "evacuate",
        /// A server: the domains that it gave away come back.
        Restore = "restore",
    }
}

/// A command that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The id of the command that began it: unique in a cluster.
    pub id: Box<str>,
    /// What goes on.
    pub kind: JobKind,
    /// What it is at, one word: `begin`, `copy`, `switch`, `ask`, `wait`.
    pub phase: Box<str>,
    /// 0 to 100; for a migration the share of memory that is over.
    pub percent: u8,
    /// Where a migration goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ServerName>,
    /// When it began.
    pub since: Wall,
    /// What it waits for, when that is worth a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Box<str>>,
}

/// How a job ended; `wait` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The id of the command that began the job.
    pub id: Box<str>,
    /// What it was.
    pub kind: JobKind,
    /// When it ended.
    pub at: Wall,
    /// One sentence: what is true now (`small-1 runs on gerby: 312 ms, down 40 ms`), or why it failed.
    pub result: Result<Box<str>, Failure>,
}

/// Where a domain may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pin(pub Vec<ServerName>);

impl Pin {
    /// No pin, or `server` is among the named.
    pub fn allows(&self, server: &ServerName) -> bool {
        self.0.is_empty() || self.0.contains(server)
    }
}

impl fmt::Display for Pin {
    /// The names with spaces between; `none` without a pin.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0.iter().map(ServerName::as_str))
    }
}

/// Groups of domains.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Groups(pub Box<[GroupName]>);

impl Groups {
    /// The first group that both name.
    pub fn common<'a>(&'a self, other: &Groups) -> Option<&'a GroupName> {
        self.0.iter().find(|group| other.0.contains(group))
    }

    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Groups {
    /// The names with spaces between; `none` without a group.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0.iter().map(GroupName::as_str))
    }
}

/// Names with spaces between, or `none`: the form of the settings that name many.
fn list<'a>(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'a str>) -> fmt::Result {
    let names: Vec<&str> = names.collect();
    f.write_str(if names.is_empty() { "none".to_owned() } else { names.join(" ") }.as_str())
}

/// How a domain came to its server: written before its migration begins, so that it travels with the domain. Where `from` is the
/// server that it is on, it never left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// Where it was before.
    pub from: ServerName,
    /// When it began to leave, by that server's clock.
    pub at: Wall,
    /// The round of help that moved it; none when somebody ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Box<str>>,
    /// Why, in a few words.
    pub why: Box<str>,
    /// When it had come to `from` because another server was overloaded, if it had: one that never left must not be moved on soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helped: Option<Wall>,
}

/// What is kept with a domain and travels with it: what users set, and how it came where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSettings {
    /// 0 to 100, 50 when nobody chose: the greater keeps the less loaded server.
    pub priority: u8,
    /// Where it may run.
    #[serde(default, skip_serializing_if = "Pin::is_none")]
    pub pin: Pin,
    /// Groups whose domains stay on one server: no round of help parts those that are together.
    #[serde(default, skip_serializing_if = "Groups::is_none")]
    pub with: Groups,
    /// Groups whose domains never come together on one server.
    #[serde(default, skip_serializing_if = "Groups::is_none")]
    pub apart: Groups,
    /// How it came to this server; none when it never moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came: Option<Box<Came>>,
    /// The lease under which it uses its volumes; none when it was not made from a config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Box<Grant>>,
}

impl Pin {
    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for DomainSettings {
    fn default() -> Self {
        DomainSettings {
            priority: 50,
            pin: Pin::default(),
            with: Groups::default(),
            apart: Groups::default(),
            came: None,
            grant: None,
        }
    }
}

/// One domain as the agent of one server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Unique in a cluster; two servers that claim one name for running domains are a conflict.
    pub name: DomainName,
    /// The hypervisor's own identity of it.
    pub uuid: Uuid,
    /// What the hypervisor says.
    pub state: DomainState,
    /// Why it is in that state, where the hypervisor tells: `io-error`, `by user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
    /// Why its hypervisor cannot move it while it runs, as the end of a sentence; none: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Box<str>>,
    /// The mean of its vCPUs' loads.
    pub load: Ratio,
    /// Its virtual CPUs.
    pub vcpus: Vec<Vcpu>,
    /// Its memory.
    pub memory: DomainMemory,
    /// Its disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Its network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
    /// What goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<Job>>,
    /// How the last job on this server ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Box<Outcome>>,
    /// What users set of it.
    #[serde(default, skip_serializing_if = "DomainSettings::is_default")]
    pub settings: DomainSettings,
}

impl DomainSettings {
    fn is_default(&self) -> bool {
        *self == DomainSettings::default()
    }
}

impl Domain {
    /// A shut off domain with one vCPU and no devices: the beginning of every hypervisor's record.
    pub fn new(name: DomainName, uuid: Uuid) -> Self {
        Domain {
            name,
            uuid,
            state: DomainState::Shutoff,
            reason: None,
            fixed: None,
            load: Ratio::ZERO,
            vcpus: vec![Vcpu { load: Ratio::ZERO, cpu: None }],
            memory: DomainMemory::default(),
            disks: Vec::new(),
            nics: Vec::new(),
            job: None,
            last: None,
            settings: DomainSettings::default(),
        }
    }
}

/// A domain that left a server by migration. The server goes on saying so for a minute, so that nobody misses how the job ended
/// nor where the domain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// The domain as the destination's hypervisor described it when it was asked after the migration.
    pub domain: Domain,
    /// Where it runs now.
    pub to: ServerName,
}

#[cfg(test)]
impl Domain {
    /// One that runs, with the load of each vCPU and the CPU that it is on.
    pub(crate) fn running(vcpus: &[(f64, Option<u16>)]) -> Domain {
        let mut d = Domain::new(DomainName::parse("d").expect("valid"), Uuid::nil());
        d.state = DomainState::Running;
        d.vcpus = vcpus.iter().map(|&(load, cpu)| Vcpu { load: Ratio::new(load), cpu }).collect();
        d
    }
}
