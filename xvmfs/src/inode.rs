//! Inode numbers: computed from (table, row, thing), never allocated, so that a file keeps its number over restarts and mounts.
//!
//! ```text
//!   63      56 55      48 47                                   0
//!  +----------+----------+--------------------------------------+
//!  |  table   |   row    |  thing (see xvm_model::view::thing_id) |
//!  +----------+----------+--------------------------------------+
//! ```
//!
//! Row 0 is the directory itself, row N+1 the table's row N. The root of the mount is 1, as FUSE wants it.

use xvm_model::round::RoundId;
use xvm_model::view::thing_id;
use xvm_model::{ConfigName, DomainName, ServerName, TestName, Thing};

/// The inode number of the mount's root.
pub const ROOT: u64 = 1;

/// Which table an inode belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TableId {
    /// The root directory.
    Cluster = 1,
    /// `servers/NAME`.
    Server = 2,
    /// `domains/NAME`.
    Domain = 3,
    /// `servers/NAME/domains/DOMAIN`: the thing is the domain; a domain in two servers' directories is one link.
    Link = 4,
    /// `help/ROUND`.
    Round = 5,
    /// `configs/NAME`.
    Config = 6,
    /// `domains/NAME/guest`: the thing is the domain.
    Guest = 7,
    /// `tests/NAME`.
    Test = 8,
}

/// An inode number taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    /// The table.
    pub table: TableId,
    /// None for the directory that the table describes.
    pub row: Option<u8>,
    /// The thing's number; 0 for the cluster.
    pub thing: u64,
}

const THING: u64 = 0xffff_ffff_ffff;

impl Inode {
    /// The number that the kernel sees.
    pub fn number(self) -> u64 {
        if self == (Inode { table: TableId::Cluster, row: None, thing: 0 }) {
            return ROOT;
        }
        (self.table as u64) << 56 | u64::from(self.row.map_or(0, |r| r + 1)) << 48 | (self.thing & THING)
    }

    /// Takes a number apart; `None` when this file system never made it.
    pub fn parse(number: u64) -> Option<Self> {
        if number == ROOT {
            return Some(Inode { table: TableId::Cluster, row: None, thing: 0 });
        }
        let table = match number >> 56 {
            1 => TableId::Cluster,
            2 => TableId::Server,
            3 => TableId::Domain,
            4 => TableId::Link,
            5 => TableId::Round,
            6 => TableId::Config,
            7 => TableId::Guest,
            8 => TableId::Test,
            _ => return None,
        };
        let row = ((number >> 48 & 0xff) as u8).checked_sub(1);
        let inode = Inode { table, row, thing: number & THING };
        // there is one cluster, and its directory is the root
        (table != TableId::Cluster || row.is_some() && inode.thing == 0).then_some(inode)
    }

    /// `servers/NAME` or a file in it.
    pub fn server(name: &ServerName, row: Option<u8>) -> Self {
        Inode { table: TableId::Server, row, thing: thing_id(&Thing::Server(name.clone())) }
    }

    /// `domains/NAME` or a file in it.
    pub fn domain(name: &DomainName, row: Option<u8>) -> Self {
        Inode { table: TableId::Domain, row, thing: thing_id(&Thing::Domain(name.clone())) }
    }

    /// `domains/NAME/guest` or a file in it.
    pub fn guest(name: &DomainName, row: Option<u8>) -> Self {
        Inode { table: TableId::Guest, ..Inode::domain(name, row) }
    }

    /// `help/ROUND` or a file in it.
    pub fn round(id: &RoundId, row: Option<u8>) -> Self {
        Inode { table: TableId::Round, row, thing: thing_id(&Thing::Round(id.clone())) }
    }

    /// `configs/NAME` or a file in it.
    pub fn config(name: &ConfigName, row: Option<u8>) -> Self {
        Inode { table: TableId::Config, row, thing: thing_id(&Thing::Config(name.clone())) }
    }

    /// `tests/NAME` or a file in it.
    pub fn test(name: &TestName, row: Option<u8>) -> Self {
        Inode { table: TableId::Test, row, thing: thing_id(&Thing::Test(name.clone())) }
    }

    /// The link to a domain in a server's directory.
    pub fn link(name: &DomainName) -> Self {
        Inode { table: TableId::Link, row: None, thing: thing_id(&Thing::Domain(name.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_root_is_one() {
        assert_eq!(Inode { table: TableId::Cluster, row: None, thing: 0 }.number(), ROOT);
    }

    proptest! {
        #[test]
        fn numbers_are_taken_apart_as_they_were_made(table in 0usize..8, row in prop::option::of(0u8..200), thing in 0u64..=THING) {
            let table = [TableId::Cluster, TableId::Server, TableId::Domain, TableId::Link, TableId::Round, TableId::Config, TableId::Guest, TableId::Test][table];
            let cluster = table == TableId::Cluster;
            let inode = Inode { table, row: row.or(cluster.then_some(0)), thing: if cluster { 0 } else { thing } };
            prop_assert_eq!(Inode::parse(inode.number()), Some(inode));
        }

        #[test]
        fn a_number_that_is_parsed_is_the_one_that_is_made(table in 0u64..10, rest in 0u64..1 << 56) {
            let number = table << 56 | rest;
            prop_assert!(Inode::parse(number).is_none_or(|inode| inode.number() == number));
            // the cluster's rows belong to no thing
            prop_assert_eq!(Inode::parse(1 << 56 | rest).is_some(), rest & THING == 0 && rest > THING);
        }
    }
}
