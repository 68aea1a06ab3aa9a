//! The image agent as a pure value: [`Keeper::step`] takes an input and gives effects; it has no clock, no task, no I/O.
//!
//! ```text
//!             mkdir, create, clone, a new file                    rmdir
//!   (none) ───────────────────────────────▶ creating ──▶ ready ─────────▶ (none, restorable for a day)
//!                                              │ ▲        │ ▲
//!                                      failed, │ │ rebuild│ │ the server says that it is off
//!                                    cancelled ▼ │   start▼ │
//!                                            failed     running
//!
//!   start    lease (kept, exported) ─▶ boot (the agent makes it) ─▶ it is seen there: done
//!                                       └─ refused ─▶ lease dropped     └─ no answer: the agent's next word after the deadline counts
//!   lend     second lease (kept, exported) ─▶ the destination gets ready ─▶ answered; the end is seen by both servers' words
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`step`] | inputs and effects |
//! | [`kept`] | what is kept on disk |
//! | `entry` | one config |
//! | `commands` | orders: once, checked, answered |
//! | `works` | builds, copies, changes of volumes |
//! | `settings` | what may be set when |
//! | `start`, `choice` | from a lease to a running domain; on which server |
//! | `exports` | what is to be exported |
//! | `lend` | the second lease of a migration |
//! | `servers` | what servers say, and what becomes of leases |
//! | `rescue` | leases and domains that do not fit together; `restart always` |
//! | `files` | definitions that people edit |
//! | `tell` | what others are told |

mod choice;
mod commands;
mod entry;
mod exports;
mod files;
pub mod kept;
mod lend;
mod rescue;
mod servers;
mod settings;
mod start;
pub mod step;
mod tell;
#[cfg(test)]
mod tests;
mod works;

use crate::image::Guestd;
use entry::Entry;
use kept::{Image, Kept, KeptRemoved};
use std::collections::BTreeMap;
use step::{Effect, Input};
use xvm_model::images::StoreRoom;
use xvm_model::{
    Body, Boot, Config, ConfigChange, ConfigName, Domain, Mono, Now, Receipts, ServerName, Topic, View,
};

/// Who it is, and what its flags say; does not change while it lives.
#[derive(Debug, Clone)]
pub struct Site {
    /// The server that it runs on.
    pub name: ServerName,
    /// Its life.
    pub boot: Boot,
    /// Where agents reach its exports.
    pub host: Box<str>,
    /// TCP ports of the exports, one a config that is used.
    pub ports: std::ops::RangeInclusive<u16>,
    /// The port under which files to boot from are exported.
    pub boot_port: u16,
    /// Whether new leases are served by TLS alone.
    pub tls: bool,
    /// How often it says what it knows, in milliseconds.
    pub interval_ms: u32,
    /// What `os` may be.
    pub systems: Vec<Box<str>>,
    /// The guest agent of systems that are booted from here; none: nothing is said to it.
    pub guestd: Option<Guestd>,
    /// How long a removed config can be restored, in milliseconds.
    pub keep_ms: u64,
}

/// When servers are asked what they know after a forwarder is found, in milliseconds.
const ROLL_CALLS: [u64; 4] = [0, 100, 400, 1500];
/// How long a removed config can be restored: a day.
pub const KEEP_MS: u64 = 24 * 3_600_000;
/// The most configs; one more is refused. Their records fit into one message.
pub const CONFIGS_MAX: usize = 4096;

/// The state of the image agent.
#[derive(Debug)]
pub struct Keeper {
    site: Site,
    /// What a new config has.
    defaults: Config,
    now: Now,
    out: Vec<Effect>,
    view: View,
    receipts: Receipts,
    configs: BTreeMap<ConfigName, Entry>,
    removed: BTreeMap<ConfigName, KeptRemoved>,
    room: StoreRoom,
    /// Something changed that must be on disk.
    dirty: bool,
    /// When all is told next.
    beat: Mono,
    /// Since when there is a forwarder.
    linked: Option<Mono>,
    /// When every daemon is asked what it knows: our side to the publishers may connect later than the side that hears.
    calls: Vec<Mono>,
    /// Starts that wait until the servers have been heard.
    early: Vec<(step::Ticket, ConfigName, Option<ServerName>)>,
    /// Numbers works.
    count: u64,
    /// When a domain without a lease was last ordered away, by config.
    fenced: BTreeMap<ConfigName, Mono>,
    /// What is being brought back, and who is told.
    restoring: BTreeMap<Box<str>, (ConfigName, step::Ticket)>,
}

impl Keeper {
    /// A keeper that begins with what is kept. All files are told by one [`Input::Files`] before anything else.
    pub fn new(site: Site, defaults: Config, kept: Kept, receipts: Receipts, now: Now) -> Self {
        let configs = kept.configs.into_iter().map(|(name, kept)| (name, Entry::of(kept))).collect();
        let mut keeper = Keeper {
            site,
            defaults,
            now,
            out: Vec::new(),
            view: View::default(),
            receipts,
            configs,
            removed: kept.removed,
            room: StoreRoom::default(),
            dirty: false,
            beat: now.mono,
            linked: None,
            calls: Vec::new(),
            early: Vec::new(),
            count: 0,
            fenced: BTreeMap::new(),
            restoring: BTreeMap::new(),
        };
        keeper.resume();
        // exports may have been left as they were in the middle of a change
        let used: Vec<ConfigName> = keeper.configs.keys().cloned().collect();
        for name in used {
            keeper.export(&name);
        }
        keeper
    }

    /// Takes one input; gives what is to be done, in this order.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.now = now;
        match input {
            Input::Command(command) => self.command(*command),
            Input::Heard(envelope) => self.heard(*envelope),
            Input::RollCall => self.beat = now.mono,
            Input::Link(up) => self.link(up),
            Input::Files(files) => files.into_iter().for_each(|(name, read)| self.file(name, read)),
            Input::Defaults(config) => self.defaults = *config,
            Input::Written { name, before, answer, result } => self.written(&name, *before, answer, result),
            Input::Stage { build, phase, percent, remaining, log } => {
                self.staged(&build, phase, percent, remaining, log);
            }
            Input::Worked { build, result, log } => self.worked(&build, result, log),
            Input::Exported { name, wish, result } => self.exported(&name, wish, result),
            Input::Died(name) => self.export(&name),
            Input::Answered { name, tag, result } => self.answered(&name, tag, result),
            Input::Room(room) => self.room = room,
            Input::Tick => {}
        }
        self.timers();
        if self.now.mono >= self.beat {
            self.beat = self.now.mono.plus(u64::from(self.site.interval_ms));
            self.tell_all();
        }
        let mut effects = std::mem::take(&mut self.out);
        if std::mem::take(&mut self.dirty) {
            // what follows from a change is done after it is on disk; what is said may go first
            effects.insert(0, Effect::Keep(Box::new(self.kept())));
        }
        effects
    }

    /// When time alone changes something.
    pub fn wake(&self) -> Mono {
        let jobs = self.configs.values().filter_map(Entry::wake).min();
        jobs.into_iter().chain(self.calls.iter().copied()).chain([self.beat]).min().unwrap_or(self.beat)
    }

    /// The definition of a config, when it has one.
    pub fn config(&self, name: &ConfigName) -> Option<&Config> {
        self.configs.get(name)?.config.as_ref()
    }

    /// Every config's boot files: what is to be exported under the boot port.
    pub fn boot_files(&self) -> Vec<xvm_model::spec::Blob> {
        let images =
            self.configs.values().map(|e| &e.image).chain(self.removed.values().map(|r| &r.config.image));
        let mut blobs: Vec<_> = images
            .filter_map(|image| match image {
                Image::Ready { boot: Some(boot) } => Some(std::iter::once(&boot.kernel).chain(&boot.initrd)),
                _ => None,
            })
            .flatten()
            .cloned()
            .collect();
        blobs.sort_by(|a, b| a.sha256.cmp(&b.sha256));
        blobs.dedup();
        blobs
    }

    fn kept(&self) -> Kept {
        Kept {
            configs: self.configs.iter().map(|(name, e)| (name.clone(), e.kept())).collect(),
            removed: self.removed.clone(),
        }
    }

    fn publish(&mut self, topic: Topic, body: Body) {
        self.out.push(Effect::Publish(topic, Box::new(body)));
    }

    /// One config changed: others are told at once.
    fn tell(&mut self, name: &ConfigName) {
        let change = self.change(name);
        if let Some(entry) = self.configs.get_mut(name) {
            entry.was_told(self.now.mono);
        }
        self.publish(Topic::Config, Body::Config(Box::new(change)));
    }

    fn change(&self, name: &ConfigName) -> ConfigChange {
        match self.record(name) {
            Some(record) => ConfigChange::Is { record },
            None => ConfigChange::Gone { name: name.clone() },
        }
    }

    /// What a server says of the domain of a config now.
    fn domain_on(&self, server: &ServerName, name: &ConfigName) -> Option<&Domain> {
        let uuid = self.configs.get(name)?.config.as_ref()?.uuid;
        let domain = self.view.server(server.as_str())?.domain(&name.domain())?;
        (domain.uuid == uuid).then_some(&**domain)
    }
}
