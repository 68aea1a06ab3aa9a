//! What is on a disk.

use serde::{Deserialize, Serialize};
use xvm_model::spec::Blob;

/// What an image boots with: files of the boot directory, named by their content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: Blob,
    /// The initial RAM file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Blob>,
    /// The kernel's command line.
    pub cmdline: Box<str>,
}
