//! Commands at most once: the receiver's memory of ids.
//!
//! ```text
//! command -> known id? ------------------- Known: answer from memory, do nothing
//!         -> for another life of mine? --- Refuse: whoever lived then may have done it, I cannot know
//!         -> past its deadline? ---------- Refuse: an order for a machine that was away must not come true later
//!         -> no room to remember it? ----- Refuse: what is not remembered could run twice
//!         -> Run, and remember the id until no copy of it can pass the deadline any more
//! ```
//! An id is kept until [`MARGIN_MS`] after its deadline, by the wall clock and by the monotonic clock both, so forgetting never lets
//! a copy run, also when the wall clock was stepped forwards or backwards meanwhile; but for [`KEEP_MAX_MS`] at most.

use crate::{Answer, Boot, Code, Command, Failure, Mono, Reply, Wall};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

/// Ids that are remembered at most; one more is refused until others may be forgotten.
pub const RECEIPTS_MAX: usize = 16_384;
/// How far ahead a deadline may be, in milliseconds: bounds how long ids are kept.
pub const DEADLINE_MAX_MS: u64 = 60_000;
/// How long an id is kept beyond its deadline, in milliseconds.
pub const MARGIN_MS: u64 = 60_000;
/// How long an id is kept at most, in milliseconds, whatever the wall clock says: no copy is under way for an hour.
pub const KEEP_MAX_MS: u64 = 3_600_000;

/// What to do with a command that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admit {
    /// Carry it out now, and call [`Receipts::answered`] when it is answered for good.
    Run,
    /// It came before: answer this again, or [`Answer::Working`] when there is no answer yet. The reply holds no news: the
    /// receiver adds what is true now.
    Known(Option<Reply>),
    /// Answer [`Answer::Failed`] with this and change nothing.
    Refuse(Failure),
}

/// The ids that a receiver has seen in its present life.
#[derive(Debug)]
pub struct Receipts {
    /// The receiver's life.
    own: Boot,
    /// What was admitted.
    known: HashMap<Box<str>, Receipt>,
    /// The ids by the moment from which they are looked at again.
    until: BinaryHeap<Reverse<(Mono, Box<str>)>>,
}

/// One admitted command.
#[derive(Debug)]
struct Receipt {
    /// Its answer, when there is one.
    reply: Option<Reply>,
    /// No copy of it is admitted from here on.
    deadline: Wall,
    /// When it was admitted.
    since: Mono,
}

impl Receipts {
    /// No memory, for the life `own` of a receiver.
    pub fn new(own: Boot) -> Self {
        Receipts { own, known: HashMap::new(), until: BinaryHeap::new() }
    }

    /// Decides about a command that came just now; when it answers [`Admit::Run`] the id is remembered already.
    pub fn admit(&mut self, command: &Command, wall: Wall, mono: Mono) -> Admit {
        self.forget(wall, mono);
        if let Some(receipt) = self.known.get(&command.id) {
            return Admit::Known(receipt.reply.clone());
        }
        let what = command.order.what();
        if command.boot != self.own {
            return Admit::Refuse(Failure::new(
                Code::TimedOut,
                format!(
                    "cannot {what}: its agent was started anew, and does not know whether it was done before; look, then try again"
                ),
            ));
        }
        if wall >= command.deadline {
            return Admit::Refuse(Failure::new(
                Code::TimedOut,
                format!(
                    "cannot {what}: the order came too late, by {} ms, and was not carried out",
                    wall.0 - command.deadline.0
                ),
            ));
        }
        let ahead = command.deadline.0 - wall.0;
        if ahead > DEADLINE_MAX_MS {
            return Admit::Refuse(Failure::invalid(format!(
                "cannot {what}: the order's deadline is {} s ahead; at most {} s are allowed",
                ahead / 1000,
                DEADLINE_MAX_MS / 1000
            )));
        }
        if self.known.len() >= RECEIPTS_MAX {
            return Admit::Refuse(Failure::busy(format!(
                "cannot {what}: {RECEIPTS_MAX} orders came within two minutes; try again later"
            )));
        }
        self.known
            .insert(command.id.clone(), Receipt { reply: None, deadline: command.deadline, since: mono });
        self.until.push(Reverse((mono.plus(ahead + MARGIN_MS), command.id.clone())));
        Admit::Run
    }

    /// Remembers the answer to an admitted command; [`Answer::Working`] is none. News are not kept: they would be old when told again.
    pub fn answered(&mut self, id: &str, reply: Reply) {
        if reply.answer == Answer::Working {
            return;
        }
        if let Some(receipt) = self.known.get_mut(id) {
            receipt.reply = Some(Reply { news: None, ..reply });
        }
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Forgets what no copy can follow any more.
    fn forget(&mut self, wall: Wall, mono: Mono) {
        while self.until.peek().is_some_and(|Reverse((until, _))| *until <= mono) {
            let Some(Reverse((_, id))) = self.until.pop() else { return };
            let Some(receipt) = self.known.get(&id) else { continue };
            // the wall clock was set back when this is not 0 here
            let left = receipt.deadline.0.saturating_add(MARGIN_MS).saturating_sub(wall.0);
            let age = mono.since(receipt.since);
            if left == 0 || age >= KEEP_MAX_MS {
                self.known.remove(&id);
            } else {
                self.until.push(Reverse((mono.plus(left.min(KEEP_MAX_MS - age)), id)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientName, DomainCommand, DomainName, Order};
    use proptest::prelude::*;

    fn command(id: u64, boot: u64, deadline: u64) -> Command {
        Command {
            id: format!("c.1.{id}").into(),
            client: ClientName::parse("c").unwrap(),
            boot: Boot(boot),
            deadline: Wall(deadline),
            order: Order::Domain {
                name: DomainName::parse("small-1").unwrap(),
                command: DomainCommand::Pause,
            },
        }
    }

    fn refused(admit: Admit) -> Failure {
        match admit {
            Admit::Refuse(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_life_of_an_id() {
        let mut r = Receipts::new(Boot(7));
        let c = command(1, 7, 5_000);
        assert_eq!(r.admit(&c, Wall(0), Mono(0)), Admit::Run);
        assert_eq!(r.admit(&c, Wall(1), Mono(1)), Admit::Known(None));
        let reply = Reply { id: c.id.clone(), answer: Answer::Working, news: None };
        r.answered(&c.id, reply.clone());
        assert_eq!(r.admit(&c, Wall(2), Mono(2)), Admit::Known(None), "working is not an answer");
        let done = Reply { answer: Answer::Done { text: "paused".into() }, ..reply };
        r.answered(&c.id, done.clone());
        assert_eq!(
            r.admit(&c, Wall(60_000), Mono(60_000)),
            Admit::Known(Some(done)),
            "also past the deadline"
        );
        let late = refused(r.admit(&c, Wall(65_000), Mono(65_000)));
        assert_eq!(late.code, Code::TimedOut);
        assert_eq!(
            late.text,
            "cannot pause small-1: the order came too late, by 60000 ms, and was not carried out"
        );
        assert!(r.is_empty());
    }

    #[test]
    fn what_is_refused_leaves_no_trace() {
        let mut r = Receipts::new(Boot(7));
        assert_eq!(refused(r.admit(&command(1, 6, 5_000), Wall(0), Mono(0))).code, Code::TimedOut);
        assert_eq!(refused(r.admit(&command(1, 7, 5_000), Wall(5_000), Mono(0))).code, Code::TimedOut);
        assert_eq!(refused(r.admit(&command(1, 7, 99_000), Wall(0), Mono(0))).code, Code::Invalid);
        assert!(r.is_empty());
        assert_eq!(r.admit(&command(1, 7, 5_000), Wall(0), Mono(0)), Admit::Run);
    }

    #[test]
    fn a_full_memory_refuses_and_recovers() {
        let mut r = Receipts::new(Boot(7));
        for i in 0..RECEIPTS_MAX as u64 {
            assert_eq!(r.admit(&command(i, 7, 5_000), Wall(0), Mono(0)), Admit::Run);
        }
        assert_eq!(refused(r.admit(&command(99_999, 7, 5_000), Wall(0), Mono(0))).code, Code::Busy);
        assert_eq!(r.admit(&command(3, 7, 5_000), Wall(0), Mono(0)), Admit::Known(None));
        assert_eq!(r.admit(&command(99_999, 7, 70_000), Wall(65_000), Mono(65_000)), Admit::Run);
        assert_eq!(r.len(), 1);
    }

    #[test]
    fn a_wall_clock_set_back_revives_no_copy_and_fills_no_memory() {
        let mut r = Receipts::new(Boot(7));
        let day = 86_400_000;
        let c = command(1, 7, day + 5_000);
        assert_eq!(r.admit(&c, Wall(day), Mono(0)), Admit::Run);
        assert_eq!(r.admit(&c, Wall(0), Mono(200_000)), Admit::Known(None));
        assert_eq!(r.admit(&c, Wall(1), Mono(KEEP_MAX_MS - 1)), Admit::Known(None));
        r.forget(Wall(2), Mono(KEEP_MAX_MS));
        assert!(r.is_empty());
    }

    proptest! {
        // copies of 20 orders, in any order, doubled and delayed, on a wall clock that is stepped meanwhile
        #[test]
        fn an_order_runs_at_most_once_and_never_late(
            copies in prop::collection::vec((0u64..20, 0u64..9_000, -3_000i64..3_000), 1..400),
        ) {
            let mut r = Receipts::new(Boot(7));
            let mut ran = std::collections::HashSet::new();
            let (mut wall, mut mono) = (1_000_000u64, 0u64);
            for (id, wait, step) in copies {
                mono += wait;
                wall = (wall + wait).saturating_add_signed(step);
                let c = command(id, 7, 1_000_000 + id * 40_000);
                if r.admit(&c, Wall(wall), Mono(mono)) == Admit::Run {
                    prop_assert!(ran.insert(id));
                    prop_assert!(wall < c.deadline.0);
                }
                prop_assert!(r.len() <= 20);
            }
        }
    }
}
