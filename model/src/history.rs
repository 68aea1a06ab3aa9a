//! A day of load: the mean of each five minutes, one byte each, for as many things as there are; and the moves of that day.

use crate::event::word;
use crate::{Came, Domain, DomainName, Ratio, ServerName, Wall};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// The span of one mean, in milliseconds.
pub const STEP_MS: u64 = 300_000;
/// How many means are kept: one day.
pub const KEPT: usize = 288;

/// Moves that are kept; of more, the oldest are forgotten.
pub const MOVES_KEPT: usize = 4096;
const DAY_MS: u64 = STEP_MS * KEPT as u64;

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

    /// When each mean begins, and its line.
    fn lines(&self) -> impl Iterator<Item = (Wall, String)> {
        let first = self.step.saturating_sub(self.means.len() as u64);
        let heard = self.means.iter().enumerate().filter(|(_, m)| **m != UNHEARD);
        heard.map(move |(i, mean)| {
            let at = Wall((first + i as u64).saturating_mul(STEP_MS));
            (at, format!("{} {}", at.rfc3339(), Ratio::new(f64::from(*mean) / 100.0)))
        })
    }
}

/// Whether the record that a server has of a domain says that the domain came to it from another: it is here, and not still on its way.
pub fn arrival<'a>(domain: &'a Domain, on: &ServerName) -> Option<&'a Came> {
    let here = domain.state != crate::DomainState::Incoming;
    domain.settings.came.as_deref().filter(|came| here && came.from != *on)
}

/// Where a move led and what it was for.
#[derive(Debug, Clone)]
struct Move {
    from: ServerName,
    round: Option<Box<str>>,
    why: Box<str>,
}

impl Move {
    /// `FROM TO ROUND|- WHY`, on one line whatever the reason holds.
    fn text(&self, to: &ServerName) -> String {
        let round = self.round.as_deref().unwrap_or("-");
        format!("{} {to} {round} {}", self.from, self.why).replace(char::is_control, " ")
    }
}

/// The histories of all servers and domains that one process hears of.
#[derive(Debug, Default)]
pub struct Histories {
    servers: HashMap<ServerName, Track>,
    domains: HashMap<DomainName, Track>,
    /// By when they began, domain, and destination.
    moves: BTreeMap<(Wall, DomainName, ServerName), Move>,
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

    /// A domain is on the server `to` and came there so; whether that is new.
    pub fn moved(&mut self, name: &DomainName, to: &ServerName, came: &Came) -> bool {
        let Came { from, at, round, why, .. } = came;
        let kept = Move { from: from.clone(), round: round.clone(), why: why.clone() };
        let new = self.moves.insert((*at, name.clone(), to.clone()), kept).is_none();
        while self.moves.len() > MOVES_KEPT {
            self.moves.pop_first();
        }
        new
    }

    /// Lines `TIME LOAD`, the oldest first, and between them `# TIME moved DOMAIN FROM TO ROUND|- WHY` for each domain that came or
    /// went; empty when nothing is known.
    pub fn server_text(&self, name: &ServerName) -> String {
        let moves = self.moves.iter().filter(|((_, _, to), m)| to == name || m.from == *name);
        let moves = moves.map(|((at, domain, to), m)| {
            (*at, format!("# {} moved {} {}", at.rfc3339(), word(domain.as_str()), m.text(to)))
        });
        merged(self.servers.get(name), moves)
    }

    /// Lines `TIME LOAD`, the oldest first, and between them `# TIME moved FROM TO ROUND|- WHY` for each move; empty when nothing is
    /// known.
    pub fn domain_text(&self, name: &DomainName) -> String {
        let moves = self.moves.iter().filter(|((_, domain, _), _)| domain == name);
        let moves = moves.map(|((at, _, to), m)| (*at, format!("# {} moved {}", at.rfc3339(), m.text(to))));
        merged(self.domains.get(name), moves)
    }

    /// Forgets what was not heard for a day.
    pub fn forget(&mut self, wall: Wall) {
        let old = |t: &Track| (wall.0 / STEP_MS).saturating_sub(t.step) > KEPT as u64;
        self.servers.retain(|_, t| !old(t));
        self.domains.retain(|_, t| !old(t));
        self.moves.retain(|(at, ..), _| wall.0.abs_diff(at.0) <= DAY_MS);
    }
}

/// One text of two sequences that are sorted by time; a move in a span of five minutes stands after its mean.
fn merged(track: Option<&Track>, moves: impl Iterator<Item = (Wall, String)>) -> String {
    let mut out = String::new();
    let mut put = |line: String| writeln!(out, "{line}").expect("a String takes all");
    let mut moves = moves.peekable();
    for (at, line) in track.into_iter().flat_map(Track::lines) {
        while let Some((_, earlier)) = moves.next_if(|m| m.0 < at) {
            put(earlier);
        }
        put(line);
    }
    moves.for_each(|(_, line)| put(line));
    out
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
    fn moves_stand_among_the_lines_by_time_and_once() {
        let mut h = Histories::default();
        let d = DomainName::parse("with space").expect("ok");
        let [a, b] = ["ferby", "gerby"].map(|s| ServerName::parse(s).expect("ok"));
        for minute in [0, 5, 10] {
            h.domain(&d, Ratio::ONE, Wall(minute * 60_000));
        }
        let came = |minute: u64, from: &ServerName, round: Option<&str>, why: &str| Came {
            from: from.clone(),
            at: Wall(minute * 60_000),
            round: round.map(Into::into),
            why: why.into(),
            helped: None,
        };
        let (first, second) = (came(3, &a, Some("ferby.1.1"), "too\nfull"), came(70, &b, None, "order"));
        assert!(h.moved(&d, &b, &first) && !h.moved(&d, &b, &first) && h.moved(&d, &a, &second));
        let want = "1970-01-01T00:00:00.000Z 1.00\n\
                    # 1970-01-01T00:03:00.000Z moved ferby gerby ferby.1.1 too full\n\
                    1970-01-01T00:05:00.000Z 1.00\n\
                    # 1970-01-01T01:10:00.000Z moved gerby ferby - order\n";
        assert_eq!(h.domain_text(&d), want);
        assert_eq!(h.server_text(&a).lines().count(), 2, "it went and it came");
        assert!(h.server_text(&b).contains("moved \"with space\" ferby gerby ferby.1.1 too full\n"));
        h.forget(Wall(DAY_MS + 4 * 60_000));
        assert_eq!(h.server_text(&b).lines().count(), 1, "a day is kept");
        for n in 0..10_000 {
            h.moved(&d, &b, &came(n, &a, None, "order"));
        }
        assert_eq!(h.moves.len(), MOVES_KEPT);
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
