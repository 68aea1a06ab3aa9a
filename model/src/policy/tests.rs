//! Properties that hold for every rule, in a cluster that is played without a network: whoever asks gets the first offer at once.

use super::*;
use crate::{Cpu, GroupName, Watchdog};
use proptest::prelude::*;
use std::collections::HashMap;

const UNIT_MS: u64 = 300_000;

struct Cluster {
    hosts: Vec<Host>,
    engines: Vec<Engine>,
    now: Mono,
    moved: HashMap<DomainName, Mono>,
    moves: usize,
}

fn guest(name: &str, load: f64) -> Guest {
    Guest { load, ..Guest::new(DomainName::parse(name).expect("name"), 1) }
}

fn group(name: &str) -> Groups {
    Groups([GroupName::parse(name).expect("name")].into())
}

fn server(n: usize) -> ServerName {
    ServerName::parse(&format!("s{n}")).expect("name")
}

impl Cluster {
    fn new(rule: &str, servers: usize, memory: u64) -> Cluster {
        Cluster {
            hosts: (0..servers).map(|s| Host::new(server(s), 4.0, memory)).collect(),
            engines: (0..servers)
                .map(|_| Engine::new(by_name(rule, UNIT_MS as f64 / 1000.0).expect("rule")))
                .collect(),
            now: Mono(0),
            moved: HashMap::new(),
            moves: 0,
        }
    }

    /// One unit in which each domain wants what `load` says; each server may give one domain away.
    fn unit(&mut self, load: impl Fn(&DomainName) -> f64) {
        for host in &mut self.hosts {
            for guest in &mut host.guests {
                guest.load = load(&guest.name);
                guest.busy = u16::from(guest.load >= crate::points::BUSY);
                guest.habit.note(guest.load, UNIT_MS as f64 / 1000.0);
            }
            host.shared = f64::from(host.sums().busy) > host.cpus;
        }
        let score = self.hosts.iter().map(Host::score).sum::<f64>() / self.hosts.len() as f64;
        for (engine, host) in self.engines.iter_mut().zip(&self.hosts) {
            engine.sample(host, &Peers { score }, self.now);
        }
        for asker in 0..self.hosts.len() {
            let Some(request) = self.engines[asker].ask(&self.hosts[asker], self.now) else { continue };
            let first = (0..self.hosts.len())
                .filter_map(|h| Some((h, self.engines[h].offer(&self.hosts[h], &request).ok()?)))
                .min_by(|a, b| a.1.worth.delay_ms.total_cmp(&b.1.worth.delay_ms));
            if let Some((helper, offer)) = first {
                self.carry(asker, helper, &request.wishes[offer.wish].guest.name, offer.projected);
            }
        }
        self.now = self.now.plus(UNIT_MS);
    }

    fn carry(&mut self, from: usize, to: usize, name: &DomainName, projected: f64) {
        let at = self.hosts[from].guests.iter().position(|g| g.name == *name).expect("it is there");
        let mut guest = self.hosts[from].guests.remove(at);
        guest.arrived = Some(self.now);
        let (host, sums) = (&self.hosts[to], self.hosts[to].sums());
        assert!(self.engines[to].policy.room(host, &sums, &guest), "{} is overfilled", host.name);
        assert!(host.load() < 1.05 && sums.projected(4.0) <= projected + 1e-9, "{} is overfilled", host.name);
        self.hosts[to].guests.push(guest);
        self.engines[from].policy.gave(self.now);
        self.moves += 1;
        let host = &self.hosts[to];
        assert!(host.load() < 1.05 && host.load() <= projected + 1e-9, "{} is overfilled", host.name);
        assert!(host.sums().memory <= host.memory, "{} has too little memory", host.name);
        let before = self.moved.insert(name.clone(), self.now);
        let cooldown = self.engines[from].guards.cooldown_ms;
        assert!(
            before.is_none_or(|b| self.now.since(b) >= cooldown),
            "{name} moved twice within its cooldown"
        );
    }

    /// Pins and groups.
    fn check(&self) {
        for host in &self.hosts {
            for (i, g) in host.guests.iter().enumerate() {
                assert!(g.pin.allows(&host.name), "{} is not where it is pinned to", g.name);
                for other in &host.guests[i + 1..] {
                    assert!(g.apart.common(&other.apart).is_none(), "{} is with {}", g.name, other.name);
                }
            }
        }
        let mut homes: HashMap<&GroupName, &ServerName> = HashMap::new();
        for host in &self.hosts {
            for group in host.guests.iter().flat_map(|g| &g.with.0) {
                assert_eq!(*homes.entry(group).or_insert(&host.name), &host.name, "group {group} was parted");
            }
        }
    }
}

/// A load between 0 and 1 for a name and a unit, from a seed.
fn noise(seed: u64, name: &DomainName, unit: u64) -> f64 {
    let mut x = seed ^ unit.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for b in name.as_str().bytes() {
        x = (x ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3);
    }
    x ^= x >> 29;
    (x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1u64 << 24) as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// If this fails, a rule can break a guard: overfill a helper, move a domain within its cooldown, away from its pin, away from
    /// its group or to a domain that it must stay apart from.
    #[test]
    fn guards_hold_for_every_rule_and_any_load(rule in 0usize..NAMES.len(), seed in any::<u64>(), memory in 6u64..12) {
        let mut c = Cluster::new(NAMES[rule], 4, memory);
        for d in 0..20usize {
            let home = if d < 12 { d % 2 } else { d % 4 };
            let mut g = guest(&format!("d{d}"), 0.0);
            match d {
                0 => g.pin = Pin(vec![server(0)]),
                1 => g.pin = Pin(vec![server(1), server(3)]),
                2 | 3 => g.apart = group("db"),
                4 | 6 => g.with = group("web"),
                7 => g.movable = false,
                8 => g.priority = 90,
                _ => {}
            }
            c.hosts[home].guests.push(g);
        }
        for unit in 0..60 {
            c.unit(|name| if noise(seed, name, 0) < 0.4 { 0.9 } else { noise(seed, name, unit) });
            c.check();
            prop_assert!(c.hosts[1].guests.iter().any(|g| g.name.as_str() == "d7"), "what is not movable stays");
        }
    }

    /// If this fails, an evenly loaded cluster is disturbed.
    #[test]
    fn on_a_balanced_cluster_nothing_moves(rule in 0usize..NAMES.len(), each in 0.05f64..0.55) {
        let mut c = Cluster::new(NAMES[rule], 4, 16);
        for d in 0..20 {
            c.hosts[d % 4].guests.push(guest(&format!("d{d}"), 0.0));
        }
        for _ in 0..50 {
            c.unit(|_| each);
        }
        prop_assert_eq!(c.moves, 0);
    }

    /// If this fails, balancing what has been balanced moves something.
    #[test]
    fn balancing_twice_does_nothing_more(rule in 0usize..NAMES.len(), busy in 5usize..14) {
        let mut c = Cluster::new(NAMES[rule], 4, 40);
        for d in 0..busy {
            c.hosts[0].guests.push(guest(&format!("d{d}"), 0.0));
        }
        (0..200).for_each(|_| c.unit(|_| 0.8));
        let moves = c.moves;
        (0..200).for_each(|_| c.unit(|_| 0.8));
        prop_assert_eq!(c.moves, moves);
    }

    /// If this fails, a spike shorter than a rule's time moves something.
    #[test]
    fn a_short_spike_moves_nothing(rule in 0usize..NAMES.len(), calm in 24u64..80) {
        let mut c = Cluster::new(NAMES[rule], 3, 16);
        for d in 0..15 {
            c.hosts[d % 3].guests.push(guest(&format!("d{d}"), 0.0));
        }
        for unit in 0..calm + 40 {
            let spike = (calm..calm + 2).contains(&unit);
            c.unit(|name| if spike && name.as_str().len() == 2 { 0.95 } else { 0.3 });
        }
        prop_assert_eq!(c.moves, 0);
    }
}

/// If this fails, the story of the demo does not end as told: full domains on one of four servers end as four on each, each with a
/// CPU of its own, with the fewest moves.
#[test]
fn points_relieves_one_full_server_with_the_fewest_moves() {
    let mut c = Cluster::new("points", 4, 40);
    for d in 0..16 {
        c.hosts[0].guests.push(guest(&format!("d{d}"), 0.0));
    }
    (0..100).for_each(|_| c.unit(|_| 1.0));
    let counts: Vec<usize> = c.hosts.iter().map(|h| h.guests.len()).collect();
    assert_eq!((counts, c.moves), (vec![4, 4, 4, 4], 12));
}

/// If this fails, a server that an agent's counter calls overloaded asks too early, or again before its last move could be seen.
#[test]
fn the_counter_of_an_agent_decides_when_it_drives() {
    let mut rule = counter::Counter::default();
    let mut host = Host::new(server(0), 4.0, 40);
    for d in 0..5 {
        host.guests.push(guest(&format!("d{d}"), if d == 3 { 1.0 } else { 0.9 }));
    }
    let watchdog = Watchdog { limit: 3, ..Watchdog::default() };
    let second = |rule: &mut counter::Counter, host: &Host, points| {
        rule.counted(watchdog, points);
        rule.sample(host, &Peers::default(), Mono(0));
        rule.pain(host, Mono(0)).is_some()
    };
    let asked: Vec<bool> = [0, 1, 2, 3].map(|p| second(&mut rule, &host, p)).into();
    assert_eq!(asked, [false, false, false, true]);
    host.guests[2].load = 1.0;
    let rise = |d: usize| rule.relief(&host, &Sums::default(), &host.guests[d], 0.0);
    assert!(rise(2) > rise(3), "the one that rose goes, not the most loaded");
    rule.gave(Mono(0));
    let asked: Vec<bool> = [4, 3, 4, 5].map(|p| second(&mut rule, &host, p)).into();
    assert_eq!(asked, [false, false, false, true], "an overload is seen anew after a move");
}

/// If this fails, `adaptive` is as quick with a spiky domain as with a steady one.
#[test]
fn adaptive_waits_longer_for_the_spiky() {
    let wait = |steady: bool| {
        let mut c = Cluster::new("adaptive", 3, 40);
        for engine in &mut c.engines {
            // relief only: evening out would begin before there is an overload
            let mut rule = adaptive::Adaptive::new(300.0);
            rule.even = false;
            *engine = Engine::new(Box::new(rule));
        }
        for d in 0..7 {
            c.hosts[0].guests.push(guest(&format!("d{d}"), 0.0));
        }
        // calm for two hours, then four domains want all: at each unit, or at one in four
        (0..24).for_each(|_| c.unit(|_| 0.4));
        (0u64..60)
            .find(|unit| {
                c.unit(|n| if n.as_str() < "d4" && (steady || unit % 4 == 0) { 1.0 } else { 0.45 });
                c.moves > 0
            })
            .unwrap_or(60)
    };
    assert!(wait(true) < wait(false), "steady {} units, spiky {} units", wait(true), wait(false));
}

/// If this fails, a domain leaves that must stay, or users are told a wrong reason why it stays.
#[test]
fn every_reason_to_stay_has_its_word() {
    let engine = Engine::new(by_name("points", 1.0).expect("rule"));
    let cool = Mono(engine.guards.cooldown_ms);
    let mut host = Host::new(server(0), 4.0, 40);
    host.guests = (0..4).map(|d| guest(&format!("d{d}"), 0.5)).collect();
    let stays = |host: &Host, need| engine.stays(host, &host.guests[0], Mono(10), need);
    assert_eq!(stays(&host, Need::Overload), None);
    host.guests[0].arrived = Some(Mono(5));
    assert_eq!((stays(&host, Need::Overload), stays(&host, Need::Evacuate)), (Some(Stay::Cooldown), None));
    assert_eq!(engine.stays(&host, &host.guests[0], cool.plus(5), Need::Overload), None);
    host.guests[0].arrived = None;
    for d in 0..3 {
        // d0 and d2 stay together by way of d1
        host.guests[d].with = Groups(
            [["a"].as_slice(), &["a", "b"], &["b"]][d].iter().map(|g| group(g).0[0].clone()).collect(),
        );
    }
    assert_eq!((stays(&host, Need::Overload), stays(&host, Need::Restore)), (Some(Stay::Mates), None));
    let names: Vec<&str> = mates(&host, &host.guests[0]).iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["d1", "d2"]);
    let request = engine.evacuate(&host, &[], Mono(0)).expect("all may leave");
    let sums: Vec<Option<f64>> = request.wishes.iter().map(|w| Some(w.mates.as_ref()?.sums.demand)).collect();
    assert_eq!(sums, [Some(1.0), None], "one wish for the three, one for d3");
    host.guests[2].pin = Pin(vec![server(0)]);
    assert_eq!(stays(&host, Need::Evacuate), Some(Stay::MateStays));
    host.guests[2].pin = Pin(vec![server(0), server(1)]);
    host.guests[0].pin = Pin(vec![server(0), server(2)]);
    assert_eq!(stays(&host, Need::Evacuate), Some(Stay::Parted));
    host.guests[0].pin = Pin(vec![server(0)]);
    assert_eq!(stays(&host, Need::Evacuate), Some(Stay::Pinned));
    host.guests[0].movable = false;
    assert_eq!(stays(&host, Need::Evacuate), Some(Stay::Busy));
}

/// If this fails, a domain comes to a server of another kind, to one that was not asked, or to one without room for its group.
#[test]
fn a_helper_looks_at_the_whole_request() {
    let engine = Engine::new(by_name("points", 1.0).expect("rule"));
    let mut host = Host::new(server(0), 4.0, 40);
    host.guests =
        (0..4).map(|d| Guest { with: group("a"), busy: 1, ..guest(&format!("d{d}"), 1.0) }).collect();
    let request = engine.evacuate(&host, &[], Mono(0)).expect("all may leave");
    let mut helper = Host::new(server(1), 4.0, 40);
    let ask = |helper: &Host, change: &dyn Fn(&mut Request)| {
        let mut request = request.clone();
        change(&mut request);
        engine.offer(helper, &request).map(|offer| offer.projected)
    };
    assert_eq!(ask(&helper, &|_| ()), Ok(1.0), "a CPU of its own for each of the four");
    assert_eq!(ask(&helper, &|r| r.only = Some(server(2))), Err(Refusal::Only));
    assert_eq!(ask(&helper, &|r| r.platform = HypervisorKind::Xen.into()), Err(Refusal::Kind));
    let cpu = |cpu| Platform { cpu: Cpu::parse(cpu).ok(), ..HypervisorKind::Sim.into() };
    helper.platform = cpu("aarch64/-");
    assert_eq!(ask(&helper, &|r| r.platform = cpu("x86_64/EPYC")), Err(Refusal::Cpu));
    let pinned = |r: &mut Request| r.wishes[0].mates.as_mut().expect("mates").pin = Pin(vec![server(3)]);
    assert_eq!(ask(&helper, &pinned), Err(Refusal::Pinned));
    helper.guests.push(Guest { apart: group("b"), busy: 1, ..guest("x", 1.0) });
    assert_eq!(ask(&helper, &|_| ()), Err(Refusal::Load));
    let apart = |r: &mut Request| r.wishes[0].mates.as_mut().expect("mates").apart = group("b");
    assert_eq!(ask(&helper, &apart), Err(Refusal::Apart));
    helper.memory = 4;
    assert_eq!(ask(&helper, &|_| ()), Err(Refusal::Memory));
}

/// If this fails, a new agent waits for hours before it relieves a steady overload, or takes a spike for one.
#[test]
fn adaptive_relieves_a_new_and_full_server_within_a_minute() {
    let asks = |busy_s: u64| {
        let mut engine = Engine::new(Box::new(adaptive::Adaptive::new(1.0)));
        let (mut host, empty) = (Host::new(server(0), 4.0, 40), Host::new(server(1), 4.0, 40));
        (0..8).for_each(|d| host.guests.push(guest(&format!("d{d}"), 0.0)));
        (1..=120u64).find(|&second| {
            for guest in &mut host.guests {
                guest.load = if second <= busy_s { 1.0 } else { 0.05 };
                guest.habit.note(guest.load, 1.0);
            }
            engine.sample(&host, &Peers { score: 0.3 }, Mono(second * 1000));
            let request = engine.ask(&host, Mono(second * 1000));
            request.is_some_and(|r| engine.offer(&empty, &r).is_ok())
        })
    };
    let first = asks(120).expect("a steady overload is relieved");
    assert!((20..=60).contains(&first), "after {first} s");
    assert_eq!(asks(8), None, "a spike is over before the rule knows its domains");
}

/// If this fails, `adaptive` helps a server a little over the edge, and none that is far over it: one of a crowd relieves little of
/// what all suffer.
#[test]
fn adaptive_helps_a_server_that_is_far_over_the_edge() {
    let mut engine = Engine::new(Box::new(adaptive::Adaptive::new(1.0)));
    let mut host = Host::new(server(0), 4.0, 64);
    for d in 0..16 {
        let mut guest = Guest::new(DomainName::parse(&format!("d{d}")).expect("name"), 1);
        guest.load = 1.0;
        host.guests.push(guest);
    }
    for second in 0..60 {
        host.guests.iter_mut().for_each(|g| g.habit.note(g.load, 1.0));
        engine.sample(&host, &Peers::default(), Mono(second * 1000));
    }
    let request = engine.ask(&host, Mono(60_000)).expect("it asks");
    let idle = Host::new(server(1), 4.0, 64);
    assert!(engine.offer(&idle, &request).is_ok(), "and is helped");
}

/// If this fails, `adaptive` lets a server run out of memory, or fills its helper up instead.
#[test]
fn adaptive_relieves_memory_too_and_stops_when_it_is_enough() {
    let mut c = Cluster::new("adaptive", 3, 100);
    for d in 0..99 {
        c.hosts[0].guests.push(guest(&format!("d{d}"), 0.0));
    }
    for d in 99..99 + 89 {
        c.hosts[1].guests.push(guest(&format!("d{d}"), 0.0));
    }
    (0..60).for_each(|_| c.unit(|_| 0.01));
    let counts: Vec<usize> = c.hosts.iter().map(|h| h.guests.len()).collect();
    assert!(counts[0] == 95 && counts[1] <= 90 && c.moves == 4, "{counts:?}, {} moves", c.moves);
}

/// If this fails, a server that is only fuller than others asks although evening out is off.
#[test]
fn adaptive_evens_out_only_when_it_is_told_to() {
    let asks = |even: bool, load: f64| {
        let mut rule = adaptive::Adaptive::new(300.0);
        rule.even = even;
        let mut engine = Engine::new(Box::new(rule));
        let mut host = Host::new(server(0), 4.0, 40);
        (0..6).for_each(|d| host.guests.push(guest(&format!("d{d}"), load)));
        for guest in &mut host.guests {
            (0..12).for_each(|_| guest.habit.note(load, 300.0));
        }
        engine.sample(&host, &Peers { score: 0.2 }, Mono(0));
        engine.ask(&host, Mono(0)).is_some()
    };
    assert_eq!([asks(true, 0.6), asks(false, 0.6), asks(false, 0.65)], [true, false, true]);
}
