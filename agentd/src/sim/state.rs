//! Everything of a simulated hypervisor that changes.

use super::{
    sample::Sample,
    store::{Kept, Record, Store},
};
use crate::hypervisor::{HvError, HvResult};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;
use uuid::Uuid;
use xvm_model::DomainName;

/// A domain on its way out.
#[derive(Debug, Clone)]
pub struct Leaving {
    /// The migration.
    pub session: Uuid,
    /// Whether it stands for the last round.
    pub stopped: bool,
    /// Whether a user cancelled it.
    pub cancelled: bool,
    /// Wakes the migration when that is so.
    pub cancel: Arc<Notify>,
}

/// A domain on its way in.
#[derive(Debug, Clone)]
pub struct Coming {
    /// The migration.
    pub session: Uuid,
    /// The hypervisor that it comes from.
    pub from: Uuid,
    /// The domain as it will be, paused.
    pub record: Record,
}

/// Everything that changes.
#[derive(Debug)]
pub struct State {
    /// What outlives the process.
    pub kept: Kept,
    /// Domains on their way out.
    pub leaving: BTreeMap<DomainName, Leaving>,
    /// Domains on their way in; a shut off one of the same identity may be in `kept` too.
    pub coming: BTreeMap<DomainName, Coming>,
    /// Loads and counters.
    pub sample: Sample,
    /// Where `kept` is kept.
    pub store: Store,
    /// Nothing changes any more.
    pub dead: bool,
}

impl State {
    /// With what was kept.
    pub fn new(kept: Kept, store: Store) -> Self {
        let (leaving, coming) = (BTreeMap::new(), BTreeMap::new());
        State { kept, leaving, coming, sample: Sample::default(), store, dead: false }
    }

    /// A domain that is here, whatever its state.
    pub fn record(&self, name: &DomainName) -> HvResult<&Record> {
        self.kept.domains.get(name).ok_or_else(|| HvError::NoDomain(name.clone()))
    }

    /// The same, for changes; refused while a migration runs, or nobody knows how one ended, or brings it.
    pub fn free_record(&mut self, name: &DomainName) -> HvResult<&mut Record> {
        if self.leaving.contains_key(name) {
            return Err(HvError::WrongState(format!(
                "its migration runs; wait for it or cancel it ({name})"
            )));
        }
        if self.coming.contains_key(name) {
            return Err(HvError::WrongState(format!("a migration brings {name} here")));
        }
        let r = self.kept.domains.get_mut(name).ok_or_else(|| HvError::NoDomain(name.clone()))?;
        match &r.handover {
            Some(h) => Err(HvError::WrongState(format!(
                "its migration to {} is not known to have ended; that hypervisor is asked until it answers",
                h.address
            ))),
            None => Ok(r),
        }
    }

    /// KiB that are promised to domains.
    pub fn taken(&self) -> u64 {
        let here = self.kept.domains.values().map(Record::taken);
        here.chain(self.coming.values().map(|c| c.record.memory)).fold(0, u64::saturating_add)
    }

    /// Whether `memory` KiB more fit in `total`.
    pub fn admit(&self, name: &DomainName, memory: u64, total: u64) -> HvResult<()> {
        let free = total.saturating_sub(self.taken());
        if memory <= free {
            return Ok(());
        }
        Err(HvError::NoRoom(format!("{name} needs {memory} KiB of memory; {free} of {total} KiB are free")))
    }
}
