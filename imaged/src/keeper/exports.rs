//! What is to be exported: the names of the leases that are held, and no others.

use super::Keeper;
use super::entry::{Entry, Step, Work};
use super::step::Effect;
use xvm_model::spec::{GrantDisk, export_name};
use xvm_model::{Code, ConfigName, Failure, Grant, ServerName};

/// A wish for exports that failed is tried again after so long, in milliseconds.
const RETRY_MS: u64 = 1_000;

impl Keeper {
    /// The port of a config's exports: its own, once it has one.
    pub(super) fn port(&self, name: &ConfigName) -> Result<u16, Failure> {
        let range = &self.site.ports;
        let own = self.configs.get(name).map_or(0, |e| e.port);
        if range.contains(&own) {
            return Ok(own);
        }
        let used: std::collections::BTreeSet<u16> = self.configs.values().map(|e| e.port).collect();
        range.clone().find(|p| !used.contains(p)).ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            let why = format!(
                "cannot export the disk of {name}: all ports from {first} to {last} are taken (--ports)"
            );
            Failure::new(Code::NoSpace, why)
        })
    }

    /// What a lease of `server` will hold, once its number is known.
    pub(super) fn grant(
        &mut self,
        name: &ConfigName,
        server: &ServerName,
        port: u16,
    ) -> impl FnOnce(u64) -> Grant + use<> {
        let (config, server, host) = (name.clone(), server.clone(), self.site.host.clone());
        // one daemon serves all leases of a config: a second one is as the first, which was perhaps made when the site was another
        let first = self.configs.get(name).and_then(|e| e.leases.held.first());
        let tls = first.map_or(self.site.tls, |l| l.grant.tls);
        let volumes = self.configs.get_mut(name).map_or_else(Vec::new, |entry| {
            entry.port = port;
            entry.volumes()
        });
        move |epoch| {
            let disks = volumes
                .into_iter()
                .map(|(target, volume, mib)| GrantDisk {
                    target: target.into(),
                    volume: volume.into(),
                    export: export_name(&config, &server, epoch, volume),
                    size: mib << 20,
                })
                .collect();
            Grant { config, server, epoch, host, port, tls, disks }
        }
    }

    /// Wishes that exactly the leases' names are exported.
    pub(super) fn export(&mut self, name: &ConfigName) {
        let Some(entry) = self.configs.get_mut(name) else { return };
        entry.wish += 1;
        (entry.wished, entry.retry) = (false, None);
        let names = grants_of(entry)
            .flat_map(|g| g.disks.iter().map(|d| (d.export.clone(), d.volume.clone())))
            .collect();
        let tls = grants_of(entry).any(|g| g.tls);
        let servers = tls.then(|| grants_of(entry).map(|g| g.server.clone()).collect());
        let (wish, port) = (entry.wish, entry.port);
        self.out.push(Effect::Export { name: name.clone(), wish, port, names, servers });
    }

    /// The exports are as wished, or not.
    pub(super) fn exported(&mut self, name: &ConfigName, wish: u64, result: Result<(), String>) {
        let now = self.now.mono;
        let Some(entry) = self.configs.get_mut(name).filter(|e| e.wish == wish) else { return };
        let starting = matches!(&entry.work, Some(Work { step: Step::Exporting { .. }, .. }));
        match result {
            Ok(()) => {
                entry.wished = true;
                if starting {
                    self.boot(name);
                } else if entry.lending.as_ref().is_some_and(|l| !l.exported) {
                    self.prepare(name);
                }
            }
            Err(why) => {
                tracing::error!(%name, why, "exports are not as they should be");
                entry.retry = Some(now.plus(RETRY_MS));
                let failure = Failure::new(Code::Io, format!("its disk cannot be exported: {why}"));
                if starting {
                    self.start_failed(name, failure);
                } else if entry.lending.as_ref().is_some_and(|l| !l.exported) {
                    self.lend_failed(name, failure);
                }
            }
        }
    }
}

/// The leases of a config.
fn grants_of(entry: &Entry) -> impl Iterator<Item = &Grant> {
    entry.leases.held.iter().map(|l| &l.grant)
}
