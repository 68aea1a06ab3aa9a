//! Two real Xen hosts in QEMU, with everything that xvm has, through the mounted tree: `make xen-test`. `XVM_XEN_ACTS=refuses,power` plays
//! two of its acts alone.
//!
//! If it fails, xvm does not do on Xen what it does on QEMU, or runs a domain twice when a host dies.

#[path = "configs/qemu/records.rs"]
#[allow(dead_code, reason = "shared with the tests on QEMU hosts")]
mod records;

#[path = "xen/failures.rs"]
mod failures;
#[path = "xen/guests.rs"]
mod guests;
#[path = "xen/hosts.rs"]
mod hosts;
#[path = "xen/life.rs"]
mod life;
#[path = "xen/mixed.rs"]
mod mixed;
#[path = "xen/overload.rs"]
mod overload;
#[path = "xen/pv.rs"]
mod pv;
#[path = "xen/scene.rs"]
mod scene;
#[path = "xen/types.rs"]
mod types;

use scene::{NEEDS, Scene};

#[test]
fn two_real_xen_hosts_are_one_cluster() {
    for need in NEEDS {
        let test = "two_real_xen_hosts_are_one_cluster";
        if !(if need == "root" { xvm_tests::root(test) } else { xvm_tests::have(test, need) }) {
            return;
        }
    }
    let scene = Scene::new();
    scene.act("hosts in the tree", life::hosts_are_seen);
    scene.act("a machine lives, moves and keeps its disk", life::a_machine_lives);
    scene.act("a migration beside virsh's own", life::a_migration_beside_virsh);
    scene.act("PV and HVM guests", types::each_boots_from_its_disk_and_moves);
    scene.act("Xen and QEMU in one tree", mixed::domains_stay_with_their_kind);
    scene.act("an overload is helped", overload::is_helped);
    scene.act("the destination refuses", failures::the_destination_refuses);
    scene.act("the destination loses power", failures::the_destination_loses_power);
    scene.act("the source loses power", failures::the_source_loses_power);
}
