//! Which tests there are: those built in, those of the site's list, and, when it is allowed, any program.

use crate::builtin::TESTS;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use xvm_model::guest::TESTS_MAX;

/// The last word of a site's test whose order may name further arguments.
const MORE: &str = "...";
/// The longest name of a test, in bytes.
const NAME_MAX: usize = 64;

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called in lists of processes; none for its path.
    pub name: Option<&'static str>,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// A test of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    path: PathBuf,
    args: Vec<OsString>,
    /// Whether orders may add arguments.
    more: bool,
}

/// The tests that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// guestd's own program, which runs what is built in.
    own: PathBuf,
    listed: BTreeMap<Box<str>, Listed>,
    /// Whether the absolute path of any program is a test.
    any: bool,
}

impl Allowed {
    /// What is built into the program `own`, and with `any` every program that an order names by its absolute path.
    pub fn new(own: PathBuf, any: bool) -> Self {
        Allowed { own, listed: BTreeMap::new(), any }
    }

    /// Adds a test of the site: a line with an absolute path and arguments, `...` last when orders may add some. The error says why not.
    pub fn add(&mut self, name: &str, line: &str) -> Result<(), String> {
        if name.is_empty()
            || name.len() > NAME_MAX
            || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
        {
            return Err(format!(
                "a test's name is 1 to {NAME_MAX} bytes without spaces and '/', not {name:?}"
            ));
        }
        if TESTS.iter().any(|t| t.name == name) {
            return Err(format!("the test {name} is built in; give yours another name"));
        }
        if TESTS.len() + self.listed.len() >= TESTS_MAX {
            return Err(format!(
                "there are too many tests: {TESTS_MAX} at most, the {} that are built in included",
                TESTS.len()
            ));
        }
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let more = words.last() == Some(&MORE);
        words.truncate(words.len() - usize::from(more));
        let Some((path, args)) = words.split_first().filter(|(path, _)| path.starts_with('/')) else {
            return Err(format!(
                "the test {name} is the absolute path of a program with its arguments, not {line:?}"
            ));
        };
        let args = args.iter().map(OsString::from).collect();
        self.listed.insert(name.into(), Listed { path: path.into(), args, more });
        Ok(())
    }

    /// The names of the tests: first what is built in.
    pub fn names(&self) -> Vec<Box<str>> {
        TESTS.iter().map(|t| t.name.into()).chain(self.listed.keys().cloned()).collect()
    }

    /// The program that a line stands for. The error says why there is none, in the middle of a sentence.
    pub fn resolve(&self, line: &str) -> Result<Program, String> {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let args: Vec<OsString> = words.map(OsString::from).collect();
        if let Some(listed) = self.listed.get(name) {
            if !listed.more && !args.is_empty() {
                return Err(format!("the test {name} of this guest takes no arguments"));
            }
            let args = listed.args.iter().cloned().chain(args).collect();
            return Ok(Program { path: listed.path.clone(), name: None, args });
        }
        if TESTS.iter().any(|t| t.name == name) {
            let args = ["test", name].into_iter().map(OsString::from).chain(args).collect();
            return Ok(Program { path: self.own.clone(), name: Some("guestd"), args });
        }
        if self.any && name.starts_with('/') {
            return Ok(Program { path: name.into(), name: None, args });
        }
        let any = if self.any { ", and any program by its absolute path" } else { "" };
        Err(format!("there is no test of that name; there are {}{any}", self.names().join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some(any: bool) -> Allowed {
        let mut allowed = Allowed::new("/sbin/guestd".into(), any);
        allowed.add("stress", "/usr/bin/stress --cpu 2").expect("taken");
        allowed.add("echo", "/bin/echo hello ...").expect("taken");
        allowed
    }

    fn line(allowed: &Allowed, line: &str) -> Result<String, String> {
        let program = allowed.resolve(line)?;
        Ok(program
            .args
            .iter()
            .fold(program.path.display().to_string(), |l, a| format!("{l} {}", a.display())))
    }

    #[test]
    fn lines_become_programs() {
        let allowed = some(false);
        assert_eq!(line(&allowed, "fibonacci 38").as_deref(), Ok("/sbin/guestd test fibonacci 38"));
        assert_eq!(line(&allowed, "stress").as_deref(), Ok("/usr/bin/stress --cpu 2"));
        assert_eq!(line(&allowed, "echo x y").as_deref(), Ok("/bin/echo hello x y"));
        let more = line(&allowed, "stress --io 4").expect_err("refused");
        assert_eq!(more, "the test stress of this guest takes no arguments");
        let none = line(&allowed, "/bin/true").expect_err("refused");
        assert_eq!(
            none,
            "there is no test of that name; there are fibonacci, image, memory, disk, echo, stress"
        );
        assert_eq!(line(&some(true), "/bin/true x").as_deref(), Ok("/bin/true x"));
        let none = line(&some(true), "true").expect_err("refused");
        assert!(none.ends_with("and any program by its absolute path"), "{none}");
    }

    #[test]
    fn wrong_tests_of_a_site_are_refused() {
        let mut allowed = some(false);
        for (name, line) in
            [("", "/x"), ("a b", "/x"), ("a/b", "/x"), ("disk", "/x"), ("x", "true"), ("x", ""), ("x", "...")]
        {
            assert!(allowed.add(name, line).is_err(), "{name} {line}");
        }
        (0..100).for_each(|i| drop(allowed.add(&format!("t{i}"), "/bin/true")));
        assert_eq!(allowed.names().len(), TESTS_MAX);
    }

    proptest! {
        // if this fails, an order runs what nobody has listed
        #[test]
        fn only_what_is_listed_is_run(text in any::<String>()) {
            if let Ok(program) = some(false).resolve(&text) {
                let paths = ["/sbin/guestd", "/usr/bin/stress", "/bin/echo"];
                prop_assert!(paths.iter().any(|p| program.path == std::path::Path::new(p)));
            }
        }
    }
}
