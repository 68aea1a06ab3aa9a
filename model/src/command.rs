//! Commands as values. Lines of `ctl` files become them by [`table`], what is written to files of settings by [`read`].

use crate::spec::Boot as SpecBoot;
use crate::{
    Balance, BalanceMode, ConfigCommand, ConfigName, Grant, Groups, Pin, PolicyName, Ratio, ServerName, Spec,
    domain::words,
};
use serde::{Deserialize, Serialize};

pub mod read;
pub mod table;

pub use read::{
    GROUPS_MAX, parse_accepting, parse_even, parse_groups, parse_heartbeat, parse_pin, parse_policy,
    parse_priority, parse_share, parse_watchdog, quote,
};
pub use table::{CLUSTER_VERBS, DOMAIN_VERBS, SERVER_VERBS, Verb, parse_line};

/// The longest line that a `ctl` file or a setting takes, in bytes without its end.
pub const LINE_MAX: usize = 4096;

words! {
    /// The word of a command to a domain.
    DomainWord {
        /// Boot a shut off domain.
        Start = "start",
        /// Stop the vCPUs.
        Pause = "pause",
        /// Let them go on.
        Unpause = "unpause",
        /// Ask the guest to power off.
        Shutdown = "shutdown",
        /// Ask the guest to start anew.
        Reboot = "reboot",
        /// Pull the plug.
        Destroy = "destroy",
        /// Move it.
        Migrate = "migrate",
        /// Give it work.
        Load = "load",
        /// Make it from a config, and boot it.
        Create = "create",
        /// Pull the plug of one that runs under a lease that is over.
        Fence = "fence",
        /// Get ready for it: it is about to arrive.
        Prepare = "prepare",
        /// End the job that runs.
        Cancel = "cancel",
        /// Set its priority (the file `priority`).
        Priority = "priority",
        /// Set where it may run (the file `pin`).
        Pin = "pin",
        /// Set the groups that it stays together with (the file `with`).
        With = "with",
        /// Set the groups that it stays apart from (the file `apart`).
        Apart = "apart",
    }
}

/// What is asked of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum DomainCommand {
    /// Boot it on the server that holds its definition.
    Start,
    /// Stop its vCPUs.
    Pause,
    /// Let its vCPUs go on.
    Unpause,
    /// Ask the guest to power off.
    Shutdown,
    /// Ask the guest to start anew.
    Reboot,
    /// Pull the plug.
    Destroy,
    /// Move it while it runs, or while it stands.
    Migrate {
        /// The destination; the sender chooses when its user did not.
        to: Option<ServerName>,
        /// The destination's [`crate::Heartbeat::address`]; the sender fills it in.
        #[serde(default)]
        address: Box<str>,
        /// Its vCPUs stand for the whole time: for what cannot be moved while it runs.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        paused: bool,
    },
    /// Work for its vCPUs.
    Load {
        /// How much of each vCPU.
        share: Ratio,
        /// For how long, 1 to 86400.
        seconds: u32,
    },
    /// Make it from a config, and boot it (a job; said by imaged). Refused when the server has a domain of that name.
    Create {
        /// What it is.
        spec: Box<Spec>,
    },
    /// Pull the plug, if it runs under the lease with this number: that is over, so it has no disk (said by imaged). One that runs under
    /// another lease is left alone, also when this order was long under way.
    Fence {
        /// The lease's number.
        epoch: u64,
    },
    /// Fetch what it boots from, and import its volumes where the hypervisor needs that: a migration is about to bring it (said by
    /// imaged). Done when all is there.
    Prepare {
        /// Its volumes.
        grant: Box<Grant>,
        /// What it boots from.
        boot: Option<Box<SpecBoot>>,
    },
    /// End the job that runs.
    Cancel,
    /// Set its priority, 0 to 100.
    Priority {
        /// The new value.
        value: u8,
    },
    /// Set where it may run.
    Pin {
        /// The new value.
        value: Pin,
    },
    /// Set the groups that it stays together with.
    With {
        /// The new value.
        value: Groups,
    },
    /// Set the groups that it stays apart from.
    Apart {
        /// The new value.
        value: Groups,
    },
}

impl DomainCommand {
    /// The command's word.
    pub fn word(&self) -> DomainWord {
        match self {
            Self::Start => DomainWord::Start,
            Self::Pause => DomainWord::Pause,
            Self::Unpause => DomainWord::Unpause,
            Self::Shutdown => DomainWord::Shutdown,
            Self::Reboot => DomainWord::Reboot,
            Self::Destroy => DomainWord::Destroy,
            Self::Migrate { .. } => DomainWord::Migrate,
            Self::Load { .. } => DomainWord::Load,
            Self::Create { .. } => DomainWord::Create,
            Self::Fence { .. } => DomainWord::Fence,
            Self::Prepare { .. } => DomainWord::Prepare,
            Self::Cancel => DomainWord::Cancel,
            Self::Priority { .. } => DomainWord::Priority,
            Self::Pin { .. } => DomainWord::Pin,
            Self::With { .. } => DomainWord::With,
            Self::Apart { .. } => DomainWord::Apart,
        }
    }
}

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum ServerCommand {
    /// Whether it takes domains from others.
    Accept {
        /// Yes or no.
        on: bool,
    },
    /// How often it says that it lives.
    Heartbeat {
        /// Milliseconds, see [`crate::HEARTBEAT_RANGE_MS`].
        ms: u32,
    },
    /// The overload counter (the file `watchdog`): what is none stays as it is.
    Watchdog {
        /// The counter's value itself.
        points: Option<u16>,
        /// See [`crate::Watchdog::threshold`].
        threshold: Option<Ratio>,
        /// See [`crate::Watchdog::limit`].
        limit: Option<u16>,
        /// See [`crate::Watchdog::unit`].
        unit: Option<u16>,
    },
    /// The policy (the file `policy`).
    Policy {
        /// The new value.
        name: PolicyName,
    },
    /// Whether `adaptive` evens out servers below its upper threshold (the file `even`).
    Even {
        /// Yes or no.
        on: bool,
    },
    /// What the whole cluster is told about balancing; one that is older than what the server knows changes nothing.
    Balance {
        /// The new value.
        balance: Balance,
    },
    /// Give all domains away, and accept none.
    Evacuate,
    /// Take the domains back that were given away, and accept domains.
    Restore,
    /// End the server's own job.
    Cancel,
    /// Look after what is imported: attach what domains here need and lack, detach what nobody uses.
    UpdateImports,
}

/// What is asked of the mount itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterCommand {
    /// Ask every daemon for a heartbeat now.
    RollCall,
    /// Whether servers help each other by themselves.
    Balance {
        /// The new value.
        mode: BalanceMode,
    },
    /// Something of a config that imaged is to make or bring back.
    Config {
        /// Which.
        name: ConfigName,
        /// What.
        command: ConfigCommand,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_travel() {
        let c = DomainCommand::Migrate {
            to: Some(ServerName::parse("herby").expect("ok")),
            address: "x:1".into(),
            paused: false,
        };
        let json = serde_json::to_string(&c).expect("json");
        assert_eq!(json, r#"{"do":"migrate","to":"herby","address":"x:1"}"#);
        assert_eq!(serde_json::from_str::<DomainCommand>(&json).expect("back"), c);
    }
}
