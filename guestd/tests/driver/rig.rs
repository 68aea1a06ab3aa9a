//! A guest on the in-memory bus, whose clock is wrong by fifty years, and who listens to it and orders.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xvm_bus::{Client, Clock, Incoming, Net, Publisher};
use xvm_guestd::{agent::Settings, allowed::Allowed, driver};
use xvm_model::outbox::Addressee;
use xvm_model::{
    Answer, Body, Boot, ClientName, Command, DomainName, Failure, GuestBeat, GuestCommand, GuestRuns, Mono,
    News, Order, Reply, Run, RunState, Sender, Top, Topic, Wall,
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
    at: Option<(Boot, Wall, Mono)>,
}

pub struct Rig {
    pub net: Net,
    pub dir: tempfile::TempDir,
    heard: Arc<Mutex<Heard>>,
    client: Client,
    publisher: Publisher,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|t| t.abort());
    }
}

fn name() -> DomainName {
    DomainName::parse("small-1").expect("a name")
}

/// How the guest is made.
pub struct Guest {
    pub any: bool,
    pub limit: Duration,
    /// Tests of the site: names and shell scripts.
    pub scripts: Vec<(&'static str, &'static str)>,
}

impl Default for Guest {
    fn default() -> Self {
        Guest { any: false, limit: Duration::from_secs(3600), scripts: Vec::new() }
    }
}

impl Rig {
    pub fn begin(guest: Guest) -> Rig {
        let net = Net::new(1);
        let dir = tempfile::tempdir().expect("a scratch folder");
        let mut allowed = Allowed::new(PathBuf::from(env!("CARGO_BIN_EXE_guestd")), guest.any);
        for (name, text) in guest.scripts {
            let script = dir.path().join(name).with_extension("sh");
            std::fs::write(&script, format!("cd {}\n{text}\n", dir.path().display())).expect("written");
            allowed.add(name, &format!("/bin/sh {} ...", script.display())).expect("taken");
        }
        let settings = Settings { name: name(), interval_ms: 60_000, allowed };
        let sender = Sender::Guest(name());
        let wrong = Clock::at(Wall(86_400_000));
        let (publisher, receiver) = net.connect(sender, Boot(7), driver::subscriptions(&name()), wrong);
        let limit = guest.limit;
        let guest = tokio::spawn(async move {
            let ended =
                driver::serve(settings, limit, publisher, receiver, || {}, std::future::pending()).await;
            panic!("guestd ended: {ended:?}");
        });
        let clock = Clock::system();
        let me = ClientName::parse("test").expect("a name");
        let topics = ["guest.", "guest-return.", "guest-top.", "reply.test"].map(String::from).to_vec();
        let (publisher, mut receiver) =
            net.connect(Sender::Client(me.clone()), Boot(1), topics, clock.clone());
        let client = Client::new(publisher.clone(), me);
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
        publisher.publish(Topic::RollCall, Body::RollCall);
        Rig { net, dir, heard, client, publisher, tasks: vec![guest, listener] }
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
        let client = ClientName::parse("test").expect("a name");
        let deadline = Wall(at.0 + 50_000);
        let order = Order::Guest { name: name(), command };
        let command = Command { id: id.into(), client, boot, deadline, order };
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

    /// The numbers that a script wrote to a file, when there are `n`.
    pub async fn pids(&self, file: &str, n: usize) -> Vec<u32> {
        let path = self.dir.path().join(file);
        wait_for("processes of a script", || {
            let text = std::fs::read_to_string(&path).ok()?;
            // a number is whole with its line end
            let pids: Vec<u32> =
                text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')?.parse().ok()).collect();
            (pids.len() == n).then_some(pids)
        })
        .await
    }
}

/// Whether a process has ended; one that nobody has reaped has.
pub fn is_dead(pid: u32) -> bool {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    std::fs::read_to_string(path)
        .map_or(true, |text| text.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')))
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
