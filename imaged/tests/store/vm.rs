//! Runs this test program again in a virtual machine: over a volume group, and over a thin pool in it.

use crate::{bench::there, lvm};
use std::{path::Path, process::Command};

/// What the machine does with its disk. What takes long without a real CPU, and is the same over both, runs over one.
const SCRIPT: &str = r#"
set -e
mkdir -p /etc/lvm
echo 'activation { monitoring = 0 } backup { backup = 0 archive = 0 }' > /etc/lvm/lvmlocal.conf
pvcreate -q -y /dev/vda > /dev/null
vgcreate -q xvm-test /dev/vda > /dev/null
run() { export XVM_TEST_VG=$1; shift; echo "== over $XVM_TEST_VG"; "$program" --test-threads 1 --nocapture "$@"; }
program=$1
run xvm-test lvm:: the_life_of_volumes --skip in_a_machine --skip a_tiny_system
lvcreate -q -y --type thin-pool -L 3G -n pool xvm-test > /dev/null 2>&1
run xvm-test/pool lvm::a_tiny lvm::what_is_wrong the_life_of_volumes --skip in_a_machine
"#;

/// If this fails, see the test in its output: it ran in the machine.
#[test]
fn in_a_machine_that_has_device_mapper() {
    let needs = ["qemu-system-x86_64", "lvs", "thin_check", "busybox", "depmod", "cpio", "mke2fs"];
    let mut missing: Vec<&str> = needs.into_iter().filter(|tool| !there(tool)).collect();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root");
    }
    if !missing.is_empty() {
        println!("SKIP in_a_machine_that_has_device_mapper: needs {}", missing.join(", "));
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab/vm/run.sh");
    let out = Command::new(script)
        .args(["-d", "6144", "-t", "580", "bash", "-c", SCRIPT, "bash"])
        .arg(program)
        .env_remove(lvm::GROUP)
        .output()
        .expect("bash");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(out.status.success(), "{}", out.status);
    assert_eq!(said.matches("test result: ok").count(), 2, "both runs are whole");
    assert!(!said.contains("SKIP"), "nothing is skipped there");
}
