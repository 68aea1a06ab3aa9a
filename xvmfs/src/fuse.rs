//! The thin adapter between the kernel's FUSE requests and the tree: the only file that names fuser.
//!
//! What needs no waiting is answered by the thread that took the request; what waits (writes, renames, held reads) goes on as a
//! task, so that no request waits for another.
//!
//! What the kernel may keep: the name of a row (`domains/small-1/load` is where it is as long as `domains/small-1` is, and that name
//! is looked up each time), and for a second the mode and time of a directory. Files' sizes and contents are asked for each time.

use crate::handle::{Body, Handle, Handles, Mode, Now};
use crate::inode::Inode;
use crate::rights::Who;
use crate::tree::make::Change;
use crate::tree::{Attr, FileKind, Tree};
use fuser::{
    AccessFlags, BackgroundSession, BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle,
    FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    MountOption, OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use xvm_model::{Code, Failure, Wall};

/// Threads that take requests from the kernel.
const THREADS: usize = 4;
/// For what changes from moment to moment.
const NEVER: Duration = Duration::ZERO;
/// For directories' attributes.
const SECOND: Duration = Duration::from_secs(1);
/// For the names of rows, which never change.
const LONG: Duration = Duration::from_secs(3600);
/// The most that the kernel gives in one write.
const WRITE_MAX: u32 = 1 << 20;

/// Who may use the mount besides the one who mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Nobody.
    #[default]
    Owner,
    /// Root (`allow_root`).
    Root,
    /// Everyone, as the modes allow (`allow_other`).
    Everyone,
}

/// How to mount.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The first column of mount(8).
    pub source: String,
    /// Flags of mount(8) by name: `ro`, `nodev`, and so on.
    pub flags: Vec<&'static str>,
    /// Who may use it.
    pub access: Access,
}

/// The flags of [`Options`].
pub const FLAGS: &[&str] = &[
    "ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime", "noatime", "sync", "async",
    "dirsync",
];

fn flag(name: &str) -> MountOption {
    match name {
        "ro" => MountOption::RO,
        "dev" => MountOption::Dev,
        "nodev" => MountOption::NoDev,
        "suid" => MountOption::Suid,
        "nosuid" => MountOption::NoSuid,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "atime" => MountOption::Atime,
        "noatime" => MountOption::NoAtime,
        "sync" => MountOption::Sync,
        "async" => MountOption::Async,
        "dirsync" => MountOption::DirSync,
        _ => MountOption::RW,
    }
}

/// The connection to the kernel. It is never dropped: fuser's own unmounting at drop does not see that the mount is gone already,
/// and would take away the next one at the same place. See [`crate::mount`].
pub struct Connection {
    _session: std::mem::ManuallyDrop<BackgroundSession>,
}

/// Mounts the tree; requests are answered from now on. `ended` becomes true when the kernel has let go of the mount.
pub fn start(fs: Fs, at: &Path, options: &Options) -> io::Result<Connection> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.acl = match options.access {
        Access::Owner => SessionACL::Owner,
        Access::Root => SessionACL::RootAndOwner,
        Access::Everyone => SessionACL::All,
    };
    config.mount_options = options.flags.iter().map(|f| flag(f)).collect();
    config.mount_options.extend([
        MountOption::FSName(options.source.clone()),
        // as fuser's own `Subtype` it would not reach the kernel when root mounts
        MountOption::CUSTOM("subtype=xvmfs".into()),
        MountOption::DefaultPermissions,
    ]);
    if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Err(io::Error::new(e.kind(), format!("{DEVICE}: {e}")));
    }
    let session = Session::new(fs, at, &config)?.spawn()?;
    Ok(Connection { _session: std::mem::ManuallyDrop::new(session) })
}

/// What the kernel speaks FUSE through; a user who mounts needs it readable and writable.
const DEVICE: &str = "/dev/fuse";

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct Fs {
    /// What is shown.
    tree: Tree,
    /// Open files; tasks share them.
    handles: Arc<Handles>,
    /// Where tasks run.
    rt: tokio::runtime::Handle,
    /// Whose the files are.
    owner: (u32, u32),
    /// Told when the kernel has let go.
    ended: watch::Sender<bool>,
}

impl Fs {
    /// The tree as files of `owner` (user, group); waiting is done on `rt`.
    pub fn new(
        tree: Tree,
        rt: tokio::runtime::Handle,
        owner: (u32, u32),
        ended: watch::Sender<bool>,
    ) -> Self {
        Fs { tree, handles: Arc::default(), rt, owner, ended }
    }

    fn file_attr(&self, a: Attr) -> FileAttr {
        let (uid, gid) = a.owner.map_or(self.owner, |who| (who.uid, who.gid));
        let (mtime, born) = (time(a.mtime), time(self.tree.born()));
        // a directory's ctime stays: tar takes another ctime after reading for a change of what it read
        let (kind, ctime) = match a.kind {
            FileKind::Dir => (FileType::Directory, born),
            FileKind::File => (FileType::RegularFile, mtime),
            FileKind::Link => (FileType::Symlink, born),
        };
        FileAttr {
            ino: INodeNo(a.ino),
            size: a.size,
            blocks: a.size.div_ceil(512),
            atime: mtime,
            mtime,
            ctime,
            crtime: born,
            kind,
            perm: a.mode,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Attributes as `pid` must see them.
    fn attr(&self, ino: u64, pid: u32, open: Option<FileHandle>) -> Result<Attr, Failure> {
        let mut attr = self.tree.attr(ino)?;
        let own = open.and_then(|fh| self.handles.size_of(fh.0));
        if let Some((size, mtime)) = own.or_else(|| self.handles.size_for(ino, pid)) {
            (attr.size, attr.mtime) = (size.unwrap_or(attr.size), mtime);
        }
        Ok(attr)
    }

    /// `chown` and `chmod`.
    fn own(&self, ino: u64, change: Change, reply: ReplyAttr) {
        let fs = self.clone();
        self.rt.spawn(async move {
            match fs.tree.own(ino, change).await.and_then(|()| fs.tree.attr(ino)) {
                Ok(attr) => reply.attr(attr_ttl(&attr), &fs.file_attr(attr)),
                Err(failure) => reply.error(errno(&failure)),
            }
        });
    }

    fn refuse(&self, ino: INodeNo, what: &str, name: &OsStr) -> Errno {
        let what = format!("{what} {}", name.to_string_lossy());
        errno(&self.tree.refuse(
            ino.0,
            &what,
            "the tree shows what is there; files are made and removed by commands (see README)",
        ))
    }
}

fn who(req: &Request) -> Who {
    Who { uid: req.uid(), gid: req.gid() }
}

fn errno(failure: &Failure) -> Errno {
    Errno::from_i32(failure.code.errno())
}

fn time(wall: Wall) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(wall.0)
}

fn attr_ttl(attr: &Attr) -> &'static Duration {
    if attr.kind == FileKind::Dir { &SECOND } else { &NEVER }
}

fn entry_ttl(attr: &Attr) -> &'static Duration {
    if Inode::parse(attr.ino).is_some_and(|i| i.row.is_some()) { &LONG } else { &NEVER }
}

impl Filesystem for Fs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // what an old kernel lacks costs speed, nothing else
        let _old = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _old = config.set_max_write(WRITE_MAX);
        Ok(())
    }

    fn destroy(&mut self) {
        self.ended.send_replace(true);
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        // all names of the tree are UTF-8
        let Some(name) = name.to_str() else { return reply.error(Errno::ENOENT) };
        match self.tree.lookup(parent.0, name) {
            Ok(mut attr) => {
                if let Some((size, mtime)) = self.handles.size_for(attr.ino, req.pid()) {
                    (attr.size, attr.mtime) = (size.unwrap_or(attr.size), mtime);
                }
                let file = self.file_attr(attr);
                reply.entry_with_ttls(attr_ttl(&attr), entry_ttl(&attr), &file, Generation(0));
            }
            Err(failure) => reply.error(errno(&failure)),
        }
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino.0, req.pid(), fh) {
            Ok(attr) => reply.attr(attr_ttl(&attr), &self.file_attr(attr)),
            Err(failure) => reply.error(errno(&failure)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let attr = match self.attr(ino.0, req.pid(), fh) {
            Ok(attr) => attr,
            Err(failure) => return reply.error(errno(&failure)),
        };
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return self.own(ino.0, Change { uid, gid, mode }, reply);
        }
        let writable = attr.kind == FileKind::File && self.tree.is_writable(ino.0);
        let (code, what, why) = if !writable {
            (Code::Permission, "change", "it is read-only")
        } else if size.is_some_and(|n| n != 0) {
            (Code::Invalid, "cut", "only to nothing, as `>` does")
        } else {
            // `>` cuts to nothing before it writes; touch(1) sets times, which are ours to tell
            return reply.attr(attr_ttl(&attr), &self.file_attr(attr));
        };
        let what = format!("{what} {}", self.tree.path(ino.0));
        reply.error(errno(&self.tree.refuse_as(code, ino.0, &what, why)));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.readlink(ino.0) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(failure) => reply.error(errno(&failure)),
        }
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(self.refuse(parent, "make", name));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let Some(what) = self.tree.holds(parent.0) else {
            return reply.error(self.refuse(parent, "make the directory", name));
        };
        let (fs, name, who) = (self.clone(), name.to_string_lossy().into_owned(), who(req));
        self.rt.spawn(async move {
            let made = fs.tree.make_dir(what, &name, who, mode & !umask).await;
            match made.and_then(|ino| fs.tree.attr(ino)) {
                Ok(attr) => {
                    let file = fs.file_attr(attr);
                    reply.entry_with_ttls(attr_ttl(&attr), entry_ttl(&attr), &file, Generation(0));
                }
                Err(failure) => reply.error(errno(&failure)),
            }
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.handles.removers.tries(parent.0, req.pid());
        reply.error(self.refuse(parent, "remove", name));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (Some(what), Some(name)) = (self.tree.holds(parent.0), name.to_str()) else {
            return reply.error(self.refuse(parent, "remove the directory", name));
        };
        let dir = self.tree.lookup(parent.0, name).map(|attr| attr.ino);
        if dir.as_ref().is_ok_and(|dir| self.handles.removers.has_tried(*dir, req.pid())) {
            let why = "this program has tried to remove its files first; only rmdir(1) removes it";
            let what = format!("remove the directory {}/{name}", self.tree.path(parent.0));
            return reply.error(errno(&self.tree.refuse(dir.unwrap_or(parent.0), &what, why)));
        }
        let (tree, name) = (self.tree.clone(), name.to_owned());
        self.rt.spawn(async move {
            match tree.remove_dir(what, &name).await {
                Ok(()) => reply.ok(),
                Err(failure) => reply.error(errno(&failure)),
            }
        });
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(self.refuse(parent, "make the link", name));
    }

    fn link(&self, _: &Request, _: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply.error(self.refuse(parent, "make the link", name));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(self.refuse(parent, "make", name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (Some(name), Some(new_name)) = (name.to_str(), new_name.to_str()) else {
            return reply.error(Errno::ENOENT);
        };
        if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EINVAL);
        }
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && self.tree.lookup(new_parent.0, new_name).is_ok() {
            return reply.error(Errno::EEXIST);
        }
        let (tree, name, new_name) = (self.tree.clone(), name.to_owned(), new_name.to_owned());
        self.rt.spawn(async move {
            match tree.rename(parent.0, &name, new_parent.0, &new_name).await {
                Ok(()) => reply.ok(),
                Err(failure) => reply.error(errno(&failure)),
            }
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mode = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Mode::Read,
            OpenAccMode::O_WRONLY => Mode::Write,
            OpenAccMode::O_RDWR => Mode::Both,
        };
        match self.handles.open(&self.tree, ino.0, (req.pid(), who(req)), mode) {
            Ok((number, handle)) => {
                let how = if handle.is_stream() {
                    FopenFlags::FOPEN_STREAM | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
                } else {
                    FopenFlags::FOPEN_NOFLUSH
                };
                reply.opened(FileHandle(number), how | FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(failure) => reply.error(errno(&failure)),
        }
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(handle) = self.handles.get(fh.0) else { return reply.error(Errno::EBADF) };
        let size = size as usize;
        if let Some(text) = handle.text(offset, size) {
            return reply.data(text);
        }
        if let Body::Log(_) = &handle.body {
            let cluster = self.tree.cluster.clone();
            self.rt.spawn(async move {
                let Body::Log(log) = &handle.body else { return reply.error(Errno::EBADF) };
                match log.read(&cluster, offset, size).await {
                    Ok(bytes) => reply.data(&bytes),
                    Err(failure) => reply.error(errno(&failure)),
                }
            });
            return;
        }
        match handle.read(&self.tree.cluster, offset, size) {
            Now::Bytes(bytes) => reply.data(&bytes),
            Now::Nothing if flags.0 & nix::fcntl::OFlag::O_NONBLOCK.bits() != 0 => {
                handle.begin(&self.tree.cluster, &self.rt);
                reply.error(Errno::EAGAIN);
            }
            Now::Nothing => {
                let (cluster, pid) = (self.tree.cluster.clone(), req.pid());
                self.rt.spawn(async move {
                    match handle.hold(&cluster, pid, offset, size).await {
                        Some(Ok(bytes)) => reply.data(&bytes),
                        Some(Err(failure)) => reply.error(errno(&failure)),
                        None => reply.error(Errno::EINTR),
                    }
                });
            }
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(handle) = self.handles.get(fh.0) else { return reply.error(Errno::EBADF) };
        let (cluster, data) = (self.tree.cluster.clone(), data.to_vec());
        self.rt.spawn(async move {
            let Body::Writer(writer, _) = &handle.body else { return reply.error(Errno::EBADF) };
            match writer.write(&cluster, &data).await {
                Ok(()) => reply.written(data.len() as u32),
                Err(failure) => reply.error(errno(&failure)),
            }
        });
    }

    fn flush(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _lock: LockOwner, reply: ReplyEmpty) {
        let Some(handle) = self.handles.get(fh.0) else { return reply.error(Errno::EBADF) };
        if !self.handles.closes(&handle, req.pid()) {
            return reply.ok();
        }
        let cluster = self.tree.cluster.clone();
        self.rt.spawn(async move {
            match close(&handle, &cluster).await {
                Ok(()) => reply.ok(),
                Err(failure) => reply.error(errno(&failure)),
            }
        });
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(handle) = self.handles.close(fh.0)
            && handle.is_stream()
        {
            let cluster = self.tree.cluster.clone();
            // nobody hears this answer; a refusal stands in `error`
            self.rt.spawn(async move { drop(close(&handle, &cluster).await) });
        }
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.handles.open_dir(&self.tree, ino.0, req.pid()) {
            Ok(number) => reply.opened(FileHandle(number), FopenFlags::empty()),
            Err(failure) => reply.error(errno(&failure)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(handle) = self.handles.get(fh.0) else { return reply.error(Errno::EBADF) };
        let Body::Dir(entries) = &handle.body else { return reply.error(Errno::ENOTDIR) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let dots = [(ino.0, "."), (self.tree.parent(ino.0), "..")];
        let dots = dots.iter().skip(from).map(|(ino, name)| (*ino, FileType::Directory, *name));
        let rest = entries.get(from.saturating_sub(2)..).unwrap_or_default();
        let names = rest.iter().map(|e| {
            let kind = match e.kind {
                FileKind::Dir => FileType::Directory,
                FileKind::File => FileType::RegularFile,
                FileKind::Link => FileType::Symlink,
            };
            (e.ino, kind, e.name.as_str())
        });
        for (i, (ino, kind, name)) in dots.chain(names).enumerate() {
            if reply.add(INodeNo(ino), offset + i as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.handles.close(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    // ENOSYS: the kernel asks no more, and answers EOPNOTSUPP by itself
    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        notifier: PollNotifier,
        _events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let Some(handle) = self.handles.get(fh.0) else { return reply.error(Errno::EBADF) };
        let waker = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then(|| {
            // an error means that the file is closed
            Box::new(move || drop(notifier.notify())) as crate::handle::Waker
        });
        let readable = handle.poll(&self.tree.cluster, &self.rt, waker);
        let mut ready = PollEvents::empty();
        if readable {
            ready |= PollEvents::POLLIN | PollEvents::POLLRDNORM;
        }
        if handle.is_stream() {
            ready |= PollEvents::POLLOUT | PollEvents::POLLWRNORM;
        }
        reply.poll(ready);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }

    // ENOSYS: the kernel does it by itself, without holes
    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

async fn close(handle: &Handle, cluster: &crate::cluster::Cluster) -> Result<(), Failure> {
    match &handle.body {
        Body::Writer(writer, _) => writer.close(cluster).await,
        _ => Ok(()),
    }
}
