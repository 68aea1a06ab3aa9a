//! The stories of the issue: five on four CPUs, and sixteen on one of four servers.

use crate::cluster::{Cluster, SERVERS};
use crate::world::Machine;
use std::time::Duration;
use tokio::time::Instant;
use xvm_model::round::End;

/// A GiB in KiB.
pub const GIB: u64 = 1 << 20;

#[tokio::test(start_paused = true)]
async fn of_five_busy_domains_on_four_cpus_one_moves_and_no_more() {
    for (seed, mapped) in [(1, false), (2, true)] {
        let mut cluster = Cluster::new(seed, 3).await;
        for name in SERVERS {
            cluster.world.machine(name, Machine { mapped, ..Machine::default() });
        }
        cluster.world.lasts(1_000, 1_000);
        let names: Vec<_> =
            (1..=5).map(|i| cluster.world.busy("ferby", &format!("small-{i}"), &[0.0], GIB)).collect();
        cluster.run(10).await;
        assert!(cluster.world.moves().is_empty());
        let begin = Instant::now();
        for name in &names {
            cluster.world.demand(name, &[1.0]);
        }
        cluster.until("helped", 12, |c| c.world.moved() == 1).await;
        assert!(begin.elapsed() <= Duration::from_secs(12));
        cluster.run(600).await;
        assert_eq!(cluster.world.moves().len(), 1, "each has a CPU of its own");
        assert_eq!(cluster.points("ferby"), 0);
        // the story is told, with what it brought, and outlives all agents
        let told = cluster.rounds();
        assert_eq!(told.len(), 1, "{told:?}");
        let round = &told[0];
        assert_eq!(round.outcome.as_ref().map(|o| o.end), Some(End::Moved));
        assert!(round.accepted.is_some() && round.effect.is_some(), "{}", round.outcome());
        assert_eq!(round.offers.len(), 2, "{}", round.outcome());
        let job = cluster.world.moves()[0].came.clone().and_then(|c| c.round);
        assert_eq!(job.as_deref(), Some(&*round.id));
        cluster.forget();
        cluster.restart().await;
        cluster.until("told again", 10, |c| c.rounds() == told).await;
        cluster.run(60).await;
        assert_eq!(cluster.world.moves().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_on_one_of_four_servers_end_four_each_with_twelve_moves() {
    for (seed, mapped) in [(3, false), (4, true)] {
        let cluster = Cluster::new(seed, 4).await;
        for name in SERVERS {
            cluster.world.machine(name, Machine { mapped, ..Machine::default() });
        }
        cluster.world.lasts(300, 3_000);
        for i in 0..16 {
            cluster.world.busy("ferby", &format!("small-{i}"), &[1.0], GIB);
        }
        cluster.until("spread", 600, |c| c.counts() == [4, 4, 4, 4]).await;
        cluster.run(900).await;
        assert_eq!((cluster.world.moves().len(), cluster.counts()), (12, vec![4; 4]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_spike_moves_nothing() {
    let cluster = Cluster::new(5, 3).await;
    let names: Vec<_> =
        (1..=6).map(|i| cluster.world.busy("ferby", &format!("small-{i}"), &[0.1], GIB)).collect();
    for _ in 0..20 {
        names.iter().for_each(|n| cluster.world.demand(n, &[1.0]));
        cluster.run(3).await;
        names.iter().for_each(|n| cluster.world.demand(n, &[0.1]));
        cluster.run(4).await;
    }
    assert!(cluster.world.moves().is_empty() && cluster.rounds().is_empty());
}
