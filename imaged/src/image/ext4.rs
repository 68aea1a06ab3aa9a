//! ext4 file systems and swap, made and changed without mounting them.

use super::{
    BuildError,
    cage::Cage,
    job,
    tool::{Tool, Trouble},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Seek},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What of ext4 new file systems have: what all supported guests' kernels and e2fsck know. (`orphan_file`, a default of newer mke2fs, is
/// refused by the e2fsck of Debian 11 and Ubuntu 22.04.)
const MKE2FS_CONF: &str = "[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tdefault_mntopts = acl,user_xattr
\tblocksize = 4096
\tinode_size = 256
\tinode_ratio = 16384
[fs_types]
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,metadata_csum_seed,64bit,dir_nlink,extra_isize
\t}
";

/// The label of the root file system, by which the kernel's command line finds it, whatever a hypervisor calls the disk.
pub const ROOT_LABEL: &str = "root";

/// The label of the swap, as `fstab` names it.
pub const SWAP_LABEL: &str = "swap";

/// A file system on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fs {
    /// The disk.
    pub disk: PathBuf,
    /// Where on it, in bytes.
    pub offset: u64,
}

impl Fs {
    /// As the tools of e2fsprogs take it.
    pub fn address(&self) -> OsString {
        let mut address = self.disk.clone().into_os_string();
        if self.offset > 0 {
            address.push(format!("?offset={}", self.offset));
        }
        address
    }

    /// Whether ext2, 3 or 4 is there.
    pub fn is_ext4(&self) -> io::Result<bool> {
        let mut magic = [0; 2];
        match File::open(&self.disk)?.read_exact_at(&mut magic, self.offset + 1024 + 56) {
            Ok(()) => Ok(magic == [0x53, 0xef]),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Bytes of a file or a block device.
pub fn length(path: &Path) -> io::Result<u64> {
    File::open(path)?.seek(io::SeekFrom::End(0))
}

/// Makes a file system that holds what is in `root`.
pub async fn make(cage: &Cage, root: &Path, disk: &Path) -> Result<(), Trouble> {
    let conf = cage.dir.join("mke2fs.conf");
    fs::write(&conf, MKE2FS_CONF).map_err(|e| Trouble::of(&conf, &e))?;
    let used = cage.run(Tool::new("du").args(["--summarize", "--block-size=1M"]).arg(root)).await?;
    let used: u64 = used.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let has = length(disk).map_err(|e| Trouble::of(disk, &e))? >> 20;
    // the journal and the inode tables take their part
    if used + used / 20 + 8 > has {
        return Err(Trouble::Failed(format!(
            "a disk of {has} MiB is too small for its system of {used} MiB"
        )));
    }
    let made = cage
        .run(
            Tool::new("mke2fs")
                .args(["-q", "-F", "-t", "ext4", "-L", ROOT_LABEL, "-d"])
                .args([root, disk])
                .env("MKE2FS_CONFIG", &conf),
        )
        .await;
    made.map(drop).map_err(|e| match e {
        Trouble::Failed(why) if why.contains("Could not allocate") => {
            Trouble::Failed(format!("a disk of {has} MiB is too small for its system of {used} MiB"))
        }
        Trouble::NoSpace(_) => Trouble::NoSpace(format!("cannot write {}", disk.display())),
        other => other,
    })
}

/// Looks at every part of a file system and changes nothing.
pub async fn check(cage: &Cage, image: &Fs) -> Result<(), Trouble> {
    cage.run(Tool::new("e2fsck").args(["-f", "-n"]).arg(image.address())).await.map(drop)
}

/// Plays back the journal of a system that was not shut down, and repairs what can be without asking.
pub async fn settle(cage: &Cage, image: &Fs) -> Result<(), Trouble> {
    let tool = Tool::new("e2fsck").args(["-f", "-p"]).arg(image.address()).good(&[0, 1]);
    cage.run(tool).await.map(drop)
}

/// Gives a file system that nobody has mounted a new UUID.
pub async fn rename(cage: &Cage, image: &Fs) -> Result<(), Trouble> {
    cage.run(Tool::new("tune2fs").args(["-U", "random"]).arg(image.address())).await.map(drop)
}

/// Makes a file system as large as its disk.
pub async fn fill(cage: &Cage, image: &Fs) -> Result<(), Trouble> {
    settle(cage, image).await?;
    cage.run(Tool::new("resize2fs").arg(image.address())).await.map(drop)
}

/// Makes a swap with a new UUID on a file or a block device.
pub async fn swap(cage: &Cage, path: &Path) -> Result<(), Trouble> {
    cage.run(Tool::new("mkswap").args(["--label", SWAP_LABEL]).arg(path)).await.map(drop)
}

/// Makes a swap with a new UUID on an empty file or a block device: of a clone, or of another size.
pub async fn make_swap(paths: &super::Paths, swap_at: &Path) -> Result<(), BuildError> {
    let visit = super::personal::Visit::begin(paths, tokio_util::sync::CancellationToken::new())?;
    swap(&visit.cage, swap_at).await.map_err(|e| job::error("volumes", e))
}
