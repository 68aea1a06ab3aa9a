//! Numbers for servers, domains, rounds and configs, computed from their names: inode numbers are made of them.

use super::View;
use crate::round::RoundId;
use crate::{ConfigName, DomainName, ServerName, TestName};

/// A server, a domain, a round of help, a config or a schedule of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A server of the view.
    Server(ServerName),
    /// A domain of the view.
    Domain(DomainName),
    /// A round that a server of the view keeps.
    Round(RoundId),
    /// A config of the view.
    Config(ConfigName),
    /// A schedule of tests, which no view holds.
    Test(TestName),
}

/// A number of 48 bits, never 0, from the kind and the name (FNV-1a, folded). Two of 100,000 names share one with a probability of
/// 2 in 100,000; the later one is then not reachable by number, which [`View::thing`] answers with the earlier.
pub fn thing_id(thing: &Thing) -> u64 {
    let (kind, name) = match thing {
        Thing::Server(n) => (b's', n.as_str()),
        Thing::Domain(n) => (b'd', n.as_str()),
        Thing::Round(id) => (b'r', &**id),
        Thing::Config(n) => (b'c', n.as_str()),
        Thing::Test(n) => (b't', n.as_str()),
    };
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in std::iter::once(kind).chain(name.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    ((hash ^ (hash >> 48)) & 0xffff_ffff_ffff).max(1)
}

impl View {
    pub(super) fn remember(&mut self, thing: Thing) {
        self.things.entry(thing_id(&thing)).or_insert(thing);
    }

    pub(super) fn forget(&mut self, thing: &Thing) {
        let id = thing_id(thing);
        if self.things.get(&id) == Some(thing) {
            self.things.remove(&id);
        }
    }
}
