//! Random orders, lost answers, servers that come and go, imaged that dies: whatever happens, two servers have exports of one config only
//! in a migration, nothing is ended that has a lease, and in the end everything comes to rest.

use super::rig::{Rig, server};
use crate::keeper::step::{Effect, Input, Tag};
use proptest::prelude::*;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use xvm_model::{
    Answer, ConfigCommand, DomainCommand, DomainState, Failure, Grant, Job, JobKind, Order, Wall,
};

const HOSTS: [&str; 3] = ["ferby", "gerby", "herby"];
const NAMES: [&str; 2] = ["small-1", "small-2"];

#[derive(Debug, Clone)]
enum Act {
    Start(usize, usize),
    /// An order to an agent is carried out; whether its answer arrives.
    Obey(bool),
    /// An order is lost.
    Lose,
    Stop(usize),
    Lend(usize, usize),
    /// A migration that was lent arrives, or stays.
    Settle(usize, bool),
    Pass(u64, usize),
    Die,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..2usize, 0..3usize).prop_map(|(n, h)| Act::Start(n, h)),
        4 => any::<bool>().prop_map(Act::Obey),
        1 => Just(Act::Lose),
        2 => (0..2usize).prop_map(Act::Stop),
        2 => (0..2usize, 0..3usize).prop_map(|(n, h)| Act::Lend(n, h)),
        2 => (0..2usize, any::<bool>()).prop_map(|(n, b)| Act::Settle(n, b)),
        4 => (1u64..80, 0..8usize).prop_map(|(s, mask)| Act::Pass(s * 500, mask)),
        1 => Just(Act::Die),
    ]
}

/// Where each domain really runs, with the grant that its disks were opened by.
type Truth = BTreeMap<(usize, usize), Grant>;

struct Storm {
    rig: Rig,
    truth: Truth,
    jobs: u32,
}

impl Storm {
    fn new() -> Storm {
        let mut rig = Rig::new();
        NAMES.iter().for_each(|name| rig.made(name));
        // the second one is taken from a server that is away
        let always = ConfigCommand::Set { key: "restart".into(), value: "always".into() };
        rig.order(NAMES[1], always);
        Storm { rig, truth: Truth::new(), jobs: 0 }
    }

    fn show(&mut self, n: usize, h: usize, job: Option<Job>, ended: Option<(&str, bool)>) {
        let Some(grant) = self.truth.get(&(n, h)).cloned() else { return self.rig.gone(HOSTS[h], NAMES[n]) };
        self.rig.domain(HOSTS[h], NAMES[n], |d| {
            d.state = DomainState::Running;
            d.settings.grant = Some(Box::new(grant));
            d.job = job.map(Box::new);
            if let Some((id, good)) = ended {
                d.last = Rig::ended(id, if good { Ok("x") } else { Err(Failure::busy("x")) });
            }
        });
    }

    fn obey(&mut self, answered: bool) {
        let Some((to, tag, order)) = self.rig.take_order() else { return };
        let late = self.rig.age() >= 5_000;
        let Order::Domain { name, command } = order else { return };
        let (Some(h), Some(n)) =
            (HOSTS.iter().position(|x| *x == to), NAMES.iter().position(|x| *x == name.as_str()))
        else {
            return;
        };
        let result = match command {
            DomainCommand::Create { .. } if late => {
                Err(Failure::new(xvm_model::Code::TimedOut, "it came too late"))
            }
            DomainCommand::Create { spec } => match self.truth.entry((n, h)) {
                Entry::Occupied(_) => Err(Failure::new(xvm_model::Code::Exists, "there is one")),
                Entry::Vacant(free) => {
                    free.insert(spec.grant);
                    Ok("j")
                }
            },
            DomainCommand::Fence { epoch } => {
                if self.truth.get(&(n, h)).is_some_and(|g| g.epoch == epoch) {
                    self.truth.remove(&(n, h));
                }
                Ok("d")
            }
            _ => Ok("p"),
        };
        if answered {
            self.rig.reply(NAMES[n], tag, result);
        } else {
            let failure = Failure::new(xvm_model::Code::TimedOut, "nobody knows");
            self.rig.reply(NAMES[n], tag, Err(failure));
        }
        if tag != Tag::Prepare(0) {
            self.show(n, h, None, None);
        }
    }

    fn lend(&mut self, n: usize, to: usize) {
        let Some(&(_, from)) = self.truth.keys().find(|k| k.0 == n) else { return };
        self.jobs += 1;
        let id: Box<str> = format!("m{}", self.jobs).into();
        let (phase, since) = ("lease".into(), Wall(0));
        let job =
            Job { id: id.clone(), kind: JobKind::Migrate, phase, percent: 0, to: None, since, note: None };
        self.show(n, from, Some(job), None);
        let lend = ConfigCommand::Lend { from: server(HOSTS[from]), to: server(HOSTS[to]), job: id.clone() };
        if let Some(Answer::Failed { .. }) = self.rig.order(NAMES[n], lend) {
            self.show(n, from, None, Some((&id, false)));
        }
    }

    fn settle(&mut self, n: usize, arrives: bool) {
        let leases = self.rig.record(NAMES[n]).leases;
        let [first, second] = &leases[..] else { return };
        let at = |s: &str| HOSTS.iter().position(|x| *x == s).expect("a host");
        let (from, to) = (at(first.grant.server.as_str()), at(second.grant.server.as_str()));
        let id = second.job.clone().expect("a migration");
        if !self.truth.contains_key(&(n, from)) {
            return;
        }
        if arrives {
            self.truth.remove(&(n, from));
            self.truth.insert((n, to), second.grant.clone());
            self.show(n, from, None, None);
            self.show(n, to, None, None);
        } else {
            self.show(n, from, None, Some((&id, false)));
        }
    }

    /// Exports of a config belong to one server, or to the two ends of a migration.
    fn check(&self) {
        for name in NAMES {
            let leases = self.rig.record(name).leases;
            let servers: BTreeSet<_> = leases.iter().map(|l| l.grant.server.clone()).collect();
            assert!(servers.len() == leases.len() && leases.len() <= 2, "{leases:?}");
            if let [_, second] = &leases[..] {
                assert!(second.job.is_some(), "{leases:?}");
            }
            assert_eq!(
                self.rig.kept.configs[&super::rig::config(name)].leases.held,
                leases,
                "kept before it counts"
            );
        }
        for effect in &self.rig.open {
            let Effect::Order { order, to, .. } = effect else { continue };
            if let Order::Domain { name, command: DomainCommand::Fence { epoch } } = &**order {
                let leases = self.rig.record(name.as_str()).leases;
                let held = leases.iter().any(|l| l.grant.epoch == *epoch);
                assert!(!held, "{name} has the lease {epoch} on {to} and is ended there");
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Start(n, h) => {
                self.rig.order(NAMES[n], ConfigCommand::Start { on: Some(server(HOSTS[h])) });
            }
            Act::Obey(answered) => self.obey(answered),
            Act::Lose => {
                if let Some((_, tag, Order::Domain { name, .. })) = self.rig.take_order() {
                    let failure = Failure::new(xvm_model::Code::TimedOut, "nobody knows");
                    self.rig.reply(name.as_str(), tag, Err(failure));
                }
            }
            Act::Stop(n) => {
                for h in 0..3 {
                    if self.truth.remove(&(n, h)).is_some() {
                        self.show(n, h, None, None);
                    }
                }
            }
            Act::Lend(n, to) => self.lend(n, to),
            Act::Settle(n, arrives) => self.settle(n, arrives),
            Act::Pass(ms, mask) => {
                let heard: Vec<&str> = (0..3).filter(|h| mask & (1 << h) != 0).map(|h| HOSTS[h]).collect();
                self.rig.pass(ms, &heard);
            }
            Act::Die => self.rig.restart(),
        }
        self.check();
    }
}

proptest! {
    #[test]
    fn the_disk_of_a_config_has_one_server(acts in prop::collection::vec(act(), 1..60)) {
        let mut storm = Storm::new();
        for act in acts {
            storm.act(act);
        }
        // all are heard again, every order is obeyed: it comes to rest with one place for each
        for n in 0..NAMES.len() {
            storm.settle(n, true);
        }
        // a migration whose leases were taken back has failed
        for (n, h) in storm.truth.keys().copied().collect::<Vec<_>>() {
            storm.show(n, h, None, Some(("lost", false)));
        }
        for _ in 0..30 {
            storm.rig.input(Input::Tick);
            while storm.rig.open.iter().any(|e| matches!(e, Effect::Order { .. })) {
                storm.obey(true);
                storm.check();
            }
            storm.rig.pass(2_000, &HOSTS);
        }
        for (n, name) in NAMES.iter().enumerate() {
            let record = storm.rig.record(name);
            let runs: Vec<String> = storm.truth.keys().filter(|k| k.0 == n).map(|k| HOSTS[k.1].to_owned()).collect();
            let leases: Vec<String> = record.leases.iter().map(|l| l.grant.server.to_string()).collect();
            prop_assert_eq!(&runs, &leases, "{:?}", record);
            prop_assert!(record.job.is_none());
        }
    }
}
