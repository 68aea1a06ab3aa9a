//! The file of a config: TOML that people may edit and share. What it leaves out has the site's defaults; what it must not hold is told
//! with its line.

use super::Config;
use std::fmt;
use uuid::Uuid;

/// Why a file is no config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong, and what is allowed.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Reads a file. What it does not say comes from `defaults`; without `uuid` it gets `fresh`, and without `mac` one made of its uuid.
pub fn read(text: &str, defaults: &Config, fresh: Uuid) -> Result<Config, Wrong> {
    let wrong = |e: &toml::de::Error| Wrong {
        line: e.span().map(|s| line_of(text, s.start)),
        why: e.message().lines().next().unwrap_or_default().to_owned(),
    };
    let own: toml::Table = text.parse().map_err(|e| wrong(&e))?;
    let mut all = toml::Table::try_from(defaults).map_err(|e| Wrong { line: None, why: e.to_string() })?;
    all.remove("mac");
    all.insert("uuid".into(), toml::Value::String(fresh.to_string()));
    for (key, value) in &own {
        all.insert(key.clone(), value.clone());
    }
    if !all.contains_key("mac") {
        let uuid =
            all.get("uuid").and_then(|u| u.as_str()).and_then(|u| Uuid::parse_str(u).ok()).unwrap_or(fresh);
        all.insert("mac".into(), toml::Value::String(super::Mac::of(uuid).to_string()));
    }
    let config: Config = all.try_into().map_err(|e: toml::de::Error| {
        let why = e.message().lines().next().unwrap_or_default().to_owned();
        // the merged table has no lines: which key of the file is it, if any of them alone is refused?
        let line = own.keys().find(|k| blames(k, &own, defaults)).and_then(|k| line_of_key(text, k));
        Wrong { line, why }
    })?;
    config
        .check()
        .map_err(|(key, why)| Wrong { line: line_of_key(text, key), why: format!("{key}: {why}") })?;
    Ok(config)
}

/// Whether the key alone, over the defaults, is refused.
fn blames(key: &str, own: &toml::Table, defaults: &Config) -> bool {
    let Ok(mut all) = toml::Table::try_from(defaults) else { return false };
    all.insert(key.to_owned(), own[key].clone());
    Config::deserialize_table(all).is_err()
}

impl Config {
    fn deserialize_table(table: toml::Table) -> Result<Config, toml::de::Error> {
        table.try_into()
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("numbers, texts and lists of them are TOML")
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes()[..byte.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let is_key = |l: &str| {
        let l = l.trim_start().trim_start_matches('[');
        l.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    };
    text.lines().position(is_key).map(|i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn defaults() -> Config {
        Config::new(Uuid::from_u128(1))
    }

    #[test]
    fn a_short_file_takes_the_defaults_and_its_own_identity() {
        let c = read("memory = 512\n", &defaults(), Uuid::from_u128(9)).expect("good");
        assert_eq!((c.memory, c.disk, c.uuid), (512, 2048, Uuid::from_u128(9)));
        assert_ne!(c.mac, defaults().mac);
        assert_eq!(read(&c.to_text(), &defaults(), Uuid::nil()).expect("back"), c);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, says) in [
            ("memory = 512\ndisk = [\n", Some(2), ""),
            ("memory = 512\n\ndisk = 3\n", Some(3), "disk: \"3\" is not a whole number"),
            ("memory = 512\ncolour = \"red\"\n", Some(2), "unknown field `colour`"),
            ("memory = \"much\"\n", Some(1), "invalid type"),
            ("disk = 64\naddress = \"here\"\n", Some(2), "is none of `none`, `dhcp`"),
            ("[rights]\nuid = 0\ngid = 0\nmode = 9999\n", Some(1), "mode"),
        ] {
            let wrong = read(text, &defaults(), Uuid::nil()).expect_err(text);
            assert!(wrong.why.contains(says), "{text:?}: {wrong}");
            // an unclosed list is told at its begin or at the end of the file
            assert!(wrong.line == line || text.contains('[') && wrong.line.is_some(), "{text:?}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[ -~\n]{0,300}") {
            if let Ok(c) = read(&text, &defaults(), Uuid::from_u128(5)) {
                prop_assert_eq!(read(&c.to_text(), &defaults(), Uuid::nil()), Ok(c));
            }
        }
    }
}
