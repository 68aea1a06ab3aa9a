//! What users tell the cluster and its servers.

use crate::cluster::{Cluster, server};
use crate::story::GIB;
use xvm_model::round::End;
use xvm_model::server::BalanceMode;
use xvm_model::{PolicyName, Sender, ServerCommand};

fn overload(cluster: &Cluster, at: &str, tag: &str) {
    for i in 0..6 {
        cluster.world.busy(at, &format!("{tag}-{i}"), &[1.0], GIB);
    }
}

#[tokio::test(start_paused = true)]
async fn balance_reaches_whoever_was_away_and_outlives_all() {
    let mut cluster = Cluster::new(11, 3).await;
    cluster.kill("hedy").await;
    for name in ["ferby", "gerby"] {
        cluster.balance(name, BalanceMode::Off).await;
    }
    overload(&cluster, "hedy", "h");
    overload(&cluster, "ferby", "f");
    cluster.run(30).await;
    // the one that was away asks nobody
    cluster.start("hedy").await;
    cluster.until("heard", 20, |c| c.settings("hedy").balance.mode == BalanceMode::Off).await;
    cluster.run(120).await;
    cluster.restart().await;
    cluster.run(120).await;
    assert!(cluster.world.moves().is_empty(), "{:?}", cluster.world.moves());
    assert!(cluster.rounds().is_empty());

    // one hears it, all learn it, also one whose link is down meanwhile
    let gerby = Sender::Agent(server("gerby"));
    cluster.net.link(&gerby, false);
    cluster.balance("ferby", BalanceMode::DryRun).await;
    cluster.run(30).await;
    cluster.net.link(&gerby, true);
    let dry = |c: &Cluster| {
        ["ferby", "gerby", "hedy"].iter().all(|s| c.settings(s).balance.mode == BalanceMode::DryRun)
    };
    cluster.until("learnt", 15, dry).await;
    cluster.until("recorded", 60, |c| c.ended(End::Dry) >= 2).await;
    cluster.restart().await;
    cluster.run(300).await;
    assert!(dry(&cluster));
    assert!(cluster.world.moves().is_empty(), "{:?}", cluster.world.moves());
    let round = cluster.rounds().into_iter().find(|r| r.outcome.as_ref().is_some_and(|o| o.end == End::Dry));
    assert!(round.is_some_and(|r| r.dry && r.accepted.is_some()));

    cluster.balance("hedy", BalanceMode::On).await;
    cluster.until("helped", 400, |c| c.counts() == [4, 4, 4]).await;
    cluster.run(300).await;
    assert_eq!(cluster.world.moves().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn off_ends_a_round_that_runs_and_an_older_word_changes_nothing() {
    let cluster = Cluster::new(12, 3).await;
    let old = cluster.clock.now().wall;
    cluster.run(5).await;
    overload(&cluster, "ferby", "f");
    let asks = |c: &Cluster| c.rounds().iter().any(|r| r.outcome.is_none());
    // everybody is slow: the round is under way when the word comes
    for name in ["gerby", "hedy"] {
        cluster.balance(name, BalanceMode::Off).await;
    }
    cluster.balance("ferby", BalanceMode::Off).await;
    cluster.until("quiet", 10, |c| !asks(c)).await;
    let moves = cluster.world.moves().len();
    let balance = xvm_model::server::Balance { mode: BalanceMode::On, at: old };
    cluster.insist("ferby", ServerCommand::Balance { balance }).await;
    cluster.run(200).await;
    assert_eq!(cluster.settings("ferby").balance.mode, BalanceMode::Off);
    assert_eq!(cluster.world.moves().len(), moves);
}

#[tokio::test(start_paused = true)]
async fn the_other_rule_helps_too_and_evens_out_only_when_told() {
    let mut cluster = Cluster::new(13, 3).await;
    for name in ["ferby", "gerby", "hedy"] {
        cluster.insist(name, ServerCommand::Policy { name: PolicyName::Adaptive }).await;
        cluster.insist(name, ServerCommand::Even { on: false }).await;
    }
    cluster.restart().await;
    cluster.run(40).await;
    overload(&cluster, "ferby", "f");
    cluster.until("helped", 600, |c| c.world.moved() > 0).await;
    cluster.run(1_800).await;
    assert!(!cluster.world.overloaded("ferby"));
    assert!(cluster.world.moves().len() <= 3, "{:?}", cluster.world.moves());
    assert!(cluster.rounds().iter().all(|r| &*r.policy == "adaptive"));
}

#[tokio::test(start_paused = true)]
async fn a_watchdog_of_its_own_asks_later() {
    let cluster = Cluster::new(14, 2).await;
    let watchdog = ServerCommand::Watchdog { points: None, threshold: None, limit: Some(60), unit: Some(2) };
    cluster.insist("ferby", watchdog).await;
    overload(&cluster, "ferby", "f");
    cluster.run(110).await;
    assert!(cluster.world.moves().is_empty());
    cluster.until("helped", 40, |c| c.world.moved() == 1).await;
}
