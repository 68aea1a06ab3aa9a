//! Orders from a client to a server and back. If these fail, `echo pause > ctl` does nothing, or does it twice.

use crate::kit::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::sleep};
use xvm_bus::{Client, Clock, Faults, Forwarder, Incoming, Net, Publisher, Receiver, forwarder::Config};
use xvm_model::{
    Admit, Answer, Body, Boot, ClientName, Code, DomainCommand, DomainName, Failure, Mono, Order, Receipts,
    Reply, Topic, Wall,
};

fn pause() -> Order {
    Order::Domain { name: DomainName::parse("small-1").unwrap(), command: DomainCommand::Pause }
}

/// An agent that does nothing but count what it was ordered.
fn serve(publisher: Publisher, mut receiver: Receiver, work: Duration) -> (Arc<AtomicU64>, JoinHandle<()>) {
    let runs = Arc::<AtomicU64>::default();
    let count = runs.clone();
    let mut receipts = Receipts::new(publisher.boot());
    let task = tokio::spawn(async move {
        while let Some(incoming) = receiver.recv().await {
            let Incoming::Message { envelope, .. } = incoming else { continue };
            let Body::Command(command) = envelope.body else { continue };
            let now = publisher.clock().now();
            let say = |answer: Answer| {
                let reply = Reply { id: command.id.clone(), answer, news: None };
                publisher.publish(Topic::Reply(command.client.clone()), Body::Reply(Box::new(reply)));
            };
            match receipts.admit(&command, now.wall, now.mono) {
                Admit::Run => {
                    assert!(now.wall < command.deadline);
                    count.fetch_add(1, SeqCst);
                    if !work.is_zero() {
                        say(Answer::Working);
                        sleep(work).await;
                    }
                    let answer = Answer::Done { text: "small-1 is paused".into() };
                    receipts.answered(
                        &command.id,
                        Reply { id: command.id.clone(), answer: answer.clone(), news: None },
                    );
                    say(answer);
                }
                Admit::Known(reply) => say(reply.map_or(Answer::Working, |r| r.answer)),
                Admit::Refuse(failure) => say(Answer::Failed { failure }),
            }
        }
    });
    (runs, task)
}

/// Gives replies to the client, as a mount does.
fn feed(client: &Client, mut receiver: Receiver) -> JoinHandle<()> {
    let client = client.clone();
    tokio::spawn(async move {
        while let Some(incoming) = receiver.recv().await {
            if let Incoming::Message { envelope, .. } = incoming
                && let Body::Reply(reply) = envelope.body
            {
                client.deliver(*reply);
            }
        }
    })
}

struct Pair {
    net: Net,
    client: Client,
    clock: Clock,
    runs: Arc<AtomicU64>,
}

fn pair(seed: u64, faults: Faults, work: Duration) -> Pair {
    let (net, clock) = (Net::new(seed), Clock::at(Wall(1_000_000)));
    net.set_faults(faults);
    let (p, r) = net.connect(agent("ferby"), Boot(7), vec!["control.ferby".into()], clock.clone());
    let (runs, _) = serve(p, r, work);
    let (p, r) = net.connect(crate::kit::client("c"), Boot(1), vec!["reply.c".into()], clock.clone());
    let client = Client::new(p, ClientName::parse("c").unwrap());
    feed(&client, r);
    Pair { net, client, clock, runs }
}

impl Pair {
    async fn pause(&self, boot: u64) -> Result<Reply, Failure> {
        let now = self.clock.now();
        self.client.order(&server("ferby"), Boot(boot), (now.wall, now.mono), pause()).await
    }
}

// the plain way, on real sockets
#[tokio::test]
async fn an_order_is_answered() {
    let forwarder = Forwarder::start(Config::local()).unwrap();
    let at = [forwarder.endpoint().clone()];
    let (p, mut r) = join(&at, agent("ferby"), &["control.ferby"]);
    link(&mut r, true).await;
    let (runs, _) = serve(p, r, Duration::ZERO);
    let (p, mut r) = join(&at, crate::kit::client("c"), &["reply.c"]);
    link(&mut r, true).await;
    let client = Client::new(p, ClientName::parse("c").unwrap());
    feed(&client, r);
    let began = std::time::Instant::now();
    for _ in 0..100 {
        // both processes have one wall clock here, so "heard now" is true
        let now = client.clock().now();
        let reply = client.order(&server("ferby"), Boot(1), (now.wall, now.mono), pause()).await.unwrap();
        assert_eq!(reply.answer, Answer::Done { text: "small-1 is paused".into() });
    }
    println!("100 orders took {:?}", began.elapsed());
    assert_eq!(runs.load(SeqCst), 100);
    assert_eq!(client.pending_count(), 0);
    drop(forwarder);
    let now = client.clock().now();
    let (ferby, failed) = (server("ferby"), Code::HostUnreachable);
    wait_for("the link is down", || !client.link().is_up()).await;
    let failure = client.order(&ferby, Boot(1), (now.wall, now.mono), pause()).await.unwrap_err();
    assert_eq!(failure.code, failed);
    assert!(failure.text.starts_with("cannot pause small-1: no forwarder at tcp://"), "{failure}");
}

// with a third of all messages lost, and others doubled, late and reordered, an order runs at most once; an answer is true
#[tokio::test(start_paused = true)]
async fn at_most_once_whatever_is_lost() {
    let faults = Faults {
        loss: 0.3,
        doubling: 0.3,
        reordering: 0.5,
        delay: (Duration::from_millis(1), Duration::from_millis(900)),
    };
    for seed in 0..50 {
        let pair = pair(seed, faults, Duration::from_millis(seed * 3));
        let mut answered = 0;
        for i in 1..=5 {
            match pair.pause(7).await {
                Ok(_) => answered += 1,
                Err(f) => assert_eq!(f.code, Code::TimedOut, "{f}"),
            }
            assert!(pair.runs.load(SeqCst) <= i);
        }
        sleep(Duration::from_secs(20)).await;
        let runs = pair.runs.load(SeqCst);
        assert!(answered <= runs && runs <= 5, "seed {seed}: {answered} answered, {runs} ran");
        assert_eq!(pair.client.pending_count(), 0);
    }
}

// an order that takes longer than its sender waits: the sentence says that it was begun
#[tokio::test(start_paused = true)]
async fn working_is_not_an_answer() {
    let pair = pair(1, Faults::default(), Duration::from_secs(3));
    assert!(pair.pause(7).await.is_ok());
    let pair = crate::orders::pair(1, Faults::default(), Duration::from_secs(9));
    let before = pair.clock.mono();
    let failure = pair.pause(7).await.unwrap_err();
    assert_eq!(failure.code, Code::TimedOut);
    assert!(failure.text.contains("ferby began it"), "{failure}");
    assert_eq!(pair.clock.mono().since(before), 5_000);
}

// the ways in which an order is not carried out
#[tokio::test(start_paused = true)]
async fn late_lost_and_for_another_life() {
    let pair = pair(1, Faults::default(), Duration::ZERO);
    let failure = pair.pause(6).await.unwrap_err();
    assert!(failure.text.contains("started anew"), "{failure}");
    // a heartbeat that was heard long ago as the sender believes, by a clock that is behind: the deadline has passed at its arrival
    let late =
        pair.client.order(&server("ferby"), Boot(7), (Wall(900_000), Mono(0)), pause()).await.unwrap_err();
    assert!(late.text.contains("came too late"), "{late}");
    pair.net.partition([agent("ferby")]);
    let lost = pair.pause(7).await.unwrap_err();
    assert_eq!(
        lost.text,
        "cannot pause small-1: ferby did not answer within 5 s; the outcome is unknown, `cat domains/small-1/state` tells what is true"
    );
    pair.net.partition([]);
    pair.net.forwarder(false);
    assert_eq!(pair.pause(7).await.unwrap_err().code, Code::HostUnreachable);
    assert_eq!(pair.runs.load(SeqCst), 0);
    pair.net.forwarder(true);
    assert!(pair.pause(7).await.is_ok());
}

// a sender that loses patience leaves nothing behind, and too many at once are refused
#[tokio::test(start_paused = true)]
async fn cancelled_and_too_many() {
    let pair = Arc::new(pair(1, Faults { loss: 1.0, ..Faults::default() }, Duration::ZERO));
    let tasks: Vec<_> = (0..xvm_bus::client::PENDING_MAX)
        .map(|_| {
            let pair = pair.clone();
            tokio::spawn(async move { pair.pause(7).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(pair.pause(7).await.unwrap_err().code, Code::Busy);
    tasks.iter().for_each(JoinHandle::abort);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(pair.client.pending_count(), 0);
}
