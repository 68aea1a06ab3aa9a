//! The state of a simulated hypervisor, and the one way to change it.
//!
//! All that is kept changes in [`Core::change`]: under one lock, on disk before anybody hears of it, and back as it was when the disk
//! says no. So what others are told is never ahead of what a restart would find.

use super::{
    SimConfig,
    faults::{Fault, Faults},
    sample::Sample,
    store::{Kept, Record, Store},
};
use crate::hypervisor::{HvError, HvEvent, HvResult};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;
use xvm_model::DomainName;

/// News that nobody has fetched yet; beyond that news is lost, and the next [`crate::hypervisor::Hypervisor::domains`] tells.
const EVENTS: usize = 1_024;

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
    store: Store,
    /// Nothing changes any more.
    dead: bool,
}

impl State {
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

/// What all tasks of one simulated hypervisor share.
#[derive(Debug)]
pub struct Core {
    /// What it is.
    pub config: SimConfig,
    /// Where others reach it.
    pub address: String,
    /// What goes wrong.
    pub faults: Faults,
    /// Everything that changes. Never held across an await. A plain mutex: all that happens under it takes microseconds, but for the
    /// write of `sim.json`, which is rare and must be over before anything else happens.
    state: Mutex<State>,
    /// Where news goes.
    events: mpsc::Sender<HvEvent>,
    /// Where news comes out, until it is fetched.
    news: Mutex<Option<mpsc::Receiver<HvEvent>>>,
    /// The tasks that run: all end with the hypervisor.
    tasks: Mutex<JoinSet<()>>,
    /// When it started, on both clocks: the time of day goes on with tokio's time, also where a test holds that.
    started: (Instant, u64),
}

/// Milliseconds since 1970.
fn wall_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // every change is whole before the next call that could panic
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    /// With what was kept; `first` makes the domains when nothing was.
    pub fn new(
        config: SimConfig,
        address: String,
        store: Store,
        kept: Option<Kept>,
    ) -> Result<Self, HvError> {
        let (events, news) = mpsc::channel(EVENTS);
        let wall = wall_now();
        let first = kept.is_none();
        let state = State {
            kept: kept.unwrap_or_default(),
            leaving: BTreeMap::new(),
            coming: BTreeMap::new(),
            sample: Sample::default(),
            store,
            dead: false,
        };
        let core = Core {
            faults: Faults::new(&config.faults, config.state.as_deref()),
            address,
            state: Mutex::new(state),
            events,
            news: Mutex::new(Some(news)),
            tasks: Mutex::new(JoinSet::new()),
            started: (Instant::now(), wall),
            config,
        };
        if first {
            core.change(|st| {
                for spec in &core.config.domains {
                    let record = Record::new(spec, core.config.seed, wall);
                    st.admit(&spec.name, record.taken(), core.config.memory)?;
                    if st.kept.domains.insert(spec.name.clone(), record).is_some() {
                        return Err(HvError::Refused(format!("the domain {} is named twice", spec.name)));
                    }
                }
                Ok(())
            })?;
            // also without domains: that none were wanted is kept too
            let st = core.state();
            st.store.write(&st.kept).map_err(|e| HvError::Refused(e.to_string()))?;
        }
        core.tell(HvEvent::Up);
        Ok(core)
    }

    /// Milliseconds since 1970.
    pub fn wall(&self) -> u64 {
        self.started.1.saturating_add(self.started.0.elapsed().as_millis() as u64)
    }

    /// Everything, to be read, or for a change of what is not kept.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes what is kept, if `what` agrees and it can be written; otherwise nothing of it has changed.
    pub fn change<T>(&self, what: impl FnOnce(&mut State) -> HvResult<T>) -> HvResult<T> {
        let mut st = self.state();
        if st.dead {
            return Err(gone());
        }
        let before = st.kept.clone();
        let result = what(&mut st);
        if result.is_err() {
            st.kept = before;
        } else if st.kept != before
            && let Err(e) = st.store.write(&st.kept)
        {
            st.kept = before;
            return Err(HvError::NoRoom(format!("the state cannot be kept: {e}")));
        }
        result
    }

    /// Tells that something changed.
    pub fn tell(&self, event: HvEvent) {
        // when nobody fetches news there is nobody to miss it
        self.events.try_send(event).ok();
    }

    /// The same, for a domain.
    pub fn changed(&self, name: &DomainName) {
        self.tell(HvEvent::Changed(name.clone()));
    }

    /// The stream of news, once.
    pub fn news(&self) -> Option<mpsc::Receiver<HvEvent>> {
        lock(&self.news).take()
    }

    /// Runs a task that ends with the hypervisor.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        if !self.state().dead {
            tasks.spawn(task);
        }
    }

    /// What every call of the trait does first.
    pub async fn ready(&self) -> HvResult<()> {
        while self.faults.is_set(Fault::HangCalls) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.faults.take(Fault::HangCalls) {
            std::future::pending::<()>().await;
        }
        if self.state().dead { Err(gone()) } else { Ok(()) }
    }

    /// A place where a `die-` fault may end the hypervisor.
    pub fn step(&self, fault: Fault) -> HvResult<()> {
        if self.faults.take(fault) {
            if self.config.die {
                std::process::abort();
            }
            self.halt();
        }
        if self.state().dead { Err(gone()) } else { Ok(()) }
    }

    /// From now on nothing is written and no task goes on.
    pub fn halt(&self) {
        {
            let mut st = self.state();
            st.dead = true;
            st.store.close();
        }
        lock(&self.tasks).abort_all();
    }

    /// The same, and waits until all tasks and their sockets are gone.
    pub async fn kill(&self) {
        self.halt();
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
    }
}

/// The answer of a hypervisor that was ended.
pub fn gone() -> HvError {
    HvError::Unreachable("the simulated hypervisor has ended".into())
}
