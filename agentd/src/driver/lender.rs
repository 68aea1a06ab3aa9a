//! Asking imaged for the second lease of a migration, as a client like any other: the order is repeated until it is answered, and a
//! migration that is asked for twice gets the same lease.

use std::time::Duration;
use tokio::{sync::watch, time::timeout};
use xvm_bus::{Client, Link, Publisher};
use xvm_model::outbox::Addressee;
use xvm_model::{
    Body, Boot, ClientName, Code, ConfigChange, ConfigCommand, ConfigName, Configs, DomainName, Envelope,
    Failure, Grant, Mono, News, Order, Reply, Sender, ServerName, Topic, Wall,
};

/// How long a lease is waited for: the destination fetches what the domain boots from meanwhile. Less than
/// [`xvm_model::receipts::DEADLINE_MAX_MS`], for two clocks do not run alike.
const BOUND: Duration = Duration::from_secs(55);
/// imaged is taken to be down after so many of its heartbeats have not come, or this time when that is longer.
const MISSED: u64 = 10;
const SILENT_MS: u64 = 5_000;
/// How long one that was not heard is waited for once it was called.
const CALLED: Duration = Duration::from_secs(2);

/// imaged as it was heard last.
#[derive(Debug, Clone)]
struct Imaged {
    name: ServerName,
    boot: Boot,
    /// Its clock, and when it was heard by ours.
    heard: (Wall, Mono),
    interval_ms: u32,
}

/// A lease that is wanted.
#[derive(Debug)]
pub struct Wish {
    /// The domain.
    pub name: DomainName,
    /// Whose volumes it uses.
    pub config: ConfigName,
    /// Where it is to go.
    pub to: ServerName,
    /// The migration's id.
    pub job: Box<str>,
}

/// The agent as a client of imaged. Clones are one.
#[derive(Clone)]
pub struct Lender {
    me: ServerName,
    client: Client,
    publisher: Publisher,
    imaged: watch::Sender<Option<Imaged>>,
}

/// The name under which the agent of a server is answered: `agent.SERVER`. One that is too long for that is cut, and told apart by a
/// number made of the whole.
pub fn client_name(server: &ServerName) -> ClientName {
    let plain = format!("agent.{server}");
    let number = |b: &str| b.bytes().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
    let cut = || format!("agent.{}.{:08x}", &server.as_str()[..40], number(server.as_str()));
    ClientName::parse(&plain)
        .or_else(|_| ClientName::parse(&cut()))
        .expect("letters, digits, '-', '.' and '_', 55 at most")
}

/// The topics of a lender.
pub fn subscriptions(server: &ServerName) -> [String; 2] {
    [Topic::Configs.to_string(), Topic::Reply(client_name(server)).to_string()]
}

impl Lender {
    /// For the agent of `me`, which speaks through `publisher`.
    pub fn new(me: &ServerName, publisher: &Publisher) -> Self {
        let client = Client::with_bound(publisher.clone(), client_name(me), BOUND);
        Lender { me: me.clone(), client, publisher: publisher.clone(), imaged: watch::channel(None).0 }
    }

    /// A heartbeat of imaged came. Messages of one that was started anew since then are not heard any more, see [`xvm_bus`].
    pub fn heard(&self, envelope: &Envelope, configs: &Configs) {
        let Sender::Images(name) = envelope.from.clone() else { return };
        let heard = (envelope.at, self.client.clock().mono());
        let interval_ms = configs.interval_ms;
        self.imaged.send_replace(Some(Imaged { name, boot: envelope.boot, heard, interval_ms }));
    }

    /// An answer came; only imaged's are believed.
    pub fn deliver(&self, from: &Sender, reply: Reply) {
        if let Sender::Images(_) = from {
            self.client.deliver(reply);
        }
    }

    /// Asks for a lease. Nothing has changed for the domain when there is none.
    pub async fn lend(self, wish: Wish) -> Result<Box<Grant>, Failure> {
        let late = |config: &ConfigName| {
            let text = format!("imaged did not lend the disk of {config} within {} s", BOUND.as_secs());
            Err(Failure::new(Code::TimedOut, text))
        };
        timeout(BOUND, self.ask(&wish)).await.unwrap_or_else(|_| late(&wish.config))
    }

    async fn ask(&self, wish: &Wish) -> Result<Box<Grant>, Failure> {
        loop {
            let imaged = self.present().await?;
            let (to, name) = (wish.to.clone(), wish.config.clone());
            let command = ConfigCommand::Lend { from: self.me.clone(), to, job: wish.job.clone() };
            let order = Order::Config { name, command };
            let to = Addressee::Images(imaged.name.clone());
            match self.client.order(to, imaged.boot, imaged.heard, order).await {
                Ok(reply) => return lease(reply, wish),
                // it was started anew meanwhile, and knows nothing of the order: the new life is asked
                Err(failure) if failure.code == Code::TimedOut && self.lives_on(&imaged).await => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// imaged, which is called when it was not heard: this agent may just have joined.
    async fn present(&self) -> Result<Imaged, Failure> {
        if let Link::Down(why) = self.client.link() {
            return Err(Failure::new(
                Code::HostUnreachable,
                format!("imaged cannot be asked for a lease: {why}"),
            ));
        }
        if self.latest().is_err() {
            let mut news = self.imaged.subscribe();
            self.publisher.publish(Topic::RollCall, Body::RollCall);
            drop(timeout(CALLED, news.wait_for(|heard| self.judge(heard.as_ref()).is_ok())).await);
        }
        self.latest()
    }

    fn latest(&self) -> Result<Imaged, Failure> {
        let heard = self.imaged.borrow().clone();
        self.judge(heard.as_ref())
    }

    /// Whether imaged, as it was heard last, is up.
    fn judge(&self, imaged: Option<&Imaged>) -> Result<Imaged, Failure> {
        let down = |why: &str| Failure::new(Code::HostDown, format!("imaged, which lends its disk, {why}"));
        let Some(imaged) = imaged else { return Err(down("was never heard")) };
        let silent = self.client.clock().mono().since(imaged.heard.1);
        if silent > SILENT_MS.max(MISSED * u64::from(imaged.interval_ms)) {
            return Err(down(&format!("is down on {}: not heard for {} s", imaged.name, silent / 1000)));
        }
        Ok(imaged.clone())
    }

    /// Whether another life than `old` is heard, within a few heartbeats.
    async fn lives_on(&self, old: &Imaged) -> bool {
        let mut news = self.imaged.subscribe();
        let other = |now: &Option<Imaged>| now.as_ref().is_some_and(|now| now.boot != old.boot);
        let wait = Duration::from_millis(SILENT_MS.max(3 * u64::from(old.interval_ms)));
        timeout(wait, news.wait_for(other)).await.is_ok_and(|heard| heard.is_ok())
    }
}

/// The lease that an answer brings.
fn lease(reply: Reply, wish: &Wish) -> Result<Box<Grant>, Failure> {
    let leases = match reply.news {
        Some(News::Config { change }) => match *change {
            ConfigChange::Is { record } if record.name == wish.config => record.leases,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let ours = |l: &xvm_model::Lease| l.grant.server == wish.to && l.job.as_deref() == Some(&*wish.job);
    let found = leases.into_iter().find(ours).map(|l| Box::new(l.grant));
    found.ok_or_else(|| {
        let text = format!("imaged answered, and named no lease of {} for {}", wish.config, wish.to);
        Failure::new(Code::Io, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xvm_model::config::Config;
    use xvm_model::lease::{Lease, Phase};
    use xvm_model::{Answer, ConfigRecord, ConfigState};

    /// If this fails, a domain moves by a lease that another migration has, and that may be taken back at any moment.
    #[test]
    fn only_the_lease_of_this_migration_is_taken() {
        let config = |text: &str| ConfigName::parse(text).expect("valid");
        let server = |text: &str| ServerName::parse(text).expect("valid");
        let wish =
            Wish { name: config("a").domain(), config: config("a"), to: server("gerby"), job: "j2".into() };
        let reply = |of: &str, to: &str, job: Option<&str>| {
            let grant = Grant {
                config: config(of),
                server: server(to),
                epoch: 2,
                host: "h".into(),
                port: 1,
                tls: false,
                disks: vec![],
            };
            let job = job.map(Into::into);
            let record = ConfigRecord {
                name: config(of),
                config: Config::new(uuid::Uuid::nil()),
                state: ConfigState::Running,
                job: None,
                remaining: None,
                last: None,
                leases: vec![Lease { grant, phase: Phase::Arriving, job, boot: Boot(1) }],
                boot: None,
                guest_key: None,
                log: 0,
                wrong: None,
            };
            let change = Box::new(ConfigChange::Is { record });
            let answer = Answer::Done { text: "lent".into() };
            Reply { id: "i".into(), answer, news: Some(News::Config { change }) }
        };
        assert_eq!(lease(reply("a", "gerby", Some("j2")), &wish).expect("ours").server, server("gerby"));
        for other in [
            reply("a", "gerby", Some("j1")),
            reply("a", "gerby", None),
            reply("a", "herby", Some("j2")),
            reply("b", "gerby", Some("j2")),
            Reply { news: None, ..reply("a", "gerby", Some("j2")) },
        ] {
            assert_eq!(lease(other, &wish).expect_err("not ours").code, Code::Io);
        }
    }

    #[test]
    fn every_server_has_a_name_to_be_answered_under() {
        let name = |text: &str| client_name(&ServerName::parse(text).expect("valid")).to_string();
        assert_eq!(name("ferby"), "agent.ferby");
        let (long, other) = ("x".repeat(63) + "a", "x".repeat(63) + "b");
        assert_ne!(name(&long), name(&other));
    }
}
