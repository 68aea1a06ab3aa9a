//! Several servers' hypervisors in one value: the truth that the tests compare with, and calls that are slow, fail, lie or hang by a
//! seed. Unlike the simulated hypervisor it has no sockets, so paused time decides everything.
//!
//! | file | what |
//! |---|---|
//! | here | what there is, and the calls |
//! | `shares` | what each domain gets of its server's CPUs |
//! | `moves` | migrations: they take time, fail, go on when their agent is killed, and are judged when they begin |

mod moves;
mod shares;

use moves::Carry;
#[allow(unused_imports)] // not every test looks at the moves
pub use moves::Move;

use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use uuid::Uuid;
use xvm_agentd::hypervisor::{Host, HvError, HvEvent, HvResult, Hypervisor, Moved, Progress, Way};
use xvm_model::{
    Domain, DomainName, DomainSettings, DomainState, Grant, HypervisorKind, Ratio, ServerMemory, Spec,
};

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

/// A physical machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub cpus: usize,
    /// In KiB.
    pub memory: u64,
    /// Whether the hypervisor tells which CPU a vCPU runs on.
    pub mapped: bool,
    pub kind: HypervisorKind,
}

impl Default for Machine {
    fn default() -> Self {
        Machine { cpus: 4, memory: 64 << 20, mapped: false, kind: HypervisorKind::Sim }
    }
}

/// All hypervisors.
#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>);

struct Inner {
    rng: StdRng,
    wrong: Wrong,
    /// Whether settings are kept with a domain.
    marks: bool,
    /// Servers that are not as usual.
    machines: BTreeMap<String, Machine>,
    /// Domains that are forgotten when they are off.
    transient: BTreeSet<DomainName>,
    /// Where each domain is.
    domains: BTreeMap<DomainName, (String, Domain)>,
    /// CPUs that each vCPU would like to have; none of an unknown domain.
    demands: BTreeMap<DomainName, Vec<f64>>,
    /// When a demand or a server changed last: moves agreed upon before are not judged by it.
    changed: Option<Instant>,
    listeners: BTreeMap<String, mpsc::Sender<HvEvent>>,
    /// The shortest and the longest time of a migration in milliseconds.
    lasts: (u64, u64),
    /// Migrations that run.
    carries: BTreeMap<DomainName, Carry>,
    moves: Vec<Move>,
    /// What must never be.
    broken: Vec<String>,
    /// What had an effect, and when.
    done: Vec<(Instant, String)>,
}

#[allow(dead_code)] // each test uses what it needs
impl World {
    pub fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(Inner {
            rng: StdRng::seed_from_u64(seed),
            wrong: Wrong::default(),
            marks: true,
            machines: BTreeMap::new(),
            transient: BTreeSet::new(),
            domains: BTreeMap::new(),
            demands: BTreeMap::new(),
            changed: None,
            listeners: BTreeMap::new(),
            lasts: (90, 90),
            carries: BTreeMap::new(),
            moves: Vec::new(),
            broken: Vec::new(),
            done: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn wrong(&self, wrong: Wrong) {
        self.lock().wrong = wrong;
    }

    /// Whether settings are kept with a domain from now on.
    pub fn marks(&self, on: bool) {
        self.lock().marks = on;
    }

    /// How long migrations take, in milliseconds.
    pub fn lasts(&self, shortest: u64, longest: u64) {
        self.lock().lasts = (shortest, longest);
    }

    pub fn machine(&self, server: &str, machine: Machine) {
        let mut inner = self.lock();
        inner.changed = Some(Instant::now());
        inner.machines.insert(server.into(), machine);
    }

    pub fn add(&self, server: &str, name: &str) -> DomainName {
        let name = DomainName::parse(name).expect("valid");
        let mut inner = self.lock();
        let mut domain = Domain::new(name.clone(), Uuid::from_u128(inner.rng.random()));
        domain.state = DomainState::Running;
        inner.domains.insert(name.clone(), (server.into(), domain));
        name
    }

    /// A running domain with a vCPU for each of `demand` and so much memory in KiB.
    pub fn busy(&self, server: &str, name: &str, demand: &[f64], memory: u64) -> DomainName {
        let name = self.add(server, name);
        if let Some((_, domain)) = self.lock().domains.get_mut(&name) {
            domain.vcpus = vec![xvm_model::Vcpu { load: Ratio::ZERO, cpu: None }; demand.len()];
            (domain.memory.max, domain.memory.current) = (memory, memory);
        }
        self.demand(&name, demand);
        name
    }

    /// What the vCPUs of a domain would like to have from now on.
    pub fn demand(&self, name: &DomainName, demand: &[f64]) {
        let mut inner = self.lock();
        inner.changed = Some(Instant::now());
        inner.demands.insert(name.clone(), demand.to_vec());
    }

    /// Changes what is kept with a domain, as users did long ago.
    pub fn keep(&self, name: &DomainName, change: impl FnOnce(&mut DomainSettings)) {
        if let Some((_, domain)) = self.lock().domains.get_mut(name) {
            change(&mut domain.settings);
        }
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

impl Inner {
    fn machine(&self, server: &str) -> Machine {
        self.machines.get(server).copied().unwrap_or_default()
    }

    /// The domains that take memory on a server: those that it runs, and those that come.
    fn on<'a>(&'a self, server: &'a str) -> impl Iterator<Item = &'a Domain> {
        let comes = move |name: &DomainName| self.carries.get(name).is_some_and(|c| c.to == server);
        let here = move |(at, d): &&(String, Domain)| d.state.is_active() && (at == server || comes(&d.name));
        self.domains.values().filter(here).map(|(_, d)| d)
    }

    /// A domain as the hypervisor of a server tells it.
    fn seen(&self, server: &str, name: &DomainName) -> Option<Domain> {
        let (at, domain) = self.domains.get(name)?;
        let mut domain = domain.clone();
        if at == server {
            self.share(server, &mut domain);
            return Some(domain);
        }
        let comes = self.carries.get(name).is_some_and(|c| c.to == server);
        domain.state = DomainState::Incoming;
        comes.then_some(domain)
    }

    fn tell(&mut self, server: &str, name: &DomainName) {
        if self.rng.random_bool(self.wrong.deaf) {
            return;
        }
        if let Some(listener) = self.listeners.get(server) {
            drop(listener.try_send(HvEvent::Changed(name.clone())));
        }
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

impl World {
    async fn fate(&self) -> Fate {
        let (wait, fate) = {
            let mut inner = self.lock();
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
}

impl Server {
    async fn change(
        &self,
        name: &DomainName,
        effect: impl FnOnce(&mut Domain) -> HvResult<String>,
    ) -> HvResult<()> {
        let fate = self.world.fate().await;
        let broke = || Err(HvError::Unreachable("connection broke".into()));
        if matches!(fate, Fate::Fails) {
            return broke();
        }
        {
            let mut inner = self.world.lock();
            let Some((at, domain)) = inner.domains.get_mut(name).filter(|(at, _)| *at == self.name) else {
                return Err(HvError::NoDomain(name.clone()));
            };
            let what = effect(domain)?;
            let (at, off) = (at.clone(), domain.state == DomainState::Shutoff);
            if off && inner.transient.contains(name) {
                inner.domains.remove(name);
            }
            inner.done.push((Instant::now(), what));
            inner.tell(&at, name);
        }
        if matches!(fate, Fate::Lies) { broke() } else { Ok(()) }
    }

    async fn to(&self, name: &DomainName, what: &str, from: &[DomainState], to: DomainState) -> HvResult<()> {
        self.change(name, |d| {
            if !from.contains(&d.state) {
                return Err(HvError::WrongState(format!("it is {}", d.state)));
            }
            d.state = to;
            Ok(what.into())
        })
        .await
    }
}

#[async_trait]
impl Hypervisor for Server {
    fn kind(&self) -> HypervisorKind {
        self.world.lock().machine(&self.name).kind
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
        let inner = self.world.lock();
        let total = inner.machine(&self.name).memory;
        let taken = inner.on(&self.name).map(|d| d.memory.current).sum();
        let memory = ServerMemory { total, free: total.saturating_sub(taken) };
        Ok(Host { cpus: inner.cpus(&self.name), memory, cpu: None })
    }
    async fn domains(&self) -> HvResult<Vec<Domain>> {
        let mine = {
            let inner = self.world.lock();
            inner.domains.keys().filter_map(|name| inner.seen(&self.name, name)).collect()
        };
        // the answer is old when it comes
        match self.world.fate().await {
            Fate::Works | Fate::Lies => Ok(mine),
            Fate::Fails => Err(HvError::Unreachable("connection broke".into())),
        }
    }
    async fn domain(&self, name: &DomainName) -> HvResult<Option<Domain>> {
        self.locate(&self.address(), name, Uuid::nil()).await
    }
    fn boots_files(&self) -> bool {
        false
    }
    async fn create(&self, spec: &Spec, _: &Path) -> HvResult<()> {
        let fate = self.world.fate().await;
        let broke = || Err(HvError::Unreachable("connection broke".into()));
        if matches!(fate, Fate::Fails) {
            return broke();
        }
        {
            let mut inner = self.world.lock();
            if inner.domains.contains_key(&spec.name) {
                inner.broken.push(format!("{} is created while it is there", spec.name));
                return Err(HvError::WrongState("there is one".into()));
            }
            let mut domain = Domain::new(spec.name.clone(), spec.uuid);
            domain.state = DomainState::Running;
            domain.settings = spec.settings.clone();
            (domain.memory.max, domain.memory.current) = (spec.memory, spec.memory);
            inner.domains.insert(spec.name.clone(), (self.name.clone(), domain));
            inner.transient.insert(spec.name.clone());
            inner.done.push((Instant::now(), format!("create {}", spec.name)));
            inner.tell(&self.name, &spec.name);
        }
        if matches!(fate, Fate::Lies) { broke() } else { Ok(()) }
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
        self.change(name, |_| Ok("reboot".into())).await
    }
    async fn destroy(&self, name: &DomainName) -> HvResult<()> {
        self.to(name, "destroy", &[DomainState::Running, DomainState::Paused], DomainState::Shutoff).await
    }
    async fn migrate(
        &self,
        name: &DomainName,
        way: &Way,
        grant: Option<&Grant>,
        progress: watch::Sender<Progress>,
    ) -> HvResult<Moved> {
        let to = way.address.split(':').next().unwrap_or_default();
        self.world.migrate(&self.name, name, (to, grant), progress).await
    }
    async fn cancel_migration(&self, name: &DomainName) -> HvResult<()> {
        self.world.cancel(&self.name, name)
    }
    async fn locate(&self, address: &str, name: &DomainName, _: Uuid) -> HvResult<Option<Domain>> {
        let server = address.split(':').next().unwrap_or_default().to_owned();
        let domain = self.world.lock().seen(&server, name);
        match self.world.fate().await {
            Fate::Works | Fate::Lies => Ok(domain),
            Fate::Fails => Err(HvError::Unreachable("connection broke".into())),
        }
    }
    async fn load(&self, name: &DomainName, _: Ratio, _: u32) -> HvResult<()> {
        self.change(name, |_| Ok("load".into())).await
    }
    async fn set(&self, name: &DomainName, settings: &DomainSettings) -> HvResult<()> {
        if !self.world.lock().marks {
            return Err(HvError::NotSupported("it keeps nothing with a domain".into()));
        }
        self.change(name, |d| {
            // each change of a value is the effect of an order; what only comes along is none
            let what = match d.settings.priority == settings.priority {
                true => "set".into(),
                false => format!("priority {}", settings.priority),
            };
            d.settings = settings.clone();
            Ok(what)
        })
        .await
    }
}
