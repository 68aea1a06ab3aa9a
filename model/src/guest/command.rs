//! What a guest is told, and the words of `domains/NAME/guest/ctl`.

use super::RUN_LINE_MAX;
use crate::Ratio;
use crate::command::{Verb, quote};
use crate::domain::words;
use serde::{Deserialize, Serialize};

/// For how long a guest may be asked to send its processes, in seconds.
pub const WATCH_MAX: u32 = 60;

words! {
    /// The word of a command to a guest.
    GuestWord {
        /// Run a test.
        Run = "run",
        /// End the test that runs, and forget those that wait.
        Cancel = "cancel",
        /// Load its CPUs.
        Load = "load",
        /// Send its processes for a while.
        Top = "top",
    }
}

/// What is asked of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum GuestCommand {
    /// Run a test after those that wait (done when it is taken).
    Run {
        /// Its name and arguments, spaces between.
        line: Box<str>,
    },
    /// End the test that runs, and forget those that wait.
    Cancel,
    /// Load each CPU.
    Load {
        /// How much of each.
        share: Ratio,
        /// For how long; 0 ends it.
        seconds: u32,
    },
    /// Send its processes, now and each second.
    Top {
        /// For how long, [`WATCH_MAX`] at most.
        seconds: u32,
    },
}

impl GuestCommand {
    /// The command's word.
    pub fn word(&self) -> GuestWord {
        match self {
            Self::Run { .. } => GuestWord::Run,
            Self::Cancel => GuestWord::Cancel,
            Self::Load { .. } => GuestWord::Load,
            Self::Top { .. } => GuestWord::Top,
        }
    }
}

/// `domains/NAME/guest/ctl`.
pub const GUEST_VERBS: &[Verb<GuestCommand>] = &[
    Verb {
        word: "run",
        args: "TEST [ARG]...",
        arity: (1, 64),
        about: "run a test after those that wait (see the file run)",
        parse: |w| parse_run(&w.join(" ")),
    },
    Verb {
        word: "load",
        args: "[PERCENT] SECONDS",
        arity: (1, 2),
        about: "load its CPUs: PERCENT (1 to 100, else 100) of each for SECONDS (0 ends it)",
        parse: |w| {
            let (share, seconds) = crate::command::parse_share(w)?;
            Ok(GuestCommand::Load { share, seconds })
        },
    },
    Verb {
        word: "cancel",
        args: "",
        arity: (0, 0),
        about: "end the test that runs, and forget those that wait",
        parse: |_| Ok(GuestCommand::Cancel),
    },
];

/// Reads one line of the file `run`: a test's name and its arguments. Whether there is such a test the guest knows.
pub fn parse_run(line: &str) -> Result<GuestCommand, String> {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return Err("a test's name is needed".into());
    }
    if line.len() > RUN_LINE_MAX {
        return Err(format!("the line has {} bytes; at most {RUN_LINE_MAX} are taken", line.len()));
    }
    if line.contains(char::is_control) {
        return Err(format!("{} holds a control character", quote(&line)));
    }
    Ok(GuestCommand::Run { line: line.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::parse_line;

    #[test]
    fn lines_become_commands() {
        let run = |line: &str| Ok(GuestCommand::Run { line: line.into() });
        assert_eq!(parse_run(" fibonacci  38 "), run("fibonacci 38"));
        assert_eq!(parse_line(GUEST_VERBS, "run image 512").map_err(|f| f.text), run("image 512"));
        let load = parse_line(GUEST_VERBS, "load 80 60").expect("ok");
        assert_eq!(load, GuestCommand::Load { share: Ratio::new(0.8), seconds: 60 });
        for bad in ["", "  ", "a\u{1}b", &"x".repeat(2000)] {
            assert!(parse_run(bad).is_err(), "{bad}");
        }
        assert!(parse_line(GUEST_VERBS, "load 0 5").is_err());
    }
}
