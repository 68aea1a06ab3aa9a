//! One config: its definition, its image, its leases, and what goes on with it.

use super::kept::{Image, KeptConfig};
use super::step::Ticket;
use xvm_model::lease::Leases;
use xvm_model::{Boot, Config, ConfigName, Job, Mono, Outcome, ServerName, Wall};

/// Progress is told at most this often, in milliseconds.
const TELL_MS: u64 = 200;

/// One config.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The definition; none until a file reads well.
    pub(super) config: Option<Config>,
    /// Why its file as it is now is not used.
    pub(super) wrong: Option<Box<str>>,
    pub(super) image: Image,
    /// It is known from an earlier life.
    pub(super) kept: bool,
    pub(super) leases: Leases,
    /// Where its volumes are exported; 0 until they were once.
    pub(super) port: u16,
    pub(super) work: Option<Work>,
    /// A migration that is being made ready.
    pub(super) lending: Option<Lending>,
    pub(super) last: Option<Box<Outcome>>,
    /// Bytes of its log.
    pub(super) log: u64,
    /// The last wish for exports, and whether it was fulfilled.
    pub(super) wish: u64,
    pub(super) wished: bool,
    /// When a wish that failed is tried again.
    pub(super) retry: Option<Mono>,
    /// Since when the source of a migration says that it does not run it.
    pub(super) off_since: Option<Mono>,
    /// The definition that its volumes are being changed to.
    pub(super) changing: Option<Box<Config>>,
    /// A definition that counts as soon as nothing goes on and it does not run.
    pub(super) pending: Option<Box<Config>>,
    /// It is being removed.
    pub(super) removing: bool,
    /// Its disk was taken away from a server that is down: it is started until it runs, not before `rest`.
    pub(super) restart: bool,
    pub(super) rest: Mono,
    /// Copies that are being made of it.
    pub(super) copies: Vec<ConfigName>,
    pub(super) told: Mono,
    pub(super) untold: bool,
}

/// A job that goes on.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) job: Job,
    pub(super) remaining: Option<u32>,
    pub(super) step: Step,
    /// Who is answered at its end; long jobs were answered at their begin.
    pub(super) answer: Option<Ticket>,
}

/// Where a job is.
#[derive(Debug)]
pub(super) enum Step {
    /// The work of this id goes on.
    Working { build: Box<str>, cancelled: bool },
    /// Start: the volumes are being exported.
    Exporting { server: ServerName },
    /// Start: the agent makes the domain.
    Booting {
        server: ServerName,
        /// The life of the agent that was asked.
        boot: Boot,
        /// The job's id at the agent, once it is known.
        order: Option<Box<str>>,
        /// From when on, by the agent's clock, the order can not be carried out any more; none until the agent is heard by a life of
        /// imaged that does not know when the one before it gave the order.
        deadline: Option<Wall>,
        /// Whether the agent answered at all.
        answered: bool,
    },
}

/// A second lease that is being made ready.
#[derive(Debug)]
pub(super) struct Lending {
    pub(super) ticket: Ticket,
    pub(super) to: ServerName,
    pub(super) epoch: u64,
    /// Its exports are there, the destination is getting ready.
    pub(super) exported: bool,
}

impl Entry {
    pub(super) fn of(kept: KeptConfig) -> Self {
        let KeptConfig { image, leases, port, last, restart } = kept;
        Entry { image, leases, port, last, restart, kept: true, ..Entry::default() }
    }

    pub(super) fn kept(&self) -> KeptConfig {
        KeptConfig {
            image: self.image.clone(),
            leases: self.leases.clone(),
            port: self.port,
            last: self.last.clone(),
            restart: self.restart,
        }
    }

    pub(super) fn wake(&self) -> Option<Mono> {
        self.untold.then(|| self.told.plus(TELL_MS)).into_iter().chain(self.retry).min()
    }

    pub(super) fn was_told(&mut self, now: Mono) {
        (self.told, self.untold) = (now, false);
    }

    /// Whether progress may be told now; else it is told later.
    pub(super) fn may_tell(&mut self, now: Mono) -> bool {
        let due = now.since(self.told) >= TELL_MS;
        self.untold = !due;
        due
    }

    /// Whether something is to be told that was held back.
    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.untold && now.since(self.told) >= TELL_MS
    }

    /// The volumes that a guest sees, in order: device, volume, MiB.
    pub(super) fn volumes(&self) -> Vec<(&'static str, &'static str, u64)> {
        let Some(c) = &self.config else { return Vec::new() };
        let mut volumes = vec![("vda", "disk", c.disk)];
        if c.swap > 0 {
            volumes.push(("vdb", "swap", c.swap));
        }
        volumes
    }
}
