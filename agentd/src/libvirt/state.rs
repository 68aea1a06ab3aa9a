//! libvirt's states and reasons in xvm's words.
//!
//! ```text
//!   running, blocked, no state      ─▶ running
//!   in shutdown                     ─▶ running   "shutting down"
//!   paused, pmsuspended             ─▶ paused    (reason)
//!   paused for migration, coming in ─▶ incoming
//!   shut off                        ─▶ shutoff   (reason); after a crash ─▶ crashed
//!   crashed                         ─▶ crashed
//! ```

use virt::sys;
use xvm_model::DomainState;

/// States in which a domain can be started.
pub const OFF: &[u32] = &[sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_CRASHED];
/// States in which its vCPUs run. One that was asked to power off may be asked again; Xen gives an idle domain no state.
pub const ON: &[u32] =
    &[sys::VIR_DOMAIN_NOSTATE, sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_BLOCKED, sys::VIR_DOMAIN_SHUTDOWN];
/// States in which its vCPUs can be let go on.
pub const HELD: &[u32] = &[sys::VIR_DOMAIN_PAUSED];
/// States in which it has memory.
pub const ALIVE: &[u32] = &[
    sys::VIR_DOMAIN_NOSTATE,
    sys::VIR_DOMAIN_RUNNING,
    sys::VIR_DOMAIN_BLOCKED,
    sys::VIR_DOMAIN_SHUTDOWN,
    sys::VIR_DOMAIN_PAUSED,
    sys::VIR_DOMAIN_PMSUSPENDED,
    sys::VIR_DOMAIN_CRASHED,
];

/// Whether this is how a domain looks that a migration brings here, or one that stands still for the last moment of leaving; only the
/// job tells which (see [`super::sample`]).
pub fn migrating(state: u32, reason: u32) -> bool {
    state == sys::VIR_DOMAIN_PAUSED
        && matches!(
            reason,
            sys::VIR_DOMAIN_PAUSED_MIGRATION
                | sys::VIR_DOMAIN_PAUSED_STARTING_UP
                | sys::VIR_DOMAIN_PAUSED_POSTCOPY
        )
}

/// The state and why, from libvirt's numbers.
pub fn word(state: u32, reason: u32) -> (DomainState, Option<&'static str>) {
    match state {
        sys::VIR_DOMAIN_PAUSED => (DomainState::Paused, paused(reason)),
        sys::VIR_DOMAIN_SHUTDOWN => (DomainState::Running, Some("shutting down")),
        sys::VIR_DOMAIN_SHUTOFF if reason == sys::VIR_DOMAIN_SHUTOFF_CRASHED => (DomainState::Crashed, None),
        sys::VIR_DOMAIN_SHUTOFF => (DomainState::Shutoff, shutoff(reason)),
        sys::VIR_DOMAIN_CRASHED if reason == sys::VIR_DOMAIN_CRASHED_PANICKED => {
            (DomainState::Crashed, Some("panicked"))
        }
        sys::VIR_DOMAIN_CRASHED => (DomainState::Crashed, None),
        sys::VIR_DOMAIN_PMSUSPENDED => (DomainState::Paused, Some("suspended by the guest")),
        sys::VIR_DOMAIN_RUNNING => (DomainState::Running, running(reason)),
        _ => (DomainState::Running, None),
    }
}

/// Why a domain runs is only told where it is not as it should be.
fn running(reason: u32) -> Option<&'static str> {
    Some(match reason {
        sys::VIR_DOMAIN_RUNNING_CRASHED => "crashed",
        sys::VIR_DOMAIN_RUNNING_POSTCOPY => "post-copy migration",
        sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED => "post-copy migration failed",
        _ => return None,
    })
}

fn paused(reason: u32) -> Option<&'static str> {
    Some(match reason {
        sys::VIR_DOMAIN_PAUSED_USER => "by user",
        sys::VIR_DOMAIN_PAUSED_MIGRATION => "migration",
        sys::VIR_DOMAIN_PAUSED_SAVE => "save",
        sys::VIR_DOMAIN_PAUSED_DUMP => "dump",
        sys::VIR_DOMAIN_PAUSED_IOERROR => "io-error",
        sys::VIR_DOMAIN_PAUSED_WATCHDOG => "watchdog",
        sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT => "from snapshot",
        sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN => "shutting down",
        sys::VIR_DOMAIN_PAUSED_SNAPSHOT => "snapshot",
        sys::VIR_DOMAIN_PAUSED_CRASHED => "crashed",
        sys::VIR_DOMAIN_PAUSED_STARTING_UP => "starting up",
        sys::VIR_DOMAIN_PAUSED_POSTCOPY => "post-copy migration",
        sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => "post-copy migration failed",
        sys::VIR_DOMAIN_PAUSED_API_ERROR => "a call to the hypervisor failed",
        _ => return None,
    })
}

fn shutoff(reason: u32) -> Option<&'static str> {
    Some(match reason {
        sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => "shut down",
        sys::VIR_DOMAIN_SHUTOFF_DESTROYED => "destroyed",
        sys::VIR_DOMAIN_SHUTOFF_MIGRATED => "migrated",
        sys::VIR_DOMAIN_SHUTOFF_SAVED => "saved",
        sys::VIR_DOMAIN_SHUTOFF_FAILED => "start failed",
        sys::VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT => "from snapshot",
        sys::VIR_DOMAIN_SHUTOFF_DAEMON => "libvirt was started anew",
        _ => return None,
    })
}
