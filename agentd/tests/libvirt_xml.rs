//! If this fails, libvirt does not take what is rendered for it: its own schema is asked. Without `virsh` the test prints
//! `SKIP name: reason` and passes.

#[path = "common/spec.rs"]
mod common;

use common::{grant, spec};
use std::{path::Path, process::Command};
use xvm_model::config::render::{Site, libvirt_xml};
use xvm_model::config::{GuestType, Mac};
use xvm_model::spec::{Blob, Boot, GrantDisk, export_name};
use xvm_model::{HypervisorKind, Spec};

const SITE: Site<'static> = Site {
    boot: "/var/lib/xvm/agentd/kernels",
    bridge: Some("br0"),
    imports: Some("/run/xvm/imports"),
    metadata: "<xvm:domain xmlns:xvm=\"urn:xvm:domain:1\" priority=\"50\"/>",
    emulator: Some("/usr/bin/qemu-system-x86_64"),
    consoles: Some("/var/log/libvirt/qemu"),
    kvm: false,
};

/// All that a spec can have.
fn full() -> Spec {
    let mut grant = grant("small-1", "ferby", 3);
    let export = export_name(&grant.config, &grant.server, 3, "swap");
    grant.disks.push(GrantDisk { target: "vdb".into(), volume: "swap".into(), export, size: 1 << 20 });
    let blob = |digit: &str| Blob { sha256: digit.repeat(64).into(), size: 9 };
    let boot = Boot {
        host: "kerby".into(),
        port: 10810,
        kernel: blob("a"),
        initrd: Some(blob("b")),
        cmdline: "root=/dev/vda quiet init='/bin/sh' a=\"<&>\"".into(),
    };
    let plain = spec("small-1", grant);
    Spec { vcpus: 4, mac: Some(Mac::of(plain.uuid)), vlan: Some(12), boot: Some(boot), ..plain }
}

/// What libvirt's schema has against a definition. The test driver takes it (or not: it has no QEMU and no Xen) only after that.
fn against(file: &Path, xml: &str) -> Option<String> {
    std::fs::write(file, xml).expect("scratch folder");
    let mut virsh = Command::new("virsh");
    let out = virsh.args(["-c", "test:///default", "define", "--validate"]).arg(file).output().expect("runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let fits = out.status.success() || said.contains("could not find capabilities");
    (!fits).then_some(said)
}

#[test]
fn libvirts_schema_takes_it() {
    if Command::new("virsh").arg("--version").output().is_err() {
        eprintln!("SKIP libvirts_schema_takes_it: needs virsh");
        return;
    }
    let dir = tempfile::tempdir().expect("scratch folder");
    let bare = Spec { boot: None, mac: None, ..full() };
    let typed = |kind| Spec { kind, ..full() };
    let plain = Site { bridge: None, emulator: None, metadata: "", consoles: None, ..SITE };
    for (what, spec, kind, site) in [
        ("qemu", full(), HypervisorKind::Qemu, SITE),
        ("kvm", full(), HypervisorKind::Qemu, Site { kvm: true, ..SITE }),
        ("qemu-user", full(), HypervisorKind::Qemu, plain),
        ("qemu-bare", bare.clone(), HypervisorKind::Qemu, plain),
        ("test", full(), HypervisorKind::Test, plain),
        ("xen", full(), HypervisorKind::Xen, Site { emulator: None, ..SITE }),
        ("xen-bare", bare, HypervisorKind::Xen, Site { emulator: None, ..SITE }),
        ("xen-pv", typed(GuestType::Pv), HypervisorKind::Xen, plain),
        ("xen-hvm", typed(GuestType::Hvm), HypervisorKind::Xen, plain),
    ] {
        let xml = libvirt_xml(&spec, kind, &site);
        let wrong = against(&dir.path().join("domain.xml"), &xml);
        assert_eq!(wrong, None, "{what}: {xml}");
    }
    // it can refuse
    let good = libvirt_xml(&full(), HypervisorKind::Qemu, &SITE);
    for (part, bad) in [("rerror_policy='stop'", "rerror_policy='x'"), ("<vcpu>4</vcpu>", "<vcpu>x</vcpu>")] {
        let wrong = against(&dir.path().join("domain.xml"), &good.replace(part, bad)).expect(bad);
        assert!(wrong.contains("failed to validate against schema"), "{wrong}");
    }
}
