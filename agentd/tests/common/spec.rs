//! Configs as imaged would send them.
#![allow(dead_code)] // each test uses what it needs

use uuid::Uuid;
use xvm_model::config::GuestType;
use xvm_model::spec::{GrantDisk, export_name};
use xvm_model::{ConfigName, DomainSettings, Grant, ServerName, Spec};

pub fn config(name: &str) -> ConfigName {
    ConfigName::parse(name).expect("valid")
}

/// Lease number `epoch` of `name` for `server`: one disk.
pub fn grant(name: &str, server: &str, epoch: u64) -> Grant {
    let (config, server) = (config(name), ServerName::parse(server).expect("valid"));
    let export = export_name(&config, &server, epoch, "disk");
    let disks = vec![GrantDisk { target: "vda".into(), volume: "disk".into(), export, size: 64 << 20 }];
    Grant { config, server, epoch, host: "127.0.0.1".into(), port: 10809, tls: false, disks }
}

/// 64 MiB, one vCPU, boots from its disk, under that lease.
pub fn spec(name: &str, grant: Grant) -> Spec {
    let settings = DomainSettings { grant: Some(Box::new(grant.clone())), ..DomainSettings::default() };
    let name = config(name).domain();
    let uuid = Uuid::from_u128(name.as_str().bytes().fold(7, |n, b| n * 31 + u128::from(b)));
    Spec {
        name,
        uuid,
        memory: 64 << 10,
        vcpus: 1,
        kind: GuestType::Auto,
        mac: None,
        vlan: None,
        grant,
        boot: None,
        settings,
    }
}
