//! Where a domain may move, and which server is the best for it.

use crate::view::{DomainView, Reach, Server, View};
use crate::{Code, Failure, Mono, Ratio, ServerName};
use std::sync::Arc;

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
    if let Err(why) = fits(view, domain, server, now) {
        return cannot(why.0, why.1);
    }
    Ok(server.clone())
}

/// The server that would be loaded least with `domain` on it. The error tells for each server why it cannot take the domain.
pub fn best_destination(view: &View, domain: &DomainView, now: Mono) -> Result<Arc<Server>, Failure> {
    let mut reasons = Vec::new();
    let mut best: Option<(Ratio, std::cmp::Reverse<u64>, &Arc<Server>)> = None;
    for server in view.servers().filter(|s| s.name != domain.server) {
        match fits(view, domain, server, now) {
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

fn fits(view: &View, domain: &DomainView, server: &Server, now: Mono) -> Result<(), (Code, String)> {
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
    if let Some(source) = view.server(domain.server.as_str()) {
        let (here, there) = (source.beat.hypervisor, server.beat.hypervisor);
        if here != there {
            return Err((Code::NotSupported, format!("its hypervisor is {there}, the domain's is {here}")));
        }
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
