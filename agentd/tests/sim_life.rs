//! One simulated hypervisor: what users do to its domains, what it shows, what outlives it, and what strangers send to its port.
//!
//! What breaks when these fail: commands that do not do what they say, loads that are not true, domains that are gone after a restart
//! of the agent, an agent that anybody can bring down by its migration port.

use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;
use xvm_agentd::{
    hypervisor::{HvError, HvEvent, Hypervisor},
    sim::{DomainSpec, Sim, SimConfig, SimError},
};
use xvm_model::{DomainName, DomainState, Ratio, ServerName};

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("name")
}

fn config(domains: &[&str]) -> SimConfig {
    let mut config = SimConfig::new(ServerName::parse("ferby").expect("name"));
    config.domains = domains.iter().map(|d| DomainSpec::parse(d).expect("spec")).collect();
    config
}

async fn state(sim: &Arc<Sim>) -> (DomainState, Option<String>) {
    let d = sim.domain(&name("a")).await.expect("answered").expect("there");
    (d.state, d.reason.map(Into::into))
}

#[tokio::test]
async fn each_command_does_what_it_says_and_tells() {
    let sim = Sim::start(config(&["a,shutdown=0.01"])).await.expect("starts");
    let mut news = sim.events().expect("once");
    assert_eq!(news.recv().await, Some(HvEvent::Up));
    let a = &name("a");
    let changed = Some(HvEvent::Changed(a.clone()));
    sim.pause(a).await.expect("paused");
    assert_eq!(state(&sim).await, (DomainState::Paused, Some("by user".into())));
    assert_eq!(news.recv().await, changed);
    let twice = sim.pause(a).await.expect_err("it is paused");
    assert_eq!(twice, HvError::WrongState("a is paused; it must be running".into()));
    sim.unpause(a).await.expect("goes on");
    assert_eq!(news.recv().await, changed);
    sim.reboot(a).await.expect("reboots");
    assert_eq!(news.recv().await, changed);
    sim.shutdown(a).await.expect("asked");
    sim.shutdown(a).await.expect("asking again does no harm");
    assert_eq!(news.recv().await, changed, "it powers off by itself");
    assert_eq!(state(&sim).await, (DomainState::Shutoff, Some("shut down".into())));
    sim.start(a).await.expect("boots");
    assert_eq!(state(&sim).await.0, DomainState::Running);
    sim.destroy(a).await.expect("destroyed");
    assert_eq!(state(&sim).await, (DomainState::Shutoff, Some("destroyed".into())));
    assert!(matches!(sim.destroy(a).await, Err(HvError::WrongState(_))));
    assert!(matches!(sim.load(a, Ratio::ONE, 1).await, Err(HvError::WrongState(_))));
    assert_eq!(sim.start(&name("b")).await, Err(HvError::NoDomain(name("b"))));
}

#[tokio::test(start_paused = true)]
async fn loads_are_shared_and_go_with_time() {
    let sim = Sim::start(config(&["a,demand=1,vcpus=4", "b,demand=1,vcpus=4", "c,state=paused"]))
        .await
        .expect("starts");
    let load = async |n: &str| sim.domain(&name(n)).await.expect("answered").expect("there");
    sim.domains().await.expect("measured");
    assert_eq!(load("a").await.load, Ratio::new(0.5));
    assert_eq!(load("c").await.load, Ratio::ZERO);
    assert_eq!(sim.host().await.expect("host").cpus, [Ratio::ONE; 4]);
    let before = load("a").await.disks[0].read;
    tokio::time::advance(Duration::from_secs(10)).await;
    sim.domains().await.expect("measured");
    assert_eq!(load("a").await.disks[0].read - before, 80_000_000, "ten seconds of two CPUs");
    sim.load(&name("b"), Ratio::ZERO, 5).await.expect("idle");
    sim.domains().await.expect("measured");
    assert_eq!((load("a").await.load, load("b").await.load), (Ratio::ONE, Ratio::ZERO));
    tokio::time::advance(Duration::from_secs(6)).await;
    sim.domains().await.expect("measured");
    assert_eq!(load("b").await.load, Ratio::new(0.5), "it is over");
}

#[tokio::test(start_paused = true)]
async fn the_load_of_a_server_differs_from_each_second_to_the_next() {
    let sim = Sim::start(config(&["a", "b"])).await.expect("starts");
    let mut last = None;
    for _ in 0..30 {
        let load = Ratio::mean(sim.host().await.expect("host").cpus);
        assert_ne!(Some(load), last);
        last = Some(load);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn memory_is_admitted() {
    let mut config = config(&["a,memory=600", "b,memory=600,state=shutoff"]);
    config.memory = 1 << 20;
    let sim = Sim::start(config.clone()).await.expect("starts");
    assert_eq!(sim.host().await.expect("host").memory.free, (1 << 20) - (600 << 10));
    let refused = sim.start(&name("b")).await.expect_err("no room");
    assert_eq!(refused.to_string(), "b needs 614400 KiB of memory; 434176 of 1048576 KiB are free");
    sim.destroy(&name("a")).await.expect("destroyed");
    sim.start(&name("b")).await.expect("there is room now");
    config.memory = 1;
    assert!(matches!(Sim::start(config).await, Err(SimError::Config(..))));
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let dir = tempfile::tempdir().expect("dir");
    let mut config = config(&["a,shutdown=0.3", "b"]);
    config.state = Some(dir.path().into());
    let sim = Sim::start(config.clone()).await.expect("starts");
    assert!(matches!(Sim::start(config.clone()).await, Err(SimError::State(..))), "two on one directory");
    let before = sim.domain(&name("b")).await.expect("answered").expect("there");
    sim.pause(&name("b")).await.expect("paused");
    sim.shutdown(&name("a")).await.expect("asked");
    sim.kill().await;
    assert!(matches!(sim.domains().await, Err(HvError::Unreachable(_))));
    config.domains.clear();
    let address = sim.address();
    let sim = Sim::start(config).await.expect("starts again");
    assert_eq!(sim.address(), address, "those who ask it know this address only");
    let after = sim.domain(&name("b")).await.expect("answered").expect("there");
    assert_eq!((after.uuid, after.state), (before.uuid, DomainState::Paused));
    let mut news = sim.events().expect("once");
    assert_eq!(news.recv().await, Some(HvEvent::Up));
    while state(&sim).await.0 != DomainState::Shutoff {
        assert_eq!(
            news.recv().await,
            Some(HvEvent::Changed(name("a"))),
            "it powers off though it was asked before"
        );
    }
}

#[tokio::test]
async fn calls_hang_as_long_as_they_are_told_to() {
    let dir = tempfile::tempdir().expect("dir");
    let mut config = config(&["a"]);
    config.state = Some(dir.path().into());
    let sim = Sim::start(config).await.expect("starts");
    std::fs::write(dir.path().join("faults"), "hang-calls\n").expect("written");
    let call = tokio::spawn({
        let sim = sim.clone();
        async move { sim.domains().await }
    });
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(!call.is_finished());
    std::fs::remove_file(dir.path().join("faults")).expect("removed");
    assert_eq!(call.await.expect("no panic").expect("answered").len(), 1);
}

/// A source that speaks by hand.
struct Hand(TcpStream);

impl Hand {
    async fn to(sim: &Sim, ask: &str) -> Hand {
        let mut hand = Hand(TcpStream::connect(sim.address()).await.expect("connected"));
        hand.say(&format!("{{\"xvm_sim\":1,\"ask\":{ask}}}")).await;
        hand
    }

    async fn say(&mut self, json: &str) {
        self.0.write_u32(json.len() as u32).await.expect("written");
        self.0.write_all(json.as_bytes()).await.expect("written");
    }

    async fn hear(&mut self) -> String {
        let len = self.0.read_u32().await.expect("an answer");
        let mut json = vec![0; len as usize];
        self.0.read_exact(&mut json).await.expect("an answer");
        String::from_utf8(json).expect("text")
    }

    /// Brings a domain `x` of 1 KiB, up to the commit; gives the destination's identity too.
    async fn bring(sim: &Sim, session: Uuid, uuid: Uuid) -> (Hand, String) {
        let mut hand = Hand::to(
            sim,
            &format!(
                "{{\"prepare\":{{\"session\":\"{session}\",\"host\":\"{uuid}\",\"name\":\"x\",\"uuid\":\"{uuid}\",\
                 \"vcpus\":1,\"memory\":1,\"demand\":\"wander\",\"key\":1,\"dirty\":0,\"boot_ms\":0,\
                 \"shutdown_ms\":0,\"settings\":{{\"priority\":50}}}}}}"
            ),
        )
        .await;
        let answer = hand.hear().await;
        let host = answer.split('"').nth(5).expect("prepared").to_string();
        hand.say("{\"pages\":{\"bytes\":1024,\"len\":0}}").await;
        (hand, host)
    }
}

const COMMIT: &str = "{\"commit\":{\"sent\":1024,\"paused\":false,\"age_ms\":0,\"busy\":null}}";

/// Once a source was told no, it runs the domain: its own commit, should it still arrive, must not make a second one.
#[tokio::test]
async fn a_commit_after_a_no_is_refused_and_after_a_commit_the_answer_is_yes() {
    let sim = Sim::start(config(&[])).await.expect("starts");
    let (session, uuid) = (Uuid::new_v4(), Uuid::new_v4());
    let settle = |host: &str, session: Uuid| {
        format!("{{\"settle\":{{\"host\":\"{host}\",\"session\":\"{session}\"}}}}")
    };
    let (mut late, host) = Hand::bring(&sim, session, uuid).await;
    assert_eq!(Hand::to(&sim, &settle(&host, session)).await.hear().await, "{\"settled\":false}");
    late.say(COMMIT).await;
    assert!(late.hear().await.starts_with("{\"refused\":"));
    assert_eq!(sim.domain(&name("x")).await, Ok(None));
    let session = Uuid::new_v4();
    let (mut good, host) = Hand::bring(&sim, session, uuid).await;
    good.say(COMMIT).await;
    assert_eq!(good.hear().await, "\"committed\"");
    drop(good);
    for _ in 0..2 {
        assert_eq!(Hand::to(&sim, &settle(&host, session)).await.hear().await, "{\"settled\":true}");
    }
    assert_eq!(Hand::to(&sim, &settle(&uuid.to_string(), session)).await.hear().await, "\"stranger\"");
    assert_eq!(sim.domain(&name("x")).await.expect("answered").map(|d| d.state), Some(DomainState::Running));
}

/// Garbage, half frames, giant lengths and lies: the connection ends, and the hypervisor goes on.
#[tokio::test]
async fn strangers_at_the_port_do_no_harm() {
    let sim = Sim::start(config(&["a"])).await.expect("starts");
    let before = sim.domains().await.expect("answered").len();
    let frame = |json: &str| [&(json.len() as u32).to_be_bytes()[..], json.as_bytes()].concat();
    let id = Uuid::new_v4();
    let prepare = |memory: u64, vcpus: u32| {
        format!(
            "{{\"xvm_sim\":1,\"ask\":{{\"prepare\":{{\"session\":\"{id}\",\"host\":\"{id}\",\"name\":\"x\",\"uuid\":\"{id}\",\
             \"vcpus\":{vcpus},\"memory\":{memory},\"demand\":\"wander\",\"key\":1,\"dirty\":0,\"boot_ms\":0,\
             \"shutdown_ms\":0,\"settings\":{{\"priority\":50}}}}}}}}"
        )
    };
    let commit = "{\"commit\":{\"sent\":0,\"paused\":false,\"age_ms\":0,\"busy\":null}}";
    let bad: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        vec![0; 4],
        frame("{}"),
        frame("[[[[[[[["),
        frame("{\"xvm_sim\":2,\"ask\":{\"settle\":null}}"),
        frame(&prepare(1024, 1).replace("\"x\"", "\"../x\"")),
        frame(&prepare(u64::MAX, 1)),
        frame(&prepare(1 << 40, 1)),
        frame(&prepare(1024, 65_535)),
        frame(&prepare(1024, 1).replace("\"wander\"", "{\"constant\":7.0}")),
        [frame(&prepare(1024, 1)), frame("{\"pages\":{\"bytes\":1,\"len\":4294967295}}"), vec![0; 70_000]]
            .concat(),
        [frame(&prepare(1024, 1)), frame(commit)].concat(),
        [
            frame(&prepare(1024, 1)),
            frame("{\"pages\":{\"bytes\":18446744073709551615,\"len\":0}}"),
            frame(commit),
        ]
        .concat(),
        [frame(&prepare(1024, 1)), frame(&format!("{{\"forget\":{{\"session\":\"{id}\"}}}}"))].concat(),
    ];
    for bytes in bad {
        let mut stream = TcpStream::connect(sim.address()).await.expect("connected");
        // the other side may have hung up before all is written
        stream.write_all(&bytes).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        let mut stream = stream.take(1 << 20);
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("it hung up").ok();
        let text = String::from_utf8_lossy(&answer).to_string();
        assert!(!text.contains("committed"), "{text}");
    }
    while sim.domains().await.expect("answered").len() != before {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let memory = sim.host().await.expect("host").memory;
    assert_eq!(memory.free, memory.total - (512 << 10), "a promise was left behind");
}

/// Those who connect and say nothing are sent away, and those behind them get their turn.
#[tokio::test(start_paused = true)]
async fn silent_connections_end() {
    let sim = Sim::start(config(&["a"])).await.expect("starts");
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(sim.address()).await.expect("connected"));
    }
    let ask = format!("{{\"locate\":{{\"name\":\"a\",\"uuid\":\"{}\"}}}}", Uuid::new_v4());
    assert_eq!(Hand::to(&sim, &ask).await.hear().await, "{\"located\":null}");
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 16]).await.expect("closed"), 0);
    }
}
