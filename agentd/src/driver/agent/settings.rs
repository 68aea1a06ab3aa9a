//! What users set of a server: in force once it is on disk.

use super::{
    Agent,
    commands::{About, Ticket},
};
use crate::driver::step::Effect;
use xvm_model::{
    Answer, Code, Failure, HEARTBEAT_RANGE_MS, ServerCommand, ServerSettings, points::POINTS_MAX,
};

/// An order whose settings are being saved.
#[derive(Debug)]
pub(super) struct Saving {
    ticket: Ticket,
    settings: ServerSettings,
    /// The overload counter's new value.
    points: Option<u16>,
    /// What is true then.
    text: String,
}

impl Agent {
    pub(super) fn server_command(&mut self, ticket: Ticket, command: ServerCommand) {
        // orders that came meanwhile build upon each other
        let base = self.saving.back().map_or(self.settings, |s| s.settings);
        match changed(base, command) {
            Err(why) => {
                let text = format!("cannot set {}: {why}", self.me.name);
                self.refuse(&ticket, About::Server, Failure::invalid(text));
            }
            Ok((settings, points, text)) => {
                self.saving.push_back(Saving { ticket, settings, points, text });
                self.out.push(Effect::Save(settings));
            }
        }
    }

    pub(super) fn saved(&mut self, result: Result<(), String>) {
        let Some(saving) = self.saving.pop_front() else { return };
        match result {
            Err(why) => {
                let text = format!("cannot keep the settings of {}: {why}", self.me.name);
                self.refuse(&saving.ticket, About::Server, Failure::new(Code::Io, text));
            }
            Ok(()) => {
                self.settings = saving.settings;
                if let Some(points) = saving.points {
                    self.points.set(points);
                }
                self.beat_now();
                let answer = Answer::Done { text: saving.text.into() };
                self.answer(&saving.ticket, About::Server, answer);
            }
        }
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
