//! What others are told: records of configs, all of them at each beat and one at each change.

use super::{Keeper, kept::Image};
use xvm_model::images::Configs;
use xvm_model::spec::Boot as SpecBoot;
use xvm_model::{
    Body, Config, ConfigName, ConfigRecord, ConfigState, JobKind, PublicKey, Reach, ServerName, Topic,
};

impl Keeper {
    /// A config as others should see it.
    pub(super) fn record(&self, name: &ConfigName) -> Option<ConfigRecord> {
        let entry = self.configs.get(name)?;
        let guest_key = entry.config.as_ref().and_then(|c| self.guest_key(c));
        let config = entry.config.clone().unwrap_or_else(|| self.defaults.twin(uuid::Uuid::nil()));
        Some(ConfigRecord {
            name: name.clone(),
            config,
            state: self.state(name)?,
            job: entry.work.as_ref().map(|w| Box::new(w.job.clone())),
            remaining: entry.work.as_ref().and_then(|w| w.remaining),
            last: entry.last.clone(),
            leases: entry.leases.held.clone(),
            boot: self.boot_of(name),
            guest_key,
            log: entry.log,
            wrong: entry.wrong.clone(),
        })
    }

    /// With which its guest signs what it says.
    fn guest_key(&self, config: &Config) -> Option<PublicKey> {
        self.site.guestd.as_ref().map(|guestd| guestd.key(config.uuid).public())
    }

    /// What it boots with, and where that is fetched.
    pub(super) fn boot_of(&self, name: &ConfigName) -> Option<SpecBoot> {
        match &self.configs.get(name)?.image {
            Image::Ready { boot: Some(boot) } => Some(SpecBoot {
                host: self.site.host.clone(),
                port: self.site.boot_port,
                kernel: boot.kernel.clone(),
                initrd: boot.initrd.clone(),
                cmdline: match &self.site.guestd {
                    Some(guestd) => format!("{} {}", boot.cmdline, guestd.words(name)).into(),
                    None => boot.cmdline.clone(),
                },
            }),
            _ => None,
        }
    }

    pub(super) fn state(&self, name: &ConfigName) -> Option<ConfigState> {
        let entry = self.configs.get(name)?;
        Some(match (&entry.config, &entry.image, entry.leases.holder()) {
            (None, _, None) => ConfigState::Invalid,
            (_, _, Some(holder)) if self.is_down(holder) => ConfigState::Lost,
            (_, _, Some(_)) => ConfigState::Running,
            _ if entry.work.as_ref().is_some_and(|w| makes_image(w.job.kind)) => ConfigState::Creating,
            (_, Image::Ready { .. }, None) => ConfigState::Ready,
            (_, Image::None, None) => ConfigState::Failed,
        })
    }

    /// Whether a server is known to be away: ten heartbeats are missing, or it was not heard at all since long after we joined.
    pub(super) fn is_down(&self, server: &ServerName) -> bool {
        let now = self.now.mono;
        match self.view.server(server.as_str()) {
            Some(s) => self.view.reach(s, now) == Reach::Down,
            None => self.linked.is_some_and(|since| now.since(since) >= UNHEARD_MS) && self.view.link_up(),
        }
    }

    pub(super) fn tell_all(&mut self) {
        let names: Vec<ConfigName> = self.configs.keys().cloned().collect();
        let configs = names.iter().filter_map(|name| self.record(name)).collect();
        for entry in self.configs.values_mut() {
            entry.was_told(self.now.mono);
        }
        let all = Configs {
            interval_ms: self.site.interval_ms,
            host: self.site.host.clone(),
            store: self.room.clone(),
            systems: self.site.systems.clone(),
            configs,
            removed: self.removed.values().map(|r| r.removed.clone()).collect(),
        };
        self.publish(Topic::Configs, Body::Configs(Box::new(all)));
    }
}

/// Whether a job of this kind ends with a new image.
fn makes_image(kind: JobKind) -> bool {
    matches!(kind, JobKind::Create | JobKind::Rebuild | JobKind::Clone)
}

/// A server that was never heard is taken for down after so long with a forwarder, in milliseconds.
const UNHEARD_MS: u64 = 60_000;
