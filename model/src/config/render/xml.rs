//! A domain for libvirt.

use super::{Site, xen_cmdline, xen_disk, xen_type};
use crate::config::GuestType;
use crate::{HypervisorKind, Spec};
use std::fmt::Write as _;

/// QEMU's cache of translated code where there is no KVM, in MiB. By itself QEMU would take up to 1 GiB for each guest.
const TCG_CACHE_MIB: u32 = 64;

const ESCAPES: [(&str, &str); 5] =
    [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&apos;")];

/// Text as the content of an XML element or as an attribute's value; control characters become spaces.
pub fn escape(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    ESCAPES.iter().fold(plain, |text, (plain, escaped)| text.replace(plain, escaped))
}

/// A domain as libvirt's driver of `kind` takes it (`virsh create`). QEMU opens the exports itself; Xen needs them imported as block
/// devices. A guest that stops because of a disk error goes on by `unpause` once the disk is back.
pub fn libvirt_xml(spec: &Spec, kind: HypervisorKind, site: &Site<'_>) -> String {
    let mut x = Xml(String::new());
    let domain = match kind {
        HypervisorKind::Xen => "xen",
        HypervisorKind::Test => "test",
        _ if site.kvm => "kvm",
        _ => "qemu",
    };
    x.line(0, &format!("<domain type='{domain}'>"));
    x.text(1, "name", spec.name.as_str());
    x.text(1, "uuid", &spec.uuid.to_string());
    if !site.metadata.is_empty() {
        x.line(1, &format!("<metadata>{}</metadata>", site.metadata));
    }
    x.line(1, &format!("<memory unit='KiB'>{}</memory>", spec.memory));
    x.line(1, &format!("<vcpu>{}</vcpu>", spec.vcpus));
    let xen = (kind == HypervisorKind::Xen).then(|| xen_type(spec));
    os(&mut x, spec, site, xen);
    match xen {
        Some(GuestType::Pv) => {}
        None if domain == "qemu" => x.line(
            1,
            &format!(
                "<features><acpi/><tcg><tb-cache unit='MiB'>{TCG_CACHE_MIB}</tb-cache></tcg></features>"
            ),
        ),
        _ => x.line(1, "<features><acpi/></features>"),
    }
    x.line(1, "<clock offset='utc'/>");
    x.line(1, "<on_poweroff>destroy</on_poweroff>");
    x.line(1, "<on_reboot>restart</on_reboot>");
    x.line(1, "<on_crash>destroy</on_crash>");
    x.line(1, "<devices>");
    if let Some(emulator) = site.emulator {
        x.text(2, "emulator", emulator);
    }
    for disk in &spec.grant.disks {
        match xen {
            Some(kind) => xen_block(&mut x, &site.import(&disk.export), &xen_disk(&disk.target, kind)),
            None => {
                x.line(2, "<disk type='network' device='disk'>");
                x.line(
                    3,
                    "<driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='stop' discard='unmap'/>",
                );
                let tls = if spec.grant.tls { " tls='yes'" } else { "" };
                x.line(3, &format!("<source protocol='nbd' name='{}'{tls}>", escape(&disk.export)));
                let (host, port) = (escape(&spec.grant.host), spec.grant.port);
                x.line(4, &format!("<host name='{host}' port='{port}'/>"));
                x.line(3, "</source>");
                x.line(3, &format!("<target dev='{}' bus='virtio'/>", escape(&disk.target)));
                x.line(2, "</disk>");
            }
        }
    }
    interface(&mut x, spec, site, xen.is_some());
    if matches!(xen, Some(GuestType::Pv | GuestType::Pvh)) {
        x.line(2, "<console type='pty'><target type='xen' port='0'/></console>");
    } else {
        let log = site.consoles.filter(|_| xen.is_none() && domain != "test").map(|dir| {
            let file = format!("{}/{}.console", dir.trim_end_matches('/'), spec.name);
            format!("<log file='{}' append='on'/>", escape(&file))
        });
        x.line(2, &format!("<serial type='pty'>{}<target port='0'/></serial>", log.unwrap_or_default()));
        x.line(2, "<console type='pty'><target type='serial' port='0'/></console>");
    }
    if xen.is_none() && domain != "test" {
        x.line(2, "<controller type='usb' model='none'/>");
        x.line(2, "<memballoon model='virtio'/>");
        x.line(2, "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>");
    }
    x.line(1, "</devices>");
    x.line(0, "</domain>");
    x.0
}

/// What it boots, and how.
fn os(x: &mut Xml, spec: &Spec, site: &Site<'_>, xen: Option<GuestType>) {
    x.line(1, "<os>");
    x.line(
        2,
        match xen {
            Some(GuestType::Pv) => "<type machine='xenpv'>linux</type>",
            Some(GuestType::Pvh) => "<type machine='xenpvh'>xenpvh</type>",
            Some(_) => "<type machine='xenfv'>hvm</type>",
            // the machine is libvirt's choice, as it is for who writes none by hand
            None => "<type>hvm</type>",
        },
    );
    match &spec.boot {
        Some(boot) => {
            x.text(2, "kernel", &site.file(&boot.kernel.name()));
            if let Some(initrd) = &boot.initrd {
                x.text(2, "initrd", &site.file(&initrd.name()));
            }
            let cmdline =
                xen.map_or_else(|| boot.cmdline.to_string(), |kind| xen_cmdline(&boot.cmdline, kind));
            x.text(2, "cmdline", &cmdline);
        }
        None if matches!(xen, None | Some(GuestType::Hvm)) => x.line(2, "<boot dev='hd'/>"),
        None => {}
    }
    x.line(1, "</os>");
}

fn xen_block(x: &mut Xml, device: &str, target: &str) {
    let bus = if target.starts_with("hd") { "ide" } else { "xen" };
    x.line(2, "<disk type='block' device='disk'>");
    x.line(3, "<driver name='phy'/>");
    x.line(3, &format!("<source dev='{}'/>", escape(device)));
    x.line(3, &format!("<target dev='{}' bus='{bus}'/>", escape(target)));
    x.line(2, "</disk>");
}

/// Without a bridge QEMU's guests have its user network, and Xen's none.
fn interface(x: &mut Xml, spec: &Spec, site: &Site<'_>, xen: bool) {
    let Some(mac) = spec.mac else { return };
    let (kind, source) = match site.bridge(spec.vlan) {
        Some(bridge) => ("bridge", Some(bridge)),
        None if xen => return,
        None => ("user", None),
    };
    x.line(2, &format!("<interface type='{kind}'>"));
    x.line(3, &format!("<mac address='{mac}'/>"));
    if let Some(bridge) = source {
        x.line(3, &format!("<source bridge='{}'/>", escape(&bridge)));
    }
    if !xen {
        x.line(3, "<model type='virtio'/>");
    }
    x.line(2, "</interface>");
}

/// Lines of XML.
struct Xml(String);

impl Xml {
    fn line(&mut self, depth: usize, text: &str) {
        let indent = depth * 2;
        writeln!(self.0, "{:indent$}{text}", "").expect("a String takes all");
    }

    /// An element that holds text.
    fn text(&mut self, depth: usize, name: &str, text: &str) {
        self.line(depth, &format!("<{name}>{}</{name}>", escape(text)));
    }
}
