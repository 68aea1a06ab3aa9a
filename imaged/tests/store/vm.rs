//! Runs this test program again in a virtual machine: over a volume group, and over a thin pool in it.

use crate::{bench::there, lvm};
use std::{path::Path, process::Command};

/// What the machine does with the halves of its disk, at once. What takes long without a real CPU, and is the same over both, runs over
/// one.
const SCRIPT: &str = r#"
mkdir -p /etc/lvm
echo 'activation { monitoring = 0 } backup { backup = 0 archive = 0 } devices { filter = ["r|/dev/vda|"] }' > /etc/lvm/lvmlocal.conf
# looks at every change of a group's disk, which costs as much as the change
rm -f /lib/udev/rules.d/69-lvm*.rules; udevadm control --reload
half=$(($(cat /sys/block/vda/size) / 2))
for i in 0 1; do
    dmsetup create half$i --table "0 $half linear /dev/vda $((i * half))" || exit
    pvcreate -q -y /dev/mapper/half$i > /dev/null && vgcreate -q xvm-test$i /dev/mapper/half$i > /dev/null || exit
done
lvcreate -q -y --type thin-pool -L 2G -n pool xvm-test1 > /dev/null 2>&1 || exit
program=$1
run() { export XVM_TEST_VG=$1; shift; "$program" --test-threads 1 --nocapture "$@" --skip in_a_machine; }
run xvm-test1/pool lvm::a_tiny lvm::what_is_wrong the_life_of_volumes > /tmp/thin 2>&1 & thin=$!
run xvm-test0 lvm:: the_life_of_volumes --skip a_tiny_system; thick=$?
wait $thin; thin=$?
cat /tmp/thin
[ $thick = 0 ] && [ $thin = 0 ]
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
        .args(["-d", "6144", "-t", "420", "bash", "-c", SCRIPT, "bash"])
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
