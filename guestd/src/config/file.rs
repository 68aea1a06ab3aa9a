//! The file: TOML, in which the site says what its guests may run.

use crate::allowed::Allowed;
use anyhow::{Context as _, anyhow};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;
use xvm_bus::Endpoint;
use xvm_model::DomainName;

/// What it says; all of it may be missing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct File {
    /// The domain's name.
    pub name: Option<DomainName>,
    /// Where forwarders are.
    pub forwarders: Vec<Endpoint>,
    /// Seconds between two heartbeats, 0.1 to 60.
    pub heartbeat: Option<f64>,
    /// Whether every program may be run.
    pub allow_any: bool,
    /// The site's tests: their lines by their names.
    pub tests: BTreeMap<String, String>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<Spanned<String>>,
    forwarder: Option<Spanned<OneOrMore>>,
    heartbeat: Option<Spanned<toml::Value>>,
    #[serde(default)]
    allow_any: bool,
    #[serde(default)]
    tests: BTreeMap<String, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "an address or a list of addresses is needed")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl File {
    /// Reads a file that must be there. The error names file, line and reason.
    pub fn read(path: &Path) -> anyhow::Result<File> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        // one sentence: who started it reads one line
        let text = text.map_err(|e| anyhow!("{e:#}"))?;
        File::parse(&text).map_err(|(line, why)| anyhow!("cannot use {}, line {line}: {why}", path.display()))
    }

    /// Reads its text; the error is the number of a line and what is wrong there.
    pub fn parse(text: &str) -> Result<File, (usize, String)> {
        let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
        let wrong = |at: usize, why: String| (line(at), why);
        let written: Written = toml::from_str(text).map_err(|e| {
            let why = e.message().split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
            wrong(e.span().map_or(0, |s| s.start), why)
        })?;
        let mut file = File { allow_any: written.allow_any, ..File::default() };
        if let Some(name) = written.name {
            let parsed =
                DomainName::parse(name.get_ref()).map_err(|e| wrong(name.span().start, e.to_string()))?;
            file.name = Some(parsed);
        }
        if let Some(forwarder) = written.forwarder {
            let at = forwarder.span().start;
            let all = match forwarder.into_inner() {
                OneOrMore::One(address) => vec![address],
                OneOrMore::More(all) => all,
            };
            let all = all.iter().map(|a| Endpoint::parse(a)).collect::<Result<_, _>>();
            file.forwarders = all.map_err(|e| wrong(at, e.to_string()))?;
        }
        if let Some(heartbeat) = written.heartbeat {
            let seconds = match heartbeat.get_ref() {
                toml::Value::Integer(n) => Some(*n as f64),
                toml::Value::Float(f) => Some(*f),
                _ => None,
            };
            let bad = || wrong(heartbeat.span().start, super::settle::HEARTBEAT_RULE.into());
            file.heartbeat = Some(seconds.filter(|s| super::settle::interval(*s).is_some()).ok_or_else(bad)?);
        }
        // the same checks as later, while the lines are known
        let mut allowed = Allowed::new(PathBuf::new(), false);
        for (name, program) in written.tests {
            allowed.add(&name, program.get_ref()).map_err(|e| wrong(program.span().start, e))?;
            file.tests.insert(name, program.into_inner());
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_that_it_can_say() {
        let text = "name = \"small-1\"\nforwarder = [\"10.0.0.1\", \"[::1]:7\"]\nheartbeat = 0.5\nallow_any = true\n[tests]\nquick = \"/bin/true\"\n";
        let file = File::parse(text).expect("it reads");
        assert_eq!(
            (file.forwarders.len(), file.heartbeat, file.allow_any, file.tests.len()),
            (2, Some(0.5), true, 1)
        );
        let one = File::parse("forwarder = \"ferby\"\nheartbeat = 5\n").expect("it reads");
        assert_eq!((one.forwarders.len(), one.heartbeat), (1, Some(5.0)));
        assert_eq!(File::parse(""), Ok(File::default()));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line, why) in [
            ("\nnam = 1\n", 2, "unknown field `nam`"),
            ("name = \"a/b\"\n", 1, "no '/'"),
            ("name = 1\n", 1, "invalid type: integer"),
            ("\n\nforwarder = [\"a b\"]\n", 3, "allowed are HOST"),
            ("forwarder = 5\n", 1, "an address or a list of addresses is needed"),
            ("heartbeat = 61\n", 1, "0.1 to 60 seconds"),
            ("heartbeat = \"x\"\n", 1, "0.1 to 60 seconds"),
            ("[tests]\na = \"/bin/true\"\nb = \"true\"\n", 3, "absolute path"),
            ("[tests]\ndisk = \"/bin/true\"\n", 2, "built in"),
            ("name = \"x\"\nname = \"y\"\n", 2, "duplicate key"),
        ] {
            let (at, reason) = File::parse(text).expect_err(text);
            assert!(at == line && reason.contains(why), "{text:?}: line {at}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>(), key in "name|forwarder|heartbeat|tests|x", value in any::<String>()) {
            drop((File::parse(&text), File::parse(&format!("{key} = {value}")), File::parse(&format!("{key} = {value:?}"))));
        }
    }
}
