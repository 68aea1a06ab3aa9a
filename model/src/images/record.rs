//! What follows from a config's record alone: what a server would be told to run, and what may be asked of it now.

use super::{ConfigRecord, ConfigState};
use crate::spec::{GrantDisk, export_name};
use crate::{Grant, Lease, ServerName, Spec};

/// The port of network block devices (IANA), where nothing better is known.
const NBD_PORT: u16 = 10809;

impl ConfigRecord {
    /// The lease whose server runs the domain, or is told to.
    pub fn holder(&self) -> Option<&Lease> {
        self.leases.first()
    }

    /// What its holder runs; without a lease what it would look like, with the placeholders `SERVER` and 0 in its exports' names.
    pub fn shown_spec(&self, host: &str) -> Spec {
        let grant = self.holder().map_or_else(|| self.placeholder(host), |lease| lease.grant.clone());
        Spec::of(&self.config, grant, self.boot.clone())
    }

    fn placeholder(&self, host: &str) -> Grant {
        let server = ServerName::parse("SERVER").expect("letters");
        let volumes = [("disk", self.config.disk), ("swap", self.config.swap)];
        let there = volumes.into_iter().filter(|(_, mib)| *mib > 0);
        let disks = there.zip(["vda", "vdb"]).map(|((volume, mib), target)| GrantDisk {
            target: target.into(),
            volume: volume.into(),
            export: export_name(&self.name, &server, 0, volume),
            size: mib << 20,
        });
        let disks = disks.collect();
        let host = if host.is_empty() { "imaged" } else { host };
        Grant {
            config: self.name.clone(),
            server,
            epoch: 0,
            host: host.into(),
            port: NBD_PORT,
            tls: false,
            disks,
        }
    }

    /// The words of its `ctl` that imaged is likely to take now; imaged alone decides.
    pub fn allowed(&self) -> &'static [&'static str] {
        match (self.job.is_some(), self.state) {
            (true, _) => &["cancel"],
            (false, ConfigState::Ready) => &["start", "clone", "resize", "rebuild"],
            (false, ConfigState::Failed) => &["rebuild"],
            (false, _) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, ConfigName, config::Address};
    use uuid::Uuid;

    #[test]
    fn without_a_lease_it_is_shown_with_placeholders_that_pass_as_a_spec() {
        let mut record = ConfigRecord {
            name: ConfigName::parse("small-6").expect("valid"),
            config: Config::new(Uuid::from_u128(6)),
            state: ConfigState::Ready,
            job: None,
            remaining: None,
            last: None,
            leases: vec![],
            boot: None,
            guest_key: None,
            log: 0,
            wrong: None,
        };
        let spec = record.shown_spec("10.0.0.9");
        spec.check().expect("whole");
        assert_eq!(spec.memory, 256 * 1024);
        let exports: Vec<&str> = spec.grant.disks.iter().map(|d| &*d.export).collect();
        assert_eq!(exports, ["small-6.SERVER.0", "small-6.SERVER.0.swap"]);
        record.config.swap = 0;
        record.config.address = Address::None;
        let spec = record.shown_spec("");
        spec.check().expect("whole");
        assert_eq!((spec.grant.disks.len(), spec.mac), (1, None));
    }
}
