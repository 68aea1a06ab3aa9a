//! The topics: one table from which subscriptions, checks and the manual page of the messages come.

use crate::{ClientName, DomainName, ServerName};
use std::fmt;

/// One row of the table.
pub struct TopicRow {
    /// How it is written; the capital word is a name.
    pub pattern: &'static str,
    /// Who says it.
    pub from: &'static str,
    /// Who hears it.
    pub to: &'static str,
    /// The `type` of its bodies.
    pub body: &'static str,
    /// When it is said, and what a receiver does.
    pub about: &'static str,
}

/// All topics of this version.
pub const TOPICS: &[TopicRow] = &[
    TopicRow {
        pattern: "heartbeat.SERVER",
        from: "agentd",
        to: "all",
        body: "heartbeat",
        about: "the whole state of a server: settings, load of each CPU, memory, and all domains; every `heartbeat` seconds, and at a roll-call. What it does not name is not there.",
    },
    TopicRow {
        pattern: "domain.SERVER",
        from: "agentd",
        to: "all",
        body: "domain",
        about: "one domain's whole record, at once when it changes or its job goes on; or that it is gone, or departed to another server.",
    },
    TopicRow {
        pattern: "control.SERVER",
        from: "xvmfs, imaged",
        to: "agentd",
        body: "command",
        about: "an order to a server or one of its domains, repeated with the same id until it is answered.",
    },
    TopicRow {
        pattern: "control.images",
        from: "xvmfs, agentd",
        to: "imaged",
        body: "command",
        about: "an order about a config; agents ask for the second lease of a migration here. So no server can be called `images`.",
    },
    TopicRow {
        pattern: "configs",
        from: "imaged",
        to: "all",
        body: "configs",
        about: "all configs with their leases, the store's room, and what can be restored: every few seconds, and at a roll-call. What it does not name is not there.",
    },
    TopicRow {
        pattern: "config",
        from: "imaged",
        to: "all",
        body: "config",
        about: "one config's whole record, at once when it changes or its job goes on; or that it is gone.",
    },
    TopicRow {
        pattern: "guest.DOMAIN",
        from: "guestd",
        to: "xvmfs",
        body: "guest",
        about: "a guest lives, and how it is: load, steal, pressure, memory, the tests that it runs; every few seconds, and at a roll-call. More than 20 messages a second of a guest are dropped.",
    },
    TopicRow {
        pattern: "guest-control.DOMAIN",
        from: "xvmfs",
        to: "guestd",
        body: "command",
        about: "an order to a guest: run, cancel, load, top; like those to servers.",
    },
    TopicRow {
        pattern: "guest-return.DOMAIN",
        from: "guestd",
        to: "xvmfs",
        body: "guest-runs",
        about: "all tests that a guest remembers, the latest last, with what they took and printed: at each change, at a roll-call, and every minute while there are any.",
    },
    TopicRow {
        pattern: "guest-top.DOMAIN",
        from: "guestd",
        to: "xvmfs",
        body: "guest-top",
        about: "the processes of a guest, the busiest first, each second while somebody reads them.",
    },
    TopicRow {
        pattern: "reply.CLIENT",
        from: "agentd, imaged, guestd",
        to: "xvmfs, agentd, imaged",
        body: "reply",
        about: "the answer to an order: working, accepted as a job, done, or failed with code and sentence.",
    },
    TopicRow {
        pattern: "watchdog.SERVER",
        from: "agentd",
        to: "agentd",
        body: "watchdog",
        about: "what a server says in a round of help: request-help, offer-help, accept-help, decline, done; that it wants domains back (recall); what it knows of the cluster's balance (balance).",
    },
    TopicRow {
        pattern: "rounds.SERVER",
        from: "agentd",
        to: "xvmfs",
        body: "rounds",
        about: "all rounds of help of a server that its agent keeps, the latest last: at each change, at a roll-call, and every minute while there are any.",
    },
    TopicRow {
        pattern: "roll-call",
        from: "xvmfs, agentd, imaged",
        to: "all",
        body: "roll-call",
        about: "who just joined asks every daemon to say what it knows, now.",
    },
    TopicRow {
        pattern: "forwarder.NAME",
        from: "xvm-forwarder",
        to: "all",
        body: "forwarder",
        about: "the forwarder lives, and its counters: every second, and at once to a new subscriber of this topic. Silence of 3 s means that there is no forwarder.",
    },
];

/// A topic with its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// `heartbeat.SERVER`
    Heartbeat(ServerName),
    /// `domain.SERVER`
    Domain(ServerName),
    /// `control.SERVER`
    Control(ServerName),
    /// `control.images`
    ControlImages,
    /// `configs`
    Configs,
    /// `config`
    Config,
    /// `reply.CLIENT`
    Reply(ClientName),
    /// `watchdog.SERVER`
    Watchdog(ServerName),
    /// `rounds.SERVER`
    Rounds(ServerName),
    /// `guest.DOMAIN`
    Guest(DomainName),
    /// `guest-control.DOMAIN`
    GuestControl(DomainName),
    /// `guest-return.DOMAIN`
    GuestReturn(DomainName),
    /// `guest-top.DOMAIN`
    GuestTop(DomainName),
    /// `roll-call`
    RollCall,
    /// `forwarder.NAME`
    Forwarder(ServerName),
}

impl Topic {
    /// Reads a topic frame; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "roll-call" => return Ok(Topic::RollCall),
            "configs" => return Ok(Topic::Configs),
            "config" => return Ok(Topic::Config),
            "control.images" => return Ok(Topic::ControlImages),
            _ => {}
        }
        let (kind, name) =
            text.split_once('.').ok_or_else(|| format!("topic {text:?} is not in the table"))?;
        let server = || ServerName::parse(name).map_err(|e| e.to_string());
        let domain = || DomainName::parse(name).map_err(|e| e.to_string());
        match kind {
            "heartbeat" => server().map(Topic::Heartbeat),
            "domain" => server().map(Topic::Domain),
            "control" => server().map(Topic::Control),
            "watchdog" => server().map(Topic::Watchdog),
            "rounds" => server().map(Topic::Rounds),
            "forwarder" => server().map(Topic::Forwarder),
            "guest" => domain().map(Topic::Guest),
            "guest-control" => domain().map(Topic::GuestControl),
            "guest-return" => domain().map(Topic::GuestReturn),
            "guest-top" => domain().map(Topic::GuestTop),
            "reply" => ClientName::parse(name).map(Topic::Reply).map_err(|e| e.to_string()),
            _ => Err(format!("topic {text:?} is not in the table")),
        }
    }

    /// The `type` of the bodies that belong under it.
    pub fn body(&self) -> &'static str {
        match self {
            Topic::Heartbeat(_) => "heartbeat",
            Topic::Domain(_) => "domain",
            Topic::Control(_) | Topic::ControlImages | Topic::GuestControl(_) => "command",
            Topic::Guest(_) => "guest",
            Topic::GuestReturn(_) => "guest-runs",
            Topic::GuestTop(_) => "guest-top",
            Topic::Configs => "configs",
            Topic::Config => "config",
            Topic::Reply(_) => "reply",
            Topic::Watchdog(_) => "watchdog",
            Topic::Rounds(_) => "rounds",
            Topic::RollCall => "roll-call",
            Topic::Forwarder(_) => "forwarder",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::Heartbeat(n) => write!(f, "heartbeat.{n}"),
            Topic::Domain(n) => write!(f, "domain.{n}"),
            Topic::Control(n) => write!(f, "control.{n}"),
            Topic::ControlImages => f.write_str("control.images"),
            Topic::Configs => f.write_str("configs"),
            Topic::Config => f.write_str("config"),
            Topic::Reply(n) => write!(f, "reply.{n}"),
            Topic::Watchdog(n) => write!(f, "watchdog.{n}"),
            Topic::Rounds(n) => write!(f, "rounds.{n}"),
            Topic::Guest(n) => write!(f, "guest.{n}"),
            Topic::GuestControl(n) => write!(f, "guest-control.{n}"),
            Topic::GuestReturn(n) => write!(f, "guest-return.{n}"),
            Topic::GuestTop(n) => write!(f, "guest-top.{n}"),
            Topic::RollCall => f.write_str("roll-call"),
            Topic::Forwarder(n) => write!(f, "forwarder.{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_topic_and_says_its_body() {
        for row in TOPICS {
            let text = row
                .pattern
                .replace("SERVER", "ferby")
                .replace("DOMAIN", "small-1")
                .replace("CLIENT", "x")
                .replace("NAME", "main");
            let topic = Topic::parse(&text).expect(row.pattern);
            assert_eq!(topic.to_string(), text);
            assert_eq!(topic.body(), row.body);
        }
        for bad in ["", "heartbeat", "heartbeat.", "nonsense.ferby", "control.a/b", "roll-call.", "configs.x"]
        {
            assert!(Topic::parse(bad).is_err(), "{bad}");
        }
    }
}
