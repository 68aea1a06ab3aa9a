//! Commands at most once: the sender's state of one order.
//!
//! ```text
//!            every 200 ms                        answer
//! [asking] ---------------> Send        any ------------------> Ended(reply or its failure)
//!    | working heard                    any --- bound passed --> Ended(ETIMEDOUT, outcome unknown)
//!    v
//! [working] --- every 1 s -> Send (the final answer may have got lost)
//! ```
//! While the link is down nothing is sent; when it is back before the bound has passed, asking goes on. Repeating is harmless: the
//! receiver knows the id ([`crate::receipts`]).

use crate::{
    Answer, Code, Command, DomainName, Failure, GuestCommand, Mono, Order, Reply, ServerCommand, ServerName,
    Topic, Wall,
};
use std::fmt;

/// Milliseconds after which an unanswered order is sent again.
pub const REPEAT_MS: u64 = 200;
/// The same once the receiver said that it works on it.
pub const REPEAT_WORKING_MS: u64 = 1_000;
/// Milliseconds that an order may take as a whole.
pub const BOUND_MS: u64 = 5_000;

/// Who gets an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee {
    /// The agent of a server.
    Server(ServerName),
    /// imaged, by the server that it runs on.
    Images(ServerName),
    /// guestd in a domain.
    Guest(DomainName),
}

impl Addressee {
    /// Where the order is said.
    pub fn topic(&self) -> Topic {
        match self {
            Addressee::Server(name) => Topic::Control(name.clone()),
            Addressee::Images(_) => Topic::ControlImages,
            Addressee::Guest(name) => Topic::GuestControl(name.clone()),
        }
    }
}

impl From<&ServerName> for Addressee {
    fn from(name: &ServerName) -> Self {
        Addressee::Server(name.clone())
    }
}

impl fmt::Display for Addressee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addressee::Server(name) => name.fmt(f),
            Addressee::Images(name) => write!(f, "imaged on {name}"),
            Addressee::Guest(name) => write!(f, "guestd in {name}"),
        }
    }
}

/// What the sender does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send the command (again), then ask for the next step.
    Send,
    /// Nothing before this moment, unless a reply comes or the link changes.
    Wait(Mono),
    /// It is over: the final reply, or why there is none.
    Ended(Result<Reply, Failure>),
}

/// One order under way.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// What is sent.
    command: Command,
    /// To whom.
    to: Addressee,
    /// When its user loses patience.
    end: Mono,
    /// Milliseconds from its beginning to `end`.
    bound: u64,
    /// When it is sent next.
    next: Mono,
    /// Whether it was sent at all.
    sent: bool,
    /// Whether the receiver said that it works on it.
    working: bool,
    /// The final reply.
    reply: Option<Reply>,
}

/// The deadline of an order by its **receiver's** wall clock: what that clock showed in the last heartbeat (`heard.0`), the time
/// since that was heard (`heard.1`), and `bound` milliseconds. The time that the heartbeat was under way is not counted, so it errs
/// early: an order may be refused as late, and is never carried out late.
pub fn deadline(heard: (Wall, Mono), now: Mono, bound: u64) -> Wall {
    Wall(heard.0.0.saturating_add(now.since(heard.1)).saturating_add(bound))
}

impl Outbox {
    /// An order to `to` that begins now and ends `bound` milliseconds later at the latest.
    pub fn new(command: Command, to: Addressee, now: Mono, bound: u64) -> Self {
        Outbox {
            command,
            to,
            end: now.plus(bound),
            bound,
            next: now,
            sent: false,
            working: false,
            reply: None,
        }
    }

    /// To whom.
    pub fn to(&self) -> &Addressee {
        &self.to
    }

    /// What is sent.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// What to do now; [`Step::Send`] counts as sent.
    pub fn step(&mut self, now: Mono, link_up: bool) -> Step {
        if let Some(reply) = self.reply.clone() {
            return Step::Ended(match reply.answer {
                Answer::Failed { failure } => Err(failure),
                _ => Ok(reply),
            });
        }
        if now >= self.end {
            return Step::Ended(Err(self.unknown()));
        }
        if !link_up {
            return Step::Wait(self.end);
        }
        if now < self.next {
            return Step::Wait(self.next.min(self.end));
        }
        self.next = now.plus(if self.working { REPEAT_WORKING_MS } else { REPEAT_MS });
        self.sent = true;
        Step::Send
    }

    /// A reply came; those to other orders change nothing.
    pub fn hear(&mut self, reply: Reply, now: Mono) {
        if reply.id != self.command.id || self.reply.is_some() {
            return;
        }
        if reply.answer == Answer::Working {
            self.working = true;
            self.next = now.plus(REPEAT_WORKING_MS);
        } else {
            self.reply = Some(reply);
        }
    }

    /// Nobody knows what became of it.
    fn unknown(&self) -> Failure {
        let what = self.command.order.what();
        let (to, bound) = (&self.to, seconds(self.bound));
        if !self.sent {
            let text = format!("cannot {what}: it was not sent, since there was no forwarder for {bound}");
            return Failure::new(Code::HostUnreachable, text);
        }
        let file = match &self.command.order {
            Order::Domain { name, .. } => format!("domains/{name}/state"),
            Order::Server { .. } => format!("servers/{to}/status"),
            Order::Config { name, .. } => format!("configs/{name}/status"),
            Order::Guest { name, .. } => format!("domains/{name}/guest/results"),
        };
        let why = if self.working {
            format!("{to} began it and did not finish within {bound}")
        } else {
            format!("{to} did not answer within {bound}")
        };
        Failure::new(
            Code::TimedOut,
            format!("cannot {what}: {why}; the outcome is unknown, `cat {file}` tells what is true"),
        )
    }
}

impl Order {
    /// What is ordered of whom, for sentences: `pause small-1`, `set accept`.
    pub fn what(&self) -> String {
        match self {
            Order::Domain { name, command } => format!("{} {name}", command.word()),
            Order::Server { command } => match command {
                ServerCommand::Accept { .. } => "set accept".to_owned(),
                ServerCommand::Heartbeat { .. } => "set heartbeat".to_owned(),
                ServerCommand::Watchdog { .. } => "set watchdog".to_owned(),
                ServerCommand::Policy { .. } => "set policy".to_owned(),
                ServerCommand::Even { .. } => "set even".to_owned(),
                ServerCommand::Balance { .. } => "set balance".to_owned(),
                ServerCommand::Evacuate => "evacuate".to_owned(),
                ServerCommand::Restore => "restore".to_owned(),
                ServerCommand::Cancel => "cancel".to_owned(),
                ServerCommand::UpdateImports => "update imports".to_owned(),
            },
            Order::Config { name, command } => format!("{} {name}", command.word()),
            Order::Guest { name, command: GuestCommand::Run { line } } => {
                let short: String = line.chars().take(80).collect();
                format!("run {short} in {name}")
            }
            Order::Guest { name, command } => format!("{} in {name}", command.word()),
        }
    }
}

/// `5 s`, `1.5 s`.
fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Admit, Boot, ClientName, DomainCommand, DomainName, Receipts};
    use proptest::prelude::*;

    fn outbox() -> Outbox {
        let command = Command {
            id: "c.1.1".into(),
            client: ClientName::parse("c").unwrap(),
            boot: Boot(7),
            deadline: Wall(5_000),
            order: Order::Domain {
                name: DomainName::parse("small-1").unwrap(),
                command: DomainCommand::Pause,
            },
        };
        Outbox::new(command, Addressee::Server(ServerName::parse("ferby").unwrap()), Mono(0), BOUND_MS)
    }

    fn reply(answer: Answer) -> Reply {
        Reply { id: "c.1.1".into(), answer, news: None }
    }

    fn failed(step: Step) -> Failure {
        match step {
            Step::Ended(Err(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_repeated_until_it_is_answered() {
        let mut o = outbox();
        assert_eq!(o.step(Mono(0), true), Step::Send);
        assert_eq!(o.step(Mono(0), true), Step::Wait(Mono(200)));
        assert_eq!(o.step(Mono(200), true), Step::Send);
        o.hear(Reply { id: "c.1.2".into(), ..reply(Answer::Accepted) }, Mono(210));
        o.hear(reply(Answer::Working), Mono(300));
        assert_eq!(o.step(Mono(400), true), Step::Wait(Mono(1_300)));
        assert_eq!(o.step(Mono(1_300), true), Step::Send);
        o.hear(reply(Answer::Accepted), Mono(1_400));
        assert_eq!(o.step(Mono(1_400), true), Step::Ended(Ok(reply(Answer::Accepted))));
    }

    #[test]
    fn a_refusal_is_its_failure() {
        let mut o = outbox();
        let failure = Failure::busy("cannot pause small-1: it is paused");
        o.hear(reply(Answer::Failed { failure: failure.clone() }), Mono(1));
        assert_eq!(failed(o.step(Mono(1), true)), failure);
    }

    #[test]
    fn the_bound_passes() {
        let mut o = outbox();
        assert_eq!(o.step(Mono(0), true), Step::Send);
        let f = failed(o.step(Mono(5_000), true));
        assert_eq!(f.code, Code::TimedOut);
        assert_eq!(
            f.text,
            "cannot pause small-1: ferby did not answer within 5 s; the outcome is unknown, `cat domains/small-1/state` tells what is true"
        );
        let mut o = outbox();
        assert_eq!(o.step(Mono(0), true), Step::Send);
        o.hear(reply(Answer::Working), Mono(1));
        assert!(
            failed(o.step(Mono(5_000), true)).text.contains("ferby began it and did not finish within 5 s")
        );
    }

    #[test]
    fn without_a_link_nothing_is_sent() {
        let mut o = outbox();
        assert_eq!(o.step(Mono(0), false), Step::Wait(Mono(5_000)));
        assert_eq!(failed(o.clone().step(Mono(5_000), false)).code, Code::HostUnreachable);
        assert_eq!(o.step(Mono(100), true), Step::Send);
        assert_eq!(o.step(Mono(300), false), Step::Wait(Mono(5_000)));
        assert_eq!(failed(o.step(Mono(5_000), false)).code, Code::TimedOut);
    }

    proptest! {
        // whatever is lost, doubled or delayed, in either direction and whatever the two clocks say:
        // the order runs at most once and never late, and the sender ends in time and never claims what is not so
        #[test]
        fn sender_and_receiver_agree(
            fates in prop::collection::vec((0u64..2, 0u64..9_000, 0u64..9_000, any::<bool>()), 40),
            offset in 0u64..100_000_000,
            transit in 0u64..3_000,
            answer_now in any::<bool>(),
        ) {
            // the heartbeat was said at true time 0 and heard at `transit`; the receiver's wall is `offset` + true time
            let now = Mono(transit);
            let mut o = outbox();
            o.command.deadline = deadline((Wall(offset), now), now, BOUND_MS);
            let (limit, mut receipts, mut runs) = (o.command.deadline, Receipts::new(Boot(7)), 0);
            prop_assert!(limit.0 <= offset + transit + BOUND_MS);
            let mut wires: Vec<(u64, bool)> = Vec::new(); // arrival, to the receiver?
            let (mut fates, mut ended) = (fates.into_iter().cycle(), None);
            for t in transit..transit + 20_000 {
                if ended.is_none() && t % 10 == 0 {
                    match o.step(Mono(t - transit), true) {
                        Step::Ended(end) => ended = Some((t, end)),
                        Step::Send => {
                            let (copies, a, b, _) = fates.next().unwrap();
                            for d in [a, b].into_iter().take(copies as usize * 2) { wires.push((t + d, true)); }
                        }
                        Step::Wait(_) => {}
                    }
                }
                let (here, rest): (Vec<_>, Vec<_>) = wires.drain(..).partition(|w| w.0 <= t);
                wires = rest;
                for (_, to_receiver) in here {
                    if to_receiver {
                        let wall = Wall(offset + t);
                        let said = match receipts.admit(&o.command, wall, Mono(t)) {
                            Admit::Run => {
                                runs += 1;
                                prop_assert!(wall < limit);
                                let done = reply(Answer::Done { text: "paused".into() });
                                receipts.answered("c.1.1", done.clone());
                                if answer_now { Some(done) } else { None }
                            }
                            Admit::Known(said) => said,
                            Admit::Refuse(_) => None,
                        };
                        let (_, a, _, lost) = fates.next().unwrap();
                        if said.is_some() && !lost { wires.push((t + a, false)); }
                    } else if ended.is_none() {
                        o.hear(reply(Answer::Done { text: "paused".into() }), Mono(t - transit));
                    }
                }
            }
            prop_assert!(runs <= 1);
            let (at, end) = ended.unwrap();
            prop_assert!(at <= transit + BOUND_MS + 10);
            if end.is_ok() { prop_assert_eq!(runs, 1); }
        }
    }
}
