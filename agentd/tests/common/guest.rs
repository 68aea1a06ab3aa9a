//! The lab's tiny guest as a config.

use crate::common::spec;
use crate::lab::Lab;
use std::{path::Path, process::Command};
use xvm_model::config::Mac;
use xvm_model::spec::{Blob, Boot};
use xvm_model::{Grant, Spec};

/// The lab's guest as imaged would tell a server to run it: its kernel is in `boot`, by its content.
pub fn guest(lab: &Lab, boot: &Path, grant: Grant) -> Spec {
    let made = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/lab/guest/build.sh"))
        .output();
    let folder = String::from_utf8(made.expect("built").stdout).expect("a path");
    let keep = |file: &str| {
        let path = Path::new(folder.trim()).join(file);
        let sum = Command::new("sha256sum").arg(&path).output().expect("runs").stdout;
        let sha256 = String::from_utf8_lossy(&sum[..64]).into_owned().into();
        let size = path.metadata().expect("there").len();
        let blob = Blob { sha256, size };
        std::fs::copy(&path, boot.join(blob.name())).expect("copied");
        blob
    };
    let cmdline = "console=ttyS0 quiet panic=1 vmname=small-1 tick=0.1".into();
    let (kernel, initrd) = (keep("vmlinuz"), Some(keep("initrd.gz")));
    let host: Box<str> = lab.address("store").into();
    let plain = spec("small-1", grant);
    let boot = Some(Boot { host, port: 1, kernel, initrd, cmdline });
    let spec = Spec { memory: 96 << 10, mac: Some(Mac::of(plain.uuid)), boot, ..plain };
    spec.check().expect("what imaged would send");
    spec
}
