//! If this fails, a domain that was made from a config moves without a lease for where it goes, or is left between two.
//!
//! Two agents and imaged's place on the in-memory bus: whoever lends there answers late, twice, not at all, or was started anew.

#[path = "common/spec.rs"]
mod common;
#[path = "common/lender.rs"]
mod lender;
#[path = "driver/rig.rs"]
mod rig;
#[path = "driver/world.rs"]
mod world;

use common::{grant, spec};
use lender::{Lender, Manners};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rig::{Cluster, server};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};
use world::Wrong;
use xvm_bus::Faults;
use xvm_model::lease::Phase;
use xvm_model::spec::{Blob, Boot as Files};
use xvm_model::{
    Answer, Boot, Code, DomainCommand, DomainName, DomainState, Failure, Lease, Leases, Mono, Order, Reply,
    Sender, ServerName, Spec, Wall,
};

const SERVERS: [&str; 2] = ["ferby", "gerby"];

fn a() -> DomainName {
    DomainName::parse("a").expect("valid")
}

/// Config a holds lease 1 on ferby.
fn first() -> Leases {
    let grant = grant("a", "ferby", 1);
    let held = vec![Lease { grant, phase: Phase::Held, job: None, boot: Boot(0) }];
    Leases { epoch: 1, held, since: None }
}

/// What imaged would conclude when nothing goes on: the lease of who runs it is left, or none.
fn settle(cluster: &Cluster, lender: &Lender) {
    let calm = cluster.world.carries() == 0 && cluster.job().is_none();
    if !calm {
        return;
    }
    let mut leases = lender.leases.lock().expect("whole");
    let truth = cluster.world.truth();
    leases.held.retain(|l| truth.iter().any(|(at, ..)| *at == l.grant.server.as_str()));
    for lease in &mut leases.held {
        (lease.phase, lease.job) = (Phase::Held, None);
    }
}

/// A few minutes of random orders about one config under all faults; gives how often it moved.
async fn storm(seed: u64) -> usize {
    let mut cluster = Cluster::with_a(seed).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut lender, mut lives) = (lends(&cluster, 1, first()), 1);
    cluster.net.set_faults(Faults {
        loss: 0.2,
        doubling: 0.3,
        reordering: 0.3,
        delay: (Duration::ZERO, Duration::from_millis(400)),
    });
    cluster.world.wrong(Wrong { fails: 0.1, lies: 0.1, hangs: 0.03, deaf: 0.3 });
    for _ in 0..60 {
        let at = SERVERS[rng.random_range(0..2)];
        let to = SERVERS[rng.random_range(0..2)];
        match rng.random_range(0..12) {
            0 => cluster.start(at).await,
            1 => {
                let leases = lender.leases.lock().expect("whole").clone();
                drop(lender);
                lives += 1;
                lender = lends(&cluster, lives, leases);
            }
            2 => lender.behaves(Manners {
                slow: rng.random_range(0..8_000),
                mute: rng.random_bool(0.1),
                refuses: rng.random_bool(0.1),
            }),
            3 => drop(cluster.tell(at, DomainCommand::Cancel).await),
            4 => drop(cluster.tell(at, DomainCommand::Shutdown).await),
            5..8 => {
                settle(&cluster, &lender);
                let grant = {
                    let mut leases = lender.leases.lock().expect("whole");
                    // imaged keeps a second start from a disk that is lent
                    leases
                        .start(&server(at), Boot(0), |epoch| grant("a", at, epoch))
                        .ok()
                        .map(|l| l.grant.clone())
                };
                if let Some(grant) = grant {
                    let spec = Box::new(spec("a", grant));
                    drop(cluster.tell(at, DomainCommand::Create { spec }).await);
                }
            }
            _ => {
                settle(&cluster, &lender);
                let command = DomainCommand::Migrate {
                    to: Some(server(to)),
                    address: format!("{to}:1").into(),
                    paused: false,
                };
                drop(cluster.tell(at, command).await);
            }
        }
        sleep(Duration::from_millis(rng.random_range(0..6_000))).await;
        for (at, _, _, settings) in cluster.world.truth() {
            assert_eq!(
                settings.grant.expect("a lease").server.as_str(),
                at,
                "it uses what is lent to another"
            );
        }
    }
    // peace: everything ends, and the listener sees the truth
    cluster.net.set_faults(Faults::default());
    cluster.world.wrong(Wrong::default());
    let truth = |c: &Cluster| {
        let row = c.world.truth().into_iter().next();
        row.map(|(at, _, state, s)| (server(&at), state, s.grant.map_or(0, |g| g.epoch)))
    };
    cluster.wait_for_long("jobs end", |c| c.job().is_none() && c.shown() == truth(c)).await;
    assert!(cluster.world.broken().is_empty(), "{:#?}", cluster.world.broken());
    assert!(cluster.alive());
    cluster.world.done("migrate").len()
}

#[test]
fn storms_end_in_the_truth_and_nothing_runs_by_anothers_lease() {
    // more of them: XVM_SEEDS=200
    let seeds = std::env::var("XVM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let mut moved = 0;
    for seed in 0..seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        moved += std::panic::catch_unwind(|| runtime.block_on(storm(seed)))
            .unwrap_or_else(|e| panic!("seed {seed}: {:?}", e.downcast_ref::<String>()));
    }
    assert!(moved > seeds as usize, "almost nothing moved ({moved})");
}

/// Lends from kerby.
fn lends(cluster: &Cluster, boot: u64, leases: Leases) -> Lender {
    Lender::new(&cluster.net, &cluster.clock, boot, leases, Box::new(grant))
}

impl Cluster {
    async fn new(seed: u64) -> Cluster {
        let dirs: BTreeMap<_, _> =
            SERVERS.map(|s| (s, tempfile::tempdir().expect("scratch folder"))).into_iter().collect();
        Cluster::begin(seed, Wall(1_000_000), &["heartbeat.", "domain.", "reply.test"], dirs).await
    }

    /// a runs on ferby, made from its config.
    async fn with_a(seed: u64) -> Cluster {
        let cluster = Cluster::new(seed).await;
        let heard = |c: &Cluster| c.view.lock().expect("whole").server_count() == 2;
        cluster.wait_for("both are heard", heard).await;
        // its hypervisor boots from no files, so that nobody asks for those that are not there
        let kernel = Blob { sha256: "a".repeat(64).into(), size: 9 };
        let boot = Files { host: "127.0.0.1".into(), port: 1, kernel, initrd: None, cmdline: "".into() };
        let spec = Box::new(Spec { boot: Some(boot), ..spec("a", grant("a", "ferby", 1)) });
        cluster.tell("ferby", DomainCommand::Create { spec }).await.expect("accepted");
        cluster.wait_for("it runs", |c| c.shown() == Some((server("ferby"), DomainState::Running, 1))).await;
        cluster
    }

    async fn tell(&self, at: &str, command: DomainCommand) -> Result<Reply, Failure> {
        self.order(at, Order::Domain { name: a(), command }).await
    }

    async fn migrate(&self) {
        let command =
            DomainCommand::Migrate { to: Some(server("gerby")), address: "gerby:1".into(), paused: false };
        let reply = self.tell("ferby", command).await.expect("accepted");
        assert_eq!(reply.answer, Answer::Accepted);
    }

    /// Where a is said to be, what it is, and by which lease.
    fn shown(&self) -> Option<(ServerName, DomainState, u64)> {
        let d = self.view.lock().expect("whole").domain("a", self.clock.mono())?;
        let epoch = d.domain.settings.grant.as_ref().map_or(0, |g| g.epoch);
        Some((d.server.clone(), d.domain.state, epoch))
    }

    fn job(&self) -> Option<String> {
        let d = self.view.lock().expect("whole").domain("a", self.clock.mono())?;
        d.domain.job.as_ref().map(|j| format!("{} {}", j.kind, j.phase))
    }

    /// How the last job ended, once none runs.
    async fn outcome(&self) -> Result<Box<str>, Failure> {
        let last = |c: &Cluster| {
            let d = c.view.lock().expect("whole").domain("a", c.clock.mono())?;
            (d.domain.job.is_none()).then(|| d.last.as_ref().map(|o| o.result.clone())).flatten()
        };
        self.wait_for("the job ends", |c| last(c).is_some()).await;
        last(self).expect("just seen")
    }

    async fn wait_for(&self, what: &str, condition: impl FnMut(&Cluster) -> bool) {
        self.wait(what, 90, condition).await;
    }

    /// The same where jobs may be in it that give up by themselves.
    async fn wait_for_long(&self, what: &str, condition: impl FnMut(&Cluster) -> bool) {
        self.wait(what, 300, condition).await;
    }

    async fn wait(&self, what: &str, seconds: u64, mut condition: impl FnMut(&Cluster) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !condition(self) {
            assert!(Instant::now() < end, "{what}: never; shown {:?}, job {:?}", self.shown(), self.job());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// It is on ferby, as if nobody had ordered anything.
    fn unchanged(&self) {
        assert_eq!(self.shown(), Some((server("ferby"), DomainState::Running, 1)));
        let truth = self.world.truth();
        assert_eq!((truth[0].0.as_str(), truth[0].3.came.is_none()), ("ferby", true));
        assert!(self.world.moves().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn it_moves_to_its_second_lease_over_a_bad_bus() {
    for seed in 0..20 {
        let cluster = Cluster::with_a(seed).await;
        let lender = lends(&cluster, 3, first());
        lender.behaves(Manners { slow: 700, ..Manners::default() });
        let delay = (Duration::ZERO, Duration::from_millis(300));
        cluster.net.set_faults(Faults { loss: 0.2, doubling: 0.4, reordering: 0.3, delay });
        let command =
            DomainCommand::Migrate { to: Some(server("gerby")), address: "gerby:1".into(), paused: false };
        // the answer to who ordered may get lost; what counts is what becomes of it
        drop(cluster.tell("ferby", command).await);
        cluster.wait_for("moved", |c| c.shown() == Some((server("gerby"), DomainState::Running, 2))).await;
        assert_eq!(lender.held().len(), 2, "seed {seed}: asked again and again, lent once");
        assert_eq!(cluster.world.done("migrate").len(), 1, "seed {seed}");
        assert_eq!(cluster.world.truth()[0].3.grant.as_ref().expect("kept").server, server("gerby"));
        assert!(cluster.alive(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_imaged_nothing_changes() {
    let cluster = Cluster::with_a(1).await;
    cluster.migrate().await;
    let failure = cluster.outcome().await.expect_err("nobody lends");
    assert_eq!(failure.code, Code::HostDown);
    assert_eq!(failure.text, "cannot migrate a to gerby: imaged, which lends its disk, was never heard");
    cluster.unchanged();

    // one that was heard, and is not any more
    let lender = lends(&cluster, 3, first());
    sleep(Duration::from_secs(2)).await;
    drop(lender);
    sleep(Duration::from_secs(30)).await;
    cluster.migrate().await;
    cluster.wait_for("it is asked for", |c| c.job().is_some()).await;
    let failure = cluster.outcome().await.expect_err("nobody lends");
    assert!(
        failure.code == Code::HostDown && failure.text.contains("is down on kerby: not heard for 3"),
        "{failure:?}"
    );
    cluster.unchanged();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_silence_change_nothing() {
    let cluster = Cluster::with_a(2).await;
    let lender = lends(&cluster, 3, first());
    lender.behaves(Manners { refuses: true, ..Manners::default() });
    cluster.migrate().await;
    let failure = cluster.outcome().await.expect_err("refused");
    assert_eq!(failure.text, "cannot migrate a to gerby: cannot lend a disk: told to refuse");
    cluster.unchanged();
    lender.behaves(Manners { mute: true, ..Manners::default() });
    let begin = Instant::now();
    cluster.migrate().await;
    cluster.wait_for("it waits", |c| c.job().as_deref() == Some("migrate lease")).await;
    let failure = cluster.outcome().await.expect_err("no answer");
    assert_eq!(failure.code, Code::TimedOut);
    assert!(begin.elapsed() < Duration::from_secs(65), "{:?}", begin.elapsed());
    cluster.unchanged();
}

#[tokio::test(start_paused = true)]
async fn it_is_cancelled_while_it_waits() {
    let cluster = Cluster::with_a(3).await;
    let lender = lends(&cluster, 3, first());
    lender.behaves(Manners { slow: 20_000, ..Manners::default() });
    cluster.migrate().await;
    cluster.wait_for("it waits", |c| c.job().as_deref() == Some("migrate lease")).await;
    let reply = cluster.tell("ferby", DomainCommand::Cancel).await.expect("done");
    assert_eq!(reply.answer, Answer::Done { text: "a does not migrate".into() });
    let failure = cluster.outcome().await.expect_err("cancelled");
    assert!(failure.text.contains("cancelled before it began"), "{}", failure.text);
    // what comes later is not for it
    sleep(Duration::from_secs(40)).await;
    cluster.unchanged();
    assert!(cluster.alive());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_migration_takes_no_lease_later() {
    let cluster = Cluster::with_a(6).await;
    let lender = lends(&cluster, 3, first());
    sleep(Duration::from_secs(2)).await;
    cluster.net.partition([Sender::Images(server("kerby"))]);
    cluster.migrate().await;
    cluster.wait_for("it waits", |c| c.job().as_deref() == Some("migrate lease")).await;
    cluster.tell("ferby", DomainCommand::Cancel).await.expect("done");
    cluster.net.partition([]);
    sleep(Duration::from_secs(40)).await;
    assert_eq!(lender.held().len(), 1, "nobody asks any more");
    cluster.unchanged();
}

#[tokio::test(start_paused = true)]
async fn an_imaged_that_was_started_anew_is_asked_again() {
    let cluster = Cluster::with_a(4).await;
    let lender = lends(&cluster, 3, first());
    lender.behaves(Manners { mute: true, ..Manners::default() });
    cluster.migrate().await;
    cluster.wait_for("it waits", |c| c.job().as_deref() == Some("migrate lease")).await;
    sleep(Duration::from_secs(3)).await;
    // it had lent before it died: the same migration gets the same lease
    let mut leases = first();
    let job = cluster.view.lock().expect("whole").domain("a", cluster.clock.mono()).expect("shown");
    let job = job.domain.job.as_ref().expect("runs").id.clone();
    let make = |epoch| grant("a", "gerby", epoch);
    leases.lend((&server("ferby"), Boot(0)), &server("gerby"), &job, Mono(0), make).expect("lent");
    drop(lender);
    let lender = lends(&cluster, 9, leases);
    cluster.wait_for("moved", |c| c.shown() == Some((server("gerby"), DomainState::Running, 2))).await;
    assert_eq!(lender.held().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_off_is_told_once_and_gone() {
    let cluster = Cluster::with_a(5).await;
    cluster.tell("ferby", DomainCommand::Shutdown).await.expect("accepted");
    cluster.wait_for("it is gone", |c| c.shown().is_none()).await;
    assert!(cluster.world.truth().is_empty());
    // and can be made again, on the other server
    let spec = Box::new(spec("a", grant("a", "gerby", 2)));
    cluster.tell("gerby", DomainCommand::Create { spec: spec.clone() }).await.expect("accepted");
    cluster.wait_for("it runs", |c| c.shown() == Some((server("gerby"), DomainState::Running, 2))).await;
    let again = cluster.tell("gerby", DomainCommand::Create { spec }).await.expect_err("it is there");
    assert_eq!(again.code, Code::Exists);
    cluster.tell("gerby", DomainCommand::Destroy).await.expect("done");
    cluster.wait_for("it is gone", |c| c.shown().is_none()).await;
    assert!(cluster.alive());
}
