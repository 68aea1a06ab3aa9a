//! What all simulated guests want of their CPUs: until its server has measured what a domain gets, it is reckoned from this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xvm_model::{DomainName, Mono, View};

/// CPUs that each guest wants. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes(Arc<Mutex<HashMap<DomainName, f64>>>);

impl Wishes {
    /// A guest wants so many CPUs from now on.
    pub(super) fn set(&self, name: &DomainName, cpus: f64) {
        self.all().insert(name.clone(), cpus);
    }

    /// A guest is gone.
    pub(super) fn forget(&self, name: &DomainName) {
        self.all().remove(name);
    }

    /// The part of its wish that a guest gets where all on its server get the same part of theirs.
    pub(super) fn share(&self, name: &DomainName, view: &View, now: Mono) -> f64 {
        let Some(domain) = view.domain(name.as_str(), now) else { return 1.0 };
        let Some(server) = view.server(domain.server.as_str()) else { return 1.0 };
        let all = self.all();
        let wanted: f64 = view.domains_of(server, now).filter_map(|d| all.get(d)).sum();
        fair(server.beat.cpus.len() as f64, wanted)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<DomainName, f64>> {
        // one insert or remove at a time: a panic leaves nothing half-made
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fair(cpus: f64, wanted: f64) -> f64 {
    if wanted > cpus { cpus / wanted } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_there_is() {
        assert_eq!((fair(4.0, 16.0), fair(4.0, 3.0), fair(4.0, 0.0)), (0.25, 1.0, 1.0));
        let (wishes, name) = (Wishes::default(), DomainName::parse("small-1").expect("a name"));
        wishes.set(&name, 1.0);
        assert_eq!(wishes.share(&name, &View::default(), Mono(0)), 1.0, "no server is known");
        wishes.forget(&name);
        assert!(wishes.all().is_empty());
    }
}
