//! Domains that are off though libvirt would not know them if they were over: transient ones, where the hypervisor is not libvirt's own
//! child (Xen).
//!
//! ```text
//!   it ran ────────────────────────▶ starts anew ── 120 s ──▶ crashed
//!   the hypervisor has it ─────────▶ incoming ── it has it no more ──▶ left over ── 20 s ──▶ forgotten
//!   neither ───────────────────────▶ incoming ── 20 s ──▶ left over ── 150 s in all ──▶ forgotten
//! ```

use std::time::{Duration, Instant};
use xvm_model::DomainState;

/// How long a domain may take to start anew.
const ANEW: Duration = Duration::from_secs(120);
/// How long one that comes may be known to libvirt alone; and how long one whose half is gone is shown.
const COMES: Duration = Duration::from_secs(20);
/// One that the hypervisor never had may yet come when TCP connects at last.
const NEVER: Duration = Duration::from_secs(150);
/// What is left of a migration hither that broke off.
const LEFT: &str = "a migration that brought it broke off: it does not run here, and is forgotten soon";
/// The same, when libvirt would not forget it.
const STAYS: &str =
    "a migration that brought it broke off: it does not run here; to forget it, restart libvirtd here";

/// What is remembered of one; nothing, when it is as it should be.
#[derive(Debug, Clone, Default)]
pub struct Between {
    /// Since when libvirt alone knows it.
    since: Option<Instant>,
    /// The hypervisor had it, though it did not run: a migration brought it.
    half: bool,
    /// It is left over, and libvirt would not forget it.
    stays: bool,
}

impl Between {
    /// Whether it is known to libvirt alone.
    pub fn is(&self) -> bool {
        self.since.is_some()
    }

    /// It is off: what it is, and why. `ran`: when it was seen last, it ran here. `has`: the hypervisor has it.
    pub fn look(
        &mut self,
        ran: bool,
        has: impl FnOnce() -> bool,
        now: Instant,
    ) -> (DomainState, Option<&'static str>) {
        let mut time = || now.duration_since(*self.since.get_or_insert(now));
        if ran {
            return match time() < ANEW {
                true => (DomainState::Running, Some("starts anew")),
                false => (DomainState::Crashed, Some("it did not start anew")),
            };
        }
        if has() {
            (self.since, self.half) = (None, true);
            return (DomainState::Incoming, None);
        }
        if time() < COMES && !self.half {
            return (DomainState::Incoming, None);
        }
        (DomainState::Shutoff, Some(if self.stays { STAYS } else { LEFT }))
    }

    /// Whether libvirt should forget it, after a look that found it left over.
    pub fn is_over(&self, now: Instant) -> bool {
        let kept = if self.half { COMES } else { NEVER };
        !self.stays && self.since.is_some_and(|since| now.duration_since(since) >= kept)
    }

    /// libvirt would not forget it: that is told, and not tried again.
    pub fn stays(&mut self) {
        self.stays = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of one that is seen once a second from `from` to `to`; whether it is over at the end.
    fn watch(between: &mut Between, ran: bool, has: bool, from: u64, to: u64) -> (Vec<DomainState>, bool) {
        let begin = Instant::now();
        let mut states = Vec::new();
        let mut over = false;
        for second in from..to {
            let now = begin + Duration::from_secs(second);
            let (state, _) = between.look(ran, || has, now);
            over = state == DomainState::Shutoff && between.is_over(now);
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
        (states, over)
    }

    /// If this fails, the lease of a domain that starts anew is given back, or one that crashed is shown as running for ever.
    #[test]
    fn one_that_ran_starts_anew() {
        let mut between = Between::default();
        assert_eq!(watch(&mut between, true, false, 0, 120), (vec![DomainState::Running], false));
        assert!(between.is());
        let mut between = Between::default();
        let (states, over) = watch(&mut between, true, false, 0, 400);
        assert_eq!((states, over), (vec![DomainState::Running, DomainState::Crashed], false));
    }

    /// If this fails, libvirt loses a domain that is about to come, or what is left of one stays for ever.
    #[test]
    fn what_is_left_of_a_migration_is_over_some_time_later() {
        use DomainState::{Incoming, Shutoff};
        // it comes, however long that takes; then Xen has its half no more
        let mut between = Between::default();
        assert_eq!(watch(&mut between, false, false, 0, 10), (vec![Incoming], false));
        assert_eq!(watch(&mut between, false, true, 0, 1000), (vec![Incoming], false));
        assert!(!between.is());
        assert_eq!(watch(&mut between, false, false, 0, 20), (vec![Shutoff], false));
        assert!(watch(&mut between, false, false, 20, 22).1);
        // Xen never had it
        let mut between = Between::default();
        assert_eq!(watch(&mut between, false, false, 0, 150), (vec![Incoming, Shutoff], false));
        assert!(watch(&mut between, false, false, 150, 152).1);
        // libvirt would not forget it
        between.stays();
        let later = Instant::now() + NEVER * 2;
        assert_eq!(between.look(false, || false, later), (Shutoff, Some(STAYS)));
        assert!(!between.is_over(later));
    }
}
