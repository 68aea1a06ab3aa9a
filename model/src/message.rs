//! What is said on the bus: an envelope, and a body tagged by `type`. Which body goes under which topic is one table, see
//! [`crate::topic`].

use crate::negotiation::Say;
use crate::round::Round;
use crate::{
    Boot, ClientName, ConfigChange, ConfigCommand, ConfigName, Configs, Domain, DomainCommand, DomainName,
    Failure, GuestBeat, GuestCommand, GuestRuns, Heartbeat, ServerCommand, ServerName, Stamp, Top, Wall,
};
use serde::{Deserialize, Serialize};

/// The version of the layout; a receiver drops others.
pub const VERSION: u32 = 1;
/// The longest message that a receiver reads, in bytes: a heartbeat with ten thousand domains.
pub const MESSAGE_MAX: usize = 8 << 20;

/// The longest message of a guest that a receiver reads, in bytes: 32 tests with 4 KiB of output each, written as JSON.
pub const GUEST_MESSAGE_MAX: usize = 1 << 20;

/// Who speaks: `agent/ferby`, `images/kerby`, `guest/small-1`, `client/x1`, `forwarder/main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sender {
    /// The agent of a server.
    Agent(ServerName),
    /// The image agent, by the server that it runs on.
    Images(ServerName),
    /// guestd in a domain.
    Guest(DomainName),
    /// One who sends commands.
    Client(ClientName),
    /// A forwarder, by its name.
    Forwarder(ServerName),
}

impl TryFrom<String> for Sender {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (role, name) = text.split_once('/').ok_or_else(|| format!("sender {text:?} is not role/name"))?;
        match role {
            "agent" => ServerName::parse(name).map(Sender::Agent).map_err(|e| e.to_string()),
            "images" => ServerName::parse(name).map(Sender::Images).map_err(|e| e.to_string()),
            "guest" => DomainName::parse(name).map(Sender::Guest).map_err(|e| e.to_string()),
            "client" => ClientName::parse(name).map(Sender::Client).map_err(|e| e.to_string()),
            "forwarder" => ServerName::parse(name).map(Sender::Forwarder).map_err(|e| e.to_string()),
            _ => Err(format!("sender role {role:?} is not agent, images, guest, client or forwarder")),
        }
    }
}

impl From<Sender> for String {
    fn from(s: Sender) -> String {
        s.to_string()
    }
}

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sender::Agent(n) => write!(f, "agent/{n}"),
            Sender::Images(n) => write!(f, "images/{n}"),
            Sender::Guest(n) => write!(f, "guest/{n}"),
            Sender::Client(n) => write!(f, "client/{n}"),
            Sender::Forwarder(n) => write!(f, "forwarder/{n}"),
        }
    }
}

/// A message without its topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`VERSION`].
    pub v: u32,
    /// Who says it.
    pub from: Sender,
    /// The sender's life.
    pub boot: Boot,
    /// Counts the sender's messages.
    pub seq: u64,
    /// The sender's clock when it was said.
    pub at: Wall,
    /// What is said.
    pub body: Body,
}

impl Envelope {
    /// The message's place among all of its sender.
    pub fn stamp(&self) -> Stamp {
        Stamp { boot: self.boot, seq: self.seq }
    }
}

/// What can be said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Body {
    /// A server's whole state.
    Heartbeat(Box<Heartbeat>),
    /// One domain of a server changed, just now.
    Domain(Box<DomainChange>),
    /// An order.
    Command(Box<Command>),
    /// The answer to an order.
    Reply(Box<Reply>),
    /// What servers say to each other in a round of help.
    Watchdog(Box<Say>),
    /// The rounds of help of a server.
    Rounds(Box<Rounds>),
    /// All configs.
    Configs(Box<Configs>),
    /// One config changed, just now.
    Config(Box<ConfigChange>),
    /// A guest lives, and how it is.
    Guest(Box<GuestBeat>),
    /// The tests that a guest remembers.
    GuestRuns(Box<GuestRuns>),
    /// The processes of a guest.
    GuestTop(Box<Top>),
    /// Who just joined asks every daemon to say what it knows.
    RollCall,
    /// A forwarder says that it lives and what it has done.
    Forwarder(Counters),
}

impl Body {
    /// The word in the field `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::Heartbeat(_) => "heartbeat",
            Body::Domain(_) => "domain",
            Body::Command(_) => "command",
            Body::Reply(_) => "reply",
            Body::Watchdog(_) => "watchdog",
            Body::Rounds(_) => "rounds",
            Body::Configs(_) => "configs",
            Body::Config(_) => "config",
            Body::Guest(_) => "guest",
            Body::GuestRuns(_) => "guest-runs",
            Body::GuestTop(_) => "guest-top",
            Body::RollCall => "roll-call",
            Body::Forwarder(_) => "forwarder",
        }
    }
}

/// One domain's news. Like a heartbeat it tells a state, not a difference: lost, doubled or late copies do no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum DomainChange {
    /// It is on this server, and this is all about it.
    Is {
        /// The whole record.
        domain: Domain,
    },
    /// This server's hypervisor does not know it any more.
    Gone {
        /// Which.
        name: DomainName,
    },
    /// It moved to another server.
    Departed {
        /// What the destination's hypervisor said of it, and where it is.
        departed: crate::Departed,
    },
}

impl DomainChange {
    /// The domain that it is about.
    pub fn name(&self) -> &DomainName {
        match self {
            DomainChange::Is { domain } => &domain.name,
            DomainChange::Gone { name } => name,
            DomainChange::Departed { departed } => &departed.domain.name,
        }
    }
}

/// An order to one daemon. It is carried out at most once: the receiver answers a known `id` from its memory; an order to another
/// `boot` or past its `deadline` is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Unique in a cluster: `CLIENT.BOOT.NUMBER`.
    pub id: Box<str>,
    /// Whose `reply` topic the answer goes to.
    pub client: ClientName,
    /// The life of the receiver that the sender knows: a receiver that was started anew has lost its memory of ids, so it refuses.
    pub boot: Boot,
    /// The order is void from here on, **by the receiver's clock** as the sender knows it from heartbeats: clocks need not agree.
    pub deadline: Wall,
    /// What to do.
    pub order: Order,
}

/// What a command is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "kebab-case")]
pub enum Order {
    /// The server itself.
    Server {
        /// What to do.
        command: ServerCommand,
    },
    /// One of its domains.
    Domain {
        /// Which.
        name: DomainName,
        /// What to do.
        command: DomainCommand,
    },
    /// A config, of imaged.
    Config {
        /// Which.
        name: ConfigName,
        /// What to do.
        command: ConfigCommand,
    },
    /// A domain's guestd.
    Guest {
        /// Which domain's.
        name: DomainName,
        /// What to do.
        command: GuestCommand,
    },
}

/// The answer to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The command's id.
    pub id: Box<str>,
    /// What became of it.
    pub answer: Answer,
    /// The server's news that are true from now on: whoever applies them sees what it ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub news: Option<News>,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Answer {
    /// It is being carried out; another reply follows within seconds. The sender stops repeating.
    Working,
    /// It goes on as a job whose id is the command's.
    Accepted,
    /// It is finished.
    Done {
        /// One line: what is true now.
        text: Box<str>,
    },
    /// It was refused, or went wrong; nothing has changed.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// What a reply brings along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "kebab-case")]
pub enum News {
    /// Of a domain.
    Domain {
        /// Its state after the command.
        change: Box<DomainChange>,
    },
    /// Of the server.
    Server {
        /// Its state after the command.
        heartbeat: Box<Heartbeat>,
    },
    /// Of a config.
    Config {
        /// Its state after the command.
        change: Box<ConfigChange>,
    },
    /// Of a guest.
    Guest {
        /// Its tests after the command.
        runs: Box<GuestRuns>,
    },
}

/// The rounds of help that a server's agent keeps. Like a heartbeat it tells all: what it does not name is forgotten.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rounds {
    /// At most [`crate::round::KEPT`], the latest last.
    pub rounds: Vec<Round>,
}

/// What a forwarder has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Messages from publishers.
    pub messages: u64,
    /// Their bytes, topics included.
    pub bytes: u64,
    /// Messages that were dropped because they were not of the bus's form.
    pub malformed: u64,
    /// Messages of guests that were dropped because guests may not say them.
    #[serde(default)]
    pub refused: u64,
    /// Subscriptions and their ends.
    pub subscriptions: u64,
    /// Milliseconds since its start.
    pub uptime: u64,
    /// Whether its sockets ask for keys.
    pub protected: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_as_documented() {
        let e = Envelope {
            v: VERSION,
            from: Sender::Agent(ServerName::parse("ferby").expect("ok")),
            boot: Boot(7),
            seq: 3,
            at: Wall(9),
            body: Body::RollCall,
        };
        let json = serde_json::to_string(&e).expect("json");
        assert_eq!(
            json,
            r#"{"v":1,"from":"agent/ferby","boot":7,"seq":3,"at":9,"body":{"type":"roll-call"}}"#
        );
        assert_eq!(serde_json::from_str::<Envelope>(&json).expect("back"), e);
        for bad in ["root/x", "images", "agent", "agent/", "agent/a b"] {
            assert!(Sender::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
