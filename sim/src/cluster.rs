//! One replay.

use crate::{Figures, Loads};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use xvm_model::{
    DomainName, Mono, ServerName,
    policy::{self, Engine, Guest, Host, Offer, Peers, Request},
};

/// The memory of a domain in KiB: one GiB, for want of recordings.
const DOMAIN_KIB: u64 = 1 << 20;
/// A move back within this time undoes the one before it, in milliseconds.
const UNDONE_MS: u64 = 30 * 60_000;
/// How long a message takes, in milliseconds.
const WIRE_MS: f64 = 1.0;
/// The random part of an offer's delay, in milliseconds for each server that is heard: among a thousand that could help as well,
/// only some are then on their way when the first is accepted.
const CHANCE_MS: f64 = 0.5;

/// What is replayed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// The mean load of the servers, which gives their number.
    pub load: f64,
    /// The number of servers, when it does not come from the load.
    pub servers: Option<usize>,
    /// CPUs of each server.
    pub cpus: f64,
    /// How many times the mean number of domains a server has memory for.
    pub crowd: f64,
    /// Seconds between two samples.
    pub unit_s: f64,
    /// How long a move takes, in seconds.
    pub move_s: f64,
    /// What chance is made of.
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { load: 0.7, servers: None, cpus: 4.0, crowd: 1.6, unit_s: 300.0, move_s: 30.0, seed: 1 }
    }
}

impl Setup {
    /// The number of servers for `loads`.
    pub fn servers(&self, loads: &Loads) -> usize {
        let wanted = (loads.mean() / (self.cpus * self.load)).round().clamp(1.0, 1e6) as usize;
        self.servers.unwrap_or(wanted).max(1)
    }

    /// The most domains that a server has memory for: never fewer than its share at the begin.
    pub fn crowd(&self, loads: &Loads, servers: usize) -> u64 {
        let mean = loads.domains.len() as f64 / servers as f64;
        ((self.crowd * mean) as u64).max(mean.ceil() as u64)
    }
}

/// A server in the replay.
struct Server {
    host: Host,
    /// None: no balancing.
    engine: Option<Engine>,
    /// Since which sample it is overloaded.
    hot: Option<usize>,
}

/// Where a domain came from, and when.
#[derive(Clone, Copy)]
struct Trail {
    from: usize,
    at: Mono,
}

/// Replays `loads` under `rule`, a word of [`policy::NAMES`]; any other word balances nothing.
pub fn replay(loads: &Loads, setup: &Setup, rule: &str) -> Figures {
    let mut figures = Figures::default();
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let mut servers = deal(loads, setup, rule, &mut rng);
    let mut trails: Vec<Option<Trail>> = vec![None; loads.domains.len()];
    let mut ids: std::collections::HashMap<DomainName, usize> = std::collections::HashMap::new();
    for (d, name) in names(loads).into_iter().enumerate() {
        ids.insert(name, d);
    }
    let mut order: Vec<usize> = (0..servers.len()).collect();
    for t in 0..loads.samples() {
        let now = Mono((t as f64 * setup.unit_s * 1000.0) as u64);
        for server in &mut servers {
            for guest in &mut server.host.guests {
                guest.load = loads.domains[ids[&guest.name]][t];
                guest.habit.note(guest.load, setup.unit_s);
            }
        }
        account(&mut servers, &mut figures, t, setup);
        if rule == "none" || t + 1 == loads.samples() {
            continue;
        }
        let score = servers.iter().map(|s| s.host.score()).sum::<f64>() / servers.len() as f64;
        for Server { host, engine, .. } in &mut servers {
            if let Some(engine) = engine {
                engine.sample(host, &Peers { score }, now);
            }
        }
        order.shuffle(&mut rng);
        for &asker in &order {
            let Some(request) = servers[asker].engine.as_ref().and_then(|e| e.ask(&servers[asker].host, now))
            else {
                continue;
            };
            figures.requests += 1;
            figures.messages += 1;
            if let Some((helper, offer)) = first_offer(&servers, &request, &mut rng, &mut figures) {
                let d = ids[&request.wishes[offer.wish].guest.name];
                carry(&mut servers, asker, helper, &request, &offer, now);
                figures.moves += 1;
                figures.moving += 0.1 * loads.domains[d][t] * setup.move_s / 3600.0;
                if trails[d].is_some_and(|r| r.from == helper && now.since(r.at) <= UNDONE_MS) {
                    figures.undone += 1;
                }
                trails[d] = Some(Trail { from: asker, at: now });
            }
        }
    }
    figures.overload /= (servers.len() * loads.samples()) as f64;
    figures
}

/// Names as the model wants them: files of recordings may be called anything.
fn names(loads: &Loads) -> Vec<DomainName> {
    (0..loads.domains.len())
        .map(|d| DomainName::parse(&format!("d{d}")).expect("a letter and digits are a name"))
        .collect()
}

fn deal(loads: &Loads, setup: &Setup, rule: &str, rng: &mut StdRng) -> Vec<Server> {
    let count = setup.servers(loads);
    let memory = setup.crowd(loads, count) * DOMAIN_KIB;
    let mut servers: Vec<Server> = (0..count)
        .map(|s| Server {
            host: Host::new(
                ServerName::parse(&format!("s{s}")).expect("a letter and digits are a name"),
                setup.cpus,
                memory,
            ),
            engine: policy::by_name(rule, setup.unit_s).map(Engine::new),
            hot: None,
        })
        .collect();
    let mut all = names(loads);
    all.shuffle(rng);
    for (i, name) in all.into_iter().enumerate() {
        servers[i % count].host.guests.push(Guest::new(name, DOMAIN_KIB));
    }
    servers
}

fn account(servers: &mut [Server], figures: &mut Figures, t: usize, setup: &Setup) {
    let mut missing = 0.0;
    for server in servers {
        let demand = server.host.demand();
        if demand >= setup.cpus {
            figures.overload += 1.0;
            server.hot.get_or_insert(t);
        } else if let Some(since) = server.hot.take() {
            figures.relieved.0 += 1;
            figures.relieved.1 += (t - since) as u64;
        }
        missing += (demand - setup.cpus).max(0.0);
    }
    figures.contention += missing * setup.unit_s / 3600.0;
    figures.missing.push(missing);
}

/// All helpers hear the request at once; who waits longer than the first offer takes to be accepted hears that and is silent.
fn first_offer(
    servers: &[Server],
    request: &Request,
    rng: &mut StdRng,
    figures: &mut Figures,
) -> Option<(usize, Offer)> {
    let mut offers: Vec<(f64, usize, Offer)> = Vec::new();
    for (s, server) in servers.iter().enumerate().filter(|(_, s)| s.host.name != request.asker) {
        let chance = rng.random_range(0.0..CHANCE_MS * servers.len() as f64);
        if let Some(Ok(offer)) = server.engine.as_ref().map(|e| e.offer(&server.host, request)) {
            offers.push((offer.worth.delay_ms + chance, s, offer));
        }
    }
    let first = offers.iter().map(|o| o.0).min_by(f64::total_cmp)?;
    // the first offer must reach the asker, and its accept the others
    let sent = offers.iter().filter(|o| o.0 <= first + 2.0 * WIRE_MS).count() as u64;
    // accept and end; the accept names the helper, so that it declines all others
    figures.messages += sent + 2;
    offers.into_iter().find(|o| o.0 == first).map(|(_, s, offer)| (s, offer))
}

fn carry(servers: &mut [Server], asker: usize, helper: usize, request: &Request, offer: &Offer, now: Mono) {
    let name = &request.wishes[offer.wish].guest.name;
    let Some(at) = servers[asker].host.guests.iter().position(|g| g.name == *name) else { return };
    let mut guest = servers[asker].host.guests.remove(at);
    guest.arrived = Some(now);
    servers[helper].host.guests.push(guest);
    if let Some(engine) = &mut servers[asker].engine {
        engine.policy.gave(now);
    }
}
