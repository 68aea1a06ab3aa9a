//! A day of load: the mean of each five minutes, one byte each, for as many things as there are.

use crate::{DomainName, Ratio, ServerName, Wall};
use std::collections::HashMap;
use std::fmt::Write as _;

/// The span of one mean, in milliseconds.
pub const STEP_MS: u64 = 300_000;
/// How many means are kept: one day.
pub const KEPT: usize = 288;

/// One thing's means.
#[derive(Debug, Clone, Default)]
struct Track {
    /// The step (wall time / [`STEP_MS`]) that is being summed.
    step: u64,
    /// The sum of percents in this step, and their number.
    sum: u32,
    count: u32,
    /// Means of the steps before, the last one last; 255 where nothing was heard.
    means: Vec<u8>,
}

const UNHEARD: u8 = 255;
/// Room for so many means is made at once.
const GROW: usize = 24;

impl Track {
    fn note(&mut self, load: Ratio, wall: Wall) {
        let step = wall.0 / STEP_MS;
        if self.count == 0 && self.means.is_empty() {
            self.step = step;
        } else if step != self.step {
            self.close(step);
        }
        self.sum = self.sum.saturating_add(u32::from(load.percent()));
        self.count = self.count.saturating_add(1);
    }

    /// Ends the present step; steps of silence up to `next` are marked. A clock that went back begins a new step at once.
    fn close(&mut self, next: u64) {
        let mean = (self.sum + self.count / 2).checked_div(self.count).map_or(UNHEARD, |m| m.min(100) as u8);
        if self.means.len() == self.means.capacity() {
            // not doubled: of a day's means for each of 100,000 domains nothing is left over
            self.means.reserve_exact(GROW);
        }
        self.means.push(mean);
        let silent = next.saturating_sub(self.step).saturating_sub(1).min(KEPT as u64) as usize;
        self.means.extend(std::iter::repeat_n(UNHEARD, silent));
        if self.means.len() > KEPT {
            self.means.drain(..self.means.len() - KEPT);
        }
        (self.step, self.sum, self.count) = (next, 0, 0);
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let first = self.step.saturating_sub(self.means.len() as u64);
        for (i, mean) in self.means.iter().enumerate().filter(|(_, m)| **m != UNHEARD) {
            let at = Wall((first + i as u64) * STEP_MS).rfc3339();
            let load = Ratio::new(f64::from(*mean) / 100.0);
            writeln!(out, "{at} {load}").expect("a String takes all");
        }
        out
    }
}

/// The histories of all servers and domains that one process hears of.
#[derive(Debug, Default)]
pub struct Histories {
    servers: HashMap<ServerName, Track>,
    domains: HashMap<DomainName, Track>,
}

impl Histories {
    /// A load of a server, heard at `wall`.
    pub fn server(&mut self, name: &ServerName, load: Ratio, wall: Wall) {
        if !self.servers.contains_key(name) {
            self.servers.insert(name.clone(), Track::default());
        }
        self.servers.get_mut(name).expect("just put there").note(load, wall);
    }

    /// A load of a domain, heard at `wall`.
    pub fn domain(&mut self, name: &DomainName, load: Ratio, wall: Wall) {
        if !self.domains.contains_key(name) {
            self.domains.insert(name.clone(), Track::default());
        }
        self.domains.get_mut(name).expect("just put there").note(load, wall);
    }

    /// Lines `TIME LOAD`, the oldest first; empty when nothing is known.
    pub fn server_text(&self, name: &ServerName) -> String {
        self.servers.get(name).map(Track::text).unwrap_or_default()
    }

    /// Lines `TIME LOAD`, the oldest first; empty when nothing is known.
    pub fn domain_text(&self, name: &DomainName) -> String {
        self.domains.get(name).map(Track::text).unwrap_or_default()
    }

    /// Forgets what was not heard for a day.
    pub fn forget(&mut self, wall: Wall) {
        let old = |t: &Track| (wall.0 / STEP_MS).saturating_sub(t.step) > KEPT as u64;
        self.servers.retain(|_, t| !old(t));
        self.domains.retain(|_, t| !old(t));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_five_minutes_with_gaps() {
        let mut h = Histories::default();
        let d = DomainName::parse("d").expect("ok");
        for (minute, load) in [(0, 0.2), (1, 0.4), (5, 0.5), (21, 0.9)] {
            h.domain(&d, Ratio::new(load), Wall(minute * 60_000));
        }
        assert_eq!(h.domain_text(&d), "1970-01-01T00:00:00.000Z 0.30\n1970-01-01T00:05:00.000Z 0.50\n");
    }

    #[test]
    fn a_day_is_kept_and_no_more() {
        let mut h = Histories::default();
        let s = ServerName::parse("s").expect("ok");
        for step in 0..2000 {
            h.server(&s, Ratio::ONE, Wall(step * STEP_MS));
        }
        assert_eq!(h.server_text(&s).lines().count(), KEPT);
        h.server(&s, Ratio::ONE, Wall(0)); // a clock that went back
        h.server(&s, Ratio::ONE, Wall(u64::MAX));
        h.forget(Wall(u64::MAX));
        assert!(h.server_text(&s).lines().count() <= KEPT);
    }
}
