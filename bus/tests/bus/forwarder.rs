//! `xvm-forwarder` as people and systemd see it. If these fail, it does not start, or starts where it must not.

use crate::kit::*;
use std::os::unix::net::UnixListener;
use xvm_bus::{Endpoint, Forwarder, forwarder::Config};
use xvm_model::{Body, Topic};

fn config(listen: &str) -> Config {
    Config { listen: Endpoint::parse(listen).unwrap(), ..Config::local() }
}

fn refused(listen: &str) -> String {
    Forwarder::start(config(listen)).expect_err(listen).to_string()
}

// every address that cannot be used is refused with a sentence
#[test]
fn where_it_cannot_listen() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let taken = forwarder.endpoint().to_string();
    assert_eq!(
        refused(&taken),
        format!(
            "cannot listen at {taken}: something listens there already; end it, or choose another address"
        )
    );
    assert!(refused("0.0.0.0:0").contains("--insecure"));
    assert!(refused("[::]:0").contains("--insecure"));
    assert!(refused("ipc:///nowhere/at/all").contains("No such file"));
    let far = Config { insecure: true, ..config("192.0.2.1:7000") };
    assert!(Forwarder::start(far).unwrap_err().to_string().contains("does not have that address"));
    assert!(Forwarder::start(Config { insecure: true, ..config("0.0.0.0:0") }).is_ok());
}

// what a killed forwarder left at its path is replaced, what a living one has is not, and nothing else is touched
#[tokio::test]
async fn paths_of_ipc() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus").display().to_string();
    let (file, listen) = (format!("{path}.in"), format!("ipc://{path}"));
    drop(UnixListener::bind(&file).unwrap());
    // a process that another test starts has that socket, too, until it is another program
    let mut forwarder = None;
    wait_for("a forwarder", || {
        forwarder = Forwarder::start(config(&listen)).ok();
        forwarder.is_some()
    })
    .await;
    assert!(refused(&listen).contains("listens there already"));
    drop(forwarder);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its files went with it");
    std::fs::write(&file, "precious").unwrap();
    assert!(refused(&listen).contains("is not a socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

// SIGTERM and SIGINT end it cleanly, and its messages pass over ipc
#[tokio::test]
async fn signals_end_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("ipc://{}", dir.path().join("bus").display());
    for signal in ["TERM", "INT"] {
        let mut process = Process::start(&[&listen, "--name", "main"]);
        let (_p, mut hears) = join(&[Endpoint::parse(&listen).unwrap()], client("c"), &["forwarder.main"]);
        link(&mut hears, true).await;
        let (topic, envelope) = message(&mut hears).await;
        assert_eq!(topic, Topic::Forwarder(server("main")));
        assert!(matches!(envelope.body, Body::Forwarder(c) if c.subscriptions > 0 && !c.protected));
        process.signal(signal);
        assert!(process.0.wait().unwrap().success());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

// a subscriber that never reads costs the forwarder bounded memory
#[tokio::test]
async fn a_dead_subscriber_costs_bounded_memory() {
    let endpoint = Forwarder::start(Config::local()).unwrap().endpoint().clone();
    let process = Process::start(&[&endpoint.to_string()]);
    let at = [endpoint];
    let context = zmq::Context::new();
    let dead = context.socket(zmq::SUB).unwrap();
    dead.set_linger(0).unwrap();
    dead.set_rcvhwm(10).unwrap();
    dead.set_subscribe(b"reply.").unwrap();
    dead.connect(&at[0].subscribe()).unwrap();
    let (says, mut own) = join(&at, agent("ferby"), &[]);
    let (_p, mut hears) = join(&at, client("c"), &["reply.c"]);
    link(&mut own, true).await;
    link(&mut hears, true).await;
    let text = "x".repeat(8192);
    let (mut before, topic) = (0, Topic::Reply(xvm_model::ClientName::parse("c").unwrap()));
    for i in 0..20_000u32 {
        let answer = xvm_model::Answer::Done { text: text.clone().into() };
        let reply = xvm_model::Reply { id: "x".into(), answer, news: None };
        says.publish(topic.clone(), Body::Reply(Box::new(reply)));
        message(&mut hears).await;
        if i == 1000 {
            before = process.memory();
        }
    }
    let grown = process.memory().saturating_sub(before);
    assert!(grown < 80_000, "160 MB passed and it grew by {grown} KiB");
}
