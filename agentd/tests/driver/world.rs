//! Several servers' hypervisors in one value: the truth that the tests compare with, and calls that are slow, fail, lie or hang by a
//! seed. Unlike the simulated hypervisor it has no sockets, so paused time decides everything.

use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use uuid::Uuid;
use xvm_agentd::hypervisor::{Host, HvError, HvEvent, HvResult, Hypervisor, Moved, Progress};
use xvm_model::{Domain, DomainName, DomainSettings, DomainState, HypervisorKind, Ratio};

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wrong {
    /// The share of calls that fail without an effect.
    pub fails: f64,
    /// The share of calls that have their effect and say that they failed.
    pub lies: f64,
    /// The share of calls that take 10 s.
    pub hangs: f64,
    /// The share of events that get lost.
    pub deaf: f64,
}

/// All hypervisors.
#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>);

struct Inner {
    rng: StdRng,
    wrong: Wrong,
    /// Where each domain is.
    domains: BTreeMap<DomainName, (String, Domain)>,
    listeners: BTreeMap<String, mpsc::Sender<HvEvent>>,
    /// What had an effect, and when.
    done: Vec<(Instant, String)>,
}

impl World {
    pub fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(Inner {
            rng: StdRng::seed_from_u64(seed),
            wrong: Wrong::default(),
            domains: BTreeMap::new(),
            listeners: BTreeMap::new(),
            done: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn wrong(&self, wrong: Wrong) {
        self.lock().wrong = wrong;
    }

    pub fn add(&self, server: &str, name: &str) -> DomainName {
        let name = DomainName::parse(name).expect("valid");
        let mut inner = self.lock();
        let mut domain = Domain::new(name.clone(), Uuid::from_u128(inner.rng.random()));
        domain.state = DomainState::Running;
        inner.domains.insert(name.clone(), (server.into(), domain));
        name
    }

    pub fn server(&self, name: &str) -> Arc<dyn Hypervisor> {
        Arc::new(Server { world: self.clone(), name: name.into() })
    }

    /// Where each domain is and what it is.
    pub fn truth(&self) -> Vec<(String, DomainName, DomainState, DomainSettings)> {
        let inner = self.lock();
        let row = |(s, d): &(String, Domain)| (s.clone(), d.name.clone(), d.state, d.settings.clone());
        inner.domains.values().map(row).collect()
    }

    /// When `what` had its effect, each time.
    pub fn done(&self, what: &str) -> Vec<Instant> {
        self.lock().done.iter().filter(|(_, w)| w == what).map(|(at, _)| *at).collect()
    }
}

struct Server {
    world: World,
    name: String,
}

/// What a call does beside its effect.
enum Fate {
    Works,
    Fails,
    Lies,
}

impl Server {
    async fn fate(&self) -> Fate {
        let (wait, fate) = {
            let mut inner = self.world.lock();
            let wrong = inner.wrong;
            let hangs = inner.rng.random_bool(wrong.hangs);
            let wait = if hangs { 10_000 } else { inner.rng.random_range(0..40) };
            let fate = match inner.rng.random::<f64>() {
                p if p < wrong.fails => Fate::Fails,
                p if p < wrong.fails + wrong.lies => Fate::Lies,
                _ => Fate::Works,
            };
            (wait, fate)
        };
        sleep(Duration::from_millis(wait)).await;
        fate
    }

    async fn change(
        &self,
        name: &DomainName,
        what: &str,
        effect: impl FnOnce(&mut Domain) -> HvResult<()>,
    ) -> HvResult<()> {
        let fate = self.fate().await;
        let broke = || Err(HvError::Unreachable("connection broke".into()));
        if matches!(fate, Fate::Fails) {
            return broke();
        }
        {
            let mut inner = self.world.lock();
            let Some((at, domain)) = inner.domains.get_mut(name).filter(|(at, _)| *at == self.name) else {
                return Err(HvError::NoDomain(name.clone()));
            };
            effect(domain)?;
            let at = at.clone();
            inner.done.push((Instant::now(), what.into()));
            inner.tell(&at, name);
        }
        if matches!(fate, Fate::Lies) { broke() } else { Ok(()) }
    }

    async fn to(&self, name: &DomainName, what: &str, from: &[DomainState], to: DomainState) -> HvResult<()> {
        self.change(name, what, |d| {
            if !from.contains(&d.state) {
                return Err(HvError::WrongState(format!("it is {}", d.state)));
            }
            d.state = to;
            Ok(())
        })
        .await
    }
}

impl Inner {
    fn tell(&mut self, server: &str, name: &DomainName) {
        if self.rng.random_bool(self.wrong.deaf) {
            return;
        }
        if let Some(listener) = self.listeners.get(server) {
            drop(listener.try_send(HvEvent::Changed(name.clone())));
        }
    }
}

#[async_trait]
impl Hypervisor for Server {
    fn kind(&self) -> HypervisorKind {
        HypervisorKind::Sim
    }
    fn address(&self) -> String {
        format!("{}:1", self.name)
    }
    fn events(&self) -> Option<mpsc::Receiver<HvEvent>> {
        let (to, from) = mpsc::channel(64);
        self.world.lock().listeners.insert(self.name.clone(), to);
        Some(from)
    }
    async fn host(&self) -> HvResult<Host> {
        Ok(Host { cpus: vec![Ratio::ZERO; 4], ..Host::default() })
    }
    async fn domains(&self) -> HvResult<Vec<Domain>> {
        let mine = {
            let inner = self.world.lock();
            inner.domains.values().filter(|(at, _)| *at == self.name).map(|(_, d)| d.clone()).collect()
        };
        // the answer is old when it comes
        match self.fate().await {
            Fate::Works | Fate::Lies => Ok(mine),
            Fate::Fails => Err(HvError::Unreachable("connection broke".into())),
        }
    }
    async fn domain(&self, name: &DomainName) -> HvResult<Option<Domain>> {
        self.locate(&self.address(), name, Uuid::nil()).await
    }
    async fn start(&self, name: &DomainName) -> HvResult<()> {
        self.to(name, "start", &[DomainState::Shutoff], DomainState::Running).await
    }
    async fn pause(&self, name: &DomainName) -> HvResult<()> {
        self.to(name, "pause", &[DomainState::Running], DomainState::Paused).await
    }
    async fn unpause(&self, name: &DomainName) -> HvResult<()> {
        self.to(name, "unpause", &[DomainState::Paused], DomainState::Running).await
    }
    async fn shutdown(&self, name: &DomainName) -> HvResult<()> {
        // each second request is heard
        if self.world.lock().rng.random_bool(0.5) {
            return Ok(());
        }
        self.to(name, "shutdown", &[DomainState::Running], DomainState::Shutoff).await
    }
    async fn reboot(&self, name: &DomainName) -> HvResult<()> {
        self.change(name, "reboot", |_| Ok(())).await
    }
    async fn destroy(&self, name: &DomainName) -> HvResult<()> {
        self.to(name, "destroy", &[DomainState::Running, DomainState::Paused], DomainState::Shutoff).await
    }
    async fn migrate(
        &self,
        name: &DomainName,
        address: &str,
        progress: watch::Sender<Progress>,
    ) -> HvResult<Moved> {
        for percent in [10, 40, 80] {
            progress.send_replace(Progress { percent, sent: 0, remaining: 9 });
            sleep(Duration::from_millis(30)).await;
        }
        let fate = self.fate().await;
        if matches!(fate, Fate::Fails) {
            return Err(HvError::Refused("the other side said no".into()));
        }
        {
            let to = address.split(':').next().unwrap_or_default().to_owned();
            let mut inner = self.world.lock();
            match inner.domains.get_mut(name) {
                Some((at, d)) if *at == self.name && d.state.is_active() => *at = to.clone(),
                _ => return Err(HvError::WrongState("it is not active here".into())),
            }
            inner.done.push((Instant::now(), "migrate".into()));
            inner.tell(&to, name);
            inner.tell(&self.name, name);
        }
        match fate {
            Fate::Lies => Err(HvError::Unreachable("connection broke".into())),
            _ => Ok(Moved { total_ms: 5, down_ms: None }),
        }
    }
    async fn cancel_migration(&self, _: &DomainName) -> HvResult<()> {
        Err(HvError::NotSupported("not here".into()))
    }
    async fn locate(&self, address: &str, name: &DomainName, _: Uuid) -> HvResult<Option<Domain>> {
        let server = address.split(':').next().unwrap_or_default().to_owned();
        let domain =
            self.world.lock().domains.get(name).filter(|(at, _)| *at == server).map(|(_, d)| d.clone());
        match self.fate().await {
            Fate::Works | Fate::Lies => Ok(domain),
            Fate::Fails => Err(HvError::Unreachable("connection broke".into())),
        }
    }
    async fn load(&self, name: &DomainName, _: Ratio, _: u32) -> HvResult<()> {
        self.change(name, "load", |_| Ok(())).await
    }
    async fn set(&self, name: &DomainName, settings: &DomainSettings) -> HvResult<()> {
        let what = format!("priority {}", settings.priority);
        self.change(name, &what, |d| {
            d.settings = settings.clone();
            Ok(())
        })
        .await
    }
}
