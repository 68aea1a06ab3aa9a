//! What goes into the agent's pure step and what comes out of it.
//!
//! ```text
//!   bus ─────────────┐                            ┌──▶ publish
//!   hypervisor news ─┤                            ├──▶ ask: sample, one domain, another hypervisor
//!   answers, ends ───┼──▶ step(input, now) ──────▶┼──▶ begin an operation
//!   clock ───────────┘    (crate::driver::agent)  └──▶ save settings
//!        ▲                                              │
//!        └────────────── the shell (crate::driver) ◀────┘
//! ```
//!
//! Queries are numbered as they start: an answer that was asked for earlier never overwrites one that was asked for later.

use super::kept::Kept;
use crate::hypervisor::{Host, HvEvent, HvResult, Moved, Progress, Way};
use crate::imports::devices::{User, Waiting};
use uuid::Uuid;
use xvm_model::negotiation::Say;
use xvm_model::spec::Boot;
use xvm_model::{
    Body, Command, ConfigName, Domain, DomainName, DomainSettings, Failure, Grant, Ratio, ServerName,
    ServerSettings, Spec, Topic,
};

/// The number of a query or an operation; greater means started later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub u64);

/// A change of a domain that a hypervisor is told to make; its end comes as [`Input::Finished`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The files that the domain boots from are fetched, where its hypervisor needs any.
    Fetch(Box<Boot>),
    /// The exports of a lease become devices of the server, where its hypervisor needs that.
    Import(Box<Grant>),
    /// See [`crate::hypervisor::Hypervisor::create`].
    Create(Box<Spec>),
    /// See [`crate::hypervisor::Hypervisor::start`].
    Start,
    /// See [`crate::hypervisor::Hypervisor::pause`].
    Pause,
    /// See [`crate::hypervisor::Hypervisor::unpause`].
    Unpause,
    /// The domain is unpaused when the exports of its lease answer.
    Resume(Box<Grant>),
    /// See [`crate::hypervisor::Hypervisor::shutdown`].
    Shutdown,
    /// See [`crate::hypervisor::Hypervisor::reboot`].
    Reboot,
    /// See [`crate::hypervisor::Hypervisor::destroy`].
    Destroy,
    /// See [`crate::hypervisor::Hypervisor::migrate`].
    Migrate {
        /// Where and how.
        way: Way,
        /// The lease that the domain has there.
        grant: Option<Box<Grant>>,
    },
    /// See [`crate::hypervisor::Hypervisor::cancel_migration`].
    CancelMigration,
    /// See [`crate::hypervisor::Hypervisor::load`].
    Load {
        /// How much of each vCPU.
        share: Ratio,
        /// For how long.
        seconds: u32,
    },
    /// See [`crate::hypervisor::Hypervisor::set`].
    Set(DomainSettings),
}

/// What the step learns.
#[derive(Debug)]
pub enum Input {
    /// An order from the bus.
    Command(Box<Command>),
    /// Somebody joined.
    RollCall,
    /// Another agent said something about help; its values were checked.
    Watchdog {
        /// Who.
        from: ServerName,
        /// What.
        say: Box<Say>,
    },
    /// The bus came (true) or went.
    Link(bool),
    /// The hypervisor tells something by itself.
    News(HvEvent),
    /// The answer to [`Effect::Sample`].
    Sampled {
        /// Which query.
        query: Id,
        /// The machine.
        host: HvResult<Host>,
        /// All domains.
        domains: HvResult<Vec<Domain>>,
    },
    /// The answer to [`Effect::Ask`].
    Asked {
        /// Which query.
        query: Id,
        /// The domain that was asked for.
        name: DomainName,
        /// What the hypervisor said.
        result: HvResult<Option<Domain>>,
    },
    /// The answer to [`Effect::Locate`].
    Located {
        /// Which query.
        query: Id,
        /// The domain that was asked for.
        name: DomainName,
        /// What the other hypervisor said.
        result: HvResult<Option<Domain>>,
    },
    /// An operation ended; what a migration took comes with it.
    Finished {
        /// Which operation.
        op: Id,
        /// The domain it was for.
        name: DomainName,
        /// How it ended, by the call's own words.
        result: HvResult<Option<Moved>>,
    },
    /// A migration goes on.
    Progress {
        /// Which operation.
        op: Id,
        /// The domain it is for.
        name: DomainName,
        /// How far it is.
        progress: Progress,
    },
    /// The answer to [`Effect::Lend`].
    Lent {
        /// Which request.
        op: Id,
        /// The domain it is for.
        name: DomainName,
        /// The lease for the destination, or why there is none.
        result: Result<Box<Grant>, Failure>,
    },
    /// Who waits for a disk that was imported, all of them.
    Waiting(Waiting),
    /// The answer to [`Effect::Update`]: a sentence.
    Updated(Result<String, String>),
    /// The answer to [`Effect::Save`].
    Saved(Result<(), String>),
    /// Time passed.
    Tick,
}

/// What the step wants done. None of them waits; each is bounded in number by the domains that there are.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say this on the bus.
    Publish(Topic, Box<Body>),
    /// Begin an operation.
    Begin {
        /// Its number.
        op: Id,
        /// For which domain.
        name: DomainName,
        /// What.
        what: Op,
    },
    /// Ask the hypervisor for one domain.
    Ask {
        /// The query's number.
        query: Id,
        /// Which domain.
        name: DomainName,
    },
    /// Ask another hypervisor for a domain.
    Locate {
        /// The query's number.
        query: Id,
        /// Where it is.
        address: Box<str>,
        /// Which domain.
        name: DomainName,
        /// Its identity.
        uuid: Uuid,
    },
    /// Ask the hypervisor for the machine and all domains.
    Sample {
        /// The query's number.
        query: Id,
    },
    /// Ask imaged for a second lease: a migration is about to begin.
    Lend {
        /// The request's number.
        op: Id,
        /// Which domain.
        name: DomainName,
        /// Whose volumes it uses.
        config: ConfigName,
        /// Where it is to go.
        to: ServerName,
        /// The migration's id.
        job: Box<str>,
    },
    /// The answer to that is not wanted any more: it is not asked for again.
    Unlend {
        /// The request's number.
        op: Id,
    },
    /// Look after what is imported: drop what none of these domains needs, get what lacks.
    Update {
        /// The domains that are here.
        here: Vec<DomainName>,
        /// Who uses devices made of exports; nobody where the hypervisor opens exports itself.
        users: Vec<User>,
        /// The leases whose exports are to be devices.
        grants: Vec<Grant>,
    },
    /// Drop the devices made of exports that none of these uses; nothing is answered.
    Tidy {
        /// Who uses some.
        users: Vec<User>,
    },
    /// Keep these settings on disk, and say whether that went well.
    Save(ServerSettings),
    /// Keep this of help on disk.
    Keep(Box<Kept>),
}
