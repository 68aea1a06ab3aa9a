//! A config as hypervisors take it: `libvirt.xml` for libvirt's QEMU and Xen drivers, `xl.cfg` for Xen's own tool.

/// What a server adds to a config: where its files and its network are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site<'a> {
    /// The directory with the files to boot from, each under its blob's name.
    pub boot: &'a str,
    /// The bridge that guests' interfaces join; none: QEMU's own user network, which reaches out and is not reached.
    pub bridge: Option<&'a str>,
    /// Where the server's own imports of the exports are (Xen), `DIR/EXPORT`; none: the hypervisor opens the export itself.
    pub imports: Option<&'a str>,
    /// Metadata to keep with the domain, whole XML elements.
    pub metadata: &'a str,
    /// The emulator; none: the hypervisor's choice.
    pub emulator: Option<&'a str>,
    /// Whether the server has hardware to run guests (KVM).
    pub kvm: bool,
}

use crate::{HypervisorKind, Spec};

/// Where the servers' own imports of exports are.
pub const IMPORTS: &str = "/run/xvm/imports";

/// What libvirt's driver of `kind` takes.
pub fn libvirt_xml(spec: &Spec, kind: HypervisorKind, _site: &Site) -> String {
    format!("<domain type='{kind}'>\n  <name>{}</name>\n</domain>\n", spec.name)
}

/// What `xl create` takes.
pub fn xl_cfg(spec: &Spec, _site: &Site) -> String {
    format!("name = \"{}\"\n", spec.name)
}
