//! Domains that are made from a config: transient, so that libvirt forgets them when they are off.

use super::{LibvirtConfig, drivers::Driver, fault, pool::Pool, raw, settings, state};
use crate::hypervisor::{HvError, HvResult};
use std::{path::Path, time::Duration};
use virt::{connect::Connect, error::Error};
use xvm_model::Spec;
use xvm_model::config::render::{CONSOLES, IMPORTS, Site, libvirt_xml};

/// How long a start may take: the storage is reached, and on Xen the guest's memory is made.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Makes and boots a domain; its boot files are in `boot`.
pub async fn run(
    driver: &Driver,
    pool: &Pool,
    config: &LibvirtConfig,
    spec: &Spec,
    boot: &Path,
) -> HvResult<()> {
    let (name, kind, imports) = (spec.name.clone(), driver.kind, driver.imports);
    let (bridge, kvm) = (config.bridge.clone(), config.kvm);
    let system = config.uri.contains("/system");
    let boot = boot.to_str().map(str::to_owned);
    let boot = boot.ok_or_else(|| HvError::Refused("the path of its boot files is not UTF-8".into()))?;
    let (spec, late) = (spec.clone(), format!("outcome unknown, `virsh domstate {name}` tells"));
    let call = move |conn: &Connect| {
        let wrong = |e: Error| fault::of(&e, &spec.name);
        free(conn, &spec)?;
        let site = Site {
            boot: &boot,
            bridge: bridge.as_deref(),
            imports: imports.then_some(IMPORTS),
            metadata: &settings::element(&spec.settings),
            emulator: None,
            // a user's own daemon may not write there
            consoles: system.then_some(CONSOLES),
            kvm: kvm.unwrap_or_else(|| hardware(conn)),
        };
        let xml = libvirt_xml(&spec, kind, &site);
        conn.create_domain_xml(&xml, 0).map_err(wrong).map(|_| ())
    };
    pool.call(&format!("create {name}"), LIMIT, &late, move |seat| call(seat.conn()?)).await
}

/// libvirt would start the definition that it has in place of another one of the same name and identity.
fn free(conn: &Connect, spec: &Spec) -> HvResult<()> {
    let found = [conn.lookup_domain_by_name(spec.name.as_str()), conn.lookup_domain_by_uuid(spec.uuid)];
    for found in found {
        let wrong = |e: Error| fault::of(&e, &spec.name);
        match found.map_err(wrong) {
            Err(HvError::NoDomain(_)) => {}
            Err(e) => return Err(e),
            Ok(domain) => {
                let (now, reason) = raw::state(&domain).map_err(wrong)?;
                let (name, word) = (domain.name().map_err(wrong)?, state::word(now, reason).0);
                return Err(HvError::WrongState(format!(
                    "there is a domain {name} with its name or identity, which is {word}"
                )));
            }
        }
    }
    Ok(())
}

/// Whether QEMU has hardware to run guests here.
fn hardware(conn: &Connect) -> bool {
    Path::new("/dev/kvm").exists() && conn.capabilities().is_ok_and(|c| c.contains("<domain type='kvm'"))
}
