//! What is told of an inode and of a name in a directory.

use crate::rights::Who;
use xvm_model::round::RoundId;
use xvm_model::{ConfigName, DomainName, ServerName, TestName, Wall};

/// What kind of file an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
}

/// What stat(2) tells of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The inode number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    /// Its permission bits.
    pub mode: u16,
    /// Its true length in bytes now.
    pub size: u64,
    /// When the thing was last heard of.
    pub mtime: Wall,
    /// Whose it is; none: of who mounted it.
    pub owner: Option<Who>,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The inode number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    /// The name.
    pub name: Label,
}

/// A name that somebody else owns: a listing of 100,000 domains copies none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// A row's.
    Row(&'static str),
    /// A server's.
    Server(ServerName),
    /// A domain's.
    Domain(DomainName),
    /// A round's.
    Round(RoundId),
    /// A config's.
    Config(ConfigName),
    /// A schedule's.
    Test(TestName),
}

impl Label {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        match self {
            Label::Row(name) => name,
            Label::Server(name) => name.as_str(),
            Label::Domain(name) => name.as_str(),
            Label::Round(id) => id,
            Label::Config(name) => name.as_str(),
            Label::Test(name) => name.as_str(),
        }
    }
}
