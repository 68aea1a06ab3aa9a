//! A domain for Xen's own tool.

use super::{Site, xen_cmdline, xen_disk, xen_type};
use crate::Spec;
use std::fmt::Write as _;

/// A domain as `xl create` takes it. Xen's disks are block devices of the server, so the exports are named where the server imports
/// them; without [`Site::imports`] that is [`super::IMPORTS`].
pub fn xl_cfg(spec: &Spec, site: &Site<'_>) -> String {
    let kind = xen_type(spec);
    let mut out = String::new();
    let mut put = |key: &str, value: String| writeln!(out, "{key} = {value}").expect("a String takes all");
    put("name", quoted(spec.name.as_str()));
    put("uuid", quoted(&spec.uuid.to_string()));
    put("type", quoted(kind.word()));
    put("memory", (spec.memory / 1024).to_string());
    put("maxmem", (spec.memory / 1024).to_string());
    put("vcpus", spec.vcpus.to_string());
    if let Some(boot) = &spec.boot {
        put("kernel", quoted(&site.file(&boot.kernel.name())));
        if let Some(initrd) = &boot.initrd {
            put("ramdisk", quoted(&site.file(&initrd.name())));
        }
        put("extra", quoted(&xen_cmdline(&boot.cmdline, kind)));
    }
    let disks = spec.grant.disks.iter().map(|disk| {
        let (vdev, target) = (xen_disk(&disk.target, kind), site.import(&disk.export));
        // `target` takes the rest of its line, commas included
        quoted(&format!("format=raw, vdev={vdev}, access=rw, backendtype=phy, target={target}"))
    });
    put("disk", list(disks));
    let vif = spec.mac.and_then(|mac| {
        let bridge = site.bridge(spec.vlan)?;
        Some(quoted(&format!("mac={mac},bridge={}", bridge.replace(',', " "))))
    });
    put("vif", list(vif.into_iter()));
    if kind == crate::config::GuestType::Hvm {
        put("serial", quoted("pty"));
    }
    put("on_poweroff", quoted("destroy"));
    put("on_reboot", quoted("restart"));
    put("on_crash", quoted("destroy"));
    out
}

/// A string of xl.cfg(5); control characters become spaces.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[ {} ]", items.collect::<Vec<_>>().join(", "))
}
