//! What users set of a server: in force once it is on disk.

use super::{
    Agent,
    commands::{About, Ticket},
};
use crate::driver::step::Effect;
use xvm_model::{
    Answer, Code, Failure, HEARTBEAT_RANGE_MS, JobKind, ServerCommand, ServerSettings, points::POINTS_MAX,
};

/// Settings that are being saved.
#[derive(Debug)]
pub(super) struct Saving {
    settings: ServerSettings,
    /// The order that set them; none when they came from other agents.
    order: Option<Ordered>,
}

/// What follows when they are saved.
#[derive(Debug)]
pub(super) struct Ordered {
    ticket: Ticket,
    /// The overload counter's new value.
    points: Option<u16>,
    /// A job of the server begins.
    errand: Option<JobKind>,
    /// What is true then.
    text: String,
}

impl Agent {
    /// The settings as they will be when all that is being saved is on disk: what comes meanwhile builds upon them.
    pub(super) fn coming_settings(&self) -> ServerSettings {
        self.saving.back().map_or(self.settings, |s| s.settings)
    }

    pub(super) fn server_command(&mut self, ticket: Ticket, command: ServerCommand) {
        let errand = match command {
            ServerCommand::Cancel => {
                return match self.cancel_errand() {
                    Ok(text) => self.answer(&ticket, About::Server, Answer::Done { text: text.into() }),
                    Err(failure) => self.refuse(&ticket, About::Server, failure),
                };
            }
            ServerCommand::UpdateImports => return self.update(ticket),
            ServerCommand::Evacuate => Some(JobKind::Evacuate),
            ServerCommand::Restore => Some(JobKind::Restore),
            _ => None,
        };
        if let Some(failure) = errand.and_then(|kind| self.errand_refusal(kind)) {
            return self.refuse(&ticket, About::Server, failure);
        }
        match changed(self.coming_settings(), command) {
            Err(why) => {
                let text = format!("cannot set {}: {why}", self.me.name);
                self.refuse(&ticket, About::Server, Failure::invalid(text));
            }
            Ok((settings, points, text)) => {
                self.save(Some(Ordered { ticket, points, errand, text }), settings);
            }
        }
    }

    /// Why a job of the server may not begin now.
    fn errand_refusal(&self, kind: JobKind) -> Option<Failure> {
        if let Some(why) = self.stale() {
            let text = format!("cannot {kind} {0}: the hypervisor of {0} is not heard: {why}", self.me.name);
            return Some(Failure::new(Code::Io, text));
        }
        let begins = self.saving.iter().any(|s| s.order.as_ref().is_some_and(|o| o.errand.is_some()));
        let again = || Failure::busy(format!("cannot {kind} {}: another job begins just now", self.me.name));
        self.errand_busy(kind.word()).or_else(|| begins.then(again))
    }

    /// Settings that are to be in force once they are on disk.
    pub(super) fn save(&mut self, order: Option<Ordered>, settings: ServerSettings) {
        self.saving.push_back(Saving { settings, order });
        self.out.push(Effect::Save(settings));
    }

    pub(super) fn saved(&mut self, result: Result<(), String>) {
        let Some(saving) = self.saving.pop_front() else { return };
        if let Err(why) = result {
            if let Some(order) = saving.order {
                let text = format!("cannot keep the settings of {}: {why}", self.me.name);
                self.refuse(&order.ticket, About::Server, Failure::new(Code::Io, text));
            }
            return;
        }
        let old = std::mem::replace(&mut self.settings, saving.settings);
        if let Some(points) = saving.order.as_ref().and_then(|o| o.points) {
            self.points.set(points);
        }
        self.beat_now();
        self.help_set(&old);
        let Some(order) = saving.order else { return };
        let answer = match order.errand {
            Some(kind) => {
                self.begin_errand(&order.ticket, kind);
                Answer::Accepted
            }
            None => Answer::Done { text: order.text.into() },
        };
        self.answer(&order.ticket, About::Server, answer);
    }
}

/// The settings after a command, the counter's new value, and a line for people.
fn changed(
    mut s: ServerSettings,
    command: ServerCommand,
) -> Result<(ServerSettings, Option<u16>, String), String> {
    match command {
        ServerCommand::Accept { on } => {
            s.accepting = on;
            Ok((s, None, format!("accept {}", if on { "on" } else { "off" })))
        }
        ServerCommand::Heartbeat { ms } if HEARTBEAT_RANGE_MS.contains(&ms) => {
            s.heartbeat_ms = ms;
            Ok((s, None, format!("heartbeat {}", f64::from(ms) / 1e3)))
        }
        ServerCommand::Heartbeat { ms } => Err(format!(
            "a heartbeat of {ms} ms; {} to {} are allowed",
            HEARTBEAT_RANGE_MS.start(),
            HEARTBEAT_RANGE_MS.end()
        )),
        ServerCommand::Watchdog { points, threshold, limit, unit } => {
            s.watchdog.threshold = threshold.unwrap_or(s.watchdog.threshold);
            s.watchdog.limit = limit.unwrap_or(s.watchdog.limit);
            s.watchdog.unit = unit.unwrap_or(s.watchdog.unit);
            check(&s)?;
            if points.is_some_and(|p| p > POINTS_MAX) {
                return Err(format!("points are 0 to {POINTS_MAX}"));
            }
            Ok((s, points, "watchdog set".into()))
        }
        ServerCommand::Policy { name } => {
            s.policy = name;
            Ok((s, None, format!("policy {name}")))
        }
        ServerCommand::Even { on } => {
            s.even = on;
            Ok((s, None, format!("even {}", if on { "on" } else { "off" })))
        }
        ServerCommand::Balance { balance } => {
            if balance.wins(&s.balance) {
                s.balance = balance;
            }
            Ok((s, None, format!("balance {}", s.balance.mode)))
        }
        ServerCommand::Evacuate | ServerCommand::Restore => {
            s.accepting = command == ServerCommand::Restore;
            Ok((s, None, String::new()))
        }
        ServerCommand::Cancel | ServerCommand::UpdateImports => Err("it sets nothing".into()),
    }
}

/// Whether settings are within their ranges; the error says which is not, and what is allowed.
pub(crate) fn check(s: &ServerSettings) -> Result<(), String> {
    let (lo, hi) = (HEARTBEAT_RANGE_MS.start(), HEARTBEAT_RANGE_MS.end());
    if !HEARTBEAT_RANGE_MS.contains(&s.heartbeat_ms) {
        Err(format!("heartbeat_ms is {}; {lo} to {hi} are allowed", s.heartbeat_ms))
    } else if !(1..=POINTS_MAX).contains(&s.watchdog.limit) {
        Err(format!("watchdog.limit is {}; 1 to {POINTS_MAX} are allowed", s.watchdog.limit))
    } else if !(1..=3600).contains(&s.watchdog.unit) {
        Err(format!("watchdog.unit is {}; 1 to 3600 are allowed", s.watchdog.unit))
    } else {
        Ok(())
    }
}
