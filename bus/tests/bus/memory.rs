//! The in-memory net. If these fail, tests of daemons with faults prove nothing.

use crate::kit::*;
use std::time::Duration;
use tokio::time::timeout;
use xvm_bus::{Clock, Faults, Incoming, Link, Net, Publisher, Receiver};
use xvm_model::{Body, Boot, Topic, Wall};

fn pair(net: &Net) -> (Publisher, Receiver, Publisher, Receiver) {
    let clock = Clock::at(Wall(1_000_000));
    let (a, ar) = net.connect(agent("a"), Boot(1), vec!["roll-call".into()], clock.clone());
    let (b, br) = net.connect(agent("b"), Boot(1), vec!["roll-call".into()], clock);
    (a, ar, b, br)
}

async fn all(receiver: &mut Receiver) -> Vec<u64> {
    let mut seqs = Vec::new();
    while let Ok(Some(incoming)) = timeout(Duration::from_secs(60), receiver.recv()).await {
        if let Incoming::Message { envelope, .. } = incoming {
            seqs.push(envelope.seq);
        }
    }
    seqs
}

async fn hundred(faults: Faults, seed: u64) -> (Vec<u64>, u64) {
    let net = Net::new(seed);
    let (says, _ar, _b, mut hears) = pair(&net);
    net.set_faults(faults);
    for _ in 0..100 {
        says.publish(Topic::RollCall, Body::RollCall);
    }
    let seqs = all(&mut hears).await;
    (seqs, hears.counts().doubled)
}

// each fault does what it says, and nothing else; the same seed does the same
#[tokio::test(start_paused = true)]
async fn faults() {
    let none = Faults::default();
    let slow = Faults { delay: (Duration::from_millis(1), Duration::from_millis(500)), ..none };
    let in_order: Vec<u64> = (1..=100).collect();
    assert_eq!(hundred(none, 1).await, (in_order.clone(), 0));
    assert_eq!(hundred(slow, 1).await, (in_order.clone(), 0), "a delay alone keeps the order");
    assert_eq!(hundred(Faults { doubling: 1.0, ..slow }, 1).await, (in_order.clone(), 100));
    assert_eq!(hundred(Faults { loss: 1.0, ..none }, 1).await.0, Vec::<u64>::new());
    let (some, _) = hundred(Faults { loss: 0.3, ..none }, 1).await;
    assert!((50..90).contains(&some.len()), "{}", some.len());
    let (mut mixed, _) = hundred(Faults { reordering: 1.0, ..slow }, 1).await;
    assert_ne!(mixed, in_order);
    mixed.sort_unstable();
    assert_eq!(mixed, in_order);
    let wild = Faults { loss: 0.2, doubling: 0.2, reordering: 0.5, ..slow };
    assert_eq!(hundred(wild, 7).await, hundred(wild, 7).await);
    assert_ne!(hundred(wild, 7).await, hundred(wild, 8).await);
}

// partitions are silent, a lost forwarder is told
#[tokio::test(start_paused = true)]
async fn partitions_and_links() {
    let net = Net::new(1);
    let (a, _ar, _b, mut hears) = pair(&net);
    assert!(a.link().is_up());
    assert_eq!(link(&mut hears, true).await, Link::Up);
    net.partition([agent("a")]);
    a.publish(Topic::RollCall, Body::RollCall);
    net.partition([]);
    net.forwarder(false);
    assert!(!link(&mut hears, false).await.is_up());
    a.publish(Topic::RollCall, Body::RollCall);
    assert_eq!(a.counts().unsent, 1);
    net.forwarder(true);
    link(&mut hears, true).await;
    net.link(&agent("b"), false);
    a.publish(Topic::RollCall, Body::RollCall);
    net.link(&agent("b"), true);
    a.publish(Topic::RollCall, Body::RollCall);
    assert_eq!(all(&mut hears).await, [4]);
}
