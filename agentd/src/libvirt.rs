//! Real hypervisors through libvirt: QEMU, Xen, and whatever else its URI names.
//!
//! | file | what |
//! |---|---|
//! | `drivers` | what differs between libvirt's drivers, one row each |
//! | `pool` | threads for calls that may block for ever, each with its connection |
//! | `watch` | the connection for events, made again for ever |
//! | `news` | whether libvirt is heard; the stream of events |
//! | `sample`, `fields`, `state` | domains as records: by the bulk call, or one by one |
//! | `between` | domains that libvirt alone knows |
//! | `host` | the machine's load and memory |
//! | `cpus` | which of its CPUs are shown |
//! | `settings`, `xml` | what is kept with a domain, in libvirt's metadata |
//! | `create` | domains that are made from a config |
//! | `migrate` | live migration with progress and cancel |
//! | `lent` | the definition of a domain with another lease |
//! | `peer` | other hosts' libvirt |
//! | `fault` | libvirt's errors in xvm's words |
//! | `xen` | what Xen's own tool tells and does |
//! | `raw` | all unsafe code |
//!
//! ```text
//!   events ─────────────── 1 thread ──┐
//!   statistics ─────────── 1 thread   │   an overdue answer of these is told as Down, and Up when it is there
//!   one domain ─────────── 4 threads  ├── libvirtd
//!   commands ───────────── 16 threads │
//!   migrations ─────────── 8 threads  │
//!   looks at migrations ── 4 threads ─┘
//!   other hosts ────────── 16 threads ─── their libvirtd
//! ```

mod between;
mod cpus;
mod create;
mod drivers;
mod fault;
mod fields;
mod host;
mod lent;
mod migrate;
mod news;
mod peer;
mod pool;
mod raw;
mod sample;
mod settings;
mod state;
mod watch;
mod xen;
mod xml;

pub use cpus::CpuList;

use crate::hypervisor::{Host, HvError, HvEvent, HvResult, Hypervisor, Moved, Progress, Way};
use async_trait::async_trait;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, watch as cell};
use uuid::Uuid;
use virt::{domain::Domain as Handle, error::Error, sys};
use xvm_model::{Domain, DomainName, DomainSettings, Grant, HypervisorKind, Ratio, Spec};

/// How many events wait for a slow reader before names are merged.
const EVENTS: usize = 1024;

/// How to reach libvirt.
#[derive(Debug, Clone)]
pub struct LibvirtConfig {
    /// This host's libvirt: `qemu:///system`, `xen:///system`.
    pub uri: String,
    /// What other hosts use to reach this one; by default `qemu+tcp://HOSTNAME/system` or `xen+tcp://HOSTNAME/`.
    pub migrate_uri: Option<String>,
    /// A file to read the CPUs' times from in place of libvirt's node statistics: like /proc/stat, or like a cgroup's
    /// cpuacct.usage_percpu (so that several hosts on one machine have loads of their own).
    pub cpu_stat: Option<PathBuf>,
    /// The CPUs on which domains run, when they are not all; the records count them from 0.
    pub cpu_list: Option<CpuList>,
    /// The bridge that the interfaces of new domains join; none: QEMU's own user network.
    pub bridge: Option<String>,
    /// Whether new QEMU domains use KVM; none: where the server has it.
    pub kvm: Option<bool>,
    /// How long statistics are waited for.
    pub stats_limit: Duration,
    /// How long a command is waited for.
    pub control_limit: Duration,
    /// How long another host's libvirt is waited for.
    pub locate_limit: Duration,
}

impl LibvirtConfig {
    /// The defaults: 3 s for statistics and other hosts, 5 s for commands.
    pub fn new(uri: &str) -> Self {
        LibvirtConfig {
            uri: uri.to_owned(),
            migrate_uri: None,
            cpu_stat: None,
            cpu_list: None,
            bridge: None,
            kvm: None,
            stats_limit: Duration::from_secs(3),
            control_limit: Duration::from_secs(5),
            locate_limit: Duration::from_secs(3),
        }
    }
}

/// A hypervisor behind libvirt.
pub struct Libvirt {
    driver: &'static drivers::Driver,
    config: LibvirtConfig,
    news: Arc<news::News>,
    /// The stream of news, until somebody takes it.
    events: Mutex<Option<mpsc::Receiver<HvEvent>>>,
    sampler: Arc<sample::Sampler>,
    meter: Arc<host::Meter>,
    /// The domains of the last sample, and those that are the machine itself: for hosts that tell no load of their own.
    last: Arc<Mutex<Vec<Domain>>>,
    moves: Arc<migrate::Moves>,
    stats: Arc<pool::Pool>,
    single: pool::Pool,
    control: pool::Pool,
    moving: pool::Pool,
    looks: pool::Pool,
    peers: pool::Pool,
}

impl Libvirt {
    /// Returns at once, also when libvirt is not there: it is then tried for ever, and [`HvEvent::Up`] tells when it answers.
    pub fn open(config: LibvirtConfig) -> Arc<Self> {
        raw::init();
        let driver = drivers::of(&config.uri);
        let news = Arc::new(news::News::default());
        let (to, events) = mpsc::channel(EVENTS);
        let pool = |name, most| pool::Pool::new(name, &config.uri, most, Some(news.clone()));
        let this = Arc::new(Libvirt {
            driver,
            events: Mutex::new(Some(events)),
            sampler: Arc::new(sample::Sampler::new(driver, config.cpu_list.clone())),
            meter: Arc::new(host::Meter::new(config.cpu_stat.clone(), config.cpu_list.clone(), driver)),
            last: Arc::default(),
            moves: Arc::default(),
            stats: Arc::new(pool("stats", 1)),
            single: pool("domain", 4),
            control: pool("control", 16),
            moving: pool("migrate", 8),
            looks: pool("looks", 4),
            peers: pool::Pool::new("peers", "", 16, None),
            news: news.clone(),
            config,
        });
        this.clone().threads(to);
        this
    }

    fn threads(self: Arc<Self>, to: mpsc::Sender<HvEvent>) {
        let (news, sampler, moves) = (self.news.clone(), self.sampler.clone(), self.moves.clone());
        let sink: Arc<raw::Sink> = {
            let (news, sampler) = (news.clone(), sampler.clone());
            Arc::new(move |name: &str, uuid: Uuid, what: raw::News| {
                match what {
                    raw::News::Changed => {}
                    raw::News::Redefined => sampler.forget(uuid),
                    raw::News::JobDone(job) => moves.job_done(uuid, job),
                }
                if let Ok(name) = DomainName::parse(name) {
                    news.changed(name);
                }
            })
        };
        let (uri, watching) = (self.config.uri.clone(), news.clone());
        let meter = self.meter.clone();
        let watch =
            move || watch::run(&uri, &watching, sink, &|_| sampler.forget_all(), &|conn| meter.learn(conn));
        let stats = self.stats.clone();
        let pump = {
            let news = news.clone();
            move || news.pump(&to, &|| stats.overdue())
        };
        let spawned = thread::Builder::new()
            .name("libvirt-watch".into())
            .spawn(watch)
            .and_then(|_| thread::Builder::new().name("libvirt-news".into()).spawn(pump));
        if let Err(e) = spawned {
            news.unlinked(format!("cannot make a thread for libvirt: {e}"));
        }
    }

    /// Runs a statistics call; refused at once while an earlier one is overdue.
    async fn ask<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&mut pool::Seat) -> HvResult<T> + Send + 'static,
    ) -> HvResult<T> {
        if let Some(why) = self.stats.overdue() {
            return Err(HvError::Unreachable(why));
        }
        self.stats.call(what, self.config.stats_limit, "", call).await
    }

    /// Runs a command on one domain.
    async fn order(
        &self,
        what: &str,
        name: &DomainName,
        call: impl FnOnce(&Handle, &DomainName) -> HvResult<()> + Send + 'static,
    ) -> HvResult<()> {
        let (late, name) = (format!("outcome unknown, `virsh domstate {name}` tells"), name.clone());
        let call = move |seat: &mut pool::Seat| call(&migrate::find(seat.conn()?, &name)?, &name);
        self.control.call(what, self.config.control_limit, &late, call).await
    }

    /// Runs one plain command, where the domain's state allows it: some drivers take what makes no sense without a word, others answer
    /// with an error that does not say so.
    async fn simple(
        &self,
        word: &str,
        name: &DomainName,
        allowed: &'static [&'static [u32]],
        call: fn(&Handle, &DomainName) -> HvResult<()>,
    ) -> HvResult<()> {
        let run = move |handle: &Handle, name: &DomainName| {
            let wrong = |e: Error| fault::of(&e, name);
            let (now, reason) = raw::state(handle).map_err(wrong)?;
            if !allowed.concat().contains(&now) {
                return Err(HvError::WrongState(format!("it is {}", state::word(now, reason).0)));
            }
            // a migration that this agent does not know of: begun by hand, or by the agent's life before this one. libvirt would take
            // the command, and QEMU would lose it. Drivers and states without job statistics have no such migration to lose it in.
            if raw::job(handle, false).is_ok_and(|(kind, _)| kind != sys::VIR_DOMAIN_JOB_NONE) {
                let text =
                    "libvirt runs a job on it (`virsh domjobinfo` tells which, `virsh domjobabort` ends it)";
                return Err(HvError::WrongState(text.into()));
            }
            call(handle, name)
        };
        self.order(&format!("{word} {name}"), name, run).await
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        self.news.close();
    }
}

/// An error of a call that is about no domain.
fn plain(e: &Error) -> HvError {
    if fault::broken(e) { HvError::Unreachable(fault::line(e)) } else { HvError::Refused(fault::line(e)) }
}

#[async_trait]
impl Hypervisor for Libvirt {
    fn kind(&self) -> HypervisorKind {
        self.driver.kind
    }

    fn imports(&self) -> Option<PathBuf> {
        self.driver.imports.then(|| xvm_model::config::render::IMPORTS.into())
    }

    fn address(&self) -> String {
        if let Some(uri) = &self.config.migrate_uri {
            return uri.clone();
        }
        let remote = self.config.uri.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
        match self.driver.reach {
            Some((front, back)) if !remote => {
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                format!("{front}{}{back}", if host.trim().is_empty() { "localhost" } else { host.trim() })
            }
            _ => self.config.uri.clone(),
        }
    }

    fn events(&self) -> Option<mpsc::Receiver<HvEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn host(&self) -> HvResult<Host> {
        let (meter, last, driver) = (self.meter.clone(), self.last.clone(), self.driver);
        let call = move |seat: &mut pool::Seat| {
            let conn = seat.conn()?;
            let domains = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let cpus = meter.cpus(conn, &domains).map_err(|e| plain(&e))?;
            let memory = host::memory(conn, driver).map_err(|e| plain(&e))?;
            Ok(Host { cpus, memory, cpu: meter.model() })
        };
        self.ask("host", call).await
    }

    async fn domains(&self) -> HvResult<Vec<Domain>> {
        let (sampler, last) = (self.sampler.clone(), self.last.clone());
        let call = move |seat: &mut pool::Seat| {
            let (domains, own) = sampler.all(seat.conn()?).map_err(|e| plain(&e))?;
            *last.lock().unwrap_or_else(PoisonError::into_inner) = [&*domains, &*own].concat();
            Ok(domains)
        };
        self.ask("domains", call).await
    }

    async fn domain(&self, name: &DomainName) -> HvResult<Option<Domain>> {
        let (sampler, what, name) = (self.sampler.clone(), format!("domain {name}"), name.clone());
        let call = move |seat: &mut pool::Seat| {
            let conn = seat.conn()?;
            match migrate::find(conn, &name) {
                Ok(handle) => sampler.one(conn, &handle).map_err(|e| plain(&e)),
                Err(HvError::NoDomain(_)) => Ok(None),
                Err(e) => Err(e),
            }
        };
        self.single.call(&what, self.config.stats_limit, "", call).await
    }

    async fn create(&self, spec: &Spec, boot: &Path) -> HvResult<()> {
        let made = create::run(self.driver, &self.control, &self.config, spec, boot).await;
        // it may have been here before, with another lease; libvirt's own word of it may come later than the next question
        self.sampler.forget(spec.uuid);
        made
    }

    async fn start(&self, name: &DomainName) -> HvResult<()> {
        self.simple("start", name, &[state::OFF], |h, n| fault::said(h.create(), n)).await
    }

    async fn pause(&self, name: &DomainName) -> HvResult<()> {
        self.simple("pause", name, &[state::ON], |h, n| fault::said(h.suspend(), n)).await
    }

    async fn unpause(&self, name: &DomainName) -> HvResult<()> {
        self.simple("unpause", name, &[state::HELD], |h, n| fault::said(h.resume(), n)).await
    }

    async fn shutdown(&self, name: &DomainName) -> HvResult<()> {
        // it may have gone off a moment ago, or start anew
        self.simple("shutdown", name, &[state::ON, state::OFF], self.driver.shutdown).await
    }

    async fn reboot(&self, name: &DomainName) -> HvResult<()> {
        self.simple("reboot", name, &[state::ON], self.driver.reboot).await
    }

    async fn destroy(&self, name: &DomainName) -> HvResult<()> {
        self.simple("destroy", name, &[state::ALIVE], |h, n| fault::said(h.destroy(), n)).await
    }

    async fn migrate(
        &self,
        name: &DomainName,
        way: &Way,
        grant: Option<&Grant>,
        progress: cell::Sender<Progress>,
    ) -> HvResult<Moved> {
        peer::check(self.driver, &way.address)?;
        let pools = (&self.moving, &self.looks);
        migrate::run(self.driver, pools, &self.moves, name, (way, grant), &progress).await
    }

    async fn cancel_migration(&self, name: &DomainName) -> HvResult<()> {
        if !self.driver.abort {
            let text =
                format!("libvirt's {} driver cannot cancel a migration; it ends by itself", self.driver.kind);
            return Err(HvError::NotSupported(text));
        }
        if self.moves.cancel(name) {
            return Ok(()); // its watcher ends it, and tries again until libvirt takes it
        }
        let (late, what, name) =
            (format!("`virsh domjobinfo {name}` tells"), format!("cancel {name}"), name.clone());
        let call = move |seat: &mut pool::Seat| migrate::abort(seat.conn()?, &name);
        self.control.call(&what, self.config.control_limit, &late, call).await
    }

    async fn locate(&self, address: &str, name: &DomainName, uuid: Uuid) -> HvResult<Option<Domain>> {
        peer::check(self.driver, address)?;
        let (driver, what) = (self.driver, format!("ask {address}"));
        let (address, name) = (address.to_owned(), name.clone());
        let call = move |_: &mut pool::Seat| {
            let conn = peer::open(&address)?;
            let handle = match conn.lookup_domain_by_uuid(uuid) {
                Ok(handle) => handle,
                Err(e) => match fault::of(&e, &name) {
                    HvError::NoDomain(_) => return Ok(None),
                    other => return Err(other),
                },
            };
            let found = handle.name().map_err(|e| fault::of(&e, &name))?;
            if found != name.as_str() {
                return Err(HvError::Refused(format!(
                    "{address} knows the domain {uuid} by another name, {found:?}"
                )));
            }
            sample::Sampler::new(driver, None).one(&conn, &handle).map_err(|e| plain(&e))
        };
        self.peers.call(&what, self.config.locate_limit, "", call).await
    }

    async fn load(&self, _: &DomainName, _: Ratio, _: u32) -> HvResult<()> {
        Err(HvError::NotSupported(
            "load needs guestd in the guest; sim domains can do it by themselves".into(),
        ))
    }

    async fn set(&self, name: &DomainName, settings: &DomainSettings) -> HvResult<()> {
        let (settings, sampler) = (settings.clone(), self.sampler.clone());
        let write = move |handle: &Handle, name: &DomainName| {
            let written = settings::write(handle, name, &settings);
            // libvirt's own word of it may come later than the next question
            sampler.forget(handle.uuid().map_err(|e| fault::of(&e, name))?);
            written
        };
        self.order(&format!("set {name}"), name, write).await
    }
}
