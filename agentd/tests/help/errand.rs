//! Servers are emptied, and get back what they gave.

use crate::cluster::{Cluster, server};
use crate::guards::groups;
use crate::story::GIB;
use crate::world::Machine;
use std::time::Duration;
use tokio::time::sleep;
use xvm_model::server::BalanceMode;
use xvm_model::{Code, DomainName, Pin, ServerCommand};

/// So many little domains on a server.
fn some(cluster: &Cluster, at: &str, n: usize) -> Vec<DomainName> {
    (0..n).map(|i| cluster.world.busy(at, &format!("{at}-{i}"), &[0.2], GIB)).collect()
}

fn is_over(c: &Cluster, name: &str) -> bool {
    let (job, last) = c.job(name);
    job.is_none() && last.is_some()
}

fn outcome(c: &Cluster, name: &str) -> Result<String, String> {
    let last = c.job(name).1.expect("an outcome");
    last.result.map(Into::into).map_err(|f| f.text)
}

#[tokio::test(start_paused = true)]
async fn a_server_is_emptied_and_gets_back_exactly_what_it_gave() {
    let mut cluster = Cluster::new(31, 4).await;
    // it works also when nobody balances
    cluster.balance("ferby", BalanceMode::Off).await;
    let given = some(&cluster, "ferby", 6);
    let others = some(&cluster, "gerby", 3);
    cluster.world.lasts(300, 2_000);
    cluster.run(5).await;
    cluster.tell("ferby", ServerCommand::Evacuate).await.expect("begins");
    let busy = cluster.tell("ferby", ServerCommand::Restore).await.expect_err("one job at a time");
    assert_eq!(busy.code, Code::Busy);
    cluster.until("emptied", 120, |c| is_over(c, "ferby")).await;
    assert_eq!(outcome(&cluster, "ferby"), Ok("ferby is empty: 6 domains moved".into()));
    assert_eq!((cluster.world.count("ferby"), cluster.world.moved()), (0, 6));
    assert!(!cluster.settings("ferby").accepting);
    cluster.restart().await;
    cluster.run(60).await;
    assert_eq!(cluster.world.moved(), 6);
    cluster.insist("ferby", ServerCommand::Restore).await;
    cluster.until("restored", 240, |c| is_over(c, "ferby")).await;
    cluster.run(30).await;
    assert_eq!((cluster.world.count("ferby"), cluster.world.moved()), (6, 12));
    assert!(given.iter().all(|n| cluster.world.at(n) == "ferby"));
    assert!(others.iter().all(|n| cluster.world.at(n) == "gerby"));
    assert!(cluster.settings("ferby").accepting);
    // nothing is owed any more
    cluster.insist("ferby", ServerCommand::Restore).await;
    cluster.run(60).await;
    assert_eq!(cluster.world.moved(), 12);
}

#[tokio::test(start_paused = true)]
async fn groups_leave_together_and_pinned_ones_stay() {
    let cluster = Cluster::new(32, 3).await;
    // gerby has no room for the three that stay together
    cluster.world.machine("gerby", Machine { memory: 2 * GIB, ..Machine::default() });
    let names = some(&cluster, "ferby", 6);
    names[..3].iter().for_each(|n| cluster.world.keep(n, |s| s.with = groups("trio")));
    cluster.world.keep(&names[3], |s| s.pin = Pin(vec![server("ferby")]));
    cluster.world.keep(&names[4], |s| s.pin = Pin(vec![server("ferby"), server("gerby")]));
    cluster.run(3).await;
    cluster.insist("ferby", ServerCommand::Evacuate).await;
    cluster.until("as empty as can be", 300, |c| is_over(c, "ferby")).await;
    let why = outcome(&cluster, "ferby").expect_err("one stays");
    assert_eq!(why, "cannot evacuate all of ferby: there stay ferby-3 (it is pinned to this server)");
    assert!(names[..3].iter().all(|n| cluster.world.at(n) == "hedy"));
    assert_eq!(cluster.world.at(&names[4]), "gerby");
    assert_eq!(cluster.world.count("ferby"), 1);
    cluster.insist("ferby", ServerCommand::Restore).await;
    cluster.until("restored", 240, |c| is_over(c, "ferby")).await;
    assert_eq!(cluster.world.count("ferby"), 6);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_has_room_it_says_why_and_can_be_cancelled() {
    let cluster = Cluster::new(33, 3).await;
    cluster.world.machine("gerby", Machine { memory: GIB, ..Machine::default() });
    cluster.insist("hedy", ServerCommand::Accept { on: false }).await;
    let names = some(&cluster, "ferby", 3);
    cluster.run(3).await;
    cluster.insist("ferby", ServerCommand::Evacuate).await;
    let says = |c: &Cluster| c.job("ferby").0.and_then(|j| j.note).unwrap_or_default().to_string();
    cluster.until("why", 60, |c| says(c).contains("hedy: it does not accept domains")).await;
    assert!(says(&cluster).contains("gerby: it has too little memory"), "{}", says(&cluster));
    assert_eq!(cluster.job("ferby").0.map(|j| j.percent), Some(33));
    cluster.insist("ferby", ServerCommand::Cancel).await;
    assert!(is_over(&cluster, "ferby"));
    cluster.run(400).await;
    assert_eq!(cluster.world.moved(), 1);
    // room comes: it goes on where it was, and all come back
    cluster.insist("hedy", ServerCommand::Accept { on: true }).await;
    cluster.insist("ferby", ServerCommand::Evacuate).await;
    cluster.until("emptied", 400, |c| is_over(c, "ferby")).await;
    cluster.insist("ferby", ServerCommand::Restore).await;
    cluster.until("restored", 240, |c| is_over(c, "ferby")).await;
    assert!(names.iter().all(|n| cluster.world.at(n) == "ferby"));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_evacuation_remembers_who_was_on_the_way() {
    let cluster = Cluster::new(34, 2).await;
    let names = some(&cluster, "ferby", 3);
    cluster.world.lasts(10_000, 10_000);
    cluster.run(3).await;
    cluster.insist("ferby", ServerCommand::Evacuate).await;
    cluster.until("one moves", 20, |c| c.world.carries() == 1).await;
    cluster.insist("ferby", ServerCommand::Cancel).await;
    cluster.until("it has moved", 20, |c| c.world.moved() == 1).await;
    cluster.run(60).await;
    assert_eq!(cluster.world.moves().len(), 1, "nothing goes on");
    cluster.insist("ferby", ServerCommand::Restore).await;
    cluster.until("restored", 240, |c| is_over(c, "ferby")).await;
    assert!(names.iter().all(|n| cluster.world.at(n) == "ferby"));
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_when_its_agent_is_killed_at_any_moment() {
    for seed in 0..12u64 {
        let mut cluster = Cluster::new(200 + seed, 4).await;
        cluster.world.machine("gerby", Machine { memory: 2 * GIB, ..Machine::default() });
        let names = some(&cluster, "ferby", 6);
        names[..3].iter().for_each(|n| cluster.world.keep(n, |s| s.with = groups("trio")));
        let others = some(&cluster, "hedy", 2);
        cluster.world.lasts(500, 4_000);
        cluster.run(3).await;
        cluster.insist("ferby", ServerCommand::Evacuate).await;
        for kill in 0..3 {
            sleep(Duration::from_millis(300 + (seed * 977 + kill * 1_511) % 5_000)).await;
            cluster.start("ferby").await;
        }
        cluster.until("emptied", 300, |c| is_over(c, "ferby") && c.world.carries() == 0).await;
        assert_eq!(outcome(&cluster, "ferby"), Ok("ferby is empty: 6 domains moved".into()), "seed {seed}");
        let homes: Vec<_> = names[..3].iter().map(|n| cluster.world.at(n)).collect();
        assert!(homes.iter().all(|h| *h == homes[0]), "seed {seed}: {homes:?}");
        cluster.insist("ferby", ServerCommand::Restore).await;
        for kill in 0..3 {
            sleep(Duration::from_millis(300 + (seed * 577 + kill * 2_311) % 9_000)).await;
            cluster.start(["ferby", "hedy", "ivy"][kill as usize]).await;
        }
        cluster.until("restored", 400, |c| is_over(c, "ferby")).await;
        assert!(names.iter().all(|n| cluster.world.at(n) == "ferby"), "seed {seed}");
        assert!(others.iter().all(|n| cluster.world.at(n) == "hedy"), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_home_without_room_says_so_and_others_are_still_helped() {
    let cluster = Cluster::new(35, 3).await;
    let names = some(&cluster, "ferby", 2);
    cluster.run(3).await;
    cluster.insist("ferby", ServerCommand::Evacuate).await;
    cluster.until("emptied", 60, |c| is_over(c, "ferby")).await;
    cluster.world.machine("ferby", Machine { memory: GIB / 2, ..Machine::default() });
    let at = cluster.world.at(&names[0]);
    cluster.run(3).await;
    cluster.insist("ferby", ServerCommand::Restore).await;
    let note = |c: &Cluster| c.job("ferby").0.and_then(|j| j.note).unwrap_or_default().to_string();
    cluster.until("why", 40, |c| note(c).contains("it has too little memory")).await;
    cluster.run(60).await;
    // who has such a domain is overloaded meanwhile
    (0..6).for_each(|i| drop(cluster.world.busy(&at, &format!("hot-{i}"), &[1.0], GIB)));
    cluster.until("helped", 60, |c| c.world.moved() == 3).await;
    cluster.until("given up", 300, |c| is_over(c, "ferby")).await;
    let why = outcome(&cluster, "ferby").expect_err("no room");
    assert!(why.contains("ferby-0 (it has too little memory)"), "{why}");
    cluster.world.machine("ferby", Machine::default());
    cluster.insist("ferby", ServerCommand::Restore).await;
    cluster.until("restored", 400, |c| names.iter().all(|n| c.world.at(n) == "ferby")).await;
}
