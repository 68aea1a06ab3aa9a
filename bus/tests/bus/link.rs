//! Joining, losing and finding the forwarder again. If these fail, a restart of the forwarder needs restarts elsewhere.

use crate::kit::*;
use std::time::{Duration, Instant};
use xvm_bus::{Forwarder, Link, forwarder::Config};
use xvm_model::{Body, Topic};

// a roll-call reaches everyone who joined, within a second of their joining
#[tokio::test]
async fn who_is_up_is_heard() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let at = [forwarder.endpoint().clone()];
    let began = Instant::now();
    let (_a, mut hears) = join(&at, agent("ferby"), &["roll-call"]);
    let (says, mut own) = join(&at, client("c"), &["roll-call"]);
    assert!(!says.link().is_up());
    assert_eq!(link(&mut hears, true).await, Link::Up);
    assert_eq!(link(&mut own, true).await, Link::Up);
    says.publish(Topic::RollCall, Body::RollCall);
    let (topic, envelope) = message(&mut hears).await;
    assert_eq!((topic, envelope.from, envelope.seq), (Topic::RollCall, client("c"), 1));
    println!("joined and heard within {:?}", began.elapsed());
    assert_eq!(own.counts().received, 0, "nobody hears himself");
}

// the forwarder goes and comes: the link says so, nothing waits for later, and all go on
#[tokio::test]
async fn a_forwarder_that_comes_back_is_found() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let endpoint = forwarder.endpoint().clone();
    let at = [endpoint.clone()];
    let (says, mut own) = join(&at, client("c"), &[]);
    let (_a, mut hears) = join(&at, agent("ferby"), &["roll-call"]);
    link(&mut own, true).await;
    link(&mut hears, true).await;
    drop(forwarder);
    let Link::Down(why) = link(&mut own, false).await else { panic!() };
    assert_eq!(why, format!("no forwarder at {endpoint}: the connection was lost"));
    link(&mut hears, false).await;
    says.publish(Topic::RollCall, Body::RollCall);
    assert_eq!(says.counts().unsent, 1);
    let _forwarder = Forwarder::start(Config { listen: endpoint, ..Config::local() }).unwrap();
    link(&mut own, true).await;
    link(&mut hears, true).await;
    says.publish(Topic::RollCall, Body::RollCall);
    let (_, envelope) = message(&mut hears).await;
    assert_eq!(envelope.seq, 2, "what was said without a forwarder does not come late");
    assert_eq!(own.counts().links, 2);
}

// the same with a process that is killed, stopped for a while, and started anew
#[tokio::test]
async fn a_killed_forwarder_is_noticed_at_once() {
    let chosen = Forwarder::start(Config::local()).unwrap().endpoint().clone();
    let listen = chosen.to_string();
    let (_says, mut own) = join(&[chosen], client("c"), &[]);
    let mut process = Process::start(&[&listen]);
    link(&mut own, true).await;
    process.signal("KILL");
    let killed = Instant::now();
    link(&mut own, false).await;
    println!("noticed after {:?}", killed.elapsed());
    process.0.wait().unwrap();
    let process = Process::start(&[&listen]);
    link(&mut own, true).await;
    process.signal("STOP");
    let Link::Down(why) = link(&mut own, false).await else { panic!() };
    assert!(why.contains("silent") || why.contains("lost"), "{why}");
    process.signal("CONT");
    link(&mut own, true).await;
}

// two forwarders: each message is heard once, and either may die
#[tokio::test]
async fn one_of_two_forwarders_is_enough() {
    let start = |name| Forwarder::start(Config { name: server(name), ..Config::local() }).unwrap();
    let (one, two) = (start("one"), start("two"));
    let at = [one.endpoint().clone(), two.endpoint().clone()];
    let (says, mut own) = join(&at, client("c"), &[]);
    let (_a, mut hears) = join(&at, agent("ferby"), &["roll-call"]);
    link(&mut own, true).await;
    link(&mut hears, true).await;
    // all four legs are up when a message came twice
    let mut heard = 0;
    while hears.counts().doubled == 0 {
        says.publish(Topic::RollCall, Body::RollCall);
        let (_, envelope) = message(&mut hears).await;
        assert!(envelope.seq > heard, "each is heard once");
        heard = envelope.seq;
    }
    drop(one);
    says.publish(Topic::RollCall, Body::RollCall);
    assert_eq!(message(&mut hears).await.1.seq, heard + 1);
    assert!(says.link().is_up());
    drop(two);
    wait_for("no forwarder is left", || matches!(says.link(), Link::Down(why) if why.contains("; "))).await;
}

// an address where something else listens gives a sentence, not an endless "up"
#[tokio::test]
async fn another_server_is_no_forwarder() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = xvm_bus::Endpoint::parse(&other.local_addr().unwrap().to_string()).unwrap();
    std::thread::spawn(move || {
        for stream in other.incoming().flatten().take(3) {
            use std::io::Write;
            (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
        }
    });
    let (says, _own) = join(&[at], client("c"), &[]);
    wait_for("a sentence", || match says.link() {
        Link::Down(why) => why.contains("no xvm-forwarder") || why.contains("nothing listens"),
        Link::Up => panic!("up"),
    })
    .await;
}

// both halves dropped: the thread goes, and its subscriptions with it
#[tokio::test]
async fn dropping_both_halves_ends_the_connection() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let (says, mut own) = join(&[forwarder.endpoint().clone()], client("c"), &["roll-call"]);
    link(&mut own, true).await;
    wait_for("both subscriptions are counted", || forwarder.counters().subscriptions == 2).await;
    drop(own);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(says.link().is_up(), "one half keeps it");
    drop(says);
    wait_for("the subscriptions have ended", || forwarder.counters().subscriptions == 4).await;
}

// a receiver that does not read costs bounded memory, and others hear all the same
#[tokio::test]
async fn a_slow_receiver_loses_messages_and_grows_no_memory() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let at = [forwarder.endpoint().clone()];
    let (says, mut own) = join(&at, client("c"), &[]);
    let (_s, mut slow) = join(&at, agent("slow"), &["reply.c"]);
    let (_f, mut fast) = join(&at, agent("fast"), &["reply.c"]);
    for receiver in [&mut own, &mut slow, &mut fast] {
        link(receiver, true).await;
    }
    let text = "x".repeat(100_000);
    for i in 0..1000u32 {
        let answer = xvm_model::Answer::Done { text: text.clone().into() };
        let reply = xvm_model::Reply { id: i.to_string().into(), answer, news: None };
        says.publish(Topic::Reply(xvm_model::ClientName::parse("c").unwrap()), Body::Reply(Box::new(reply)));
        message(&mut fast).await;
    }
    wait_for("the slow one has lost some", || slow.counts().overrun > 0).await;
    assert_eq!(fast.counts().received, 1000);
    let mut kept = 0u64;
    while slow.counts().received + slow.counts().overrun < 1000 {
        message(&mut slow).await;
        kept += 100_000;
    }
    assert!(kept <= (33 << 20), "{kept} bytes waited");
    assert!(slow.link().is_up());
}
