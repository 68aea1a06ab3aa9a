//! What a file is: one row of a static table. Lookup, listing, attributes, the README file and the manual page come from it.

use crate::cluster::Cluster;
use crate::schedules::Entry;
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use xvm_model::config::settings;
use xvm_model::round::{Round, RoundId};
use xvm_model::{
    About, ConfigName, ConfigView, DomainName, DomainView, Guest, GuestCommand, Now, Order, Server,
    ServerName, TestName, View,
};

/// One file, or one directory of things.
#[derive(Clone, Copy)]
pub struct Row {
    /// The file's name.
    pub name: &'static str,
    /// Its permission bits.
    pub mode: u16,
    /// One line: what it says, with units; for settings what may be written.
    pub about: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// The commands of a directory.
pub const CTL: Row =
    Row { name: "ctl", mode: 0o644, about: "commands, one a line; reading tells which", kind: Kind::Ctl };
/// The last refusal of a directory.
pub const ERROR: Row = Row {
    name: "error",
    mode: 0o444,
    about: "the last refusal here: time, errno, sentence",
    kind: Kind::Error,
};
/// The events of one domain or config.
pub const EVENTS: Row = Row {
    name: "events",
    mode: 0o444,
    about: "blocks; a line an event from the moment of opening",
    kind: Kind::Events,
};
/// The end of the job of one domain or config.
pub const WAIT: Row = Row {
    name: "wait",
    mode: 0o444,
    about: "blocks until no job runs, then tells how the last one ended",
    kind: Kind::Wait,
};

/// What a row is.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A text that is rendered when the file is opened.
    Text(fn(&Scene) -> String),
    /// A text that can be written in the same form.
    Setting(fn(&Scene) -> String, fn(&Scene, &str) -> Result<Order, String>),
    /// A text; each line that is written is an order to the guest.
    Lines(fn(&Scene) -> String, fn(&str) -> Result<GuestCommand, String>),
    /// A schedule of tests: a text of several lines that this mount keeps.
    Schedule(fn(&Scene) -> String),
    /// A setting of a config.
    Key(&'static settings::Setting),
    /// A config's log: a file that grows, read from imaged on demand.
    Log,
    /// The processes of a guest, asked for while they are read.
    Top,
    /// Commands: one a line.
    Ctl,
    /// A stream of events from the moment of opening.
    Events,
    /// Blocks until no job runs.
    Wait,
    /// The last refusal in this directory.
    Error,
    /// The directory `servers`.
    Servers,
    /// The directory `domains`.
    Domains,
    /// The directory `servers/NAME/domains`.
    Links,
    /// The directory `help`.
    Help,
    /// The directory `configs`.
    Configs,
    /// The directory `tests`.
    Tests,
    /// The directory `domains/NAME/guest`, there while its guestd is heard.
    Guest,
}

impl Kind {
    /// Whether the row is a directory.
    pub fn is_dir(&self) -> bool {
        use Kind::{Configs, Domains, Guest, Help, Links, Servers, Tests};
        matches!(self, Servers | Domains | Links | Help | Configs | Tests | Guest)
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        matches!(self, Kind::Setting(..) | Kind::Lines(..) | Kind::Schedule(_) | Kind::Key(_) | Kind::Ctl)
    }
}

/// The thing that a directory shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The root.
    Cluster,
    /// `servers/NAME`
    Server(ServerName),
    /// `domains/NAME`
    Domain(DomainName),
    /// `domains/NAME/guest`
    Guest(DomainName),
    /// `help/ROUND`
    Round(RoundId),
    /// `configs/NAME`
    Config(ConfigName),
    /// `tests/NAME`
    Test(TestName),
}

impl Place {
    /// The rows of its directory.
    pub fn table(&self) -> &'static [Row] {
        match self {
            Place::Cluster => crate::tables::cluster::ROWS,
            Place::Server(_) => crate::tables::server::ROWS,
            Place::Domain(_) => crate::tables::domain::ROWS,
            Place::Guest(_) => crate::tables::guest::ROWS,
            Place::Round(_) => crate::tables::round::ROWS,
            Place::Config(_) => crate::tables::config::ROWS,
            Place::Test(_) => crate::tables::test::ROWS,
        }
    }

    /// The directory's path below the mount, for sentences.
    pub fn path(&self) -> String {
        match self {
            Place::Cluster => String::new(),
            Place::Server(n) => format!("servers/{n}"),
            Place::Domain(n) => format!("domains/{n}"),
            Place::Guest(n) => format!("domains/{n}/guest"),
            Place::Round(id) => format!("help/{id}"),
            Place::Config(n) => format!("configs/{n}"),
            Place::Test(n) => format!("tests/{n}"),
        }
    }

    /// Which events are heard here.
    pub fn about(&self) -> About {
        match self {
            Place::Cluster | Place::Round(_) | Place::Test(_) => About::Cluster,
            Place::Server(n) => About::Server(n.clone()),
            Place::Domain(n) | Place::Guest(n) => About::Domain(n.clone()),
            Place::Config(n) => About::Config(n.clone()),
        }
    }
}

/// What a row's functions see: one moment of the cluster, and the thing that the directory shows.
pub struct Scene<'a> {
    /// What does not change from moment to moment: counters, errors, histories.
    pub cluster: &'a Cluster,
    /// The cluster at this moment.
    pub view: Arc<View>,
    /// This moment.
    pub now: Now,
    /// The thing.
    pub thing: Subject,
}

/// The thing that a scene is about, with its records.
pub enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// A server.
    Server(Arc<Server>),
    /// A domain.
    Domain(Box<DomainView>),
    /// The guestd of a domain that is called so.
    Guest(DomainName, Arc<Guest>),
    /// A round of help.
    Round(Arc<Round>),
    /// A config.
    Config(Arc<ConfigView>),
    /// A schedule of tests.
    Test(Box<Entry>),
}

impl Scene<'_> {
    /// The server's record. Rows of the server table are only rendered for servers.
    pub fn server(&self) -> Option<&Server> {
        match &self.thing {
            Subject::Server(s) => Some(s),
            _ => None,
        }
    }

    /// The domain's record. Rows of the domain table are only rendered for domains.
    pub fn domain(&self) -> Option<&DomainView> {
        match &self.thing {
            Subject::Domain(d) => Some(d),
            _ => None,
        }
    }

    /// The guest's record, with the domain's name. Rows of the guest table are only rendered for guests.
    pub fn guest(&self) -> Option<(&DomainName, &Guest)> {
        match &self.thing {
            Subject::Guest(name, g) => Some((name, g)),
            _ => None,
        }
    }

    /// The round's record. Rows of the round table are only rendered for rounds.
    pub fn round(&self) -> Option<&Round> {
        match &self.thing {
            Subject::Round(r) => Some(r),
            _ => None,
        }
    }

    /// The schedule. Rows of the test table are only rendered for schedules.
    pub fn test(&self) -> Option<&Entry> {
        match &self.thing {
            Subject::Test(e) => Some(e),
            _ => None,
        }
    }

    /// The config's record. Rows of the config table are only rendered for configs.
    pub fn config(&self) -> Option<&ConfigView> {
        match &self.thing {
            Subject::Config(c) => Some(c),
            _ => None,
        }
    }

    /// Seconds since the thing was heard, as text with one decimal.
    pub fn age(&self) -> String {
        let heard = match &self.thing {
            Subject::Cluster | Subject::Round(_) | Subject::Test(_) => return "0.0".into(),
            Subject::Server(s) => s.heard,
            Subject::Domain(d) => d.heard,
            Subject::Guest(_, g) => g.heard,
            Subject::Config(_) => self.view.images().map_or(self.now, |i| i.heard),
        };
        seconds(self.now.mono.since(heard.mono))
    }
}

/// Milliseconds as seconds with one decimal.
pub fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

/// `key value` lines: the form of `status`.
#[derive(Default)]
pub struct KeyValues(String);

impl KeyValues {
    /// One more line.
    pub fn put(&mut self, key: &str, value: &dyn Display) {
        // a reason that others gave must not make a second line
        let value = value.to_string().replace(char::is_control, " ");
        writeln!(self.0, "{key} {value}").expect("a String takes all");
    }

    /// The lines.
    pub fn text(self) -> String {
        self.0
    }
}
