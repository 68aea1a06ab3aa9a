//! One round of help as it is written down and shown in `help/ROUND/`: what was asked, who offered, who was taken and why, what moved
//! and what it brought.
//!
//! Only its asker writes it; everybody else gets copies. It is bounded, whatever the others say.

use crate::{DomainName, Platform, ServerName, Wall, domain::words, event::word, policy::Need};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A round's id: `SERVER.BOOT.NUMBER`, never used twice.
pub type RoundId = Box<str>;

/// The longest text in a round, in bytes.
pub const TEXT_MAX: usize = 2048;
/// How many rounds an agent keeps.
pub const KEPT: usize = 16;
/// The most wishes that are written down; a request may have more.
pub const WISHED_MAX: usize = 16;
/// The most offers that are written down.
pub const BIDS_MAX: usize = 16;
/// The most refusals that are written down.
pub const REFUSALS_MAX: usize = 8;

words! {
    /// How a round ended.
    End {
        /// The domain moved.
        Moved = "moved",
        /// The move failed; the domain is where it was.
        Failed = "failed",
        /// Nobody offered in time.
        NoOffer = "no-offer",
        /// The helper took its offer back, or fell silent.
        NotHeld = "not-held",
        /// Nothing was to move; it is known who would have helped.
        Dry = "dry",
        /// It was ended before a move began.
        Cancelled = "cancelled",
        /// Its asker stopped before it ended.
        Lost = "lost",
    }
}

/// A domain that was wished away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wished {
    /// Which.
    pub domain: DomainName,
    /// CPUs that it wanted.
    pub load: f64,
    /// Its memory in KiB.
    pub memory: u64,
    /// What the asker would gain, in the rule's own unit.
    pub relief: f64,
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Verdict {
    /// It was the first.
    Accepted,
    /// It was not taken.
    Declined {
        /// Why.
        why: Box<str>,
    },
}

/// One offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bid {
    /// Who offered.
    pub helper: ServerName,
    /// What its domains run on.
    pub platform: Platform,
    /// For which domain.
    pub domain: DomainName,
    /// The share of the helper's CPUs that would be wanted with it on board.
    pub projected: f64,
    /// What the move would be worth, in the rule's own unit.
    pub gain: f64,
    /// What became of it.
    pub verdict: Verdict,
}

/// One server that could not help.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Who.
    pub helper: ServerName,
    /// Why.
    pub why: Box<str>,
}

/// The offer that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Whose.
    pub helper: ServerName,
    /// For which domain.
    pub domain: DomainName,
    /// When, by the asker's clock.
    pub at: Wall,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// When, by the asker's clock.
    pub at: Wall,
    /// In one word.
    pub end: End,
    /// In one sentence.
    pub sentence: Box<str>,
}

/// What a move brought its asker.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Brought {
    /// The share of its CPUs that was wanted before.
    pub before: f64,
    /// The share that is wanted some 10 s after.
    pub after: f64,
    /// Its overload counter before.
    pub points_before: u16,
    /// Its overload counter after.
    pub points_after: u16,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Which.
    pub id: RoundId,
    /// Who asked.
    pub asker: ServerName,
    /// What for.
    pub need: Need,
    /// By which rule.
    pub policy: Box<str>,
    /// Whether nothing was to move.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry: bool,
    /// When, by the asker's clock.
    pub at: Wall,
    /// The share of the asker's CPUs that was wanted.
    pub load: f64,
    /// What it suffered, in one sentence.
    pub why: Box<str>,
    /// The domains that might go, the best first; at most [`WISHED_MAX`].
    pub wishes: Vec<Wished>,
    /// Who offered, in the order of hearing; at most [`BIDS_MAX`].
    #[serde(default)]
    pub offers: Vec<Bid>,
    /// Who could not help; at most [`REFUSALS_MAX`].
    #[serde(default)]
    pub refusals: Vec<Refused>,
    /// Whose offer was taken; in a dry run, would have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    /// How it ended; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Ending>,
    /// What it brought, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Brought>,
}

impl Round {
    /// Whether it is bounded and its texts are lines: what comes from the bus becomes files and events. The error says what is not.
    pub fn check(&self) -> Result<(), String> {
        let declined = self.offers.iter().filter_map(|b| match &b.verdict {
            Verdict::Declined { why } => Some(why),
            Verdict::Accepted => None,
        });
        let refused = self.refusals.iter().map(|r| &r.why);
        let mut texts = declined.chain(refused).chain(self.outcome.as_ref().map(|o| &o.sentence));
        let bad = |text: &str| text.len() > TEXT_MAX || text.chars().any(char::is_control);
        if bad(&self.id) || bad(&self.policy) || bad(&self.why) || texts.any(|text| bad(text)) {
            return Err(format!("a text of a round is longer than {TEXT_MAX} bytes or no line"));
        }
        let (wishes, offers, refusals) = (self.wishes.len(), self.offers.len(), self.refusals.len());
        if wishes > WISHED_MAX || offers > BIDS_MAX || refusals > REFUSALS_MAX {
            return Err(format!(
                "a round has {wishes} wishes, {offers} offers, {refusals} refusals; at most {WISHED_MAX}, {BIDS_MAX}, {REFUSALS_MAX} are kept"
            ));
        }
        Ok(())
    }

    /// Writes a refusal down; false when there is no room for it or it was known.
    pub(crate) fn refuse(&mut self, helper: &ServerName, why: &str) -> bool {
        let new = self.refusals.len() < REFUSALS_MAX && self.refusals.iter().all(|r| r.helper != *helper);
        if new {
            self.refusals.push(Refused { helper: helper.clone(), why: why.into() });
        }
        new
    }

    /// Writes an offer down; false when there is no room for it or it was known.
    pub(crate) fn bid(&mut self, bid: Bid) -> bool {
        let new = self.offers.len() < BIDS_MAX && self.offers.iter().all(|b| b.helper != bid.helper);
        if new {
            self.offers.push(bid);
        }
        new
    }

    /// The file `request`: a line a value, then a line a wish.
    pub fn request(&self) -> String {
        let mut out = format!(
            "asker {}\nneed {}\npolicy {}\nat {}\nload {:.2}\nwhy {}\n",
            self.asker,
            self.need,
            self.policy,
            self.at.rfc3339(),
            self.load,
            self.why
        );
        if self.dry {
            out.push_str("dry yes\n");
        }
        for w in &self.wishes {
            put(
                &mut out,
                format_args!("wish {} {:.2} {} {:.2}\n", word(w.domain.as_str()), w.load, w.memory, w.relief),
            );
        }
        out
    }

    /// The file `offers`: a line an offer, then a line a refusal.
    pub fn offers(&self) -> String {
        let mut out = String::new();
        for b in &self.offers {
            let domain = word(b.domain.as_str());
            put(
                &mut out,
                format_args!("{} {} {domain} {:.2} {:.2} ", b.helper, b.platform, b.projected, b.gain),
            );
            match &b.verdict {
                Verdict::Accepted => out.push_str("accepted\n"),
                Verdict::Declined { why } => put(&mut out, format_args!("declined: {why}\n")),
            }
        }
        for r in &self.refusals {
            put(&mut out, format_args!("{} refused: {}\n", r.helper, r.why));
        }
        out
    }

    /// The file `accept`: a line a value; empty while nobody was taken.
    pub fn accept(&self) -> String {
        self.accepted.as_ref().map_or_else(String::new, |a| {
            format!("helper {}\ndomain {}\nat {}\n", a.helper, word(a.domain.as_str()), a.at.rfc3339())
        })
    }

    /// The file `outcome`: the whole story, a sentence a line, the end last but for what it brought.
    pub fn outcome(&self) -> String {
        let mut out = format!("{} asked for help: {}\n", self.asker, self.why);
        for b in &self.offers {
            let (helper, domain, projected) = (&b.helper, &b.domain, b.projected);
            put(
                &mut out,
                format_args!("{helper} offered to take {domain}: its load would be {projected:.2}; "),
            );
            match &b.verdict {
                Verdict::Accepted => out.push_str("accepted\n"),
                Verdict::Declined { why } => put(&mut out, format_args!("declined: {why}\n")),
            }
        }
        for r in &self.refusals {
            put(&mut out, format_args!("{} could not help: {}\n", r.helper, r.why));
        }
        match &self.outcome {
            Some(o) => put(&mut out, format_args!("{}: {}\n", o.end, o.sentence)),
            None => out.push_str("the round runs\n"),
        }
        if let Some(e) = &self.effect {
            let (before, after) = (e.before, e.after);
            put(
                &mut out,
                format_args!(
                    "{}'s load was {before:.2} with {} points, and is {after:.2} with {} points\n",
                    self.asker, e.points_before, e.points_after
                ),
            );
        }
        out
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).expect("name")
    }

    fn round() -> Round {
        let domain = DomainName::parse("my small").expect("name");
        let bid = |helper: &str, projected, verdict| Bid {
            helper: server(helper),
            platform: crate::HypervisorKind::Sim.into(),
            domain: domain.clone(),
            projected,
            gain: 0.75,
            verdict,
        };
        Round {
            id: "ferby.7.1".into(),
            asker: server("ferby"),
            need: Need::Overload,
            policy: "points".into(),
            dry: false,
            at: Wall(0),
            load: 1.0,
            why: "all 4 CPUs at 80 % or more for 5 s, and domains share them".into(),
            wishes: vec![Wished { domain: domain.clone(), load: 1.0, memory: 98_304, relief: 0.9 }],
            offers: vec![
                bid("gerby", 0.25, Verdict::Accepted),
                bid("hedy", 0.5, Verdict::Declined { why: "gerby was first".into() }),
            ],
            refusals: vec![Refused { helper: server("ivy"), why: "it does not accept domains".into() }],
            accepted: Some(Accepted { helper: server("gerby"), domain, at: Wall(30) }),
            outcome: None,
            effect: None,
        }
    }

    #[test]
    fn its_files_tell_the_story() {
        let mut r = round();
        assert_eq!(
            r.request(),
            "asker ferby\nneed overload\npolicy points\nat 1970-01-01T00:00:00.000Z\nload 1.00\n\
             why all 4 CPUs at 80 % or more for 5 s, and domains share them\nwish \"my small\" 1.00 98304 0.90\n"
        );
        assert_eq!(
            r.offers(),
            "gerby sim - \"my small\" 0.25 0.75 accepted\nhedy sim - \"my small\" 0.50 0.75 declined: gerby was first\n\
             ivy refused: it does not accept domains\n"
        );
        assert_eq!(r.accept(), "helper gerby\ndomain \"my small\"\nat 1970-01-01T00:00:00.030Z\n");
        assert!(r.outcome().ends_with("the round runs\n"));
        let sentence = "my small runs on gerby: 312 ms, down 40 ms".into();
        r.outcome = Some(Ending { at: Wall(900), end: End::Moved, sentence });
        r.effect = Some(Brought { before: 1.0, after: 0.98, points_before: 5, points_after: 0 });
        assert_eq!(
            r.outcome(),
            "ferby asked for help: all 4 CPUs at 80 % or more for 5 s, and domains share them\n\
             gerby offered to take my small: its load would be 0.25; accepted\n\
             hedy offered to take my small: its load would be 0.50; declined: gerby was first\n\
             ivy could not help: it does not accept domains\n\
             moved: my small runs on gerby: 312 ms, down 40 ms\n\
             ferby's load was 1.00 with 5 points, and is 0.98 with 0 points\n"
        );
        let json = serde_json::to_string(&r).expect("json");
        assert_eq!(serde_json::from_str::<Round>(&json).expect("back"), r);
    }

    #[test]
    fn it_is_bounded_and_hears_each_helper_once() {
        let mut r = round();
        assert!(!r.refuse(&server("ivy"), "no") && !r.bid(r.offers[0].clone()));
        for n in 0..100 {
            r.refuse(&server(&format!("r{n}")), "no");
            r.bid(Bid { helper: server(&format!("b{n}")), ..r.offers[0].clone() });
        }
        assert_eq!((r.refusals.len(), r.offers.len()), (REFUSALS_MAX, BIDS_MAX));
    }
}
