//! If one of these fails, a command may run twice or late, or the cluster shows what is not true.
//!
//! Two agents on the in-memory bus, with all of its faults, over hypervisors that hang, fail and lie; time is paused, so each seed
//! runs the same way each time.

#[path = "driver/rig.rs"]
mod rig;
#[path = "driver/world.rs"]
mod world;

use rand::{Rng, SeedableRng, rngs::StdRng};
use rig::{Cluster, server};
use std::{collections::BTreeMap, time::Duration};
use tokio::{time::Instant, time::sleep};
use world::Wrong;
use xvm_bus::Faults;
use xvm_model::{
    Answer, Boot, Code, DomainCommand, DomainName, DomainState, Failure, Order, Reply, Sender, ServerCommand,
    Shown, Wall,
};

const SERVERS: [&str; 2] = ["ferby", "gerby"];

impl Cluster {
    async fn new(seed: u64) -> Cluster {
        let dirs = SERVERS.map(|s| (s, tempfile::tempdir().expect("scratch folder"))).into_iter().collect();
        Cluster::begin(seed, Wall(1_000_000), &["heartbeat.", "domain.", "reply.test"], dirs).await
    }

    async fn tell(&self, name: &DomainName, command: DomainCommand) -> Result<Reply, Failure> {
        let at = self.shown().get(name).map(|(at, _)| at.clone());
        let at = at.ok_or_else(|| Failure::no_entry("not heard yet"))?;
        self.order(&at, Order::Domain { name: name.clone(), command }).await
    }

    /// What the listener sees.
    fn shown(&self) -> BTreeMap<DomainName, (String, Shown)> {
        let view = self.view.lock().expect("whole");
        let now = self.clock.mono();
        let row = |n: &DomainName| {
            view.domain(n.as_str(), now).map(|d| (n.clone(), (d.server.to_string(), d.shown)))
        };
        view.domain_names().filter_map(row).collect()
    }

    /// What is true.
    fn truth(&self) -> BTreeMap<DomainName, (String, Shown)> {
        let row = |(s, n, state, _)| (n, (s, Shown::Known(state)));
        self.world.truth().into_iter().map(row).collect()
    }

    fn job_runs(&self) -> bool {
        let (view, now) = (self.view.lock().expect("whole"), self.clock.mono());
        view.domain_names().any(|n| view.domain(n.as_str(), now).is_some_and(|d| d.domain.job.is_some()))
    }

    async fn wait_for(&self, what: &str, seconds: u64, mut condition: impl FnMut(&Cluster) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !condition(self) {
            assert!(
                Instant::now() < end,
                "{what}: after {seconds} s\n shown {:?}\n truth {:?}\n jobs run: {}",
                self.shown(),
                self.truth(),
                self.job_runs()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_behind_the_agents_back_is_shown_within_50_ms() {
    let cluster = Cluster::new(1).await;
    let name = cluster.world.add("ferby", "small-1");
    cluster.wait_for("shown", 5, |c| c.shown() == c.truth()).await;
    let hypervisor = cluster.world.server("ferby");
    hypervisor.pause(&name).await.expect("paused");
    let begin = Instant::now();
    cluster.wait_for("paused", 1, |c| c.shown() == c.truth()).await;
    assert!(begin.elapsed() <= Duration::from_millis(50), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_sees_all_at_once() {
    let cluster = Cluster::new(2).await;
    for i in 0..100 {
        cluster.world.add(SERVERS[i % 2], &format!("d{i}"));
    }
    cluster.wait_for("shown", 3, |c| c.shown().len() == 100).await;
    // the forwarder goes and comes; in between things changed
    cluster.net.forwarder(false);
    sleep(Duration::from_secs(30)).await;
    cluster.world.add("gerby", "late");
    sleep(Duration::from_secs(3)).await;
    cluster.net.forwarder(true);
    cluster.wait_for("all shown", 1, |c| c.shown() == c.truth()).await;
}

#[tokio::test(start_paused = true)]
async fn settings_survive_a_restart() {
    let mut cluster = Cluster::new(3).await;
    cluster.wait_for("heard", 3, |c| c.view.lock().expect("whole").server_count() == 2).await;
    let order = Order::Server { command: ServerCommand::Accept { on: false } };
    cluster.order("ferby", order).await.expect("done");
    let accepting = |c: &Cluster| {
        c.view.lock().expect("whole").server("ferby").is_some_and(|s| s.beat.settings.accepting)
    };
    assert!(!accepting(&cluster), "the answer brought the news");
    cluster.start("ferby").await;
    let boot = Boot(cluster.boots);
    let lives =
        |c: &Cluster| c.view.lock().expect("whole").server("ferby").is_some_and(|s| s.stamp.boot == boot);
    cluster.wait_for("heard again", 3, lives).await;
    assert!(!accepting(&cluster));
}

#[tokio::test(start_paused = true)]
async fn a_hypervisor_that_hangs_is_told_and_every_order_is_answered_in_time() {
    let cluster = Cluster::new(4).await;
    let name = cluster.world.add("ferby", "small-1");
    cluster.wait_for("shown", 3, |c| c.shown() == c.truth()).await;
    cluster.world.wrong(Wrong { hangs: 1.0, ..Wrong::default() });
    let begin = Instant::now();
    let failure = cluster.tell(&name, DomainCommand::Pause).await.expect_err("unknown");
    assert_eq!(failure.code, Code::TimedOut);
    assert!(begin.elapsed() <= Duration::from_secs(5), "{:?}", begin.elapsed());
    let stale =
        |c: &Cluster| c.view.lock().expect("whole").server("ferby").is_some_and(|s| s.beat.stale.is_some());
    cluster.wait_for("stale", 6, stale).await;
    cluster.world.wrong(Wrong::default());
    cluster.wait_for("well again", 12, |c| !stale(c) && c.shown() == c.truth()).await;
    assert_eq!(cluster.world.truth()[0].2, DomainState::Paused, "it came through in the end, and is shown");
}

/// A few minutes of random orders under all faults; returns how many had an effect.
async fn storm(seed: u64) -> usize {
    let mut cluster = Cluster::new(seed).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let names: Vec<DomainName> =
        (0..4).map(|i| cluster.world.add(SERVERS[i % 2], &format!("d{i}"))).collect();
    cluster.wait_for("shown", 5, |c| c.shown() == c.truth()).await;
    cluster.net.set_faults(Faults {
        loss: 0.2,
        doubling: 0.3,
        reordering: 0.3,
        delay: (Duration::ZERO, Duration::from_millis(400)),
    });
    cluster.world.wrong(Wrong { fails: 0.1, lies: 0.1, hangs: 0.03, deaf: 0.3 });
    let mut done = 0;
    let mut priority = 0;
    for _ in 0..60 {
        let name = &names[rng.random_range(0..names.len())];
        match rng.random_range(0..10) {
            0 => cluster.start(SERVERS[rng.random_range(0..2)]).await,
            1 => {
                let apart = rng.random_range(0..3);
                cluster.net.partition(SERVERS.get(apart).map(|s| Sender::Agent(server(s))));
            }
            2..5 if priority < 100 => {
                // each value is ordered once, so each effect belongs to one order
                priority += 1;
                let what = format!("priority {priority}");
                let begin = Instant::now();
                let answer = cluster.tell(name, DomainCommand::Priority { value: priority }).await;
                let took = begin.elapsed();
                assert!(took <= Duration::from_millis(5_100), "an answer after {took:?}");
                match &answer {
                    Ok(reply) => {
                        assert!(matches!(reply.answer, Answer::Done { .. }), "{reply:?}");
                        assert_eq!(cluster.world.done(&what).len(), 1, "done: {what}");
                        done += 1;
                    }
                    Err(f) if f.code == Code::TimedOut => {}
                    Err(f) => assert_eq!(cluster.world.done(&what).len(), 0, "refused: {f}"),
                }
            }
            n => {
                let to = SERVERS[rng.random_range(0..2)];
                let command = match n {
                    5 => DomainCommand::Pause,
                    6 => DomainCommand::Unpause,
                    7 => DomainCommand::Migrate {
                        to: Some(server(to)),
                        address: format!("{to}:1").into(),
                        paused: false,
                    },
                    8 => [DomainCommand::Shutdown, DomainCommand::Destroy][rng.random_range(0..2)].clone(),
                    _ => DomainCommand::Start,
                };
                done += usize::from(cluster.tell(name, command).await.is_ok());
            }
        }
        sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
    }
    // peace: everything ends, and the listener sees the truth
    cluster.net.partition([]);
    cluster.net.set_faults(Faults::default());
    cluster.world.wrong(Wrong::default());
    cluster.wait_for("jobs end", 130, |c| !c.job_runs() && c.shown() == c.truth()).await;
    sleep(Duration::from_secs(30)).await;
    for p in 1..=priority {
        let effects = cluster.world.done(&format!("priority {p}")).len();
        assert!(effects <= 1, "the order for priority {p} ran {effects} times");
    }
    assert_eq!(cluster.shown(), cluster.truth());
    assert!(cluster.alive());
    done
}

#[test]
fn storms_end_in_the_truth_and_no_order_runs_twice() {
    // more of them: XVM_SEEDS=200
    let seeds = std::env::var("XVM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    for seed in 0..seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let done = std::panic::catch_unwind(|| runtime.block_on(storm(seed)))
            .unwrap_or_else(|e| panic!("seed {seed}: {:?}", e.downcast_ref::<String>()));
        assert!(done > 3, "seed {seed}: almost nothing was done ({done})");
    }
}
