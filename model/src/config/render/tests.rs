//! What hypervisors get to read. Whether they take it is tried by agentd's tests, on the real ones.

use super::*;
use crate::config::Mac;
use crate::spec::{Blob, Boot, Grant, GrantDisk, export_name};
use crate::{ConfigName, DomainSettings, HypervisorKind, ServerName};
use proptest::prelude::*;
use uuid::Uuid;

pub(super) const SITE: Site<'static> = Site {
    boot: "/var/lib/xvm/agentd/boot/",
    bridge: Some("br0"),
    imports: None,
    metadata: "",
    emulator: None,
    consoles: Some("/var/log/libvirt/qemu/"),
    kvm: false,
};

fn blob(digit: &str) -> Blob {
    Blob { sha256: digit.repeat(64).into(), size: 9 }
}

fn spec() -> Spec {
    let config = ConfigName::parse("small-6").expect("valid");
    let server = ServerName::parse("ferby").expect("valid");
    let disk = |target: &str, volume: &str| GrantDisk {
        target: target.into(),
        volume: volume.into(),
        export: export_name(&config, &server, 3, volume),
        size: 1 << 20,
    };
    let disks = vec![disk("vda", "disk"), disk("vdb", "swap")];
    let uuid = Uuid::from_u128(7);
    Spec {
        name: config.domain(),
        uuid,
        memory: 512 << 10,
        vcpus: 2,
        kind: GuestType::Auto,
        mac: Some(Mac::of(uuid)),
        vlan: None,
        grant: Grant { config, server, epoch: 3, host: "10.0.0.9".into(), port: 10810, tls: false, disks },
        boot: Some(Boot {
            host: "10.0.0.9".into(),
            port: 10811,
            kernel: blob("a"),
            initrd: Some(blob("b")),
            cmdline: "root=/dev/vda ro console=ttyS0".into(),
        }),
        settings: DomainSettings::default(),
    }
}

#[test]
fn qemu_opens_the_exports_itself() {
    let xml = libvirt_xml(&spec(), HypervisorKind::Qemu, &SITE);
    let has = |part: &str| assert!(xml.contains(part), "{part} is not in\n{xml}");
    has("<domain type='qemu'>");
    has("<memory unit='KiB'>524288</memory>");
    has(&format!("<kernel>/var/lib/xvm/agentd/boot/boot.{}</kernel>", "a".repeat(64)));
    has("<cmdline>root=/dev/vda ro console=ttyS0</cmdline>");
    has("<source protocol='nbd' name='small-6.ferby.3'>");
    has("<source protocol='nbd' name='small-6.ferby.3.swap'>");
    has("<host name='10.0.0.9' port='10810'/>");
    has("error_policy='stop' rerror_policy='stop'");
    has("<source bridge='br0'/>");
    has("<log file='/var/log/libvirt/qemu/small-6.console' append='on'/>");
    assert!(
        libvirt_xml(&spec(), HypervisorKind::Qemu, &Site { kvm: true, ..SITE })
            .contains("<domain type='kvm'>")
    );
}

#[test]
fn networks() {
    let xml = |spec: &Spec, bridge| libvirt_xml(spec, HypervisorKind::Qemu, &Site { bridge, ..SITE });
    let tagged = Spec { vlan: Some(12), ..spec() };
    assert!(xml(&tagged, Some("br0")).contains("<source bridge='br0.12'/>"));
    assert!(xml(&tagged, None).contains("<interface type='user'>"));
    assert!(!xml(&Spec { mac: None, ..spec() }, Some("br0")).contains("<interface"));
    assert!(xl_cfg(&tagged, &SITE).contains(",bridge=br0.12\" ]\n"));
    assert!(xl_cfg(&tagged, &Site { bridge: None, ..SITE }).contains("vif = [  ]\n"));
}

#[test]
fn xen_takes_what_the_server_imported() {
    let site = Site { imports: Some("/dev/xvm"), ..SITE };
    let xml = libvirt_xml(&spec(), HypervisorKind::Xen, &site);
    for part in [
        "<domain type='xen'>",
        "<type machine='xenpvh'>xenpvh</type>",
        "<source dev='/dev/xvm/small-6.ferby.3'/>",
        "<target dev='xvda' bus='xen'/>",
        "<cmdline>root=/dev/xvda ro console=hvc0</cmdline>",
    ] {
        assert!(xml.contains(part), "{part} is not in\n{xml}");
    }
    let machine = xl_cfg(&Spec { kind: GuestType::Hvm, ..spec() }, &site);
    assert!(machine.contains("extra = \"root=/dev/xvda ro console=ttyS0\"\n"), "{machine}");
    let whole = Spec { boot: None, ..spec() };
    let xml = libvirt_xml(&whole, HypervisorKind::Xen, &site);
    assert!(
        xml.contains("<type machine='xenfv'>hvm</type>") && xml.contains("<target dev='hda' bus='ide'/>")
    );
    let cfg = xl_cfg(&spec(), &site);
    for line in [
        "name = \"small-6\"",
        "type = \"pvh\"",
        "memory = 512",
        "vcpus = 2",
        "extra = \"root=/dev/xvda ro console=hvc0\"",
    ] {
        assert!(cfg.lines().any(|l| l == line), "{line} is not in\n{cfg}");
    }
    let disk = "format=raw, vdev=xvda, access=rw, backendtype=phy, target=/dev/xvm/small-6.ferby.3";
    assert!(cfg.contains(&format!("disk = [ \"{disk}\", ")), "{cfg}");
}

proptest! {
    /// If this fails, whoever writes a config's values writes XML or lines of xl.cfg for a hypervisor that runs as root.
    #[test]
    fn no_value_becomes_structure(text in "[ -~\\n\\t]{0,40}|.*</cmdline><x/>.*|\"\\] \nx = \\[") {
        let mut spec = spec();
        let elements = libvirt_xml(&spec, HypervisorKind::Qemu, &SITE).matches('<').count();
        let lines = xl_cfg(&spec, &SITE).lines().count();
        if let Some(boot) = &mut spec.boot {
            boot.cmdline = text.as_str().into();
        }
        spec.grant.host = text.as_str().into();
        spec.grant.disks[0].export = text.as_str().into();
        let xml = libvirt_xml(&spec, HypervisorKind::Qemu, &SITE);
        prop_assert_eq!(xml.matches('<').count(), elements, "{}", xml);
        let cfg = xl_cfg(&spec, &SITE);
        prop_assert_eq!(cfg.lines().count(), lines, "{}", cfg);
        for line in cfg.lines() {
            // a quotation mark within a string has a backslash, of which there is an odd number
            let bare = line.replace("\\\\", "").replace("\\\"", "");
            prop_assert_eq!(bare.matches('"').count() % 2, 0, "{}", line);
        }
    }
}
