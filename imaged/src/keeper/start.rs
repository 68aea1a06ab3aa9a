//! From a lease to a running domain, and the second lease of a migration.

use super::Keeper;
use super::commands::absent;
use super::entry::{Lending, Step, Work};
use super::kept::Image;
use super::servers::runs_by;
use super::step::{Effect, Tag, Ticket};
use xvm_model::config::{Address, GuestType};
use xvm_model::lease::Phase;
use xvm_model::outbox::{self, Addressee, BOUND_MS};
use xvm_model::spec::{GrantDisk, export_name};
use xvm_model::{
    Answer, Boot, Code, ConfigName, DomainCommand, DomainSettings, Failure, Grant, HypervisorKind, Job,
    JobKind, Mono, Order, Reach, Reply, Server, ServerName, Spec, Wall,
};

/// The ids of starts that nobody ordered begin so.
const RESTART: &str = "restart.";
/// One of those that failed is tried again after so long, in milliseconds.
const REST_MS: u64 = 5_000;
/// How long, by the agent's clock, a domain that an agent said it makes may be unseen before it is taken for failed, in milliseconds.
const UNSEEN_MS: u64 = 3_000;
/// How long after it has found a forwarder imaged may not have heard a server that is there, in milliseconds.
const EARLY_MS: u64 = 3_000;
/// A wish for exports that failed is tried again after so long, in milliseconds.
const RETRY_MS: u64 = 1_000;

impl Keeper {
    /// Takes a lease and runs a config. Without a ticket it is `restart always` that asks.
    pub(super) fn start(
        &mut self,
        ticket: Option<&Ticket>,
        name: &ConfigName,
        on: Option<ServerName>,
    ) -> Result<(), Failure> {
        let (entry, _) = self.idle("start", name)?;
        let Image::Ready { .. } = entry.image else {
            return Err(Failure::busy(format!(
                "cannot start {name}: it has no image; `echo rebuild > ctl` makes one"
            )));
        };
        if let Some(holder) = entry.leases.holder() {
            let more = match self.is_down(holder) {
                true => format!(
                    "{holder} is down and may run it still; `echo always > restart` takes its disk away and starts it elsewhere"
                ),
                false => format!("{holder} runs it"),
            };
            return Err(Failure::busy(format!("cannot start {name}: {more}")));
        }
        let server = self.choose(name, on.as_ref())?;
        let boot = self.view.server(server.as_str()).map_or(Boot(0), |s| s.stamp.boot);
        let port = self.port(name)?;
        let make = self.grant(name, &server, port);
        let Some(entry) = self.configs.get_mut(name) else { return Err(absent("start", name)) };
        entry.leases.start(&server, boot, make)?;
        let id: Box<str> = match ticket {
            Some(ticket) => ticket.id.clone(),
            None => format!("{RESTART}{name}.{}", entry.leases.epoch).into(),
        };
        let job = Job {
            id,
            kind: JobKind::Start,
            phase: "lease".into(),
            percent: 0,
            to: Some(server.clone()),
            since: self.now.wall,
            note: None,
        };
        entry.work = Some(Work { job, remaining: None, step: Step::Exporting { server }, answer: None });
        self.dirty = true;
        self.export(name);
        self.tell(name);
        if let Some(ticket) = ticket {
            self.answer(ticket, name, Answer::Accepted);
        }
        Ok(())
    }

    /// Whether the servers cannot have been heard yet: who asks for one then is not told that there is none.
    pub(super) fn is_early(&self, on: Option<&ServerName>) -> bool {
        let young = self.linked.is_none_or(|since| self.now.mono.since(since) < EARLY_MS);
        let known = on.map_or(self.view.server_count() > 0, |on| self.view.server(on.as_str()).is_some());
        young && !known
    }

    /// Starts that waited for their servers.
    pub(super) fn start_early(&mut self) {
        let (wait, go) = std::mem::take(&mut self.early)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, _, on)| self.is_early(on.as_ref()));
        self.early = wait;
        for (ticket, name, on) in go {
            if let Err(failure) = self.start(Some(&ticket), &name, on) {
                self.answer(&ticket, &name, Answer::Failed { failure });
            }
        }
    }

    /// Starts of the life before: whether their orders were given, and what became of them, their servers' words tell.
    pub(super) fn resume(&mut self) {
        let since = self.now.wall;
        for entry in self.configs.values_mut() {
            let [lease] = &entry.leases.held[..] else { continue };
            if lease.phase != Phase::Starting {
                continue;
            }
            let (server, boot) = (lease.grant.server.clone(), lease.boot);
            let id = format!("resumed.{}", lease.grant.stem()).into();
            let (kind, to) = (JobKind::Start, Some(server.clone()));
            let job = Job { id, kind, phase: "boot".into(), percent: 0, to, since, note: None };
            let step = Step::Booting { server, boot, order: None, deadline: None, answered: false };
            entry.work = Some(Work { job, remaining: None, step, answer: None });
        }
    }

    /// The server that shall run it: the named one when it can, else the one that will be loaded least.
    fn choose(&self, name: &ConfigName, on: Option<&ServerName>) -> Result<ServerName, Failure> {
        if let Some(on) = on {
            let server = self.view.server(on.as_str()).ok_or_else(|| {
                let known: Vec<&str> = self.view.servers().take(20).map(|s| s.name.as_str()).collect();
                let text =
                    format!("cannot start {name} on {on}: no such server; servers are {}", known.join(", "));
                Failure::no_entry(text)
            })?;
            return match self.fits(name, server) {
                Ok(()) => Ok(on.clone()),
                Err((code, why)) => Err(Failure::new(code, format!("cannot start {name} on {on}: {why}"))),
            };
        }
        let mut reasons = Vec::new();
        let mut best: Option<(u64, &ServerName)> = None;
        for server in self.view.servers() {
            match self.fits(name, server) {
                Err((_, why)) => reasons.push(format!("{}: {why}", server.name)),
                Ok(()) => {
                    // those that are about to start there count as one busy CPU each
                    let coming = self.coming(&server.name).0 as f64 / server.beat.cpus.len().max(1) as f64;
                    let rank = ((server.beat.load().get() + coming) * 1e6) as u64;
                    if best.is_none_or(|(b, _)| rank < b) {
                        best = Some((rank, &server.name));
                    }
                }
            }
        }
        match best {
            Some((_, server)) => Ok(server.clone()),
            None => {
                let why =
                    if reasons.is_empty() { "no server is heard".to_owned() } else { reasons.join("; ") };
                Err(Failure::new(Code::NoSpace, format!("cannot start {name}: no server can take it: {why}")))
            }
        }
    }

    /// Domains, and their KiB of memory, that were sent to a server and that it does not show yet.
    fn coming(&self, server: &ServerName) -> (u64, u64) {
        let starting = self.configs.iter().filter(|(name, e)| {
            e.leases.of(server).is_some_and(|l| l.phase == Phase::Starting)
                && self.domain_on(server, name).is_none()
        });
        starting.fold((0, 0), |(n, kib), (_, e)| {
            let memory = e.config.as_ref().map_or(0, |c| c.memory * 1024);
            (n + 1, kib + memory)
        })
    }

    fn fits(&self, name: &ConfigName, server: &Server) -> Result<(), (Code, String)> {
        let Some(config) = self.config(name) else {
            return Err((Code::NoEntry, "it has no definition".into()));
        };
        match self.view.reach(server, self.now.mono) {
            Reach::Down => return Err((Code::HostDown, "it is down".into())),
            Reach::Stale => return Err((Code::HostDown, "it is stale".into())),
            Reach::Maintenance => {
                return Err((Code::Busy, "it does not accept domains (`echo accept on > ctl` there)".into()));
            }
            Reach::Up => {}
        }
        if !config.pin.allows(&server.name) {
            return Err((Code::Permission, format!("the config is pinned to {}", config.pin)));
        }
        let kind = server.beat.hypervisor;
        let can = match config.kind {
            GuestType::Auto => {
                matches!(kind, HypervisorKind::Sim | HypervisorKind::Qemu | HypervisorKind::Xen)
            }
            GuestType::Hvm => {
                matches!(kind, HypervisorKind::Sim | HypervisorKind::Qemu | HypervisorKind::Xen)
            }
            GuestType::Pv | GuestType::Pvh => matches!(kind, HypervisorKind::Sim | HypervisorKind::Xen),
        };
        if !can {
            let why = format!("its hypervisor, {kind}, runs no guest of type {} from a config", config.kind);
            return Err((Code::NotSupported, why));
        }
        let needs = config.memory * 1024;
        let free = server.beat.memory.free.saturating_sub(self.coming(&server.name).1);
        if needs > free {
            let (needs, free) = (config.memory, free / 1024);
            return Err((
                Code::NoSpace,
                format!("it has {free} MiB of memory free, the domain needs {needs}"),
            ));
        }
        Ok(())
    }

    /// The port of a config's exports: its own, once it has one.
    pub(super) fn port(&self, name: &ConfigName) -> Result<u16, Failure> {
        let range = &self.site.ports;
        let own = self.configs.get(name).map_or(0, |e| e.port);
        if range.contains(&own) {
            return Ok(own);
        }
        let used: std::collections::BTreeSet<u16> = self.configs.values().map(|e| e.port).collect();
        range.clone().find(|p| !used.contains(p)).ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            let why = format!(
                "cannot export the disk of {name}: all ports from {first} to {last} are taken (--ports)"
            );
            Failure::new(Code::NoSpace, why)
        })
    }

    /// What a lease of `server` will hold, once its number is known.
    fn grant(
        &mut self,
        name: &ConfigName,
        server: &ServerName,
        port: u16,
    ) -> impl FnOnce(u64) -> Grant + use<> {
        let (config, server, host) = (name.clone(), server.clone(), self.site.host.clone());
        let volumes = self.configs.get_mut(name).map_or_else(Vec::new, |entry| {
            entry.port = port;
            entry.volumes()
        });
        move |epoch| {
            let disks = volumes
                .into_iter()
                .map(|(target, volume, mib)| GrantDisk {
                    target: target.into(),
                    volume: volume.into(),
                    export: export_name(&config, &server, epoch, volume),
                    size: mib << 20,
                })
                .collect();
            Grant { config, server, epoch, host, port, disks }
        }
    }

    /// Wishes that exactly the leases' names are exported.
    pub(super) fn export(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        entry.wish += 1;
        (entry.wished, entry.retry) = (false, None);
        let grants = entry.leases.held.iter().map(|l| &l.grant);
        let names =
            grants.flat_map(|g| g.disks.iter().map(|d| (d.export.clone(), d.volume.clone()))).collect();
        let (wish, port) = (entry.wish, entry.port);
        self.out.push(Effect::Export { name: name.clone(), wish, port, names });
    }

    /// The exports are as wished, or not.
    pub(super) fn exported(&mut self, name: &ConfigName, wish: u64, result: Result<(), String>) {
        let now = self.now.mono;
        let Some(entry) = self.configs.get_mut(name).filter(|e| e.wish == wish) else { return };
        let starting = matches!(&entry.work, Some(Work { step: Step::Exporting { .. }, .. }));
        match result {
            Ok(()) => {
                entry.wished = true;
                if starting {
                    self.boot(name);
                } else if entry.lending.as_ref().is_some_and(|l| !l.exported) {
                    self.prepare(name);
                }
            }
            Err(why) => {
                tracing::error!(%name, why, "exports are not as they should be");
                entry.retry = Some(now.plus(RETRY_MS));
                let failure = Failure::new(Code::Io, format!("its disk cannot be exported: {why}"));
                if starting {
                    self.start_failed(name, failure);
                } else if entry.lending.as_ref().is_some_and(|l| !l.exported) {
                    self.lend_failed(name, failure);
                }
            }
        }
    }

    /// Tells the agent to make the domain.
    fn boot(&mut self, name: &ConfigName) {
        let now = self.now;
        let spec = self.spec(name);
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(Work { step: step @ Step::Exporting { .. }, job, .. }) = &mut entry.work else { return };
        let Step::Exporting { server } = step else { return };
        let epoch = entry.leases.epoch;
        let known = self.view.server(server.as_str());
        let (Some(spec), Some(known)) = (spec, known) else {
            let failure = Failure::new(Code::HostDown, format!("{server} is not heard any more"));
            return self.start_failed(name, failure);
        };
        let (boot, heard) = (known.stamp.boot, (known.at, known.heard.mono));
        let deadline = Some(outbox::deadline(heard, now.mono, BOUND_MS));
        let to = Addressee::Server(server.clone());
        job.phase = "boot".into();
        *step = Step::Booting { server: server.clone(), boot, order: None, deadline, answered: false };
        let command = DomainCommand::Create { spec: Box::new(spec) };
        let order = Box::new(Order::Domain { name: name.domain(), command });
        self.out.push(Effect::Order { name: name.clone(), tag: Tag::Create(epoch), to, boot, heard, order });
        self.tell(name);
    }

    /// What the first lease's server is to run.
    fn spec(&self, name: &ConfigName) -> Option<Spec> {
        let entry = self.configs.get(name)?;
        let (config, grant) = (entry.config.as_ref()?, entry.leases.held.first()?.grant.clone());
        let settings = DomainSettings {
            priority: config.priority,
            pin: config.pin.clone(),
            grant: Some(Box::new(grant.clone())),
            ..DomainSettings::default()
        };
        Some(Spec {
            name: name.domain(),
            uuid: config.uuid,
            memory: config.memory * 1024,
            vcpus: config.vcpus,
            kind: config.kind,
            mac: (config.address != Address::None).then_some(config.mac),
            vlan: config.vlan,
            grant,
            boot: self.boot_of(name),
            settings,
        })
    }

    /// An agent has answered, or nobody did.
    pub(super) fn answered(&mut self, name: &ConfigName, tag: Tag, result: Result<Reply, Failure>) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        match tag {
            Tag::Create(epoch) if entry.leases.epoch == epoch => {
                let Some(Work { step: Step::Booting { server, order, deadline, answered, .. }, .. }) =
                    &mut entry.work
                else {
                    return;
                };
                match result {
                    Ok(reply) => {
                        *order = Some(reply.id);
                        *answered = true;
                        let said = self.view.server(server.as_str()).map_or(Wall(0), |s| s.at);
                        *deadline = Some(Wall(said.0.saturating_add(UNSEEN_MS)));
                        self.look(name);
                    }
                    // nobody knows: what its server says after the deadline counts
                    Err(failure) if matches!(failure.code, Code::TimedOut | Code::HostUnreachable) => {
                        tracing::warn!(%name, %failure, "a start was not answered");
                    }
                    Err(failure) => self.start_failed(name, failure),
                }
            }
            Tag::Prepare(epoch) => {
                if entry.lending.as_ref().is_none_or(|l| l.epoch != epoch) {
                    return;
                }
                match result {
                    Err(failure) => self.lend_failed(name, failure),
                    Ok(_) => {
                        if let Some(lending) = entry.lending.take() {
                            let to = &lending.to;
                            self.done(&lending.ticket, name, format!("the disk of {name} is lent to {to}"));
                        }
                    }
                }
            }
            Tag::Create(_) | Tag::Fence => {}
        }
    }

    /// The start has failed, and nothing runs: the lease goes back.
    pub(super) fn start_failed(&mut self, name: &ConfigName, failure: Failure) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(work) = entry.work.take_if(|w| w.job.kind == JobKind::Start) else { return };
        let Some(server) = work.job.to.clone() else { return };
        drop(entry.leases.failed(&server));
        if work.job.id.starts_with(RESTART) {
            (entry.restart, entry.rest) = (true, self.now.mono.plus(REST_MS));
        }
        self.export(name);
        let text = match failure.text.strip_prefix(&format!("cannot create {name}: ")) {
            Some(why) => why.to_owned(),
            None => failure.text,
        };
        let failure = Failure::new(failure.code, format!("cannot start {name} on {server}: {text}"));
        self.end(name, work, Err(failure));
        self.apply_pending(name);
    }

    /// Whether a start that goes on has come to its end, by what its server says.
    pub(super) fn judge_start(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get(name) else { return };
        let Some(Work { step: Step::Booting { server, boot, order, deadline, answered }, .. }) = &entry.work
        else {
            return;
        };
        let Some(known) = self.view.server(server.as_str()) else { return };
        if self.view.reach(known, self.now.mono) == Reach::Down || known.beat.stale.is_some() {
            return;
        }
        let domain = self.domain_on(server, name);
        if let Some(domain) = domain
            && domain.state.is_active()
            && runs_by(domain, entry.leases.epoch)
        {
            let server = server.clone();
            let Some(work) = self.configs.get_mut(name).and_then(|e| e.work.take()) else { return };
            return self.end(name, work, Ok(format!("{name} runs on {server}").into()));
        }
        let failed = domain.and_then(|d| d.last.as_ref()).filter(|l| Some(&l.id) == order.as_ref());
        if let Some(Err(failure)) = failed.map(|l| l.result.clone()) {
            return self.start_failed(name, failure);
        }
        let at_work = domain.is_some_and(|d| d.job.is_some());
        let (said, order_may_come) = (known.at.0, known.at.0.saturating_add(BOUND_MS + UNSEEN_MS));
        let Some(deadline) = *deadline else {
            if let Some(Work { step: Step::Booting { deadline, .. }, .. }) =
                self.configs.get_mut(name).and_then(|e| e.work.as_mut())
            {
                *deadline = Some(Wall(order_may_come));
            }
            return;
        };
        // an agent that was started anew may have left a call to its hypervisor behind
        let grace = if known.stamp.boot == *boot { 0 } else { 10_000 };
        if !at_work && said > deadline.0.saturating_add(grace) {
            let how = if *answered { "its agent began it" } else { "its agent did not answer" };
            let text = format!("{how}, and it does not run there");
            self.start_failed(name, Failure::new(Code::Io, text));
        }
    }

    /// A second lease for the destination of a migration.
    pub(super) fn lend(
        &mut self,
        ticket: &Ticket,
        name: &ConfigName,
        from: &ServerName,
        to: &ServerName,
        job: &str,
    ) -> Result<(), Failure> {
        let entry = self.configs.get(name).ok_or_else(|| absent("lend", name))?;
        let wrong = |why: String| Failure::busy(format!("cannot migrate {name} to {to}: {why}"));
        if entry.work.is_some() || entry.lending.is_some() {
            return Err(wrong("something else goes on with its config".into()));
        }
        let boot = self.view.server(from.as_str()).map(|s| s.stamp.boot);
        let boot = boot.ok_or_else(|| wrong(format!("{from} is not heard")))?;
        if self.view.server(to.as_str()).is_none() {
            return Err(wrong(format!("{to} is not heard")));
        }
        let port = self.port(name)?;
        let make = self.grant(name, to, port);
        let now = self.now.mono;
        let Some(entry) = self.configs.get_mut(name) else { return Err(absent("lend", name)) };
        let epoch = entry.leases.lend((from, boot), to, job, now, make)?.grant.epoch;
        entry.off_since = None;
        entry.lending = Some(Lending { ticket: ticket.clone(), to: to.clone(), epoch, exported: false });
        self.dirty = true;
        self.send(ticket, Answer::Working, None);
        self.export(name);
        self.tell(name);
        Ok(())
    }

    /// Both exports are there: the destination gets ready.
    fn prepare(&mut self, name: &ConfigName) {
        let boot_files = self.boot_of(name).map(Box::new);
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(lending) = &mut entry.lending else { return };
        lending.exported = true;
        let (to, epoch) = (lending.to.clone(), lending.epoch);
        let Some(lease) = entry.leases.of(&to) else { return };
        let grant = Box::new(lease.grant.clone());
        let Some(server) = self.view.server(to.as_str()) else {
            let failure = Failure::new(Code::HostDown, format!("{to} is not heard any more"));
            return self.lend_failed(name, failure);
        };
        let (boot, heard): (Boot, (Wall, Mono)) = (server.stamp.boot, (server.at, server.heard.mono));
        let command = DomainCommand::Prepare { grant, boot: boot_files };
        let order = Box::new(Order::Domain { name: name.domain(), command });
        let to = Addressee::Server(to);
        self.out.push(Effect::Order { name: name.clone(), tag: Tag::Prepare(epoch), to, boot, heard, order });
    }

    /// The destination cannot have it: the second lease goes, and whoever asked for it is told.
    pub(super) fn lend_failed(&mut self, name: &ConfigName, failure: Failure) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        let Some(lending) = entry.lending.take() else { return };
        entry.leases.held.retain(|l| l.grant.epoch != lending.epoch);
        self.dirty = true;
        self.export(name);
        self.tell(name);
        let to = &lending.to;
        let failure = Failure::new(failure.code, format!("cannot migrate {name} to {to}: {}", failure.text));
        self.answer(&lending.ticket, name, Answer::Failed { failure });
    }
}
