//! Which server runs a config that is started.

use super::Keeper;
use xvm_model::config::GuestType;
use xvm_model::lease::Phase;
use xvm_model::{Code, ConfigName, Failure, HypervisorKind, Reach, Server, ServerName};

impl Keeper {
    /// The server that shall run it: the named one when it can, else the one that will be loaded least.
    pub(super) fn choose(&self, name: &ConfigName, on: Option<&ServerName>) -> Result<ServerName, Failure> {
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
}
