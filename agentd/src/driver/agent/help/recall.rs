//! Domains that other servers want back: each goes home by a round that only its home may answer.

use super::Agent;
use std::collections::VecDeque;
use xvm_model::policy::{Host, Request};
use xvm_model::{DomainName, Mono, ServerName};

/// A wish that was not repeated for so long, in milliseconds, is over.
const LASTS_MS: u64 = 12_000;
/// The most wishes that are kept.
const WISHES_MAX: usize = 1024;

/// One wish.
#[derive(Debug)]
struct Wish {
    domain: DomainName,
    home: ServerName,
    until: Mono,
}

/// The wishes, the next one first.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Wish>);

impl Agent {
    pub(super) fn recall_heard(&mut self, home: &ServerName, domains: Vec<DomainName>) {
        let until = self.now.mono.plus(LASTS_MS);
        for domain in domains {
            if !self.records.get(&domain).is_some_and(|d| d.state.is_active()) {
                continue;
            }
            let queue = &mut self.help.recalls.0;
            let full = queue.len() >= WISHES_MAX;
            match queue.iter_mut().find(|w| w.domain == domain) {
                Some(wish) => (wish.home, wish.until) = (home.clone(), until),
                None if !full => {
                    queue.push_back(Wish { domain, home: home.clone(), until });
                }
                None => {}
            }
        }
        self.consider();
    }

    /// The round for the next wish that can be fulfilled now.
    pub(super) fn recall_request(&mut self, host: &Host) -> Option<Request> {
        let now = self.now.mono;
        self.help.recalls.0.retain(|w| w.until > now && host.guests.iter().any(|g| g.name == w.domain));
        // each gets its turn: one whose home has no room stands behind the others the next time
        for _ in 0..self.help.recalls.0.len() {
            let wish = self.help.recalls.0.pop_front()?;
            let request = self.help.engine.recall(host, &wish.domain, &wish.home, now);
            self.help.recalls.0.push_back(wish);
            if request.is_some() {
                return request;
            }
        }
        None
    }
}
