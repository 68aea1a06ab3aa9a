//! Where a domain may move, and which server is the best for it.

use crate::view::{DomainView, Reach, Server, View};
use crate::{Code, Domain, DomainState, Failure, JobKind, Mono, Ratio, ServerName};
use std::sync::Arc;

/// Whether a domain can be moved in that way: what cannot move while it runs moves while it stands.
pub fn check_way(domain: &Domain, paused: bool) -> Result<(), Failure> {
    match &domain.fixed {
        Some(why) if !paused => {
            let text = format!(
                "cannot migrate {} while it runs: {why}; `migrate --paused [SERVER]` moves it while it stands",
                domain.name
            );
            Err(Failure::new(Code::NotSupported, text))
        }
        _ => Ok(()),
    }
}

/// Why `to` may not take `domain`, or nothing.
pub fn check_destination(
    view: &View,
    domain: &DomainView,
    to: &ServerName,
    now: Mono,
) -> Result<Arc<Server>, Failure> {
    let name = &domain.domain.name;
    let cannot = |code, why: String| Err(Failure::new(code, format!("cannot migrate {name} to {to}: {why}")));
    let Some(server) = view.server(to.as_str()) else {
        let known: Vec<&str> = view.servers().take(20).map(|s| s.name.as_str()).collect();
        return cannot(Code::NoEntry, format!("no such server; servers are {}", known.join(", ")));
    };
    if domain.server == *to {
        return cannot(Code::Exists, "it is there already".into());
    }
    let company = Company::of(view, domain);
    if let Err(why) = fits(view, domain, server, &company, now) {
        return cannot(why.0, why.1);
    }
    Ok(server.clone())
}

/// The server that would be loaded least with `domain` on it. The error tells for each server why it cannot take the domain.
pub fn best_destination(view: &View, domain: &DomainView, now: Mono) -> Result<Arc<Server>, Failure> {
    let company = Company::of(view, domain);
    let mut reasons = Vec::new();
    let mut best: Option<(Ratio, std::cmp::Reverse<u64>, &Arc<Server>)> = None;
    for server in view.servers().filter(|s| s.name != domain.server) {
        match fits(view, domain, server, &company, now) {
            Err((_, why)) => reasons.push(format!("{}: {why}", server.name)),
            Ok(()) => {
                let rank =
                    (projected_load(server, domain), std::cmp::Reverse(server.beat.memory.free), server);
                if best.as_ref().is_none_or(|b| (rank.0, rank.1) < (b.0, b.1)) {
                    best = Some(rank);
                }
            }
        }
    }
    if let Some((_, _, server)) = best {
        return Ok(server.clone());
    }
    let why = if reasons.is_empty() { "there is no other server".to_owned() } else { reasons.join("; ") };
    Err(Failure::new(
        Code::NoSpace,
        format!("cannot migrate {}: no server can take it: {why}", domain.domain.name),
    ))
}

/// The load of `server` with `domain` on it.
pub fn projected_load(server: &Server, domain: &DomainView) -> Ratio {
    let cpus = server.beat.cpus.len().max(1) as f64;
    let vcpus = domain.domain.vcpus.len() as f64;
    Ratio::new(server.beat.load().get() + domain.domain.load.get() * vcpus / cpus)
}

/// The domains that share a group with one that is to move, each with the servers where it is or is about to be.
struct Company<'a> {
    /// Those that it stays together with and that are where it is.
    with: Vec<(&'a Domain, Option<&'a ServerName>)>,
    /// Those that it stays apart from.
    apart: Vec<(&'a Domain, &'a ServerName)>,
}

impl<'a> Company<'a> {
    fn of(view: &'a View, domain: &DomainView) -> Self {
        let mut company = Company { with: Vec::new(), apart: Vec::new() };
        let settings = &domain.domain.settings;
        if settings.with.0.is_empty() && settings.apart.0.is_empty() {
            return company;
        }
        for server in view.servers() {
            for other in &server.domains {
                let here = other.state.is_active() || other.state == DomainState::Incoming;
                if !here || other.name == domain.domain.name {
                    continue;
                }
                let job = other.job.as_ref().filter(|j| j.kind == JobKind::Migrate);
                let to = job.and_then(|j| j.to.as_ref());
                if other.state.is_active()
                    && server.name == domain.server
                    && other.settings.with.common(&settings.with).is_some()
                {
                    company.with.push((other, to));
                }
                if other.settings.apart.common(&settings.apart).is_some() {
                    company
                        .apart
                        .extend([Some(&server.name), to].into_iter().flatten().map(|s| (&**other, s)));
                }
            }
        }
        company
    }

    /// Why the groups of `domain` forbid `server`, or nothing.
    fn allows(&self, domain: &DomainView, server: &Server) -> Result<(), String> {
        let name = &domain.domain.name;
        let settings = &domain.domain.settings;
        if let Some((other, _)) = self.apart.iter().find(|(_, at)| **at == server.name) {
            let group = other.settings.apart.common(&settings.apart);
            let group = group.map(ToString::to_string).unwrap_or_default();
            let other = &other.name;
            return Err(format!("{other} is there, and {name} stays apart from it (group {group})"));
        }
        if let Some((mate, _)) = self.with.iter().find(|(_, to)| *to != Some(&server.name)) {
            let group = mate.settings.with.common(&settings.with);
            let group = group.map(ToString::to_string).unwrap_or_default();
            let (mate, here) = (&mate.name, &domain.server);
            return Err(format!("{name} stays together with {mate} (group {group}), which is on {here}"));
        }
        Ok(())
    }
}

fn fits(
    view: &View,
    domain: &DomainView,
    server: &Server,
    company: &Company<'_>,
    now: Mono,
) -> Result<(), (Code, String)> {
    match view.reach(server, now) {
        Reach::Down => return Err((Code::HostDown, "it is down".into())),
        Reach::Stale => {
            let why = server.beat.stale.as_deref().unwrap_or("three heartbeats are missing");
            return Err((Code::HostDown, format!("it is stale: {why}")));
        }
        Reach::Maintenance => {
            return Err((Code::Busy, "it does not accept domains (`echo accept on > ctl` there)".into()));
        }
        Reach::Up => {}
    }
    if !domain.domain.settings.pin.allows(&server.name) {
        return Err((Code::Permission, format!("the domain is pinned to {}", domain.domain.settings.pin)));
    }
    company.allows(domain, server).map_err(|why| (Code::Permission, why))?;
    if let Some(source) = view.server(domain.server.as_str()) {
        server
            .beat
            .platform()
            .takes(&source.beat.platform())
            .map_err(|why| (Code::NotSupported, why.to_string()))?;
    }
    let (needs, free) = (domain.domain.memory.current, server.beat.memory.free);
    if needs > free {
        return Err((
            Code::NoSpace,
            format!("it has {} MiB of memory free, the domain needs {}", free / 1024, needs.div_ceil(1024)),
        ));
    }
    Ok(())
}
