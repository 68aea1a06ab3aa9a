//! What the hypervisor said of its domains, newest answer first: an answer to an older question never overwrites a newer one, in
//! whatever order they arrive.

use super::step::Id;
use std::collections::BTreeMap;
use xvm_model::{Domain, DomainName};

/// One domain's record and the query that it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    query: Id,
    domain: Domain,
}

/// All domains that the hypervisor knows.
#[derive(Debug, Clone, Default)]
pub struct Records {
    known: BTreeMap<DomainName, Record>,
    /// Domains that were said to be gone by a query later than `whole`.
    gone: BTreeMap<DomainName, Id>,
    /// The latest query for all domains that was applied.
    whole: Id,
}

impl Records {
    /// A domain as it was heard last.
    pub fn get(&self, name: &DomainName) -> Option<&Domain> {
        self.known.get(name).map(|r| &r.domain)
    }

    /// All domains, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Domain> {
        self.known.values().map(|r| &r.domain)
    }

    /// Takes the answer of one query for one domain; true when it tells anything new.
    pub fn one(&mut self, query: Id, name: &DomainName, answer: Option<Domain>) -> bool {
        if query < self.seen(name) {
            return false;
        }
        match answer {
            Some(domain) => {
                self.gone.remove(name);
                let old = self.known.insert(name.clone(), Record { query, domain });
                let new = self.known.get(name).map(|r| &r.domain);
                old.as_ref().map(|r| &r.domain) != new
            }
            None => {
                self.gone.insert(name.clone(), query);
                self.known.remove(name).is_some()
            }
        }
    }

    /// Takes the answer of one query for all domains. Names those that came, went, or changed in more than their figures (load,
    /// bytes), which only heartbeats tell.
    pub fn all(&mut self, query: Id, answer: Vec<Domain>) -> Vec<DomainName> {
        if query < self.whole {
            return Vec::new();
        }
        let mut changed = Vec::new();
        let mut answered: BTreeMap<DomainName, Domain> =
            answer.into_iter().map(|d| (d.name.clone(), d)).collect();
        let went: Vec<DomainName> = self
            .known
            .iter()
            .filter(|(name, r)| r.query <= query && !answered.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in went {
            self.known.remove(&name);
            changed.push(name);
        }
        while let Some((name, domain)) = answered.pop_first() {
            if query < self.seen(&name) {
                continue;
            }
            let old = self.known.insert(name.clone(), Record { query, domain });
            let new = self.known.get(&name).map(|r| &r.domain);
            if !old.as_ref().zip(new).is_some_and(|(old, new)| alike(&old.domain, new)) {
                changed.push(name);
            }
        }
        self.whole = query;
        self.gone.retain(|_, &mut at| at > query);
        changed
    }

    /// The latest query whose answer told about `name`, also by not naming it.
    fn seen(&self, name: &DomainName) -> Id {
        let known = self.known.get(name).map(|r| r.query);
        known.or_else(|| self.gone.get(name).copied()).unwrap_or_default().max(self.whole)
    }
}

/// Whether two records differ in figures alone.
fn alike(a: &Domain, b: &Domain) -> bool {
    a.uuid == b.uuid
        && a.state == b.state
        && a.reason == b.reason
        && a.settings == b.settings
        && a.vcpus.len() == b.vcpus.len()
        && (a.memory.max, a.memory.current) == (b.memory.max, b.memory.current)
        && a.disks.iter().map(|d| &d.name).eq(b.disks.iter().map(|d| &d.name))
        && a.nics.iter().map(|n| &n.name).eq(b.nics.iter().map(|n| &n.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;
    use xvm_model::DomainState;

    fn domain(name: usize, state: DomainState) -> Domain {
        let mut d = Domain::new(DomainName::parse(&format!("d{name}")).expect("valid"), Uuid::nil());
        d.state = state;
        d
    }

    /// A hypervisor's history: at each moment two domains are absent, running or paused; queries see one moment.
    fn state(code: u8) -> Option<DomainState> {
        [None, Some(DomainState::Running), Some(DomainState::Paused)][usize::from(code % 3)]
    }

    proptest! {
        /// Answers come in any order and some never; what is kept is the latest that came.
        #[test]
        fn the_latest_answer_wins_in_every_order(
            history in prop::collection::vec((0u8..3, 0u8..3, 0u8..3), 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
        ) {
            let mut records = Records::default();
            let mut latest = [Id(0); 2];
            for at in order.iter().map(|i| i.index(history.len())) {
                let (kind, a, b) = history[at];
                let query = Id(at as u64 + 1);
                match kind {
                    0 => { records.all(query, [a, b].into_iter().enumerate()
                        .filter_map(|(i, c)| state(c).map(|s| domain(i, s))).collect()); }
                    k => {
                        let i = usize::from(k - 1);
                        let d = domain(i, DomainState::Running);
                        records.one(query, &d.name, state([a, b][i]).map(|s| domain(i, s)));
                    }
                }
                for (i, l) in latest.iter_mut().enumerate() {
                    if kind == 0 || usize::from(kind - 1) == i { *l = (*l).max(query); }
                }
                for (i, l) in latest.iter().enumerate() {
                    let expected = (l.0 > 0).then(|| history[l.0 as usize - 1])
                        .and_then(|(_, a, b)| state([a, b][i]));
                    let name = domain(i, DomainState::Running).name;
                    prop_assert_eq!(records.get(&name).map(|d| d.state), expected);
                }
                prop_assert!(records.gone.len() <= 2);
            }
        }
    }

    #[test]
    fn figures_alone_are_no_change() {
        let mut records = Records::default();
        assert_eq!(records.all(Id(1), vec![domain(0, DomainState::Running)]).len(), 1);
        let mut busy = domain(0, DomainState::Running);
        busy.load = xvm_model::Ratio::ONE;
        assert!(records.all(Id(2), vec![busy]).is_empty());
        assert_eq!(records.all(Id(3), vec![]).len(), 1);
    }
}
