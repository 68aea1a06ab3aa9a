//! A config as hypervisors take it: `libvirt.xml` for libvirt's QEMU and Xen drivers, `xl.cfg` for Xen's own tool.
//!
//! | file | what |
//! |---|---|
//! | `xml` | [`libvirt_xml`] |
//! | `xl` | [`xl_cfg`] |
//!
//! All values are escaped: a spec comes from the bus, and nothing of it becomes another element or another line.

mod xl;
mod xml;

pub use xl::xl_cfg;
pub use xml::{escape, libvirt_xml};

use super::GuestType;
use crate::Spec;

/// Where a Xen server imports exports when its [`Site`] does not say.
pub const IMPORTS: &str = "/run/xvm/imports";

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
    /// The directory where QEMU's guests' consoles are logged, `DIR/NAME.console`; none: they are not.
    pub consoles: Option<&'a str>,
    /// Whether the server has hardware to run guests (KVM).
    pub kvm: bool,
}

/// Where libvirt's system daemon logs for QEMU: a directory that each of its servers has.
pub const CONSOLES: &str = "/var/log/libvirt/qemu";

impl Site<'_> {
    /// The path of a file in the directory with files to boot from.
    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.boot.trim_end_matches('/'))
    }

    /// The device that an export is imported as.
    fn import(&self, export: &str) -> String {
        format!("{}/{export}", self.imports.unwrap_or(IMPORTS).trim_end_matches('/'))
    }

    /// The bridge for a VLAN: plain Linux bridges carry one network each, so that of VLAN 12 is `BRIDGE.12`.
    fn bridge(&self, vlan: Option<u16>) -> Option<String> {
        self.bridge.map(|bridge| match vlan {
            Some(vlan) => format!("{bridge}.{vlan}"),
            None => bridge.to_owned(),
        })
    }
}

/// How Xen runs it: `pvh` with a kernel of its own and `hvm` without, unless its config says something else.
fn xen_type(spec: &Spec) -> GuestType {
    match (spec.kind, &spec.boot) {
        (GuestType::Auto, Some(_)) => GuestType::Pvh,
        (GuestType::Auto, None) => GuestType::Hvm,
        (chosen, _) => chosen,
    }
}

/// What Xen calls the guest's device: `xvda` for `vda`. A whole machine boots from what its firmware knows, so there the first four are
/// IDE disks, which a Linux guest sees as `xvda` to `xvdd` too.
fn xen_disk(target: &str, kind: GuestType) -> String {
    let letter = target.strip_prefix("vd").unwrap_or(target);
    let ide = kind == GuestType::Hvm && matches!(letter, "a" | "b" | "c" | "d");
    if ide { format!("hd{letter}") } else { format!("xvd{letter}") }
}

/// The kernel's command line with disks and console by the names that a guest of Xen has for them.
fn xen_cmdline(cmdline: &str, kind: GuestType) -> String {
    let word = |w: &str| match w.split_once("=/dev/vd") {
        Some((key, disk)) => format!("{key}=/dev/xvd{disk}"),
        // only a whole machine has a serial port
        None if kind != GuestType::Hvm && w.starts_with("console=ttyS") => "console=hvc0".to_owned(),
        None => w.to_owned(),
    };
    cmdline.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
