//! What the tests share: connections, waiting, a real forwarder process.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use xvm_bus::{BusConfig, Clock, Endpoint, Incoming, Link, Publisher, Receiver, connect};
use xvm_model::{Boot, ClientName, Envelope, Sender, ServerName, Topic};

/// No test waits longer for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

pub fn agent(name: &str) -> Sender {
    Sender::Agent(server(name))
}

pub fn client(name: &str) -> Sender {
    Sender::Client(ClientName::parse(name).unwrap())
}

pub fn join(at: &[Endpoint], sender: Sender, subscriptions: &[&str]) -> (Publisher, Receiver) {
    connect(BusConfig {
        forwarders: at.to_vec(),
        sender,
        boot: Boot(1),
        subscriptions: subscriptions.iter().map(|s| (*s).to_owned()).collect(),
        clock: Clock::system(),
    })
    .unwrap()
}

/// Waits until `what` is true, and says so when it never is.
pub async fn wait_for(text: &str, mut what: impl FnMut() -> bool) {
    let done = timeout(PATIENCE, async {
        while !what() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(done.await.is_ok(), "it did not happen: {text}");
}

pub async fn next(receiver: &mut Receiver) -> Incoming {
    match timeout(PATIENCE, receiver.recv()).await {
        Ok(incoming) => incoming.expect("the bus goes on"),
        Err(_) => panic!("nothing came; the link is {:?}, {:?}", receiver.link(), receiver.counts()),
    }
}

/// The next message, links left out.
pub async fn message(receiver: &mut Receiver) -> (Topic, Envelope) {
    loop {
        if let Incoming::Message { topic, envelope } = next(receiver).await {
            return (topic, envelope);
        }
    }
}

/// Waits until the link is said to be up or down.
pub async fn link(receiver: &mut Receiver, up: bool) -> Link {
    loop {
        if let Incoming::Link(link) = next(receiver).await
            && link.is_up() == up
        {
            return link;
        }
    }
}

/// `xvm-forwarder` as its own process; killed when dropped.
pub struct Process(pub Child);

impl Process {
    pub fn start(args: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xvm-forwarder"));
        Process(command.args(args).stderr(Stdio::inherit()).spawn().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
