//! What is written to `ctl` files and to files of settings, read word by word. Errors are ends of sentences that say what is allowed.

use super::{ClusterCommand, DomainCommand, ServerCommand};
use crate::{
    BalanceMode, GroupName, Groups, HEARTBEAT_RANGE_MS, NameError, Pin, PolicyName, Ratio, ServerName,
    Watchdog,
};

/// What a user wrote, for an error: in quotes, control characters shown, cut after 80 characters.
pub fn quote(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}

pub(super) fn parse_migrate(words: &[&str]) -> Result<DomainCommand, String> {
    let (paused, words) = match words.split_first() {
        Some((&"--paused", rest)) => (true, rest),
        _ => (false, words),
    };
    let to = match words {
        [] => None,
        [server] => Some(ServerName::parse(server).map_err(|e| e.to_string())?),
        [_, more @ ..] => return Err(format!("{} is too much", quote(&more.join(" ")))),
    };
    Ok(DomainCommand::Migrate { to, address: "".into(), paused })
}

pub(super) fn parse_load(words: &[&str]) -> Result<DomainCommand, String> {
    let (share, seconds) = parse_share(words)?;
    Ok(DomainCommand::Load { share, seconds })
}

/// Reads `[PERCENT] SECONDS`.
pub fn parse_share(words: &[&str]) -> Result<(Ratio, u32), String> {
    let (percent, seconds) = match words {
        [seconds] => (100, number(seconds, 0..=86_400, "SECONDS")?),
        [percent, seconds] => (number(percent, 1..=100, "PERCENT")?, number(seconds, 0..=86_400, "SECONDS")?),
        _ => return Err("one or two numbers are needed".into()),
    };
    Ok((Ratio::new(f64::from(percent) / 100.0), seconds))
}

/// Reads `on` or `off`: the file `accepting` and the command `accept`.
pub fn parse_accepting(text: &str) -> Result<ServerCommand, String> {
    on_or_off(text).map(|on| ServerCommand::Accept { on })
}

/// Reads `on` or `off`: the file `even`.
pub fn parse_even(text: &str) -> Result<ServerCommand, String> {
    on_or_off(text).map(|on| ServerCommand::Even { on })
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{} is neither on nor off", quote(text))),
    }
}

pub(super) fn parse_balance(text: &str) -> Result<ClusterCommand, String> {
    let mode = BalanceMode::ALL.iter().find(|m| m.word() == text);
    mode.map(|&mode| ClusterCommand::Balance { mode })
        .ok_or_else(|| format!("{} is none of on, off, dry-run", quote(text)))
}

/// Reads seconds with a fraction: the file `heartbeat` and the command of that name.
pub fn parse_heartbeat(text: &str) -> Result<ServerCommand, String> {
    let allowed = || {
        let (lo, hi) =
            (f64::from(*HEARTBEAT_RANGE_MS.start()) / 1e3, f64::from(*HEARTBEAT_RANGE_MS.end()) / 1e3);
        format!("{} is not a number of seconds from {lo} to {hi}", quote(text))
    };
    let seconds: f64 = text.parse().map_err(|_| allowed())?;
    let ms = (seconds * 1e3).round();
    if !ms.is_finite() || ms < 0.0 || ms > f64::from(u32::MAX) || !HEARTBEAT_RANGE_MS.contains(&(ms as u32)) {
        return Err(allowed());
    }
    Ok(ServerCommand::Heartbeat { ms: ms as u32 })
}

/// Reads `key value` lines: the file `watchdog`.
pub fn parse_watchdog(text: &str) -> Result<ServerCommand, String> {
    let (mut points, mut threshold, mut limit, mut unit) = (None, None, None, None);
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let [key, value] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(format!(
                "{} is not `key value`; keys are points, threshold, limit, unit",
                quote(line)
            ));
        };
        match key {
            "points" => points = Some(number(value, 0..=1000, key)? as u16),
            "threshold" => threshold = Some(parse_ratio(value, key)?),
            "limit" => limit = Some(number(value, 1..=1000, key)? as u16),
            "unit" => unit = Some(number(value, 1..=3600, key)? as u16),
            _ => return Err(format!("unknown key {}; keys are points, threshold, limit, unit", quote(key))),
        }
    }
    if (points, threshold, limit, unit) == (None, None, None, None) {
        return Err("nothing to set; keys are points, threshold, limit, unit".into());
    }
    Ok(ServerCommand::Watchdog { points, threshold, limit, unit })
}

/// Reads a policy's name: the file `policy`.
pub fn parse_policy(text: &str) -> Result<ServerCommand, String> {
    let name = PolicyName::ALL.iter().find(|p| p.word() == text);
    let allowed = || PolicyName::ALL.iter().map(|p| p.word()).collect::<Vec<_>>().join(", ");
    name.map(|&name| ServerCommand::Policy { name })
        .ok_or_else(|| format!("unknown policy {}; policies are {}", quote(text), allowed()))
}

/// Reads 0 to 100: the file `priority`.
pub fn parse_priority(text: &str) -> Result<DomainCommand, String> {
    Ok(DomainCommand::Priority { value: number(text, 0..=100, "the priority")? as u8 })
}

/// Reads server names with spaces between, or `none`: the file `pin`.
pub fn parse_pin(text: &str) -> Result<DomainCommand, String> {
    let names = parse_names(text, "server", ServerName::parse, 64)?;
    Ok(DomainCommand::Pin { value: Pin(names) })
}

/// Reads names of `what` with spaces between, each once and at most `most`, or `none`.
fn parse_names<T: PartialEq>(
    text: &str,
    what: &str,
    parse: fn(&str) -> Result<T, NameError>,
    most: usize,
) -> Result<Vec<T>, String> {
    let mut names = Vec::new();
    if text != "none" {
        for word in text.split_whitespace() {
            let name = parse(word).map_err(|e| e.to_string())?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(format!("{what} names or `none` are needed"));
        }
    }
    if names.len() > most {
        return Err(format!("{} {what}s are too many, at most {most}", names.len()));
    }
    Ok(names)
}

/// The most groups of one kind that a domain is in.
pub const GROUPS_MAX: usize = 16;

/// Reads group names with spaces between, or `none`: the files `with` and `apart`.
pub fn parse_groups(text: &str) -> Result<Groups, String> {
    let names = parse_names(text, "group", GroupName::parse, GROUPS_MAX)?;
    if names.iter().any(|name| name.as_str() == "none") {
        return Err("`none` stands alone".into());
    }
    Ok(Groups(names.into()))
}

fn number(text: &str, range: std::ops::RangeInclusive<u32>, what: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(format!(
            "{what} {} is not a whole number from {} to {}",
            quote(text),
            range.start(),
            range.end()
        )),
    }
}

fn parse_ratio(text: &str, what: &str) -> Result<Ratio, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=1.0).contains(&n) => Ok(Ratio::new(n)),
        _ => Err(format!("{what} {} is not a number from 0.00 to 1.00", quote(text))),
    }
}

impl Watchdog {
    /// `key value` lines, as [`parse_watchdog`] reads them.
    pub fn text(&self, points: u16) -> String {
        format!("points {points}\nthreshold {}\nlimit {}\nunit {}\n", self.threshold, self.limit, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_in_the_form_they_are_written() {
        let w = Watchdog { threshold: Ratio::new(0.7), limit: 9, unit: 3 };
        let ServerCommand::Watchdog { points, threshold, limit, unit } =
            parse_watchdog(&w.text(4)).expect("own text")
        else {
            panic!("another command");
        };
        assert_eq!(
            (points, threshold, limit, unit),
            (Some(4), Some(w.threshold), Some(w.limit), Some(w.unit))
        );
        for pin in ["none", "ferby gerby"] {
            let DomainCommand::Pin { value } = parse_pin(pin).expect("ok") else { panic!("another command") };
            assert_eq!(value.to_string(), pin);
        }
    }

    #[test]
    fn a_migration_has_a_way_and_a_destination() {
        let read = |words: &[&str]| match parse_migrate(words) {
            Ok(DomainCommand::Migrate { to, paused, .. }) => Ok((to.map(|t| t.to_string()), paused)),
            Ok(_) => panic!("another command"),
            Err(why) => Err(why),
        };
        assert_eq!(read(&[]), Ok((None, false)));
        assert_eq!(read(&["--paused"]), Ok((None, true)));
        assert_eq!(read(&["--paused", "herby"]), Ok((Some("herby".into()), true)));
        assert_eq!(read(&["herby"]), Ok((Some("herby".into()), false)));
        assert!(read(&["herby", "--paused"]).expect_err("order").contains("\"--paused\" is too much"));
        assert!(read(&["--paused", "a/b"]).is_err());
    }
}
