//! The tests that are built in. Each runs as a process of its own: `guestd test NAME [ARG]...`.
//!
//! A test is one row of [`TESTS`] and one file; help and manual page come from the row.

mod disk;
mod fibonacci;
mod image;
mod memory;

use std::fmt::Write as _;
use std::io::Write;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// A test that is built in.
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub args: &'static str,
    /// What it does, and its defaults.
    pub about: &'static str,
    run: fn(&[String], &mut dyn Write) -> Result<(), Problem>,
    cost: fn(&[String]) -> Result<Cost, Problem>,
}

/// What a test is in a simulated guest, which only reckons: as on one CPU of a usual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// How long one CPU works.
    pub cpu: Duration,
    /// What is printed.
    pub output: String,
}

/// All of them.
pub const TESTS: &[Test] = &[
    Test {
        name: "fibonacci",
        args: "[N]",
        about: "the Nth Fibonacci number by its recursion: one CPU (N 0 to 50, else 38)",
        run: fibonacci::run,
        cost: fibonacci::cost,
    },
    Test {
        name: "image",
        args: "[SIZE]",
        about: "a picture of SIZE times SIZE points is drawn, encoded, decoded, blurred, turned, encoded (64 to 4096, else 512)",
        run: image::run,
        cost: image::cost,
    },
    Test {
        name: "memory",
        args: "[MIB] [SECONDS]",
        about: "MIB of memory are written and checked (1 to 1048576, else 64), again and again for SECONDS (0 to 3600, else once)",
        run: memory::run,
        cost: memory::cost,
    },
    Test {
        name: "disk",
        args: "[MIB] [DIR]",
        about: "a file of MIB is written to the disk and read back (1 to 65536, else 64) in DIR (else /var/tmp); no file stays",
        run: disk::run,
        cost: disk::cost,
    },
];

/// Why a test did not end well.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// A wrong argument; exit status 2.
    Usage(String),
    /// What it tested is not right, or could not be tested; exit status 1.
    Failed(String),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Problem::Failed(error.to_string())
    }
}

/// Runs a test in this process: the words after `guestd test`. It prints to standard output, problems to standard error.
pub fn main(words: &[String]) -> ExitCode {
    match of(words, |test, args| (test.run)(args, &mut std::io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let (status, said) = problem.told();
            eprintln!("{said}");
            ExitCode::from(status)
        }
    }
}

/// What the test costs that the words after `guestd test` name; the exit status and what is said when there is none.
pub fn cost(words: &[String]) -> Result<Cost, (u8, String)> {
    of(words, |test, args| (test.cost)(args)).map_err(|problem| problem.told())
}

/// Does something with the test that `words` name.
fn of<T>(words: &[String], with: impl Fn(&Test, &[String]) -> Result<T, Problem>) -> Result<T, Problem> {
    let (name, args) = words.split_first().ok_or_else(|| Problem::Usage("a test's name is needed".into()))?;
    let none = || {
        let names: Vec<&str> = TESTS.iter().map(|t| t.name).collect();
        Problem::Usage(format!("there is no test {name:?}; there are {}", names.join(", ")))
    };
    let test = TESTS.iter().find(|t| t.name == name).ok_or_else(none)?;
    with(test, args).map_err(|problem| match problem {
        Problem::Failed(why) => Problem::Failed(format!("{name}: {why}")),
        Problem::Usage(why) => Problem::Usage(format!("{name}: {why}; usage: {name} {}", test.args)),
    })
}

impl Problem {
    /// The exit status, and what is said.
    fn told(&self) -> (u8, String) {
        let (status, why) = match self {
            Problem::Usage(why) => (2, why),
            Problem::Failed(why) => (1, why),
        };
        (status, format!("guestd test: {why}"))
    }
}

/// The tests with what they do, two lines each.
pub fn list() -> String {
    TESTS.iter().fold(String::new(), |mut text, test| {
        writeln!(text, "  {} {}\n      {}", test.name, test.args, test.about).expect("a String takes all");
        text
    })
}

/// The number at `index`, or the default; the error says which are allowed.
fn number<T>(
    args: &[String],
    index: usize,
    what: &str,
    allowed: RangeInclusive<T>,
    default: T,
) -> Result<T, Problem>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let Some(text) = args.get(index) else { return Ok(default) };
    match text.parse() {
        Ok(n) if allowed.contains(&n) => Ok(n),
        _ => Err(Problem::Usage(format!("{what} is {} to {}, not {text:?}", allowed.start(), allowed.end()))),
    }
}

/// No more arguments than a test takes.
fn at_most(args: &[String], most: usize) -> Result<(), Problem> {
    match args.get(most) {
        None => Ok(()),
        Some(extra) => Err(Problem::Usage(format!("{extra:?} is one argument too many"))),
    }
}

/// Numbers that look random and are the same each time (splitmix64).
fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn run(name: &str, args: &[&str]) -> Result<String, Problem> {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let test = TESTS.iter().find(|t| t.name == name).expect("built in");
        let mut out = Vec::new();
        (test.run)(&args, &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn wrong_arguments_say_what_is_allowed() {
        for (line, why) in [
            ("fibonacci 51", "N is 0 to 50, not \"51\""),
            ("fibonacci -1", "N is 0 to 50, not \"-1\""),
            ("fibonacci 1 2", "\"2\" is one argument too many"),
            ("image 63", "SIZE is 64 to 4096, not \"63\""),
            ("memory 0", "MIB is 1 to 1048576, not \"0\""),
            ("memory 1 x", "SECONDS is 0 to 3600, not \"x\""),
            ("disk 99999", "MIB is 1 to 65536, not \"99999\""),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(run(words[0], &words[1..]), Err(Problem::Usage(why.into())), "{line}");
        }
    }
}
