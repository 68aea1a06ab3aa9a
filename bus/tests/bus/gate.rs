//! The guests' own sockets of a forwarder. If these fail, whoever has a guest commands the cluster, or no guest is heard.

use crate::kit::*;
use xvm_bus::{Endpoint, Forwarder, forwarder::Config};
use xvm_model::{Answer, Body, Boot, DomainName, Envelope, Reply, Sender, Topic, Wall};
use zmq::SocketType::{SUB, XPUB};

/// A forwarder with sockets for guests; where it listens for all, and for guests.
fn forwarder() -> (Forwarder, Endpoint, Endpoint) {
    let guests = Some(Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 });
    let forwarder = Forwarder::start(Config { guests, ..Config::local() }).unwrap();
    let (all, guests) = (forwarder.endpoint().clone(), forwarder.guests().unwrap().clone());
    (forwarder, all, guests)
}

/// A socket of somebody who keeps to no rule.
fn raw(kind: zmq::SocketType, at: &str, subscriptions: &[&str]) -> zmq::Socket {
    let socket = zmq::Context::new().socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(PATIENCE.as_millis() as i32).unwrap();
    for subscription in subscriptions {
        socket.set_subscribe(subscription.as_bytes()).unwrap();
    }
    socket.connect(at).unwrap();
    socket
}

fn guest(name: &str) -> Sender {
    Sender::Guest(DomainName::parse(name).unwrap())
}

fn envelope(from: Sender, seq: u64) -> Vec<u8> {
    let reply = Reply { id: "x".into(), answer: Answer::Done { text: "no".into() }, news: None };
    let body = Body::Reply(Box::new(reply));
    serde_json::to_vec(&Envelope { v: 1, from, boot: Boot(1), seq, at: Wall(0), body }).unwrap()
}

/// The next message of a raw subscriber that is not the forwarder's own word.
fn heard(socket: &zmq::Socket) -> String {
    loop {
        let frames = socket.recv_multipart(0).expect("something is said");
        let topic = String::from_utf8(frames[0].clone()).unwrap();
        if !topic.starts_with("forwarder.") {
            return topic;
        }
    }
}

// what a guest may not say is dropped and counted, and what it may say comes next
#[tokio::test]
async fn a_guest_says_what_is_its_own() {
    let (forwarder, all, guests) = forwarder();
    let (_p, mut hears) = join(&[all], client("c"), &[""]);
    link(&mut hears, true).await;
    let says = raw(XPUB, &guests.publish(), &[]);
    while says.recv_bytes(0).unwrap() != [1] {}
    let send = |topic: &str, body: &[u8]| says.send_multipart([topic.as_bytes(), body], 0).unwrap();
    let bad = [
        ("control.ferby", client("x")),
        ("control.ferby", guest("small-1")),
        ("control.images", client("x")),
        ("watchdog.ferby", agent("ferby")),
        ("heartbeat.ferby", agent("ferby")),
        ("guest-control.small-2", client("x")),
        ("guest.small-2", guest("small-1")),
        ("reply.c", agent("ferby")),
        ("reply.c", Sender::Images(server("kerby"))),
        ("roll-call", guest("small-1")),
        ("forwarder.main", Sender::Forwarder(server("main"))),
        ("configs", Sender::Images(server("kerby"))),
    ];
    for (seq, (topic, from)) in (1..).zip(&bad) {
        send(topic, &envelope(from.clone(), seq));
    }
    send("guest.small-1", b"no envelope");
    says.send_multipart(["guest.small-1"], 0).unwrap();
    send("reply.c", &envelope(guest("small-1"), 99));
    let heard = loop {
        let (topic, envelope) = message(&mut hears).await;
        if !matches!(topic, Topic::Forwarder(_)) {
            break (topic.to_string(), envelope.from, envelope.seq);
        }
    };
    assert_eq!(heard, ("reply.c".into(), guest("small-1"), 99));
    let counters = forwarder.counters();
    assert_eq!((counters.refused, counters.malformed), (bad.len() as u64 + 1, 1));
    assert_eq!(hears.counts().malformed, 0, "nothing else came through");
}

// whatever it subscribes to, a guest hears orders to guests alone
#[test]
fn a_guest_hears_what_is_said_to_guests() {
    let (_forwarder, all, guests) = forwarder();
    let inside = raw(SUB, &all.subscribe(), &[""]);
    let outside = raw(SUB, &guests.subscribe(), &["", "heartbeat.", "guest-control.small-1", "roll-call"]);
    let says = raw(XPUB, &all.publish(), &[]);
    let mut wanted = Vec::new();
    while wanted.len() < 3 {
        wanted.push(String::from_utf8(says.recv_bytes(0).unwrap()).unwrap());
    }
    wanted.sort();
    assert_eq!(wanted, ["\u{1}", "\u{1}guest-control.small-1", "\u{1}roll-call"]);
    let topics = [
        "heartbeat.ferby",
        "control.ferby",
        "guest.small-2",
        "reply.c",
        "guest-control.small-1",
        "roll-call",
    ];
    for topic in topics {
        says.send_multipart([topic.as_bytes(), &envelope(client("x"), 1)[..]], 0).unwrap();
    }
    assert_eq!(topics.map(|_| heard(&inside)), topics);
    assert_eq!([heard(&outside), heard(&outside)], ["guest-control.small-1", "roll-call"]);
}

// publishers go on saying what one of both sides wants
#[test]
fn a_subscription_lasts_until_nobody_wants_it() {
    let (_forwarder, all, guests) = forwarder();
    let says = raw(XPUB, &all.publish(), &[]);
    let topic = "guest-control.small-1";
    let (on, off) = (format!("\u{1}{topic}").into_bytes(), format!("\u{0}{topic}").into_bytes());
    for (first, second) in [(&all, &guests), (&guests, &all)] {
        let one = raw(SUB, &first.subscribe(), &[topic]);
        assert_eq!(says.recv_bytes(0).unwrap(), on);
        let other = raw(SUB, &second.subscribe(), &[topic]);
        let say = || says.send_multipart([topic, "{}"], 0).unwrap();
        // it is heard there when it has joined
        other.set_rcvtimeo(20).unwrap();
        while other.recv_multipart(0).is_err() {
            say();
        }
        drop(one);
        // a subscription more shows that the end of the first is through
        let mark = raw(SUB, &first.subscribe(), &["guest-control.mark"]);
        assert_eq!(says.recv_bytes(0).unwrap(), b"\x01guest-control.mark");
        drop(other);
        assert_eq!(says.recv_bytes(0).unwrap(), off);
        drop(mark);
        assert_eq!(says.recv_bytes(0).unwrap(), b"\x00guest-control.mark");
    }
}

// a guest finds its forwarder again
#[tokio::test]
async fn a_guest_comes_back() {
    let (forwarder, all, guests) = forwarder();
    let (says, mut own) =
        join(std::slice::from_ref(&guests), guest("small-1"), &["guest-control.small-1", "roll-call"]);
    link(&mut own, true).await;
    drop(forwarder);
    link(&mut own, false).await;
    let config = Config { listen: all.clone(), guests: Some(guests), ..Config::local() };
    let _forwarder = Forwarder::start(config).unwrap();
    link(&mut own, true).await;
    let (caller, mut hears) = join(&[all], client("c"), &["guest.", "reply.c"]);
    link(&mut hears, true).await;
    // the side that speaks connects by itself
    let reply = Reply { id: "x".into(), answer: Answer::Done { text: "yes".into() }, news: None };
    let mut heard = None;
    while heard.is_none() {
        caller.publish(Topic::RollCall, Body::RollCall);
        if let Ok((topic, _)) =
            tokio::time::timeout(std::time::Duration::from_millis(100), message(&mut own)).await
        {
            assert_eq!(topic, Topic::RollCall);
            let to = xvm_model::ClientName::parse("c").unwrap();
            says.publish(Topic::Reply(to), Body::Reply(Box::new(reply.clone())));
            heard =
                tokio::time::timeout(std::time::Duration::from_millis(100), message(&mut hears)).await.ok();
        }
    }
    assert_eq!(heard.unwrap().1.from, guest("small-1"));
}
