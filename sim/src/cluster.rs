//! One replay.

use crate::rounds::{Rounds, Server};
use crate::{Figures, Loads};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::collections::HashMap;
use xvm_model::{
    DomainName, Mono, ServerName,
    policy::{self, Engine, Guest, Host, Peers},
};

/// The memory of a domain in KiB: one GiB, for want of recordings.
const DOMAIN_KIB: u64 = 1 << 20;

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

/// What the domains want in one sample.
pub struct Place<'a> {
    loads: &'a Loads,
    ids: &'a HashMap<DomainName, usize>,
    t: usize,
}

impl Place<'_> {
    /// CPUs that `domain` wants now.
    pub fn load(&self, domain: &DomainName) -> f64 {
        self.ids.get(domain).map_or(0.0, |&d| self.loads.domains[d][self.t])
    }
}

/// Replays `loads` under `rule`, a word of [`policy::NAMES`]; any other word balances nothing.
pub fn replay(loads: &Loads, setup: &Setup, rule: &str) -> Figures {
    let mut figures = Figures::default();
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let mut rounds = Rounds::new(deal(loads, setup, rule, &mut rng), setup);
    let ids: HashMap<DomainName, usize> = names(loads).into_iter().enumerate().map(|(d, n)| (n, d)).collect();
    let mut order: Vec<usize> = (0..rounds.servers.len()).collect();
    let unit_ms = (setup.unit_s * 1000.0) as u64;
    for t in 0..loads.samples() {
        let place = Place { loads, ids: &ids, t };
        let begin = t as u64 * unit_ms;
        for server in &mut rounds.servers {
            for guest in &mut server.host.guests {
                guest.load = place.load(&guest.name);
                guest.habit.note(guest.load, setup.unit_s);
            }
        }
        account(&mut rounds.servers, &mut figures, t, setup);
        if rule == "none" || t + 1 == loads.samples() {
            continue;
        }
        let hosts = rounds.servers.iter().map(|s| s.host.score());
        let score = hosts.sum::<f64>() / rounds.servers.len() as f64;
        for Server { host, engine, .. } in &mut rounds.servers {
            if let Some(engine) = engine {
                engine.sample(host, &Peers { score }, Mono(begin));
            }
        }
        order.shuffle(&mut rng);
        rounds.unit(&order, begin, begin + unit_ms, &place, &mut rng, &mut figures);
    }
    figures.overload /= (rounds.servers.len() * loads.samples()) as f64;
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
        .map(|s| {
            let name = ServerName::parse(&format!("s{s}")).expect("a letter and digits are a name");
            let engine = policy::by_name(rule, setup.unit_s).map(Engine::new);
            Server::new(Host::new(name, setup.cpus, memory), engine)
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
