//! A program to run, and why a step did not work.

use std::{ffi::OsString, io, path::Path, time::Duration};

/// Why a step did not work; the stage makes a [`super::BuildError`] of it.
#[derive(Debug)]
pub enum Trouble {
    /// Cancelled.
    Cancelled,
    /// Something is full.
    NoSpace(String),
    /// Anything else, in a sentence.
    Failed(String),
}

impl Trouble {
    /// A failure on a file.
    pub fn of(path: &Path, e: &io::Error) -> Trouble {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Trouble::NoSpace(format!("cannot write {}", path.display()))
            }
            _ => Trouble::Failed(format!("{}: {e}", path.display())),
        }
    }

    /// The same with words before the reason.
    pub fn because(self, words: &str) -> Trouble {
        match self {
            Trouble::Failed(why) => Trouble::Failed(format!("{words}: {why}")),
            other => other,
        }
    }
}

/// A program with its arguments.
pub struct Tool {
    pub(super) program: &'static str,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'static str, OsString)>,
    pub(super) limit: Duration,
    pub(super) good: &'static [i32],
}

impl Tool {
    /// One that must end with 0, within 10 minutes.
    pub fn new(program: &'static str) -> Tool {
        Tool { program, args: Vec::new(), env: Vec::new(), limit: Duration::from_secs(600), good: &[0] }
    }

    /// What a log says of it: `$ PROGRAM ARGUMENTS`.
    pub(super) fn line(&self) -> String {
        let args = self.args.iter().map(|a| a.to_string_lossy());
        std::iter::once("$".into()).chain([self.program.into()]).chain(args).collect::<Vec<_>>().join(" ")
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Tool {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Tool {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, key: &'static str, value: impl Into<OsString>) -> Tool {
        self.env.push((key, value.into()));
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Tool {
        self.limit = limit;
        self
    }

    /// Which exit codes are good.
    pub fn good(mut self, codes: &'static [i32]) -> Tool {
        self.good = codes;
        self
    }
}

/// The line that says why: the last one marked as an error, or else the last that is not empty.
pub fn meaning(text: &str) -> Option<&str> {
    let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty()).rev();
    let error = |l: &&str| {
        let l = l.trim_start_matches("E: ");
        ["error", "cannot", "failed", "could not", "unable"]
            .iter()
            .any(|w| l.to_ascii_lowercase().contains(w))
    };
    // mmdebstrap ends with how its children ended, which says less than apt did before
    let dull =
        |l: &&str| l.contains("apt-get") && l.contains("failed") || l.ends_with("mmdebstrap failed to run");
    // a mirror that does not answer says so in a warning
    let fetch = lines().find(|l| l.contains("Failed to fetch"));
    let found = fetch.or_else(|| lines().filter(|l| !dull(l)).find(error)).or_else(|| lines().next());
    found.map(|l| l.char_indices().nth(300).map_or(l, |(at, _)| &l[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why() {
        assert_eq!(
            meaning("a\nE: Unable to locate package x\nI: done\n"),
            Some("E: Unable to locate package x")
        );
        assert_eq!(
            meaning("W: Failed to fetch http://x\nE: Some index files failed\n"),
            Some("W: Failed to fetch http://x")
        );
        assert_eq!(meaning("a\nb\n\n"), Some("b"));
        assert_eq!(meaning("\n"), None);
    }
}
