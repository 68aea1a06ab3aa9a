//! Schedules of tests: what runs when in which guests, and what came of it.
//!
//! | file | what |
//! |---|---|
//! | here | the text of a schedule |
//! | [`play`] | a schedule that is carried out: a state machine over time, guests and answers |
//! | [`table`] | its results and their summary as text |
//!
//! ```text
//! # AT  DOMAIN   TEST ARGS
//! 0     small-*  fibonacci 38
//! 2.5   small-1  memory 64 10
//! ```

pub mod play;
pub mod table;

use crate::command::{Verb, quote};
use crate::guest::command::{GuestCommand, parse_run};
use glob::Pattern;

/// The most of a schedule's text, in bytes.
pub const TEXT_MAX: usize = 64 << 10;
/// The most lines that say something.
pub const LINES_MAX: usize = 1000;
/// The most tests of one run of a schedule: a pattern counts as many domains as it names.
pub const TASKS_MAX: usize = 1000;
/// The latest time of a test, in milliseconds from the start: a day.
pub const AT_MAX_MS: u64 = 86_400_000;
/// The longest name or pattern of domains, in bytes.
const PATTERN_MAX: usize = 200;

/// A schedule that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    /// Its lines by their time; those of the same time as they were written.
    pub lines: Vec<Planned>,
}

/// One line: a test in each domain that the pattern names when its time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When, in milliseconds from the start.
    pub at_ms: u64,
    /// Where: a name, or a pattern with `*`, `?` and `[...]`.
    pub domains: Pattern,
    /// The test with its arguments.
    pub test: Box<str>,
}

impl Schedule {
    /// Reads a text. Empty lines and those that begin with `#` say nothing. The error names the line, the value and what is allowed.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("it has {} bytes; at most {TEXT_MAX} are taken", text.len()));
        }
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            lines.push(planned(line).map_err(|why| format!("line {number}: {why}"))?);
            if lines.len() > LINES_MAX {
                return Err(format!("line {number}: a schedule has at most {LINES_MAX} lines"));
            }
        }
        lines.sort_by_key(|l| l.at_ms);
        Ok(Schedule { lines })
    }
}

fn planned(line: &str) -> Result<Planned, String> {
    let usage = "a line is AT DOMAIN TEST [ARG]...";
    let (at, rest) = line
        .split_once(char::is_whitespace)
        .ok_or_else(|| format!("{} has one word; {usage}", quote(line)))?;
    let (domains, test) = rest
        .trim_start()
        .split_once(char::is_whitespace)
        .ok_or_else(|| format!("{} names no test; {usage}", quote(line)))?;
    let at_ms = tenths(at).map(|tenths| tenths * 100).filter(|ms| *ms <= AT_MAX_MS).ok_or_else(|| {
        format!("AT {} is not 0 to {} seconds, with one decimal at most", quote(at), AT_MAX_MS / 1000)
    })?;
    if domains.len() > PATTERN_MAX {
        return Err(format!("DOMAIN has {} bytes; at most {PATTERN_MAX} are taken", domains.len()));
    }
    let pattern = Pattern::new(domains).map_err(|e| {
        format!("DOMAIN {} is no name and no pattern (*, ?, [...]): {}", quote(domains), e.msg)
    })?;
    match parse_run(test)? {
        GuestCommand::Run { line } => Ok(Planned { at_ms, domains: pattern, test: line }),
        _ => Err("no test".into()),
    }
}

/// Seconds with one decimal at most, in tenths.
fn tenths(text: &str) -> Option<u64> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    if !digits(whole) || !digits(tenth) || tenth.len() > 1 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(10)?.checked_add(tenth.parse().ok()?)
}

/// What is done with a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleCommand {
    /// Carry it out from its beginning.
    Start,
    /// Order nothing more, and end what runs.
    Cancel,
}

/// `tests/NAME/ctl`.
pub const SCHEDULE_VERBS: &[Verb<ScheduleCommand>] = &[
    Verb {
        word: "start",
        args: "",
        arity: (0, 0),
        about: "carry the schedule out; the results of the last time are forgotten",
        parse: |_| Ok(ScheduleCommand::Start),
    },
    Verb {
        word: "cancel",
        args: "",
        arity: (0, 0),
        about: "order nothing more, and end the tests that run",
        parse: |_| Ok(ScheduleCommand::Cancel),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_schedule_is_read() {
        let text = "# the evening\n\n 2.5 small-1   memory  64 10 \n0 small-* fibonacci 38\n";
        let schedule = Schedule::parse(text).expect("it reads");
        let lines: Vec<_> = schedule.lines.iter().map(|l| (l.at_ms, l.domains.as_str(), &*l.test)).collect();
        assert_eq!(lines, [(0, "small-*", "fibonacci 38"), (2500, "small-1", "memory 64 10")]);
        assert_eq!(Schedule::parse(""), Ok(Schedule::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("0", "line 1: \"0\" has one word; a line is AT DOMAIN TEST"),
            ("\n0 small-1", "line 2: \"0 small-1\" names no test"),
            ("x small-1 fibonacci", "AT \"x\" is not 0 to 86400 seconds"),
            ("-1 small-1 fibonacci", "AT \"-1\" is not 0 to 86400"),
            ("86401 small-1 fibonacci", "AT \"86401\" is not"),
            ("1.25 small-1 fibonacci", "one decimal at most"),
            ("0 small-[ fibonacci", "DOMAIN \"small-[\" is no name and no pattern"),
            ("0 a b\u{1}c", "control character"),
        ] {
            let e = Schedule::parse(text).expect_err(text);
            assert!(e.contains(why), "{text:?}: {e}");
        }
        let long = "0 a b\n".repeat(LINES_MAX + 1);
        assert!(Schedule::parse(&long).expect_err("too long").contains("at most 1000 lines"));
        assert!(Schedule::parse(&"x".repeat(TEXT_MAX + 1)).expect_err("too long").contains("65536"));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>(), line in "[0-9.]{0,7} [a*?\\[\\]!-]{0,9} [a-z 0-9]{0,9}") {
            drop(Schedule::parse(&text));
            drop(Schedule::parse(&line));
        }
    }
}
