//! The least that a FUSE file can cost: `servers/ferby/load`, empty, at the depth of ours, with the flags of ours (direct I/O, no
//! caching by the kernel, permissions checked by the kernel) and nothing behind it.

use fuser::{
    Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};
use nix::sys::signal::{SigSet, Signal};
use std::{ffi::OsStr, path::Path, time::Duration, time::UNIX_EPOCH};

/// The file, as seen from the mount point.
pub const FILE: &str = "servers/ferby/load";
/// The inodes: the root is 1, each name of [`FILE`] one more.
const NAMES: [&str; 3] = ["servers", "ferby", "load"];
/// How long the kernel keeps the names that never go away, as with ours; servers may go away.
const LONG: Duration = Duration::from_secs(3600);
/// As many threads as xvmfs has.
const THREADS: usize = 4;

struct Empty;

fn attr(ino: u64) -> FileAttr {
    let file = ino > NAMES.len() as u64;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if file { FileType::RegularFile } else { FileType::Directory },
        perm: if file { 0o444 } else { 0o755 },
        nlink: if file { 1 } else { 2 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// As with ours: directories' attributes for a second, files' not at all.
fn attr_ttl(attr: &FileAttr) -> &'static Duration {
    const SECOND: Duration = Duration::from_secs(1);
    if attr.kind == FileType::Directory { &SECOND } else { &Duration::ZERO }
}

impl Filesystem for Empty {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = u64::from(parent);
        match NAMES.iter().zip(1..).find(|(n, p)| *p == parent && name == **n) {
            Some((name, _)) => {
                let keep = if *name == "ferby" { Duration::ZERO } else { LONG };
                let attr = attr(parent + 1);
                reply.entry_with_ttls(attr_ttl(&attr), &keep, &attr, Generation(0));
            }
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = attr(u64::from(ino));
        reply.attr(attr_ttl(&attr), &attr);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&[]);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// Serves the file until it is told to end.
pub fn serve(dir: &Path) -> anyhow::Result<()> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("empty".into()), MountOption::RO, MountOption::DefaultPermissions];
    config.n_threads = Some(THREADS);
    let session = fuser::spawn_mount(Empty, dir, &config)?;
    signals.wait()?;
    drop(session);
    Ok(())
}
