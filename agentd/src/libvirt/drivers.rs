//! What differs between libvirt's drivers: one row a driver. Nothing else in xvm asks which driver it talks to.

use super::{fault, xen};
use crate::hypervisor::HvResult;
use std::time::Duration;
use virt::{domain::Domain, error::Error, sys};
use xvm_model::{DomainName, HypervisorKind};

/// One driver of libvirt.
pub struct Driver {
    /// The first word of its URIs.
    pub scheme: &'static str,
    /// What xvm calls it.
    pub kind: HypervisorKind,
    /// Whether it answers virConnectGetAllDomainStats; else domains are asked one by one.
    pub bulk: bool,
    /// Domains that are the machine itself, not guests on it: their work is the machine's load.
    pub own: &'static [&'static str],
    /// Whether it tells the machine's CPU times and memory; else both are made of what it tells of domains and of free memory.
    pub node: bool,
    /// Whether it tells how large disks are; else the machine's own block devices do.
    pub sizes: bool,
    /// Whether statistics of a domain wait for the job that it has, which is longer than anybody waits for them.
    pub waits: bool,
    /// A domain that starts anew, or that a migration brings, is off meanwhile: whether the hypervisor itself has it. None where it is not.
    pub between: Option<fn(&str) -> bool>,
    /// Makes libvirt forget what is left of a migration hither that broke off.
    pub forget: fn(&Domain) -> Result<(), Error>,
    /// Asks a domain to power off; returns at once.
    pub shutdown: fn(&Domain, &DomainName) -> HvResult<()>,
    /// Asks a domain to start anew; returns at once.
    pub reboot: fn(&Domain, &DomainName) -> HvResult<()>,
    /// Puts right what libvirt believes of a domain whose migration has failed.
    pub mend: fn(&Domain),
    /// Ends migrations hither whose other end has gone; called once a sample.
    pub sweep: fn(),
    /// What other hosts put before the host name to reach it; none where domains cannot move.
    pub reach: Option<(&'static str, &'static str)>,
    /// Whether a migration can be ended by virDomainAbortJob.
    pub abort: bool,
    /// Whether a migration tells how much of the memory is over, and takes a new longest pause while it runs.
    pub progress: bool,
    /// Whether it does not open network block exports itself, so that the server makes devices of them first.
    pub imports: bool,
    /// Why it cannot move a domain with this definition while that runs.
    pub fixed: fn(&str) -> Option<&'static str>,
    /// A migration without a sign of life for so long is taken for hung.
    pub patience: Duration,
}

/// What is assumed of a driver.
const ANY: Driver = Driver {
    scheme: "",
    kind: HypervisorKind::Other,
    bulk: true,
    own: &[],
    node: true,
    sizes: true,
    waits: false,
    between: None,
    forget: |_| Ok(()),
    shutdown: |domain, name| fault::said(domain.shutdown(), name),
    reboot: |domain, name| fault::said(domain.reboot(sys::VIR_DOMAIN_REBOOT_DEFAULT), name),
    mend: |_| {},
    sweep: || {},
    reach: None,
    abort: true,
    progress: true,
    imports: false,
    fixed: |_| None,
    patience: Duration::from_secs(600),
};

/// The drivers that xvm was tried on, and in what they differ; the last row is any other.
pub const DRIVERS: &[Driver] = &[
    Driver {
        scheme: "qemu",
        kind: HypervisorKind::Qemu,
        reach: Some(("qemu+tcp://", "/system")),
        patience: Duration::from_secs(60),
        ..ANY
    },
    Driver {
        scheme: "xen",
        kind: HypervisorKind::Xen,
        bulk: false,
        own: &["Domain-0"],
        node: false,
        sizes: false,
        waits: true,
        between: Some(xen::has),
        forget: xen::forget,
        shutdown: |domain, _| xen::shutdown(domain),
        reboot: |domain, _| xen::reboot(domain),
        mend: xen::mend,
        sweep: xen::sweep,
        reach: Some(("xen+tcp://", "/")),
        abort: false,
        progress: false,
        imports: true,
        fixed: xen::fixed,
        patience: Duration::from_secs(1800),
    },
    Driver {
        scheme: "test",
        kind: HypervisorKind::Test,
        bulk: false,
        abort: false,
        progress: false,
        patience: Duration::from_secs(60),
        ..ANY
    },
    ANY,
];

/// The row of a URI: `qemu+unix:///system?socket=/x` is `qemu`.
pub fn of(uri: &str) -> &'static Driver {
    let scheme = uri.split([':', '+']).next().unwrap_or_default();
    let last = DRIVERS.len() - 1;
    DRIVERS.iter().find(|d| d.scheme == scheme && !scheme.is_empty()).unwrap_or(&DRIVERS[last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_the_first_word() {
        for (uri, kind) in [
            ("qemu:///system", HypervisorKind::Qemu),
            ("qemu+unix:///system?socket=/run/x", HypervisorKind::Qemu),
            ("xen+tcp://ferby/", HypervisorKind::Xen),
            ("test:///default", HypervisorKind::Test),
            ("lxc:///", HypervisorKind::Other),
            ("", HypervisorKind::Other),
        ] {
            assert_eq!(of(uri).kind, kind, "{uri}");
        }
    }
}
