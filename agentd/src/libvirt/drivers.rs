//! What differs between libvirt's drivers: one row a driver. Nothing else in xvm asks which driver it talks to.

use std::time::Duration;
use xvm_model::HypervisorKind;

/// One driver of libvirt.
pub struct Driver {
    /// The first word of its URIs.
    pub scheme: &'static str,
    /// What xvm calls it.
    pub kind: HypervisorKind,
    /// Whether it answers virConnectGetAllDomainStats; else domains are asked one by one.
    pub bulk: bool,
    /// Domains that are the machine itself, not guests on it.
    pub own: &'static [&'static str],
    /// What other hosts put before the host name to reach it; none where domains cannot move.
    pub reach: Option<(&'static str, &'static str)>,
    /// Whether a migration can be ended by virDomainAbortJob.
    pub abort: bool,
    /// Whether a migration tells how much of the memory is over, and takes a new longest pause while it runs.
    pub progress: bool,
    /// Whether it does not open network block exports itself, so that the server makes devices of them first.
    pub imports: bool,
    /// A migration without a sign of life for so long is taken for hung.
    pub patience: Duration,
}

/// The drivers that xvm was tried on, then what is assumed of any other.
pub const DRIVERS: &[Driver] = &[
    Driver {
        scheme: "qemu",
        kind: HypervisorKind::Qemu,
        bulk: true,
        own: &[],
        reach: Some(("qemu+tcp://", "/system")),
        abort: true,
        progress: true,
        imports: false,
        patience: Duration::from_secs(60),
    },
    Driver {
        scheme: "xen",
        kind: HypervisorKind::Xen,
        bulk: false,
        own: &["Domain-0"],
        reach: Some(("xen+tcp://", "/")),
        abort: false,
        progress: false,
        imports: true,
        patience: Duration::from_secs(1800),
    },
    Driver {
        scheme: "test",
        kind: HypervisorKind::Test,
        bulk: false,
        own: &[],
        reach: None,
        abort: false,
        progress: false,
        imports: false,
        patience: Duration::from_secs(60),
    },
    Driver {
        scheme: "",
        kind: HypervisorKind::Other,
        bulk: true,
        own: &[],
        reach: None,
        abort: true,
        progress: true,
        imports: false,
        patience: Duration::from_secs(600),
    },
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
