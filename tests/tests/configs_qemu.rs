//! Configs through the mounted tree on real QEMU hosts of a lab: disks over the network, leases, live migration.
//!
//! If one of these fails, a machine loses what it wrote, or two servers run one disk.

#[path = "configs/qemu/debian.rs"]
mod debian;
#[path = "configs/qemu/fence.rs"]
mod fence;
#[path = "configs/qemu/kills.rs"]
mod kills;
#[path = "configs/qemu/net.rs"]
mod net;
#[path = "configs/qemu/records.rs"]
mod records;
#[path = "configs/qemu/scene.rs"]
mod scene;
#[path = "configs/stage.rs"]
#[allow(dead_code, reason = "shared with the tests on simulated servers")]
mod stage;
#[path = "configs/qemu/story.rs"]
mod story;
#[path = "configs/qemu/tls.rs"]
mod tls;
#[path = "configs/qemu/twice.rs"]
mod twice;
