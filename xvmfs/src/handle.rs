//! Open files without FUSE: what a read, a write and a close of each kind does.
//!
//! | opened | read | write |
//! |---|---|---|
//! | text, or anything that is only read | the text of the open, by offset | |
//! | `ctl`, setting, to be written | [`writer`]: answers | lines, run one by one |
//! | `events` | [`crate::stream`]: lines, held until there are some | |
//! | `keys` of a config, to be written | [`writer`]: answers | [`value`]: one value of several lines |
//! | `log` of a config | [`log`]: asked of imaged, by offset | |
//! | `wait`, `result` of a guest | [`wait`]: held until no job or test runs | |
//! | `top` of a guest | [`top`]: asked of it; the first read is held until it has come | |
//! | directory | its names at the open | |

mod bell;
mod lines;
pub mod log;
pub mod process;
pub mod removers;
pub mod top;
pub mod value;
pub mod wait;
mod walks;
pub mod writer;

pub use bell::{Bell, Waker};

use crate::cluster::Cluster;
use crate::inode::Inode;
use crate::rights::Who;
use crate::stream::Stream;
use crate::tree::{Entry, Opened, Tree};
use log::Log;
use removers::Removers;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use top::Top;
use wait::Wait;
use walks::Walks;
use writer::Writer;
use xvm_model::{Failure, Wall};

/// How often a held read looks for signals of its reader.
const LOOK: Duration = Duration::from_millis(250);
/// How long a read is held whose reader cannot be seen.
const BLIND: Duration = Duration::from_secs(1);

/// One open file or directory.
#[derive(Debug)]
pub struct Handle {
    /// Which inode it is.
    pub ino: u64,
    /// The thread that opened it.
    pub pid: u32,
    /// The file's time when it was opened: a copy is not told that the file changed meanwhile.
    pub mtime: Wall,
    /// Whether reads end where others wait: see `walks`.
    pub walker: bool,
    /// What it does.
    pub body: Body,
}

/// What an open file does.
#[derive(Debug)]
pub enum Body {
    /// The names at the time of the open.
    Dir(Vec<Entry>),
    /// This text.
    Text(String),
    /// Lines in, answers out; the number is the length of the text at the open.
    Writer(Box<Writer>, u64),
    /// Events.
    Events(Arc<Stream>),
    /// The end of jobs.
    Wait(Arc<Wait>),
    /// The processes of a guest.
    Top(Arc<Top>),
    /// A log: read by [`Log::read`], which waits for imaged.
    Log(Box<Log>),
}

/// What a read gives at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Now {
    /// These bytes; none at the end.
    Bytes(Vec<u8>),
    /// Nothing yet: see [`Handle::hold`].
    Nothing,
}

impl Handle {
    /// Whether the kernel must keep no file position: reads and writes are two streams.
    pub fn is_stream(&self) -> bool {
        matches!(self.body, Body::Writer(..))
    }

    /// What a read gives at once. Texts are better read by [`Handle::text`], without a copy.
    pub fn read(&self, cluster: &Cluster, offset: u64, size: usize) -> Now {
        let nothing = if self.walker { Now::Bytes(Vec::new()) } else { Now::Nothing };
        match &self.body {
            Body::Dir(_) | Body::Log(_) => Now::Bytes(Vec::new()),
            Body::Text(text) => Now::Bytes(slice(text, offset, size).to_vec()),
            Body::Writer(writer, _) => Now::Bytes(writer.read(size)),
            Body::Events(stream) => stream.read(offset, size).map_or(nothing, Now::Bytes),
            Body::Wait(wait) => match wait.text(cluster) {
                Some(text) => Now::Bytes(slice(text, offset, size).to_vec()),
                None => nothing,
            },
            Body::Top(top) => top.read(offset, size).map_or(nothing, Now::Bytes),
        }
    }

    /// The part of a text at `offset`, when this is a text.
    pub fn text(&self, offset: u64, size: usize) -> Option<&[u8]> {
        match &self.body {
            Body::Text(text) => Some(slice(text, offset, size)),
            _ => None,
        }
    }

    /// Waits for what a read gives. `None` when a signal waits for the reader, who must then be let go (EINTR); also after a second
    /// when the reader cannot be seen.
    pub async fn hold(
        &self,
        cluster: &Arc<Cluster>,
        pid: u32,
        offset: u64,
        size: usize,
    ) -> Option<Result<Vec<u8>, Failure>> {
        let bytes = async {
            Ok(match &self.body {
                Body::Events(stream) => stream.bell.until(|| stream.read(offset, size)).await,
                Body::Wait(wait) => {
                    wait.hold(cluster).await;
                    match self.read(cluster, offset, size) {
                        Now::Bytes(bytes) => bytes,
                        Now::Nothing => Vec::new(),
                    }
                }
                Body::Top(top) => top.hold(cluster, offset, size).await?,
                _ => Vec::new(),
            })
        };
        tokio::select! {
            bytes = bytes => Some(bytes),
            () = signal(pid) => None,
        }
    }

    /// Begins what a held read would wait for, on behalf of one that must not wait.
    pub fn begin(&self, cluster: &Arc<Cluster>, rt: &tokio::runtime::Handle) {
        if let Body::Top(top) = &self.body {
            top.begin(cluster, rt);
        }
    }

    /// Whether a read would not block. With a waker it is called once when that becomes true.
    pub fn poll(&self, cluster: &Arc<Cluster>, rt: &tokio::runtime::Handle, waker: Option<Waker>) -> bool {
        match &self.body {
            Body::Events(stream) => {
                if let Some(waker) = waker {
                    stream.bell.arm(waker);
                }
                stream.is_readable()
            }
            Body::Wait(wait) => {
                if let Some(waker) = waker {
                    wait.bell.arm(waker);
                    if wait.text(cluster).is_none() && wait.claim_watch() {
                        rt.spawn(Wait::watch(wait.clone(), cluster.clone()));
                    }
                }
                wait.text(cluster).is_some()
            }
            Body::Top(top) => {
                if let Some(waker) = waker {
                    top.bell.arm(waker);
                    Top::watch(top, cluster, rt);
                }
                top.is_readable()
            }
            _ => true,
        }
    }

    /// The file's size as who has opened it sees it; none when that is the size which the tree tells.
    fn size(&self) -> Option<u64> {
        Some(match &self.body {
            Body::Dir(_) => 0,
            Body::Text(text) => text.len() as u64,
            Body::Writer(_, size) => *size,
            Body::Events(stream) => stream.size(),
            Body::Wait(wait) => wait.size(),
            Body::Top(top) => top.size(),
            Body::Log(_) => return None,
        })
    }

    /// The file's time as who has opened it sees it.
    fn time(&self) -> Wall {
        match &self.body {
            Body::Top(top) => top.heard().unwrap_or(self.mtime),
            _ => self.mtime,
        }
    }
}

fn slice(text: &str, offset: u64, size: usize) -> &[u8] {
    let text = text.as_bytes();
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[from..text.len().min(from.saturating_add(size))]
}

async fn signal(pid: u32) {
    if process::signalled(pid).is_none() {
        return tokio::time::sleep(BLIND).await;
    }
    while process::signalled(pid) == Some(false) {
        tokio::time::sleep(LOOK).await;
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reading alone.
    Read,
    /// Writing alone.
    Write,
    /// A dialogue: lines in, answers out.
    Both,
}

/// All open files of a mount.
#[derive(Debug, Default)]
pub struct Handles {
    last: AtomicU64,
    /// Held for a look-up, never across an await.
    open: RwLock<Open>,
    /// Who copies or searches whole directories.
    walks: Walks,
    /// Who removes whole directories file by file.
    pub removers: Removers,
}

#[derive(Debug, Default)]
struct Open {
    by_number: HashMap<u64, Arc<Handle>>,
    /// The files of an inode, oldest first: getattr looks here, and only few files are open at once.
    by_inode: HashMap<u64, Vec<Arc<Handle>>>,
}

impl Handles {
    /// Opens a file on behalf of the thread `pid` of `who`. What cannot be written is refused here too: root passes the kernel's
    /// check of modes.
    pub fn open(
        &self,
        tree: &Tree,
        ino: u64,
        (pid, who): (u32, Who),
        mode: Mode,
    ) -> Result<(u64, Arc<Handle>), Failure> {
        let (write, dialogue) = (mode != Mode::Read, mode == Mode::Both);
        let cluster = &tree.cluster;
        let dir = Inode::parse(ino).map_or(ino, |i| Inode { row: None, ..i }.number());
        let mut walker = false;
        let body = match (tree.open(ino)?, write) {
            (Opened::Setting(place, row, text), true) => {
                let size = text.len() as u64;
                Body::Writer(Box::new(Writer::new(place, Some(row), text, dialogue, who)), size)
            }
            (Opened::Ctl(place, text), true) => {
                let size = text.len() as u64;
                Body::Writer(Box::new(Writer::new(place, None, text, dialogue, who)), size)
            }
            (_, true) => {
                let what = format!("open {} for writing", tree.path(ino));
                return Err(tree.refuse(ino, &what, "it is read-only"));
            }
            (Opened::Text(text) | Opened::Setting(_, _, text) | Opened::Ctl(_, text), false) => {
                Body::Text(text)
            }
            (Opened::Log(name), false) => Body::Log(Box::new(Log::new(name))),
            (Opened::Events(place), false) => {
                walker = self.walks.is_walker(dir, pid);
                Body::Events(cluster.streams().open(place.about(), cluster.now().wall))
            }
            (Opened::Wait(place), false) => {
                walker = self.walks.is_walker(dir, pid);
                Body::Wait(Arc::new(Wait::new(place)))
            }
            (Opened::Top(name), false) => {
                walker = self.walks.is_walker(dir, pid);
                Body::Top(Arc::new(Top::new(name)))
            }
        };
        self.walks.opened(dir, pid);
        Ok(self.add(Handle { ino, pid, mtime: tree.mtime(ino), walker, body }))
    }

    /// Opens a directory: what it lists stays the same until it is closed.
    pub fn open_dir(&self, tree: &Tree, ino: u64, pid: u32) -> Result<u64, Failure> {
        let body = Body::Dir(tree.list(ino)?);
        self.walks.listed(ino, pid);
        Ok(self.add(Handle { ino, pid, mtime: tree.mtime(ino), walker: false, body }).0)
    }

    fn add(&self, handle: Handle) -> (u64, Arc<Handle>) {
        let (number, handle) = (self.last.fetch_add(1, Ordering::Relaxed) + 1, Arc::new(handle));
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(handle.body, Body::Dir(_)) {
            open.by_inode.entry(handle.ino).or_default().push(handle.clone());
        }
        open.by_number.insert(number, handle.clone());
        (number, handle)
    }

    /// An open file.
    pub fn get(&self, number: u64) -> Option<Arc<Handle>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).by_number.get(&number).cloned()
    }

    /// Forgets a closed file.
    pub fn close(&self, number: u64) -> Option<Arc<Handle>> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let handle = open.by_number.remove(&number)?;
        if let Some(same) = open.by_inode.get_mut(&handle.ino) {
            same.retain(|h| !Arc::ptr_eq(h, &handle));
            if same.is_empty() {
                open.by_inode.remove(&handle.ino);
            }
        }
        Some(handle)
    }

    /// Whether a close by `pid` must run a last line. A descriptor may have been copied and each copy is closed (bash does so at
    /// each `>&3`): the last close of the process that opened the file counts. Other processes' copies do not; if theirs is the
    /// last, the line runs unheard.
    pub fn closes(&self, handle: &Handle, pid: u32) -> bool {
        let Body::Writer(writer, _) = &handle.body else { return false };
        if !writer.is_open_line() || !process::same(pid, handle.pid) {
            return false;
        }
        let others = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            let same = open.by_inode.get(&handle.ino).map_or(&[][..], Vec::as_slice);
            same.iter().filter(|h| h.pid == handle.pid).count().saturating_sub(1)
        };
        process::descriptors(pid, &writer.path()) <= others
    }

    /// How many files are open.
    pub fn count(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).by_number.len()
    }

    /// The size and time of an inode for `pid`, when it has the file open: that of its own, latest open. So fstat(2) after open(2)
    /// tells the length of what read(2) gives. Without a size of its own it has that of the tree.
    pub fn size_for(&self, ino: u64, pid: u32) -> Option<(Option<u64>, Wall)> {
        let same: Vec<Arc<Handle>> = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            open.by_inode.get(&ino)?.clone()
        };
        let mine = same.iter().rev().find(|h| h.pid == pid);
        let mine = mine.or_else(|| same.iter().rev().find(|h| process::same(h.pid, pid)));
        mine.map(|h| (h.size(), h.time()))
    }

    /// The size and time of an open file.
    pub fn size_of(&self, number: u64) -> Option<(Option<u64>, Wall)> {
        self.get(number).map(|h| (h.size(), h.time()))
    }
}
