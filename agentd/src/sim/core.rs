//! The state of a simulated hypervisor, and the one way to change it.
//!
//! All that is kept changes in [`Core::change`]: under one lock, on disk before anybody hears of it, and back as it was when the disk
//! says no. So what others are told is never ahead of what a restart would find.

use super::{
    SimConfig,
    faults::{Fault, Faults},
    state::State,
    store::{Kept, Record, Store},
};
use crate::hypervisor::{HvError, HvEvent, HvResult};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use xvm_model::DomainName;

/// News that nobody has fetched yet; beyond that news is lost, and the next [`crate::hypervisor::Hypervisor::domains`] tells.
const EVENTS: usize = 1_024;

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
        port: u16,
        store: Store,
        kept: Option<Kept>,
    ) -> Result<Self, HvError> {
        let (events, news) = mpsc::channel(EVENTS);
        let wall = wall_now();
        let first = kept.is_none();
        let state = State::new(kept.unwrap_or_default(), store);
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
        core.change(|st| {
            st.kept.port = Some(port);
            // that no domains were wanted at the first start is kept too
            for spec in core.config.domains.iter().filter(|_| first) {
                let record = Record::new(spec, core.config.seed, wall);
                st.admit(&spec.name, record.taken(), core.config.memory)?;
                st.kept.domains.insert(spec.name.clone(), record);
            }
            Ok(())
        })?;
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
            && let Err(e) = st.store.write(&st.kept, st.kept.must_last(&before))
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
