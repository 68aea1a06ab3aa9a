//! One who stands in imaged's place on the in-memory bus, and lends.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::sleep;
use xvm_bus::{Clock, Incoming, Net};
use xvm_model::config::Config;
use xvm_model::{
    Admit, Answer, Body, Boot, ConfigChange, ConfigCommand, ConfigRecord, ConfigState, Configs, Failure,
    Grant, Lease, Leases, Mono, News, Order, Receipts, Reply, Sender, ServerName, Topic,
};

/// Makes a lease of a config for a server, by its number.
pub type Make = Box<dyn Fn(&str, &str, u64) -> Grant + Send + Sync>;

/// How whoever stands in imaged's place behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// It takes so long for an answer, in milliseconds.
    pub slow: u64,
    /// It says that it works, and nothing else.
    pub mute: bool,
    /// It refuses.
    pub refuses: bool,
}

/// One who lends, as imaged does: at most once an order, by the rules of [`Leases`].
pub struct Lender {
    /// Which it has lent.
    pub leases: Arc<Mutex<Leases>>,
    manners: Arc<Mutex<Manners>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Lender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lender {
    pub fn new(net: &Net, clock: &Clock, boot: u64, leases: Leases, make: Make) -> Lender {
        let (leases, manners) = (Arc::new(Mutex::new(leases)), Arc::<Mutex<Manners>>::default());
        let topics = ["control.images", "roll-call"].map(str::to_owned).to_vec();
        let (publisher, mut receiver) = net.connect(
            Sender::Images(ServerName::parse("kerby").expect("valid")),
            Boot(boot),
            topics,
            clock.clone(),
        );
        let (held, rules) = (leases.clone(), manners.clone());
        let task = tokio::spawn(async move {
            let mut receipts = Receipts::new(Boot(boot));
            let mut beat = tokio::time::interval(Duration::from_secs(1));
            loop {
                let incoming = tokio::select! {
                    _ = beat.tick() => None,
                    incoming = receiver.recv() => incoming,
                };
                let command = match incoming {
                    Some(Incoming::Message { envelope, .. }) => match envelope.body {
                        Body::Command(command) => command,
                        _ => continue,
                    },
                    _ => {
                        let all = Configs { interval_ms: 1_000, host: "kerby".into(), ..Configs::default() };
                        publisher.publish(Topic::Configs, Body::Configs(Box::new(all)));
                        continue;
                    }
                };
                let now = publisher.clock().now();
                let manners = *rules.lock().expect("whole");
                let say = |answer, news| {
                    let reply = Box::new(Reply { id: command.id.clone(), answer, news });
                    publisher.publish(Topic::Reply(command.client.clone()), Body::Reply(reply));
                };
                match receipts.admit(&command, now.wall, now.mono) {
                    Admit::Run => {}
                    Admit::Known(None) => {
                        say(Answer::Working, None);
                        continue;
                    }
                    Admit::Known(Some(reply)) => {
                        say(reply.answer, Some(record(&held.lock().expect("whole"))));
                        continue;
                    }
                    Admit::Refuse(failure) => {
                        say(Answer::Failed { failure }, None);
                        continue;
                    }
                }
                say(Answer::Working, None);
                if manners.mute {
                    continue;
                }
                sleep(Duration::from_millis(manners.slow)).await;
                let answer = match manners.refuses {
                    true => Err(Failure::busy("cannot lend a disk: told to refuse")),
                    false => lend(&mut held.lock().expect("whole"), &command.order, &make),
                };
                let answer = match answer {
                    Ok(()) => Answer::Done { text: "lent".into() },
                    Err(failure) => Answer::Failed { failure },
                };
                let reply = Reply { id: command.id.clone(), answer: answer.clone(), news: None };
                receipts.answered(&command.id, reply);
                say(answer, Some(record(&held.lock().expect("whole"))));
            }
        });
        Lender { leases, manners, task }
    }

    pub fn behaves(&self, manners: Manners) {
        *self.manners.lock().expect("whole") = manners;
    }

    pub fn held(&self) -> Vec<Lease> {
        self.leases.lock().expect("whole").held.clone()
    }
}

fn lend(leases: &mut Leases, order: &Order, make: &Make) -> Result<(), Failure> {
    let Order::Config { name, command: ConfigCommand::Lend { from, to, job } } = order else {
        return Err(Failure::invalid("only leases are lent here"));
    };
    let make = |epoch| make(name.as_str(), to.as_str(), epoch);
    leases.lend((from, Boot(0)), to, job, Mono(0), make).map(|_| ())
}

/// The config as imaged would tell it.
fn record(leases: &Leases) -> News {
    let config = Config::new(uuid::Uuid::nil());
    let record = ConfigRecord {
        name: leases.held[0].grant.config.clone(),
        config,
        state: ConfigState::Running,
        job: None,
        remaining: None,
        last: None,
        leases: leases.held.clone(),
        boot: None,
        guest_key: None,
        log: 0,
        wrong: None,
    };
    News::Config { change: Box::new(ConfigChange::Is { record }) }
}
