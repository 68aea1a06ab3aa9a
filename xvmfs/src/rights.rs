//! Whose a directory is. What a config says of its owner counts for `configs/NAME` and for the domain that was made from it, with its
//! guest, so whoever owns a config can command its domain; all else is of who mounted the tree. The kernel enforces it.

use crate::row::{Place, Row};
use xvm_model::config::Rights;
use xvm_model::{Mono, View};

/// The user and group of a process, or of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Who {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Who {
    /// The rights of something new that belongs to this one.
    pub fn owns(self, mode: u16) -> Rights {
        Rights { uid: self.uid, gid: self.gid, mode }
    }
}

impl From<Rights> for Who {
    fn from(rights: Rights) -> Who {
        Who { uid: rights.uid, gid: rights.gid }
    }
}

/// What a config says of a place as of `now`; none where no config speaks of it.
///
/// A domain is its config's when both have one identity. A name alone is not enough: whoever may make configs would own each domain
/// that was there before, by making a config that is called so.
pub fn of(view: &View, place: &Place, now: Mono) -> Option<Rights> {
    let config = match place {
        Place::Config(name) => &view.config(name.as_str())?.record.config,
        Place::Domain(name) | Place::Guest(name) => {
            let config = &view.config(name.as_str())?.record.config;
            let domain = view.domain(name.as_str(), now)?.domain;
            Some(config).filter(|c| c.uuid == domain.uuid)?
        }
        Place::Cluster | Place::Server(_) | Place::Round(_) | Place::Test(_) => return None,
    };
    Some(config.rights)
}

/// The mode of a file in such a directory: what the directory's bits for reading and writing allow, and what the file can do at all.
pub fn file_mode(rights: Rights, row: &Row) -> u16 {
    let write = if row.kind.is_writable() { 0o222 } else { 0 };
    rights.mode & (0o444 | write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{CTL, ERROR};

    #[test]
    fn files_have_what_their_directory_and_their_kind_allow() {
        let modes = |mode| {
            let rights = Who::default().owns(mode);
            (file_mode(rights, &CTL), file_mode(rights, &ERROR))
        };
        assert_eq!(modes(0o755), (0o644, 0o444));
        assert_eq!(modes(0o770), (0o660, 0o440));
        assert_eq!(modes(0o700), (0o600, 0o400));
        assert_eq!(modes(0o111), (0, 0));
    }
}
