//! xvm's pure core: what names, messages and states mean. No I/O, no clock, no threads; time and randomness come in as values.
//!
//! | file | what |
//! |---|---|
//! | [`names`] | names of servers, domains, clients |
//! | [`clock`], [`ratio`], [`stamp`] | time, shares and message order as values |
//! | [`failure`] | refusals: errno and sentence |
//! | [`server`], [`domain`] | the records that heartbeats carry |
//! | [`platform`] | hypervisor and processors: where a running domain can go on |
//! | [`config`] | the definition of a domain: settings, file, `xl.cfg`, `libvirt.xml` |
//! | [`images`] | what imaged says of configs, and what it is told |
//! | [`key`] | public keys of who signs what it says |
//! | [`lease`], [`spec`] | one domain, one server: who may use its volumes, and what a server is told to run |
//! | [`guest`] | what guestd says from within a domain, and what it is told |
//! | [`command`] | commands, the tables of `ctl` words, and what is read of settings |
//! | [`lifecycle`] | which command is allowed in which state |
//! | [`message`], [`topic`] | envelopes, bodies, topics |
//! | [`event`] | what happened, as one line |
//! | [`view`] | the cluster as one process knows it, and the events of its changes |
//! | [`receipts`], [`outbox`] | commands at most once: the receiver's and the sender's memory |
//! | [`points`], [`placement`] | the overload counter; the best server for a domain |
//! | [`wanted`] | what domains want of the CPUs, not only what they get |
//! | [`negotiation`] | how servers agree on a move: both sides of a round |
//! | [`round`] | what is written down of a round, and its files |
//! | [`policy`] | who needs help, what goes, who takes it: rules as values |
//! | [`history`] | a day of load in 288 bytes |

pub mod clock;
pub mod command;
pub mod config;
pub mod domain;
pub mod event;
pub mod failure;
pub mod guest;
pub mod history;
pub mod images;
pub mod key;
pub mod lease;
pub mod lifecycle;
pub mod message;
pub mod names;
pub mod negotiation;
pub mod outbox;
pub mod placement;
pub mod platform;
pub mod points;
pub mod policy;
pub mod ratio;
pub mod receipts;
pub mod round;
pub mod schedule;
pub mod server;
pub mod spec;
pub mod stamp;
mod text;
pub mod topic;
pub mod view;
pub mod wanted;

pub use clock::{Mono, Now, Wall};
pub use command::{ClusterCommand, DomainCommand, DomainWord, ServerCommand};
pub use config::Config;
pub use domain::{
    Came, Departed, Disk, Domain, DomainMemory, DomainSettings, DomainState, Groups, Job, JobKind, Nic,
    Outcome, Pin, Vcpu,
};
pub use event::{About, Event};
pub use failure::{Code, Failure};
pub use guest::command::GuestCommand;
pub use guest::{GuestBeat, GuestRuns, Run, RunState, Top};
pub use images::{ConfigChange, ConfigCommand, ConfigRecord, ConfigState, Configs};
pub use key::PublicKey;
pub use lease::{Lease, Leases};
pub use message::{Answer, Body, Command, Counters, DomainChange, Envelope, News, Order, Reply, Sender};
pub use names::{ClientName, ConfigName, DomainName, GroupName, NameError, ServerName, TestName};
pub use outbox::{Outbox, Step};
pub use platform::{Cpu, Platform};
pub use points::Points;
pub use ratio::Ratio;
pub use receipts::{Admit, Receipts};
pub use server::{
    Balance, BalanceMode, HEARTBEAT_RANGE_MS, Heartbeat, HypervisorKind, PolicyName, ServerMemory,
    ServerSettings, Watchdog,
};
pub use spec::{Grant, Spec};
pub use stamp::{Boot, Stamp, Window};
pub use topic::{TOPICS, Topic, TopicRow};
pub use view::{ConfigView, DomainView, Guest, Images, Reach, Server, Shown, Thing, View};
