//! The last refusal of each directory, for its file `error`.

use crate::row::Place;
use std::collections::{HashMap, VecDeque};
use xvm_model::{Failure, Wall};

/// Directories whose refusals are kept; of more, the oldest are forgotten.
const KEPT: usize = 4096;

/// The last refusal of each directory.
#[derive(Debug, Default)]
pub struct Refusals {
    last: HashMap<Place, (Wall, Failure)>,
    order: VecDeque<Place>,
}

impl Refusals {
    /// Keeps a refusal in place of the one before.
    pub fn keep(&mut self, place: Place, at: Wall, failure: Failure) {
        if self.last.insert(place.clone(), (at, failure)).is_none() {
            self.order.push_back(place);
        }
        while self.order.len() > KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.last.remove(&oldest);
            }
        }
    }

    /// `TIME ERRNO SENTENCE` and a line end; empty when nothing was refused.
    pub fn text(&self, place: &Place) -> String {
        match self.last.get(place) {
            Some((at, f)) => format!("{} {} {}\n", at.rfc3339(), f.code, f.text),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xvm_model::DomainName;

    #[test]
    fn the_last_one_counts_and_memory_is_bounded() {
        let mut r = Refusals::default();
        for i in 0..10_000 {
            let place = Place::Domain(DomainName::parse(&format!("d{i}")).expect("ok"));
            r.keep(place.clone(), Wall(0), Failure::busy("first"));
            r.keep(place.clone(), Wall(0), Failure::busy("second"));
            assert_eq!(r.text(&place), "1970-01-01T00:00:00.000Z EBUSY second\n");
        }
        assert!(r.last.len() <= KEPT && r.order.len() <= KEPT);
        assert_eq!(r.text(&Place::Cluster), "");
    }
}
