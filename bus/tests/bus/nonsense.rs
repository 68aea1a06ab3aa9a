//! Whatever anyone puts on the bus. If these fail, one bad sender takes the cluster down.

use crate::kit::*;
use xvm_bus::{Forwarder, forwarder::Config};
use xvm_model::{Answer, Body, ClientName, Reply, Topic, message::MESSAGE_MAX};

fn reply(text: String) -> Body {
    Body::Reply(Box::new(Reply { id: "x".into(), answer: Answer::Done { text: text.into() }, news: None }))
}

// frames that are not of the form are dropped by the forwarder or by the receiver, and the next good one passes
#[tokio::test]
async fn nonsense_is_dropped_and_counted() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let at = [forwarder.endpoint().clone()];
    let (_p, mut hears) = join(&at, agent("ferby"), &[""]);
    link(&mut hears, true).await;
    let context = zmq::Context::new();
    let raw = context.socket(zmq::XPUB).unwrap();
    raw.set_linger(0).unwrap();
    raw.set_rcvtimeo(20_000).unwrap();
    raw.connect(&at[0].publish()).unwrap();
    raw.recv_bytes(0).expect("the forwarder's subscription");
    let send = |frames: &[&[u8]]| raw.send_multipart(frames, 0).unwrap();
    // by the forwarder
    send(&[b"roll-call"]);
    send(&[b"roll-call", b"{}", b"{}"]);
    send(&[b"roll-call", b"", b"", b"", b""]);
    send(&[&[b'r'; 301], b"{}"]);
    send(&[b"roll-call", &vec![b' '; MESSAGE_MAX + 1]]);
    send(&[b"roll-call", &vec![b' '; 20 << 20]]);
    // by the receiver
    let good = |v, from: &str, body: &str| {
        format!(r#"{{"v":{v},"from":"{from}","boot":1,"seq":1,"at":0,"body":{{"type":"{body}"}}}}"#)
    };
    send(&[b"", b""]);
    send(&[b"\xff\xfe", b"{}"]);
    send(&[b"unheard-of", b"{}"]);
    send(&[b"roll-call", b"\x00\xff{"]);
    send(&[b"roll-call", "[".repeat(100_000).as_bytes()]);
    send(&[b"roll-call", good(2, "agent/x", "roll-call").as_bytes()]);
    send(&[b"roll-call", good(1, "root/x", "roll-call").as_bytes()]);
    send(&[b"roll-call", good(1, "agent/../x", "roll-call").as_bytes()]);
    send(&[b"heartbeat.ferby", good(1, "agent/ferby", "roll-call").as_bytes()]);
    send(&[b"roll-call", good(1, "agent/x", "roll-call").as_bytes()]);
    loop {
        let (topic, envelope) = message(&mut hears).await;
        if topic == Topic::RollCall {
            assert_eq!(envelope.from, agent("x"));
            break;
        }
    }
    assert_eq!(forwarder.counters().malformed, 6);
    assert_eq!(hears.counts().malformed, 9);
    assert!(forwarder.is_running());
}

// 1 MiB passes; 20 MiB is refused where it is said, and does no harm to what follows
#[tokio::test]
async fn long_messages() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let at = [forwarder.endpoint().clone()];
    let (says, mut own) = join(&at, agent("ferby"), &[]);
    let (_p, mut hears) = join(&at, client("c"), &["reply.c"]);
    link(&mut own, true).await;
    link(&mut hears, true).await;
    let topic = Topic::Reply(ClientName::parse("c").unwrap());
    says.publish(topic.clone(), reply("x".repeat(20 << 20)));
    assert_eq!(says.counts().unsent, 1);
    let long = reply("ä\n".repeat(1 << 19));
    says.publish(topic, long.clone());
    assert_eq!(message(&mut hears).await.1.body, long);
}
