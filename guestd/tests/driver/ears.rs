//! Who listens to the guest small-1 and orders.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use xvm_bus::{Client, Incoming, Publisher, Receiver};
use xvm_model::outbox::Addressee;
use xvm_model::{
    Answer, Body, Boot, ClientName, Command, DomainName, Failure, GuestBeat, GuestCommand, GuestRuns, Mono,
    News, Order, Reply, Run, RunState, Top, Topic, Wall,
};

/// What was heard of the guest.
#[derive(Default)]
pub struct Heard {
    pub beats: Vec<GuestBeat>,
    /// Each time that tests were told.
    pub runs: Vec<GuestRuns>,
    pub tops: Vec<Top>,
    pub replies: Vec<Reply>,
    /// The guest's life, its clock, and when that was heard.
    pub at: Option<(Boot, Wall, Mono)>,
}

pub struct Ears {
    heard: Arc<Mutex<Heard>>,
    client: Client,
    publisher: Publisher,
    listener: tokio::task::JoinHandle<()>,
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The guest.
pub fn name() -> DomainName {
    DomainName::parse("small-1").expect("a name")
}

/// Who orders.
pub fn me() -> ClientName {
    ClientName::parse("test").expect("a name")
}

/// What is listened to.
pub fn topics() -> Vec<String> {
    ["guest.", "guest-return.", "guest-top.", "reply.test"].map(String::from).to_vec()
}

impl Ears {
    pub fn new(publisher: Publisher, mut receiver: Receiver) -> Ears {
        let (client, clock) = (Client::new(publisher.clone(), me()), publisher.clock().clone());
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (told, deliver) = (heard.clone(), client.clone());
        let listener = tokio::spawn(async move {
            while let Some(incoming) = receiver.recv().await {
                let Incoming::Message { envelope, .. } = incoming else { continue };
                let mut told = told.lock().expect("whole");
                told.at = Some((envelope.boot, envelope.at, clock.mono()));
                match envelope.body {
                    Body::Guest(beat) => told.beats.push(*beat),
                    Body::GuestRuns(runs) => told.runs.push(*runs),
                    Body::GuestTop(top) => told.tops.push(*top),
                    Body::Reply(reply) => {
                        told.replies.push((*reply).clone());
                        deliver.deliver(*reply);
                    }
                    _ => {}
                }
            }
        });
        Ears { heard, client, publisher, listener }
    }

    /// Waits for something that was heard.
    pub async fn until<T>(&self, what: &str, mut is: impl FnMut(&Heard) -> Option<T>) -> T {
        wait_for(what, || is(&self.heard.lock().expect("whole"))).await
    }

    /// What is true of what was heard until now.
    pub fn heard<T>(&self, what: impl FnOnce(&Heard) -> T) -> T {
        what(&self.heard.lock().expect("whole"))
    }

    pub async fn order(&self, command: GuestCommand) -> Result<Reply, Failure> {
        let (boot, at, mono) = self.until("the guest", |h| h.at).await;
        let order = Order::Guest { name: name(), command };
        self.client.order(Addressee::Guest(name()), boot, (at, mono), order).await
    }

    /// Orders a test; the answer's text, and the tests that it brings along.
    pub async fn run(&self, line: &str) -> Result<(String, GuestRuns), Failure> {
        let reply = self.order(GuestCommand::Run { line: line.into() }).await?;
        match (reply.answer, reply.news) {
            (Answer::Done { text }, Some(News::Guest { runs })) => Ok((text.into(), *runs)),
            other => panic!("{other:?}"),
        }
    }

    /// Says an order as it is, as often as it is said.
    pub async fn say(&self, id: &str, command: GuestCommand) {
        let (boot, at, _) = self.until("the guest", |h| h.at).await;
        let deadline = Wall(at.0 + 50_000);
        let order = Order::Guest { name: name(), command };
        let command = Command { id: id.into(), client: me(), boot, deadline, order };
        self.publisher.publish(Topic::GuestControl(name()), Body::Command(Box::new(command)));
    }

    /// The test that was ordered last, when it is over and all others are.
    pub async fn last(&self) -> Run {
        self.until("the end of all tests", |h| {
            let runs = h.runs.last()?;
            runs.is_idle().then(|| runs.last().cloned())?
        })
        .await
    }

    /// The test that was ordered last by this line, when it is over.
    pub async fn over(&self, line: &str) -> Run {
        self.until("the end of a test", |h| {
            h.runs.last()?.last().filter(|r| &*r.line == line && r.state.is_over()).cloned()
        })
        .await
    }

    /// The states that a line's test was told to be in, one after the other.
    pub fn states(&self, line: &str) -> Vec<RunState> {
        let of = |runs: &GuestRuns| runs.runs.iter().find(|r| &*r.line == line).map(|r| r.state);
        let mut states: Vec<_> = self.heard(|h| h.runs.iter().filter_map(of).collect());
        states.dedup();
        states
    }

    pub fn roll_call(&self) {
        self.publisher.publish(Topic::RollCall, Body::RollCall);
    }
}

/// Waits until there is something; a minute at most.
pub async fn wait_for<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    let look = async {
        loop {
            if let Some(found) = is() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
