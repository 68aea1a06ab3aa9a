//! What the acts share: the rounds of help as the tree tells them, conditions that take long, loads.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use xvm_tests::{Cluster, Tree};

/// How an ended round is named in `outcome`.
const ENDS: [&str; 7] = ["moved", "failed", "no-offer", "not-held", "dry", "cancelled", "lost"];

/// One directory of `help/`.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// Its name.
    pub id: String,
    /// Who asked.
    pub asker: String,
    /// When, as text that sorts.
    pub at: String,
    /// What for: overload, evacuate, restore.
    pub need: String,
    /// How it ended; empty while it runs.
    pub end: String,
    /// Whose offer was taken; empty when nobody's.
    pub helper: String,
    /// The domain that moved, or was to; empty when nobody's offer was taken.
    pub domain: String,
    /// The file `offers`.
    pub offers: String,
    /// The file `outcome`.
    pub outcome: String,
}

/// All rounds that are told, the oldest first.
pub fn rounds(tree: &Tree) -> Vec<Round> {
    let mut all: Vec<Round> = tree.names("help").iter().filter_map(|id| round(tree, id)).collect();
    all.sort_by(|a, b| (&a.at, &a.id).cmp(&(&b.at, &b.id)));
    all
}

/// Those that ended so.
pub fn ended(tree: &Tree, end: &str) -> Vec<Round> {
    rounds(tree).into_iter().filter(|r| r.end == end).collect()
}

fn round(tree: &Tree, id: &str) -> Option<Round> {
    // one that is forgotten meanwhile is none
    let file = |name: &str| tree.get(&format!("help/{id}/{name}")).ok();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    };
    let (request, offers, accept, outcome) =
        (file("request")?, file("offers")?, file("accept")?, file("outcome")?);
    let end = outcome.lines().find_map(|l| ENDS.into_iter().find(|e| l.starts_with(&format!("{e}: "))));
    Some(Round {
        id: id.into(),
        asker: value(&request, "asker"),
        at: value(&request, "at"),
        need: value(&request, "need"),
        end: end.unwrap_or_default().into(),
        helper: value(&accept, "helper"),
        domain: value(&accept, "domain"),
        offers,
        outcome,
    })
}

/// Waits for what takes longer than other conditions: a counter that rises second by second, rests between rounds.
#[track_caller]
pub fn patiently<T>(tree: &Tree, what: &str, seconds: u64, mut answer: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        if start.elapsed() > Duration::from_secs(seconds) {
            let told: Vec<String> =
                rounds(tree).iter().map(|r| format!("{} {}\n{}", r.at, r.id, r.outcome)).collect();
            let points: Vec<String> =
                tree.names("servers").iter().map(|s| format!("{s} {}", points(tree, s))).collect();
            panic!("waited {seconds} s in vain for: {what}; points {points:?}, rounds:\n{}", told.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The overload counter of a server.
#[track_caller]
pub fn points(tree: &Tree, server: &str) -> u32 {
    let text = tree.value(&format!("servers/{server}/watchdog"), "points");
    text.and_then(|t| t.parse().ok()).expect("points are a number")
}

/// Waits until a server was heard so many times more.
#[track_caller]
pub fn beats(tree: &Tree, server: &str, count: usize) {
    let file = tree.path(&format!("servers/{server}/status"));
    let heard = || std::fs::metadata(&file).and_then(|m| m.modified()).ok();
    let (mut last, mut seen) = (heard(), 0);
    patiently(tree, &format!("{count} heartbeats of {server}"), 120, || {
        let now = heard();
        if now != last {
            (last, seen) = (now, seen + 1);
        }
        (seen >= count).then_some(())
    });
}

/// An agent in its second life offers nothing for the 30 s in which a promise of the life before may hold: waits until all may. Of
/// heartbeats each 0.2 s.
#[track_caller]
pub fn grown(cluster: &Cluster) {
    let server = cluster.agents.keys().next().expect("a cluster has servers");
    beats(&cluster.tree, server, 160);
}

/// Where each domain is.
pub fn places(tree: &Tree) -> BTreeMap<String, String> {
    let place = |name: String| {
        let server = tree.get(&format!("domains/{name}/server")).unwrap_or_default().trim_end().to_owned();
        (name, server)
    };
    tree.names("domains").into_iter().map(place).collect()
}

/// The domains of a server.
pub fn on(tree: &Tree, server: &str) -> Vec<String> {
    places(tree).into_iter().filter(|(_, s)| s == server).map(|(name, _)| name).collect()
}

/// Work for a domain, in percent of each of its vCPUs.
#[track_caller]
pub fn load(tree: &Tree, domain: &str, percent: u32) {
    tree.order(&format!("domains/{domain}/ctl"), &format!("load {percent} 900"));
}

/// Domains of one vCPU each, small-1 and so on, that want nearly nothing until they are given work: flags of an agent.
pub fn smalls(count: usize) -> Vec<String> {
    (1..=count).flat_map(|n| ["--domain".to_owned(), format!("small-{n},demand=0.02")]).collect()
}

/// [`Cluster::sim`] with four CPUs a server, which beats each 0.2 s.
#[track_caller]
pub fn cluster(servers: &[(&str, Vec<String>)]) -> Cluster {
    let flags: Vec<(&str, Vec<&str>)> =
        servers.iter().map(|(name, flags)| (*name, flags.iter().map(String::as_str).collect())).collect();
    let cluster =
        Cluster::sim(&flags.iter().map(|(name, flags)| (*name, flags.as_slice())).collect::<Vec<_>>());
    cluster.heartbeat("0.2");
    cluster
}

/// All that runs is killed at once, and started again.
#[track_caller]
pub fn restart(c: &mut Cluster) {
    let servers: Vec<String> = c.agents.keys().cloned().collect();
    c.mount.kill();
    c.forwarder.kill();
    servers.iter().for_each(|s| c.agent(s).kill());
    c.forwarder.launch();
    servers.iter().for_each(|s| c.agent(s).launch());
    c.mount.launch();
    c.mounted();
    for server in &servers {
        xvm_tests::wait_for(&format!("{server} after the restart"), || {
            let state = c.tree.get(&format!("servers/{server}/state")).ok()?;
            ["up", "maintenance"].contains(&state.trim_end()).then_some(())
        });
    }
}
