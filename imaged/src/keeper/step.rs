//! What goes into the keeper's pure step and what comes out of it.
//!
//! ```text
//!   bus: orders, what servers say ─┐                            ┌──▶ publish
//!   files of configs ──────────────┤                            ├──▶ keep on disk; nothing after it is done before that is
//!   ends of works, exports ────────┼──▶ step(input, now) ──────▶┼──▶ begin a work: build, copy, grow, remove
//!   answers of agents ─────────────┤                            ├──▶ export exactly these names
//!   clock ─────────────────────────┘                            └──▶ order something of an agent
//! ```

use super::kept::Kept;
use crate::image::BootFiles;
use xvm_model::images::StoreRoom;
use xvm_model::outbox::Addressee;
use xvm_model::{
    Body, Boot, ClientName, Command, Config, ConfigName, Envelope, Failure, Mono, Order, Reply, ServerName,
    Topic, Wall,
};

/// The file of a config as it is now; none: it is gone. The error says what is wrong with it.
pub type FileNews = (ConfigName, Option<Result<Box<Config>, String>>);

/// Who is answered, and under which id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The order's id.
    pub id: Box<str>,
    /// Whose `reply` topic.
    pub client: ClientName,
}

/// What a work does. It is numbered by the build's id; only one goes on with a config at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Volumes and image of a config, in place of what may be there.
    Make {
        /// The definition.
        config: Box<Config>,
    },
    /// The volumes of another, with the identity of this.
    Copy {
        /// Whose volumes.
        from: ConfigName,
        /// The definition of the new one.
        config: Box<Config>,
    },
    /// Volumes and image as `after` says, where that differs from `before`: a larger disk with its file system, another swap, address
    /// and keys in the image.
    Change {
        /// The definition that the volumes have.
        before: Box<Config>,
        /// The one that they are to have.
        after: Box<Config>,
    },
    /// Away, restorable.
    Remove,
    /// Back from there; the definition comes with the end.
    Restore,
    /// Away for good: what was removed a day ago.
    Purge,
}

/// What a work left behind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Made {
    /// The image boots with these; none: by itself, or the work was not about it.
    pub boot: Option<BootFiles>,
    /// The definition of a restored config.
    pub config: Option<Box<Config>>,
}

/// Why a work did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// It was cancelled; nothing of it is left.
    Cancelled,
    /// It failed; nothing of it is left.
    Failed(Failure),
}

/// How long an order to an agent may be held back at most, in milliseconds, until what it makes the agent fetch is exported.
pub const HELD_MS: u64 = 2_000;

/// Which order to an agent an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// The start of the lease with this number.
    Create(u64),
    /// The second lease with this number.
    Prepare(u64),
    /// A domain that runs without a lease.
    Fence,
}

/// What the step learns.
#[derive(Debug)]
pub enum Input {
    /// An order from the bus.
    Command(Box<Command>),
    /// What a server says: heartbeats, changes of domains.
    Heard(Box<Envelope>),
    /// Somebody joined.
    RollCall,
    /// The bus came (true) or went.
    Link(bool),
    /// The files of configs that changed, all at once: who hears of one at the start has heard of the others.
    Files(Vec<FileNews>),
    /// What new configs have from now on.
    Defaults(Box<Config>),
    /// The answer to [`Effect::Write`].
    Written {
        /// Whose file.
        name: ConfigName,
        /// What the config was before.
        before: Box<Config>,
        /// Who is told, with what.
        answer: Option<(Ticket, Box<str>)>,
        /// How it went.
        result: Result<(), String>,
    },
    /// A work goes on.
    Stage {
        /// Which.
        build: Box<str>,
        /// At what it is.
        phase: Box<str>,
        /// 0 to 100.
        percent: u8,
        /// Seconds until its likely end.
        remaining: Option<u32>,
        /// Bytes of the config's log.
        log: u64,
    },
    /// A work has ended.
    Worked {
        /// Which.
        build: Box<str>,
        /// How.
        result: Result<Made, Undone>,
        /// Bytes of the config's log.
        log: u64,
    },
    /// The answer to [`Effect::Export`]: the daemon exports what was wanted, or why not.
    Exported {
        /// Whose volumes.
        name: ConfigName,
        /// The number of the wish.
        wish: u64,
        /// How it went.
        result: Result<(), String>,
    },
    /// The daemon that exports a config's volumes has died.
    Died(ConfigName),
    /// The answer to [`Effect::Order`].
    Answered {
        /// About which config.
        name: ConfigName,
        /// Which order.
        tag: Tag,
        /// The answer.
        result: Result<Reply, Failure>,
    },
    /// How much room there is.
    Room(StoreRoom),
    /// Time passed.
    Tick,
}

/// What the step wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say this on the bus.
    Publish(Topic, Box<Body>),
    /// Keep this on disk. No later effect but a publication is carried out before it is there.
    Keep(Box<Kept>),
    /// Write the file of a config.
    Write {
        /// Whose.
        name: ConfigName,
        /// What it is now.
        config: Box<Config>,
        /// What it was.
        before: Box<Config>,
        /// Who is told when it is written.
        answer: Option<(Ticket, Box<str>)>,
    },
    /// Begin a work.
    Work {
        /// Its id, which stands in all that it leaves while it runs.
        build: Box<str>,
        /// For which config.
        name: ConfigName,
        /// What.
        task: Task,
    },
    /// End a work; it comes back as [`Input::Worked`].
    Stop {
        /// Which.
        build: Box<str>,
    },
    /// The volumes of a config are exported under exactly these names.
    Export {
        /// Whose.
        name: ConfigName,
        /// Counts the wishes for this config: only the last one's answer counts.
        wish: u64,
        /// At this port.
        port: u16,
        /// Export name and volume.
        names: Vec<(Box<str>, Box<str>)>,
        /// The servers that are let in, by TLS alone; none: without TLS.
        servers: Option<Vec<ServerName>>,
    },
    /// Order something of an agent.
    Order {
        /// About which config.
        name: ConfigName,
        /// For the answer.
        tag: Tag,
        /// To whom.
        to: Addressee,
        /// Its life.
        boot: Boot,
        /// Its clock, and when it was heard.
        heard: (Wall, Mono),
        /// What.
        order: Box<Order>,
    },
    /// Answer with a part of a config's log.
    Log {
        /// Who asks.
        ticket: Ticket,
        /// Whose log.
        name: ConfigName,
        /// From which byte.
        from: u64,
    },
}
