//! If one of these fails, a volume is exported to who must not have it, or is lost to who has it.
//!
//! Real qemu-storage-daemons, looked at with nbdinfo, qemu-io and nbdcopy, and with a small client that can be in the middle of writing.

#[path = "export/client.rs"]
mod client;
#[path = "export/crash.rs"]
mod crash;
#[path = "export/fence.rs"]
mod fence;
#[path = "export/rig.rs"]
mod rig;
#[path = "export/serve.rs"]
mod serve;
#[path = "export/tls.rs"]
mod tls;
