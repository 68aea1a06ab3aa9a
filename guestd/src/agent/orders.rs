//! Orders: each is carried out at most once, checked, and answered.

use super::{Agent, CANCEL_MS, Effect};
use xvm_model::command::quote;
use xvm_model::guest::command::{WATCH_MAX, parse_run};
use xvm_model::receipts::Admit;
use xvm_model::{Answer, Body, ClientName, Command, Failure, GuestCommand, News, Order, Ratio, Reply, Topic};

/// For how long load may be made, in seconds: a day.
const LOAD_MAX: u32 = 86_400;

/// Who is answered, and under which id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    id: Box<str>,
    client: ClientName,
}

impl Agent {
    /// An order. One that is for others is not answered.
    pub(super) fn command(&mut self, command: Command) {
        let Order::Guest { name, command: what } = &command.order else { return };
        if *name != self.settings.name {
            return;
        }
        let ticket = Ticket { id: command.id.clone(), client: command.client.clone() };
        match self.receipts.admit(&command, self.now.wall, self.now.mono) {
            Admit::Run => self.carry_out(ticket, what),
            Admit::Known(None) => self.send(&ticket, Answer::Working),
            Admit::Known(Some(reply)) => self.send(&ticket, reply.answer),
            Admit::Refuse(failure) => self.send(&ticket, Answer::Failed { failure }),
        }
    }

    fn carry_out(&mut self, ticket: Ticket, what: &GuestCommand) {
        match what {
            GuestCommand::Run { line } => self.run(&ticket, line),
            GuestCommand::Cancel => self.cancel(ticket),
            GuestCommand::Load { share, seconds } => self.load(&ticket, *share, *seconds),
            GuestCommand::Top { seconds } => self.top(&ticket, *seconds),
        }
    }

    fn run(&mut self, ticket: &Ticket, line: &str) {
        let name = self.settings.name.clone();
        let taken = match parse_run(line) {
            Ok(GuestCommand::Run { line }) => match self.settings.allowed.resolve(&line) {
                Ok(_) => self
                    .queue
                    .order(&ticket.id, &line, self.now.wall)
                    .map(|()| line.clone())
                    .map_err(|why| Failure::busy(format!("cannot run {} in {name}: {why}", quote(&line)))),
                Err(why) => Err(Failure::invalid(format!("cannot run {} in {name}: {why}", quote(&line)))),
            },
            Ok(_) => Err(Failure::invalid(format!("cannot run {} in {name}: it is no test", quote(line)))),
            Err(why) => Err(Failure::invalid(format!("cannot run a test in {name}: {why}"))),
        };
        match taken {
            Err(failure) => self.answer(ticket, Answer::Failed { failure }),
            Ok(line) => {
                self.begin();
                // who waits for the answer sees the test with it, and so does everybody else
                let later = std::mem::take(&mut self.effects);
                self.tell_runs();
                self.done(ticket, &format!("{line} is taken"));
                self.effects.extend(later);
            }
        }
    }

    fn cancel(&mut self, ticket: Ticket) {
        let running = self.running_line();
        let (text, waits) = match (running, self.queue.cancel()) {
            (Some(line), (_, 0)) => (format!("{line} was ended"), true),
            (Some(line), (_, n)) => (format!("{line} was ended, and {} forgotten", that_waited(n)), true),
            (None, (_, 0)) => {
                let text = format!("cannot cancel in {}: no test runs", self.settings.name);
                return self.answer(&ticket, Answer::Failed { failure: Failure::busy(text) });
            }
            (None, (_, n)) => (format!("{} forgotten", that_waited(n)), false),
        };
        if waits {
            // it is over within milliseconds: the answer comes with its end
            self.effects.push(Effect::Kill);
            self.ending.push((ticket, text.into(), self.now.mono.plus(CANCEL_MS)));
        } else {
            self.tell_runs();
            self.done(&ticket, &text);
        }
    }

    fn load(&mut self, ticket: &Ticket, share: Ratio, seconds: u32) {
        if seconds > LOAD_MAX {
            let text = format!("cannot load {}: SECONDS is 0 to {LOAD_MAX}", self.settings.name);
            return self.answer(ticket, Answer::Failed { failure: Failure::invalid(text) });
        }
        let (load, text) = if seconds == 0 || share == Ratio::ZERO {
            (None, "no load is made".to_owned())
        } else {
            let text = format!("each CPU is loaded by {} % for {seconds} s", share.percent());
            (Some((share, u64::from(seconds) * 1000)), text)
        };
        self.loading = load.map(|(share, ms)| (share, self.now.mono.plus(ms)));
        self.effects.push(Effect::Load(load));
        self.beat();
        self.done(ticket, &text);
    }

    fn top(&mut self, ticket: &Ticket, seconds: u32) {
        let seconds = seconds.min(WATCH_MAX);
        if seconds == 0 {
            self.watched = self.now.mono;
            return self.done(ticket, "no processes are sent");
        }
        if !self.is_watched() && !self.looking {
            self.looking = true;
            self.effects.push(Effect::Look { tell: false });
        }
        // who asks for less than others asked for does not end their reading
        self.watched = self.watched.max(self.now.mono.plus(u64::from(seconds) * 1000));
        self.done(ticket, &format!("processes are sent for {seconds} s"));
    }

    pub(super) fn done(&mut self, ticket: &Ticket, text: &str) {
        self.answer(ticket, Answer::Done { text: text.into() });
    }

    /// The last answer to an order: it is remembered for the order's copies.
    fn answer(&mut self, ticket: &Ticket, answer: Answer) {
        self.receipts
            .answered(&ticket.id, Reply { id: ticket.id.clone(), answer: answer.clone(), news: None });
        self.send(ticket, answer);
    }

    /// An answer, with the tests as they are now.
    fn send(&mut self, ticket: &Ticket, answer: Answer) {
        let news = match &answer {
            Answer::Working => None,
            _ => Some(News::Guest { runs: Box::new(self.runs()) }),
        };
        let reply = Reply { id: ticket.id.clone(), answer, news };
        self.publish(Topic::Reply(ticket.client.clone()), Body::Reply(Box::new(reply)));
    }
}

fn that_waited(n: usize) -> String {
    if n == 1 { "1 that waited is".into() } else { format!("{n} that waited are") }
}
