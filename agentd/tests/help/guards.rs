//! What no round may do.

use crate::cluster::{Cluster, SERVERS, server};
use crate::story::GIB;
use crate::world::Machine;
use xvm_model::round::End;
use xvm_model::{DomainName, GroupName, Groups, HypervisorKind, Pin, ServerCommand};

pub fn groups(name: &str) -> Groups {
    Groups([GroupName::parse(name).expect("valid")].into())
}

fn six(cluster: &Cluster, memory: u64) -> Vec<DomainName> {
    (0..6).map(|i| cluster.world.busy("ferby", &format!("d{i}"), &[1.0], memory)).collect()
}

/// Why nobody helped, as it is written down.
fn refusals(cluster: &Cluster) -> String {
    let all = cluster.rounds().into_iter().flat_map(|r| r.refusals);
    all.map(|r| format!("{}: {}\n", r.helper, r.why)).collect()
}

#[tokio::test(start_paused = true)]
async fn pins_hold() {
    let cluster = Cluster::new(21, 3).await;
    let names = six(&cluster, GIB);
    for (i, name) in names.iter().enumerate() {
        // one may go to hedy alone, the others nowhere
        let pin = if i == 3 { vec![server("ferby"), server("hedy")] } else { vec![server("ferby")] };
        cluster.world.keep(name, |s| s.pin = Pin(pin));
    }
    cluster.until("helped", 60, |c| c.world.moved() == 1).await;
    cluster.run(600).await;
    assert_eq!(cluster.world.moves().len(), 1);
    assert_eq!(cluster.world.at(&names[3]), "hedy");
}

#[tokio::test(start_paused = true)]
async fn groups_hold() {
    let cluster = Cluster::new(22, 3).await;
    let names = six(&cluster, GIB);
    // two stay together, the others stay apart from somebody on gerby
    names[..2].iter().for_each(|n| cluster.world.keep(n, |s| s.with = groups("pair")));
    names[2..].iter().for_each(|n| cluster.world.keep(n, |s| s.apart = groups("one")));
    let other = cluster.world.busy("gerby", "other", &[0.1], GIB);
    cluster.world.keep(&other, |s| s.apart = groups("one"));
    cluster.until("helped", 60, |c| c.world.moved() == 1).await;
    cluster.run(600).await;
    // the second has nowhere to go: one of its group is on hedy now
    assert_eq!(cluster.world.moves().len(), 1);
    assert_eq!(cluster.world.moves()[0].to, "hedy");
    assert!(
        refusals(&cluster).contains("a domain of a group that stays apart is here"),
        "{}",
        refusals(&cluster)
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_overfilled_or_opened_or_converted() {
    let cluster = Cluster::new(23, 5).await;
    cluster.world.machine("gerby", Machine { memory: 3 * GIB, ..Machine::default() });
    cluster.world.machine("hedy", Machine { kind: HypervisorKind::Qemu, ..Machine::default() });
    let mut cluster = cluster;
    cluster.start("hedy").await; // its kind is asked once
    cluster.insist("ivy", ServerCommand::Accept { on: false }).await;
    for i in 0..4 {
        cluster.world.busy("jerry", &format!("j{i}"), &[1.0], GIB);
    }
    six(&cluster, 4 * GIB);
    cluster.run(1_200).await;
    assert!(cluster.world.moves().is_empty(), "{:?}", cluster.world.moves());
    let why = refusals(&cluster);
    for word in [
        "gerby: it has too little memory",
        "hedy: its hypervisor is of another kind",
        "ivy: it does not accept",
    ] {
        assert!(why.contains(word), "{why}");
    }
    assert!(cluster.ended(End::NoOffer) < 14, "it asks ever more seldom: {}", cluster.ended(End::NoOffer));
    // there is room at last: it is found within the longest rest
    cluster.insist("ivy", ServerCommand::Accept { on: true }).await;
    cluster.until("helped", 330, |c| c.world.moved() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn no_domain_moves_twice_within_its_cooldown() {
    let mut cluster = Cluster::new(24, 2).await;
    let names = six(&cluster, GIB);
    cluster.until("helped", 60, |c| c.world.moved() == 2).await;
    let moved: Vec<_> = names.iter().filter(|n| cluster.world.at(n) == "gerby").cloned().collect();
    // now gerby suffers, and ferby has room
    for name in names.iter().filter(|n| !moved.contains(n)) {
        cluster.world.demand(name, &[0.0]);
    }
    for i in 0..4 {
        let name = cluster.world.busy("gerby", &format!("g{i}"), &[1.0], GIB);
        cluster.world.keep(&name, |s| s.pin = Pin(vec![server("gerby")]));
    }
    cluster.run(120).await;
    cluster.start("gerby").await;
    cluster.run(600).await;
    cluster.restart().await;
    cluster.run(1_200).await;
    assert_eq!(cluster.world.moves().len(), 2, "{:#?}", cluster.world.moves());
    // an hour after they came they may go
    cluster.until("over", 2_400, |c| c.world.moved() > 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_did_not_come_about_does_not_end_a_cooldown() {
    let cluster = Cluster::new(25, 2).await;
    let names = six(&cluster, GIB);
    cluster.until("helped", 60, |c| c.world.moved() == 2).await;
    let moved: Vec<_> = names.iter().filter(|n| cluster.world.at(n) == "gerby").cloned().collect();
    // somebody orders them away, which fails
    cluster.world.wrong(crate::world::Wrong { fails: 0.0, lies: 0.0, hangs: 0.0, deaf: 0.0 });
    cluster.world.lasts(5_000, 5_000);
    for name in &moved {
        let to = xvm_model::DomainCommand::Migrate {
            to: Some(server("ferby")),
            address: "ferby:1".into(),
            paused: false,
        };
        cluster.domain(name, to).await.expect("begins");
        cluster.run(1).await;
        cluster.domain(name, xvm_model::DomainCommand::Cancel).await.expect("cancelled");
        cluster.run(5).await;
    }
    assert_eq!(cluster.world.moved(), 2);
    for name in names.iter().filter(|n| !moved.contains(n)) {
        cluster.world.demand(name, &[0.0]);
    }
    for i in 0..4 {
        let name = cluster.world.busy("gerby", &format!("g{i}"), &[1.0], GIB);
        cluster.world.keep(&name, |s| s.pin = Pin(vec![server("gerby")]));
    }
    cluster.run(1_200).await;
    assert_eq!(cluster.world.moved(), 2, "{:#?}", cluster.world.moves());
}

#[tokio::test(start_paused = true)]
async fn who_would_bring_no_relief_stays() {
    let cluster = Cluster::new(26, 3).await;
    for name in six(&cluster, GIB) {
        cluster.world.keep(&name, |s| s.pin = Pin(vec![server("ferby")]));
    }
    for i in 0..4 {
        cluster.world.busy("ferby", &format!("idle-{i}"), &[0.01], GIB);
    }
    cluster.run(600).await;
    assert!(cluster.world.moves().is_empty(), "{:#?}", cluster.world.moves());
}

#[tokio::test(start_paused = true)]
async fn two_who_suffer_never_get_the_same_room() {
    for seed in 0..10 {
        let cluster = Cluster::new(100 + seed, 3).await;
        // one CPU is free at hedy; the judge of moves sees who takes more
        for i in 0..3 {
            cluster.world.busy("hedy", &format!("h{i}"), &[1.0], GIB);
        }
        for at in &SERVERS[..2] {
            (0..5).for_each(|i| drop(cluster.world.busy(at, &format!("{at}-{i}"), &[1.0], GIB)));
        }
        cluster.world.lasts(500, 8_000);
        cluster.run(300).await;
        assert_eq!(cluster.world.moved(), 1, "{:#?}", cluster.world.moves());
    }
}
