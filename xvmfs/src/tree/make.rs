//! What changes the tree itself: `mkdir` and `rmdir` in `configs` and `tests`, `chown` and `chmod` on a config or its domain, `mv` of a domain.

use super::{Node, Tree};
use crate::inode::Inode;
use crate::rights::Who;
use crate::row::{Kind, Place, Row};
use std::time::Duration;
use xvm_model::{Code, ConfigCommand, ConfigName, Failure};

/// How long a config may take from imaged's answer until it is shown or gone: answers bring the news along, so this is for one that did
/// not.
const SHOWN: Duration = Duration::from_secs(1);

/// What `mkdir` makes and `rmdir` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// A config.
    Config,
    /// A schedule of tests.
    Test,
}

/// What `chown` and `chmod` change; none stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The mode, with or without the bits of the file's type.
    pub mode: Option<u32>,
}

impl Tree {
    /// What is made and removed in a directory; none where nothing is.
    pub fn holds(&self, ino: u64) -> Option<Made> {
        match self.node(ino) {
            Ok(Node::Row(_, Row { kind: Kind::Configs, .. })) => Some(Made::Config),
            Ok(Node::Row(_, Row { kind: Kind::Tests, .. })) => Some(Made::Test),
            _ => None,
        }
    }

    /// `mkdir tests/NAME` and `mkdir configs/NAME`: returns the new directory's inode, once it can be looked up.
    pub async fn make_dir(&self, what: Made, name: &str, who: Who, mode: u32) -> Result<u64, Failure> {
        match what {
            Made::Config => self.make_config(name, who, mode).await,
            Made::Test => {
                let made = self.cluster.schedules().make(name, self.cluster.now().wall);
                let made = made.map(|name| Inode::test(&name, None).number());
                made.map_err(|failure| self.cluster.refuse(&Place::Cluster, failure))
            }
        }
    }

    async fn make_config(&self, name: &str, who: Who, mode: u32) -> Result<u64, Failure> {
        let made = async {
            let name = ConfigName::parse(name)
                .map_err(|e| Failure::invalid(format!("cannot make configs/{name}: {e}")))?;
            if self.cluster.view().config(name.as_str()).is_some() {
                let why = format!("cannot make configs/{name}: there is one already");
                return Err(Failure::new(Code::Exists, why));
            }
            let rights = who.owns((mode & 0o777) as u16);
            let command = ConfigCommand::Create { settings: Box::default(), rights };
            self.cluster.order_config(&name, command).await?;
            let mut changes = self.cluster.changes();
            let shown = changes.wait_for(|_| self.cluster.view().config(name.as_str()).is_some());
            match tokio::time::timeout(SHOWN, shown).await {
                Ok(Ok(_)) => Ok(Inode::config(&name, None).number()),
                Ok(Err(_)) | Err(_) => {
                    let why = format!("cannot show configs/{name}: imaged takes it and does not tell of it");
                    Err(Failure::new(Code::TimedOut, why))
                }
            }
        };
        made.await.map_err(|failure| self.cluster.refuse(&Place::Cluster, failure))
    }

    /// `rmdir tests/NAME` and `rmdir configs/NAME`. A refusal stands in the directory's `error`, and at the root.
    pub async fn remove_dir(&self, what: Made, name: &str) -> Result<(), Failure> {
        match what {
            Made::Config => self.remove_config(name).await,
            Made::Test => {
                let known = self.cluster.schedules().get(name).map(|e| e.name);
                self.cluster.schedules().remove(name).map_err(|failure| {
                    let place = known.map_or(Place::Cluster, Place::Test);
                    self.cluster.refuse(&Place::Cluster, self.cluster.refuse(&place, failure))
                })
            }
        }
    }

    async fn remove_config(&self, name: &str) -> Result<(), Failure> {
        let removed = async {
            let known = self.cluster.view().config(name).map(|c| c.record.name.clone());
            let name = known.ok_or_else(|| super::absent("configs", name))?;
            let result = self.cluster.order_config(&name, ConfigCommand::Remove).await;
            result.map_err(|failure| self.cluster.refuse(&Place::Config(name.clone()), failure))?;
            let mut changes = self.cluster.changes();
            let gone = changes.wait_for(|_| self.cluster.view().config(name.as_str()).is_none());
            // it is removed; when imaged did not tell so with its answer, the tree will show it a little later
            drop(tokio::time::timeout(SHOWN, gone).await);
            Ok(())
        };
        removed.await.map_err(|failure| self.cluster.refuse(&Place::Cluster, failure))
    }

    /// `chown`, `chgrp` and `chmod`: on `configs/NAME` and on the domain that it defines; everything else is refused.
    pub async fn own(&self, ino: u64, change: Change) -> Result<(), Failure> {
        let what = if change.mode.is_some() { "change the mode of" } else { "change the owner of" };
        let what = format!("{what} {}", self.path(ino));
        let node = self.node(ino)?;
        let owned = |place: &Place| self.rights(place).is_some();
        let place = match &node {
            Node::Dir(place @ (Place::Config(_) | Place::Domain(_))) if owned(place) => place,
            Node::Row(place, _) | Node::Dir(place @ Place::Guest(_)) if owned(place) => {
                let of = place.path();
                let why = format!("it has what {} has: change that", of.trim_end_matches("/guest"));
                return Err(self.refuse(ino, &what, &why));
            }
            Node::Dir(Place::Domain(_)) => {
                return Err(self.refuse(
                    ino,
                    &what,
                    "it was not made from a config, and only configs keep owners",
                ));
            }
            _ if change.mode.is_some() => return Err(self.refuse(ino, &what, "modes are fixed")),
            _ => return Err(self.refuse(ino, &what, "all belongs to who mounted it; see uid= and gid=")),
        };
        let name = match place {
            Place::Config(name) => name.clone(),
            other => ConfigName::parse(other.path().trim_start_matches("domains/"))
                .map_err(|e| Failure::invalid(e.to_string()))?,
        };
        let mode = match change.mode.map(|m| m & 0o7777) {
            Some(mode) if mode > 0o777 => {
                let why = "only the bits 0777 can be set";
                return Err(self.refuse_as(Code::Invalid, ino, &what, why));
            }
            mode => mode.map(|m| m as u16),
        };
        let command = ConfigCommand::Own { uid: change.uid, gid: change.gid, mode };
        let result = self.cluster.order_config(&name, command).await;
        result.map(drop).map_err(|failure| self.cluster.refuse(place, failure))
    }

    /// `rename(2)`: the link of a domain into another server's directory is a migration; everything else is refused.
    pub async fn rename(
        &self,
        parent: u64,
        name: &str,
        new_parent: u64,
        new_name: &str,
    ) -> Result<(), Failure> {
        let links_of = |ino| match self.node(ino) {
            Ok(Node::Row(Place::Server(server), Row { kind: Kind::Links, .. })) => Some(server),
            _ => None,
        };
        let (Some(from), Some(to)) = (links_of(parent), links_of(new_parent)) else {
            return Err(self.refuse(
                parent,
                &format!("rename {name}"),
                "only servers/A/domains/D into servers/B/domains can be renamed",
            ));
        };
        let found = self.lookup(parent, name)?;
        let Node::Link(domain) = self.node(found.ino)? else { return Err(super::absent("servers", name)) };
        if name != new_name {
            let why = "a domain keeps its name when it moves";
            return Err(self.refuse(parent, &format!("rename {name} to {new_name}"), why));
        }
        if from == to {
            return Ok(());
        }
        self.cluster.move_domain(&domain, &to).await.map(drop)
    }
}
