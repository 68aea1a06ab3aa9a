//! If these fail, what a directory lists, what can be walked to, and what stat tells disagree: `ls`, `find` and `cp -r` see different trees.
#![allow(clippy::unwrap_used)] // a test may panic

use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use xvm_bus::{Client, Clock, Net};
use xvm_model::message::Rounds;
use xvm_model::policy::Need;
use xvm_model::round::Round;
use xvm_model::*;
use xvmfs::cluster::Cluster;
use xvmfs::inode::ROOT;
use xvmfs::tree::{FileKind, Node, Opened, Tree};

/// What the servers say: for each server, its domains by number with their states.
type Said = Vec<Vec<(u8, DomainState)>>;

fn said() -> impl Strategy<Value = Said> {
    let domain = (0u8..6, prop::sample::select(DomainState::ALL));
    prop::collection::vec(prop::collection::vec(domain, 0..6), 0..4)
}

fn beat(domains: &[(u8, DomainState)]) -> Heartbeat {
    let domain = |(n, state): &(u8, DomainState)| {
        let names = ["small-1", "with space", "zwölf", "ctl", "README", "a.b-c_d"];
        let name = DomainName::parse(names[usize::from(*n) % names.len()]).unwrap();
        Domain { state: *state, ..Domain::new(name, Uuid::from_u128(u128::from(*n))) }
    };
    Heartbeat {
        settings: ServerSettings::default(),
        points: 0,
        hypervisor: HypervisorKind::Sim,
        cpu: None,
        address: "x:1".into(),
        stale: None,
        cpus: vec![Ratio::ZERO; 2],
        memory: ServerMemory::default(),
        domains: domains.iter().map(domain).collect(),
        job: None,
        last: None,
        departed: vec![],
    }
}

/// As many rounds of help as the server has said domains.
fn rounds(asker: &ServerName, domains: &[(u8, DomainState)]) -> Body {
    let round = |n| Round {
        id: format!("{asker}.1.{n}").into(),
        asker: asker.clone(),
        need: Need::Overload,
        policy: "points".into(),
        dry: false,
        at: Wall(n as u64),
        load: 1.0,
        why: "5 points of 5".into(),
        wishes: vec![],
        offers: vec![],
        refusals: vec![],
        accepted: None,
        outcome: None,
        effect: None,
    };
    Body::Rounds(Box::new(Rounds { rounds: (0..domains.len()).map(round).collect() }))
}

/// A guestd that can run one test, and runs it.
fn guest() -> GuestBeat {
    GuestBeat {
        interval_ms: 60_000,
        version: "0.1.0".into(),
        uptime: 1,
        cpus: 1,
        load: Ratio::ZERO,
        steal: Ratio::ZERO,
        average: [0; 3],
        pressure: None,
        memory: xvm_model::guest::GuestMemory::default(),
        tests: vec!["fibonacci".into()],
        loading: None,
    }
}

/// As many configs as the first server has said domains, some with the names of domains.
fn configs(domains: &[(u8, DomainState)]) -> Vec<ConfigRecord> {
    let record = |(i, (n, _)): (usize, &(u8, DomainState))| ConfigRecord {
        name: ConfigName::parse(["small-1", "ctl", "README", "wait", "events", "log"][usize::from(*n) % 6])
            .unwrap(),
        config: Config::new(Uuid::from_u128(i as u128)),
        state: ConfigState::ALL[i % ConfigState::ALL.len()],
        job: None,
        remaining: None,
        last: None,
        leases: vec![],
        boot: None,
        guest_key: None,
        log: 0,
        wrong: None,
    };
    domains.iter().enumerate().map(record).collect()
}

/// A tree of servers `ferby`, `events`, ... that said this; some are called like files are.
fn tree(said: &Said) -> Tree {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let (net, clock) = (Net::new(1), Clock::system());
        let client = ClientName::parse("test").unwrap();
        let topics = ["heartbeat.", "domain.", "rounds.", "configs", "reply.test", "forwarder.", "guest."]
            .map(String::from)
            .to_vec();
        let (publisher, receiver) =
            net.connect(Sender::Client(client.clone()), Boot(1), topics, clock.clone());
        let cluster =
            Cluster::new(publisher.clone(), Client::new(publisher, client), clock.clone(), "memory".into());
        let agents: Vec<_> = ["ferby", "events", "domains", "wait"]
            .iter()
            .zip(said)
            .map(|(name, domains)| {
                let name = ServerName::parse(name).unwrap();
                let (agent, _ears) = net.connect(Sender::Agent(name.clone()), Boot(1), vec![], clock.clone());
                (agent, name, domains)
            })
            .collect();
        let kerby = ServerName::parse("kerby").unwrap();
        let (images, _ears) = net.connect(Sender::Images(kerby), Boot(1), vec![], clock.clone());
        let configs = said.first().map(|domains| configs(domains)).unwrap_or_default();
        // the domains of the first server have a guestd
        let names = said.first().into_iter().flatten().map(|d| beat(&[*d]).domains[0].name.clone());
        let names: std::collections::BTreeSet<DomainName> = names.collect();
        let guests: Vec<_> = names
            .into_iter()
            .map(|name| {
                let (guest, _ears) = net.connect(Sender::Guest(name.clone()), Boot(1), vec![], clock.clone());
                (guest, name)
            })
            .collect();
        let heard = async {
            let known = || cluster.view().servers().map(|s| s.domains.len()).sum::<usize>();
            let mut told: Vec<Vec<u8>> = said.iter().map(|d| d.iter().map(|d| d.0).collect()).collect();
            told.iter_mut().for_each(|names| {
                names.sort_unstable();
                names.dedup();
            });
            let wanted: usize = told.iter().map(Vec::len).sum();
            let asked: usize = said.iter().map(Vec::len).sum();
            while cluster.view().server_count() < agents.len()
                || known() < wanted
                || cluster.view().rounds().count() < asked
                || cluster.view().images().is_none()
                || cluster.view().guest_count() < guests.len()
            {
                let (view, now) = (cluster.view(), cluster.now().mono);
                for (guest_of, name) in &guests {
                    // said too often it would be dropped
                    if view.domain(name.as_str(), now).is_some() && view.guest(name.as_str(), now).is_none() {
                        guest_of.publish(Topic::Guest(name.clone()), Body::Guest(Box::new(guest())));
                    }
                }
                let configs = Configs { interval_ms: 60_000, configs: configs.clone(), ..Configs::default() };
                images.publish(Topic::Configs, Body::Configs(Box::new(configs)));
                for (agent, name, domains) in &agents {
                    agent.publish(Topic::Heartbeat(name.clone()), Body::Heartbeat(Box::new(beat(domains))));
                    agent.publish(Topic::Rounds(name.clone()), rounds(name, domains));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        cluster.feed(receiver, heard).await;
        let evening = cluster.schedules().make("evening", cluster.now().wall).unwrap();
        cluster.schedules().set(&evening, "0 small-* disk", cluster.now().wall).unwrap();
        Tree::new(Arc::clone(&cluster))
    })
}

/// Checks a directory and all below it; returns how many inodes it saw.
fn walk(tree: &Tree, dir: u64, path: &str, seen: &mut HashMap<u64, String>) {
    assert_eq!(tree.attr(dir).unwrap().kind, FileKind::Dir, "{path}");
    let mut names: Vec<String> = Vec::new();
    for entry in tree.list(dir).unwrap() {
        let path = format!("{path}/{}", entry.name.as_str());
        let found = tree.lookup(dir, entry.name.as_str()).unwrap_or_else(|e| panic!("{path} is listed: {e}"));
        assert_eq!((found.ino, found.kind), (entry.ino, entry.kind), "{path}");
        assert_eq!(tree.attr(entry.ino).unwrap().kind, entry.kind, "{path}");
        names.push(entry.name.as_str().to_owned());
        match entry.kind {
            FileKind::Link => {
                let target = tree.readlink(entry.ino).unwrap();
                assert_eq!(target, format!("../../../domains/{}", entry.name.as_str()), "{path}");
                assert_eq!(found.size, target.len() as u64, "{path}");
                continue; // the same number in each server's directory
            }
            FileKind::Dir => {
                assert_eq!(tree.parent(entry.ino), dir, "{path}");
                walk(tree, entry.ino, &path, seen);
            }
            FileKind::File => {
                assert!(matches!(tree.node(entry.ino), Ok(Node::Row(..))), "{path}");
                assert!(tree.list(entry.ino).is_err(), "{path} is no directory");
                // `age` may grow by a digit between the two
                if let Opened::Text(text) | Opened::Setting(_, _, text) | Opened::Ctl(_, text) =
                    tree.open(entry.ino).unwrap()
                {
                    let size = tree.attr(entry.ino).unwrap().size;
                    assert!(size.abs_diff(text.len() as u64) <= 64, "{path}: {size} and {}", text.len());
                    assert!(text.is_empty() || text.ends_with('\n'), "{path}");
                }
            }
        }
        assert_eq!(seen.insert(entry.ino, path.clone()), None, "{path} has another file's number");
    }
    let listed = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), listed, "{path} lists a name twice");
    for absent in ["", ".", "..", "nobody", "ctl\0", "a/b", "😀"] {
        assert!(tree.lookup(dir, absent).is_err(), "{path}/{absent}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn list_walk_attributes_and_inode_numbers_agree(said in said(), numbers in prop::collection::vec(any::<u64>(), 20)) {
        let tree = tree(&said);
        let mut seen = HashMap::from([(ROOT, String::new())]);
        walk(&tree, ROOT, "", &mut seen);
        let rows: usize = xvmfs::tables::cluster::DIRECTORIES.iter().map(|d| d.1.len()).sum();
        prop_assert!(seen.len() > rows || said.is_empty() || said[0].is_empty());
        for ino in numbers.into_iter().filter(|n| !seen.contains_key(n)) {
            // numbers that nobody was given name nothing, in every call
            prop_assert!(tree.attr(ino).is_err() && tree.open(ino).is_err() && tree.list(ino).is_err());
        }
    }

    /// The numbers of files stay the same in another mount, whatever came before.
    #[test]
    fn numbers_do_not_depend_on_history(said in said()) {
        let (mut a, mut b) = (HashMap::new(), HashMap::new());
        walk(&tree(&said), ROOT, "", &mut a);
        let mut more = said.clone();
        more.push(vec![(5, DomainState::Running)]);
        walk(&tree(&more), ROOT, "", &mut b);
        for (ino, path) in a {
            prop_assert_eq!(b.get(&ino), Some(&path));
        }
    }
}
