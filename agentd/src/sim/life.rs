//! What users do to one domain: start, pause, unpause, shutdown, reboot, destroy, load, set.

use super::{
    core::Core,
    state::State,
    store::{Busy, Record},
};
use crate::hypervisor::{HvError, HvResult};
use std::{sync::Arc, time::Duration};
use xvm_model::{DomainName, DomainSettings, DomainState, Ratio};

/// Refuses what `record` is not in the right state for.
fn need(name: &DomainName, record: &Record, allowed: &[DomainState]) -> HvResult<()> {
    if allowed.contains(&record.state) {
        return Ok(());
    }
    let words: Vec<&str> = allowed.iter().map(|s| s.word()).collect();
    Err(HvError::WrongState(format!("{name} is {}; it must be {}", record.state, words.join(" or "))))
}

/// It is off; one that was made from a config is gone.
fn off(st: &mut State, name: &DomainName, why: &str) -> HvResult<()> {
    let record = st.free_record(name)?;
    if record.transient {
        st.kept.domains.remove(name);
        st.sample.forget(name);
        return Ok(());
    }
    record.state = DomainState::Shutoff;
    record.reason = Some(why.into());
    record.off_at = None;
    record.busy = None;
    Ok(())
}

impl Core {
    /// Changes one domain that is in one of the `allowed` states, and tells.
    fn alter<T>(
        &self,
        name: &DomainName,
        allowed: &[DomainState],
        how: impl FnOnce(&mut State) -> HvResult<T>,
    ) -> HvResult<T> {
        let done = self.change(|st| {
            need(name, st.free_record(name)?, allowed)?;
            how(st)
        })?;
        self.changed(name);
        Ok(done)
    }

    /// Boots a domain that is off: it runs at once.
    pub fn boot(&self, name: &DomainName) -> HvResult<()> {
        let wall = self.wall();
        self.alter(name, &[DomainState::Shutoff, DomainState::Crashed], |st| {
            st.admit(name, st.record(name)?.memory, self.config.memory)?;
            st.sample.forget(name);
            let r = st.free_record(name)?;
            (r.state, r.reason, r.booted) = (DomainState::Running, None, wall);
            Ok(())
        })
    }

    /// Stops the vCPUs.
    pub fn pause(&self, name: &DomainName) -> HvResult<()> {
        self.alter(name, &[DomainState::Running], |st| {
            let r = st.free_record(name)?;
            (r.state, r.reason) = (DomainState::Paused, Some("by user".into()));
            Ok(())
        })
    }

    /// Lets the vCPUs go on, and a guest that was powering off too.
    pub fn unpause(self: &Arc<Self>, name: &DomainName) -> HvResult<()> {
        self.alter(name, &[DomainState::Paused], |st| {
            let r = st.free_record(name)?;
            (r.state, r.reason) = (DomainState::Running, None);
            Ok(())
        })?;
        self.power_off_later(name);
        Ok(())
    }

    /// Asks the guest to power off; asking again changes nothing.
    pub fn shutdown(self: &Arc<Self>, name: &DomainName) -> HvResult<()> {
        let wall = self.wall();
        let asked = self.change(|st| {
            let r = st.free_record(name)?;
            need(name, r, &[DomainState::Running])?;
            let first = r.off_at.is_none();
            r.off_at = r.off_at.or(Some(wall.saturating_add(r.shutdown_ms)));
            Ok(first)
        })?;
        if asked {
            self.power_off_later(name);
        }
        Ok(())
    }

    /// Powers a guest off when its time has come, if it was asked to and still runs then.
    pub fn power_off_later(self: &Arc<Self>, name: &DomainName) {
        let due = self.state().kept.domains.get(name).and_then(|r| Some((r.off_at?, r.shutdown_ms)));
        let Some((at, longest)) = due else { return };
        // the time of day may have gone back over a restart
        let wait = Duration::from_millis(at.saturating_sub(self.wall()).min(longest));
        let (core, name) = (self.clone(), name.clone());
        self.spawn(async move {
            tokio::time::sleep(wait).await;
            let done = core.alter(&name, &[DomainState::Running], |st| {
                let r = st.free_record(&name)?;
                if r.off_at != Some(at) {
                    return Err(HvError::Cancelled);
                }
                off(st, &name, "shut down")
            });
            if let Err(e) = done {
                tracing::debug!("{name} does not power off: {e}");
            }
        });
    }

    /// The guest starts anew.
    pub fn reboot(&self, name: &DomainName) -> HvResult<()> {
        let wall = self.wall();
        self.alter(name, &[DomainState::Running], |st| {
            let r = st.free_record(name)?;
            (r.booted, r.busy, r.off_at) = (wall, None, None);
            Ok(())
        })
    }

    /// Pulls the plug.
    pub fn destroy(&self, name: &DomainName) -> HvResult<()> {
        self.alter(name, &[DomainState::Running, DomainState::Paused], |st| off(st, name, "destroyed"))
    }

    /// Makes the guest want `share` of each vCPU for so many seconds.
    pub fn load(&self, name: &DomainName, share: Ratio, seconds: u32) -> HvResult<()> {
        let until = self.wall().saturating_add(u64::from(seconds) * 1_000);
        self.alter(name, &[DomainState::Running], |st| {
            st.free_record(name)?.busy = Some(Busy { share, until });
            Ok(())
        })
    }

    /// Keeps what users set.
    pub fn set(&self, name: &DomainName, settings: &DomainSettings) -> HvResult<()> {
        self.change(|st| {
            st.free_record(name)?.settings = settings.clone();
            Ok(())
        })?;
        self.changed(name);
        Ok(())
    }

    /// Ends a migration that has not passed the point of return.
    pub fn cancel_migration(&self, name: &DomainName) -> HvResult<()> {
        let mut st = self.state();
        if st.record(name)?.handover.is_some() {
            return Err(HvError::WrongState(format!("the migration of {name} is past the point of return")));
        }
        match st.leaving.get_mut(name) {
            Some(leaving) => {
                leaving.cancelled = true;
                leaving.cancel.notify_one();
                Ok(())
            }
            None => Err(HvError::WrongState(format!("no migration of {name} runs"))),
        }
    }
}
