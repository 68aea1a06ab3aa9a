//! The tree without FUSE: names to inodes, inodes to rows, rows to attributes and texts. One table feeds lookup, listing and
//! attributes, so they cannot disagree.

mod entry;
pub mod make;

pub use entry::{Attr, Entry, FileKind, Label};

use crate::cluster::Cluster;
use crate::inode::{Inode, ROOT, TableId};
use crate::rights;
use crate::row::{Kind, Place, Row, Subject};
use std::sync::Arc;
use xvm_model::config::Rights;
use xvm_model::{Code, ConfigName, DomainName, Failure, Server, Thing, View, Wall};

/// The mode of `configs` when nobody says otherwise: who mounts makes and removes configs.
pub const CONFIGS_MODE: u16 = 0o755;

/// What an inode number names.
#[derive(Clone)]
pub enum Node {
    /// The directory of a thing.
    Dir(Place),
    /// A row in it: a file, or a directory of things.
    Row(Place, &'static Row),
    /// A link to a domain.
    Link(DomainName),
}

/// What an open file does.
#[derive(Clone)]
pub enum Opened {
    /// This text, until it is closed.
    Text(String),
    /// This text when read; what is written sets it.
    Setting(Place, &'static Row, String),
    /// This text when read; what is written are commands.
    Ctl(Place, String),
    /// The log of a config.
    Log(ConfigName),
    /// The processes of a domain's guest.
    Top(DomainName),
    /// Events of a place.
    Events(Place),
    /// Blocks while a job runs at a place.
    Wait(Place),
}

/// The tree over a cluster.
#[derive(Clone)]
pub struct Tree {
    /// What it shows.
    pub cluster: Arc<Cluster>,
    /// When it was mounted: the time of directories that are not a thing.
    born: Wall,
    /// Who may make and remove configs: the mode of the directory `configs`.
    pub configs_mode: u16,
}

impl Tree {
    /// The tree of `cluster`.
    pub fn new(cluster: Arc<Cluster>) -> Self {
        let born = cluster.now().wall;
        Tree { cluster, born, configs_mode: CONFIGS_MODE }
    }

    /// What an inode number names now.
    pub fn node(&self, ino: u64) -> Result<Node, Failure> {
        let stale = || Failure::no_entry(format!("inode {ino} names nothing any more"));
        let inode = Inode::parse(ino).ok_or_else(stale)?;
        let place = match inode.table {
            TableId::Cluster => Place::Cluster,
            TableId::Test => Place::Test(self.cluster.schedules().numbered(inode.thing).ok_or_else(stale)?),
            TableId::Server
            | TableId::Domain
            | TableId::Link
            | TableId::Guest
            | TableId::Round
            | TableId::Config => {
                let view = self.cluster.view();
                match (view.thing(inode.thing), inode.table) {
                    (Some(Thing::Server(n)), TableId::Server) => Place::Server(n.clone()),
                    (Some(Thing::Domain(n)), TableId::Domain) => Place::Domain(n.clone()),
                    (Some(Thing::Domain(n)), TableId::Guest) if self.has_guest(&view, n) => {
                        Place::Guest(n.clone())
                    }
                    (Some(Thing::Round(id)), TableId::Round) => Place::Round(id.clone()),
                    (Some(Thing::Config(n)), TableId::Config) => Place::Config(n.clone()),
                    (Some(Thing::Domain(n)), TableId::Link) => return Ok(Node::Link(n.clone())),
                    _ => return Err(stale()),
                }
            }
        };
        match inode.row {
            None => Ok(Node::Dir(place)),
            Some(i) => {
                let row = place.table().get(usize::from(i)).ok_or_else(stale)?;
                // the directory of a guest has a table and so a number of its own
                if let Kind::Guest = row.kind { Err(stale()) } else { Ok(Node::Row(place, row)) }
            }
        }
    }

    /// A name in a directory.
    pub fn lookup(&self, parent: u64, name: &str) -> Result<Attr, Failure> {
        let ino = match self.node(parent)? {
            Node::Dir(place) => {
                let i = place
                    .table()
                    .iter()
                    .position(|r| r.name == name && self.is_there(&place, r))
                    .ok_or_else(|| absent(&place.path(), name))?;
                row_inode(&place, i).number()
            }
            Node::Row(_, Row { kind: Kind::Servers, .. }) => {
                let view = self.cluster.view();
                let server = view.server(name).ok_or_else(|| absent("servers", name))?;
                Inode::server(&server.name, None).number()
            }
            Node::Row(_, Row { kind: Kind::Domains, .. }) => {
                let (view, now) = (self.cluster.view(), self.cluster.now().mono);
                let domain = view.domain(name, now).ok_or_else(|| absent("domains", name))?;
                Inode::domain(&domain.domain.name, None).number()
            }
            Node::Row(_, Row { kind: Kind::Help, .. }) => {
                let view = self.cluster.view();
                let round = view.round(name).ok_or_else(|| absent("help", name))?;
                Inode::round(&round.id, None).number()
            }
            Node::Row(_, Row { kind: Kind::Configs, .. }) => {
                let view = self.cluster.view();
                let config = view.config(name).ok_or_else(|| absent("configs", name))?;
                Inode::config(&config.record.name, None).number()
            }
            Node::Row(_, Row { kind: Kind::Tests, .. }) => {
                let test = self.cluster.schedules().get(name).ok_or_else(|| absent("tests", name))?;
                Inode::test(&test.name, None).number()
            }
            Node::Row(Place::Server(server), Row { kind: Kind::Links, .. }) => {
                let (view, now) = (self.cluster.view(), self.cluster.now().mono);
                let dir = format!("servers/{server}/domains");
                let server =
                    view.server(server.as_str()).ok_or_else(|| absent("servers", server.as_str()))?;
                let domain = DomainName::parse(name).map_err(|_| absent(&dir, name))?;
                if !view.has(server, &domain, now) {
                    return Err(absent(&dir, name));
                }
                Inode::link(&domain).number()
            }
            _ => return Err(absent("", name)),
        };
        self.attr(ino)
    }

    /// What stat(2) tells.
    pub fn attr(&self, ino: u64) -> Result<Attr, Failure> {
        let dir = |mode, mtime, owner| Attr { ino, kind: FileKind::Dir, mode, size: 0, mtime, owner };
        Ok(match self.node(ino)? {
            Node::Dir(place) => match self.rights(&place) {
                Some(r) => dir(r.mode & 0o777, self.heard(&place), Some(r.into())),
                None => dir(0o755, self.heard(&place), None),
            },
            Node::Link(name) => {
                let size = link_target(&name).len() as u64;
                let mtime = self.heard(&Place::Domain(name));
                Attr { ino, kind: FileKind::Link, mode: 0o777, size, mtime, owner: None }
            }
            Node::Row(place, row) if row.kind.is_dir() => {
                let mode = if let Kind::Configs = row.kind { self.configs_mode } else { row.mode };
                dir(mode, self.heard(&place), None)
            }
            Node::Row(place, row) => {
                let size = match &row.kind {
                    Kind::Events => crate::stream::HEAD_LEN as u64,
                    Kind::Top => 0,
                    Kind::Wait => self.cluster.idle_text(&place).map_or(0, |t| t.len() as u64),
                    Kind::Log => self.log_size(&place),
                    _ => self.text(&place, row)?.len() as u64,
                };
                let (mode, owner) = match self.rights(&place) {
                    Some(r) => (rights::file_mode(r, row), Some(r.into())),
                    None => (row.mode, None),
                };
                Attr { ino, kind: FileKind::File, mode, size, mtime: self.heard(&place), owner }
            }
        })
    }

    /// When the thing that an inode belongs to was last heard of.
    pub fn mtime(&self, ino: u64) -> Wall {
        match self.node(ino) {
            Ok(Node::Dir(place) | Node::Row(place, ..)) => self.heard(&place),
            Ok(Node::Link(name)) => self.heard(&Place::Domain(name)),
            Err(_) => self.born,
        }
    }

    /// The path of a file or directory below the mount, for sentences.
    pub fn path(&self, ino: u64) -> String {
        match self.node(ino) {
            Ok(Node::Row(place, row)) => {
                format!("{}/{}", place.path(), row.name).trim_start_matches('/').to_owned()
            }
            Ok(Node::Dir(Place::Cluster)) => "the root of the tree".into(),
            Ok(Node::Dir(place)) => place.path(),
            Ok(Node::Link(name)) => format!("the link to {name}"),
            Err(_) => "what is gone".into(),
        }
    }

    /// Whether an inode is a file that takes writes, whatever its mode.
    pub fn is_writable(&self, ino: u64) -> bool {
        matches!(self.node(ino), Ok(Node::Row(_, row)) if row.kind.is_writable())
    }

    /// When it was mounted.
    pub fn born(&self) -> Wall {
        self.born
    }

    /// The names in a directory, without `.` and `..`.
    pub fn list(&self, ino: u64) -> Result<Vec<Entry>, Failure> {
        let entry = |inode: Inode, kind, name| Entry { ino: inode.number(), kind, name };
        let (view, now) = (self.cluster.view(), self.cluster.now().mono);
        Ok(match self.node(ino)? {
            Node::Dir(place) => place
                .table()
                .iter()
                .enumerate()
                .filter(|(_, row)| self.is_there(&place, row))
                .map(|(i, row)| {
                    let kind = if row.kind.is_dir() { FileKind::Dir } else { FileKind::File };
                    entry(row_inode(&place, i), kind, Label::Row(row.name))
                })
                .collect(),
            Node::Row(_, Row { kind: Kind::Servers, .. }) => view
                .servers()
                .map(|s| entry(Inode::server(&s.name, None), FileKind::Dir, Label::Server(s.name.clone())))
                .collect(),
            Node::Row(_, Row { kind: Kind::Domains, .. }) => view
                .domain_names()
                .map(|n| entry(Inode::domain(n, None), FileKind::Dir, Label::Domain(n.clone())))
                .collect(),
            Node::Row(_, Row { kind: Kind::Help, .. }) => view
                .rounds()
                .map(|r| entry(Inode::round(&r.id, None), FileKind::Dir, Label::Round(r.id.clone())))
                .collect(),
            Node::Row(_, Row { kind: Kind::Configs, .. }) => view
                .configs()
                .map(|c| &c.record.name)
                .map(|n| entry(Inode::config(n, None), FileKind::Dir, Label::Config(n.clone())))
                .collect(),
            Node::Row(_, Row { kind: Kind::Tests, .. }) => {
                let names = self.cluster.schedules().names().into_iter();
                names.map(|n| entry(Inode::test(&n, None), FileKind::Dir, Label::Test(n))).collect()
            }
            Node::Row(Place::Server(name), Row { kind: Kind::Links, .. }) => {
                let server: &Arc<Server> =
                    view.server(name.as_str()).ok_or_else(|| absent("servers", name.as_str()))?;
                view.domains_of(server, now)
                    .map(|n| entry(Inode::link(n), FileKind::Link, Label::Domain(n.clone())))
                    .collect()
            }
            _ => return Err(Failure::invalid("not a directory")),
        })
    }

    /// The directory above a directory.
    pub fn parent(&self, ino: u64) -> u64 {
        let row_of = |wanted: fn(&Kind) -> bool| {
            let table = Place::Cluster.table();
            table
                .iter()
                .position(|r| wanted(&r.kind))
                .map_or(ROOT, |i| row_inode(&Place::Cluster, i).number())
        };
        match self.node(ino) {
            Ok(Node::Dir(Place::Server(_))) => row_of(|k| matches!(k, Kind::Servers)),
            Ok(Node::Dir(Place::Domain(_))) => row_of(|k| matches!(k, Kind::Domains)),
            Ok(Node::Dir(Place::Guest(name))) => Inode::domain(&name, None).number(),
            Ok(Node::Dir(Place::Round(_))) => row_of(|k| matches!(k, Kind::Help)),
            Ok(Node::Dir(Place::Config(_))) => row_of(|k| matches!(k, Kind::Configs)),
            Ok(Node::Dir(Place::Test(_))) => row_of(|k| matches!(k, Kind::Tests)),
            Ok(Node::Row(Place::Server(name), ..)) => Inode::server(&name, None).number(),
            _ => ROOT,
        }
    }

    /// Where a link points.
    pub fn readlink(&self, ino: u64) -> Result<String, Failure> {
        match self.node(ino)? {
            Node::Link(name) => Ok(link_target(&name)),
            _ => Err(Failure::invalid("not a link")),
        }
    }

    /// Opens a file: its text is that of this moment.
    pub fn open(&self, ino: u64) -> Result<Opened, Failure> {
        let Node::Row(place, row) = self.node(ino)? else { return Err(Failure::invalid("not a file")) };
        Ok(match &row.kind {
            Kind::Events => Opened::Events(place),
            Kind::Wait => Opened::Wait(place),
            Kind::Ctl => Opened::Ctl(place.clone(), self.text(&place, row)?),
            Kind::Log => match place {
                Place::Config(name) => Opened::Log(name),
                _ => Opened::Text(String::new()),
            },
            Kind::Top => match place {
                Place::Guest(name) => Opened::Top(name),
                _ => Opened::Text(String::new()),
            },
            Kind::Setting(..) | Kind::Lines(..) | Kind::Schedule(_) | Kind::Key(_) => {
                Opened::Setting(place.clone(), row, self.text(&place, row)?)
            }
            _ => Opened::Text(self.text(&place, row)?),
        })
    }

    /// A refusal (EPERM) of something that no file system like this can do, kept in the `error` file of the directory `ino` or of
    /// the one that it is in.
    pub fn refuse(&self, ino: u64, what: &str, why: &str) -> Failure {
        self.refuse_as(Code::Permission, ino, what, why)
    }

    /// The same with another errno.
    pub fn refuse_as(&self, code: Code, ino: u64, what: &str, why: &str) -> Failure {
        let place = match self.node(ino) {
            // a round has no file `error`
            Ok(Node::Dir(Place::Round(_)) | Node::Row(Place::Round(_), _)) | Err(_) => Place::Cluster,
            Ok(Node::Dir(place) | Node::Row(place, ..)) => place,
            Ok(Node::Link(name)) => Place::Domain(name),
        };
        self.cluster.refuse(&place, Failure::new(code, format!("cannot {what}: {why}")))
    }

    fn text(&self, place: &Place, row: &Row) -> Result<String, Failure> {
        if let Kind::Error = row.kind {
            return Ok(self.cluster.refusals().text(place));
        }
        let scene = self.cluster.scene(place).ok_or_else(|| absent("", &place.path()))?;
        Ok(match &row.kind {
            Kind::Text(render)
            | Kind::Setting(render, _)
            | Kind::Lines(render, _)
            | Kind::Schedule(render) => render(&scene),
            Kind::Key(setting) => {
                scene.config().map(|c| (setting.show)(&c.record.config) + "\n").unwrap_or_default()
            }
            Kind::Ctl => match place {
                Place::Cluster => crate::tables::cluster::help(&scene),
                Place::Server(_) => crate::tables::server::help(&scene),
                Place::Domain(_) => crate::tables::domain::help(&scene),
                Place::Guest(_) => crate::tables::guest::help(&scene),
                Place::Config(_) => crate::tables::config::help(&scene),
                Place::Test(_) => crate::tables::test::help(&scene),
                Place::Round(_) => String::new(),
            },
            _ => String::new(),
        })
    }

    /// Whether a row is shown now: a guest is while it is heard, all others always.
    fn is_there(&self, place: &Place, row: &Row) -> bool {
        match (place, &row.kind) {
            (Place::Domain(name), Kind::Guest) => self.has_guest(&self.cluster.view(), name),
            _ => true,
        }
    }

    fn has_guest(&self, view: &View, name: &DomainName) -> bool {
        view.guest(name.as_str(), self.cluster.now().mono).is_some()
    }

    /// Whose the directory of a place is, when a config says so.
    fn rights(&self, place: &Place) -> Option<Rights> {
        rights::of(&self.cluster.view(), place, self.cluster.now().mono)
    }

    /// Bytes of a config's log, as imaged said last.
    fn log_size(&self, place: &Place) -> u64 {
        self.cluster.scene(place).and_then(|s| s.config().map(|c| c.record.log)).unwrap_or(0)
    }

    fn heard(&self, place: &Place) -> Wall {
        match self.cluster.scene(place).map(|s| s.thing) {
            Some(Subject::Server(s)) => s.heard.wall,
            Some(Subject::Domain(d)) => d.heard.wall,
            Some(Subject::Guest(_, g)) => g.heard.wall,
            Some(Subject::Round(r)) => View::round_changed(&r),
            Some(Subject::Test(e)) => e.changed,
            Some(Subject::Config(_)) => self.cluster.view().images().map_or(self.born, |i| i.heard.wall),
            Some(Subject::Cluster) | None => self.born,
        }
    }
}

fn row_inode(place: &Place, row: usize) -> Inode {
    if let (Place::Domain(name), Kind::Guest) = (place, &place.table()[row].kind) {
        return Inode::guest(name, None);
    }
    let row = Some(row as u8);
    match place {
        Place::Cluster => Inode { table: TableId::Cluster, row, thing: 0 },
        Place::Server(name) => Inode::server(name, row),
        Place::Domain(name) => Inode::domain(name, row),
        Place::Guest(name) => Inode::guest(name, row),
        Place::Round(id) => Inode::round(id, row),
        Place::Config(name) => Inode::config(name, row),
        Place::Test(name) => Inode::test(name, row),
    }
}

fn link_target(name: &DomainName) -> String {
    format!("../../../domains/{name}")
}

fn absent(directory: &str, name: &str) -> Failure {
    let slash = if directory.is_empty() { "" } else { "/" };
    Failure::no_entry(format!("there is no {directory}{slash}{name}"))
}
