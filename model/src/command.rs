//! Commands as values, and the two tables from which lines of `ctl` files become them.
//!
//! A row holds the word, its usage, what it does, and how its arguments are read; help texts and manual pages come from the rows.

use crate::config::Rights;
use crate::spec::Boot as SpecBoot;
use crate::{
    Balance, BalanceMode, ConfigCommand, ConfigName, Failure, Grant, GroupName, Groups, HEARTBEAT_RANGE_MS,
    NameError, Pin, PolicyName, Ratio, ServerName, Spec, Watchdog, domain::words,
};
use serde::{Deserialize, Serialize};

/// The longest line that a `ctl` file or a setting takes, in bytes without its end.
pub const LINE_MAX: usize = 4096;

words! {
    /// The word of a command to a domain.
    DomainWord {
        /// Boot a shut off domain.
        Start = "start",
        /// Stop the vCPUs.
        Pause = "pause",
        /// Let them go on.
        Unpause = "unpause",
        /// Ask the guest to power off.
        Shutdown = "shutdown",
        /// Ask the guest to start anew.
        Reboot = "reboot",
        /// Pull the plug.
        Destroy = "destroy",
        /// Move it.
        Migrate = "migrate",
        /// Give it work.
        Load = "load",
        /// Make it from a config, and boot it.
        Create = "create",
        /// Pull the plug of one that runs under a lease that is over.
        Fence = "fence",
        /// Get ready for it: it is about to arrive.
        Prepare = "prepare",
        /// End the job that runs.
        Cancel = "cancel",
        /// Set its priority (the file `priority`).
        Priority = "priority",
        /// Set where it may run (the file `pin`).
        Pin = "pin",
        /// Set the groups that it stays together with (the file `with`).
        With = "with",
        /// Set the groups that it stays apart from (the file `apart`).
        Apart = "apart",
    }
}

/// What is asked of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum DomainCommand {
    /// Boot it on the server that holds its definition.
    Start,
    /// Stop its vCPUs.
    Pause,
    /// Let its vCPUs go on.
    Unpause,
    /// Ask the guest to power off.
    Shutdown,
    /// Ask the guest to start anew.
    Reboot,
    /// Pull the plug.
    Destroy,
    /// Move it while it runs, or while it stands.
    Migrate {
        /// The destination; the sender chooses when its user did not.
        to: Option<ServerName>,
        /// The destination's [`crate::Heartbeat::address`]; the sender fills it in.
        #[serde(default)]
        address: Box<str>,
        /// Its vCPUs stand for the whole time: for what cannot be moved while it runs.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        paused: bool,
    },
    /// Work for its vCPUs.
    Load {
        /// How much of each vCPU.
        share: Ratio,
        /// For how long, 1 to 86400.
        seconds: u32,
    },
    /// Make it from a config, and boot it (a job; said by imaged). Refused when the server has a domain of that name.
    Create {
        /// What it is.
        spec: Box<Spec>,
    },
    /// Pull the plug, if it runs under the lease with this number: that is over, so it has no disk (said by imaged). One that runs under
    /// another lease is left alone, also when this order was long under way.
    Fence {
        /// The lease's number.
        epoch: u64,
    },
    /// Fetch what it boots from, and import its volumes where the hypervisor needs that: a migration is about to bring it (said by
    /// imaged). Done when all is there.
    Prepare {
        /// Its volumes.
        grant: Box<Grant>,
        /// What it boots from.
        boot: Option<Box<SpecBoot>>,
    },
    /// End the job that runs.
    Cancel,
    /// Set its priority, 0 to 100.
    Priority {
        /// The new value.
        value: u8,
    },
    /// Set where it may run.
    Pin {
        /// The new value.
        value: Pin,
    },
    /// Set the groups that it stays together with.
    With {
        /// The new value.
        value: Groups,
    },
    /// Set the groups that it stays apart from.
    Apart {
        /// The new value.
        value: Groups,
    },
}

impl DomainCommand {
    /// The command's word.
    pub fn word(&self) -> DomainWord {
        match self {
            Self::Start => DomainWord::Start,
            Self::Pause => DomainWord::Pause,
            Self::Unpause => DomainWord::Unpause,
            Self::Shutdown => DomainWord::Shutdown,
            Self::Reboot => DomainWord::Reboot,
            Self::Destroy => DomainWord::Destroy,
            Self::Migrate { .. } => DomainWord::Migrate,
            Self::Load { .. } => DomainWord::Load,
            Self::Create { .. } => DomainWord::Create,
            Self::Fence { .. } => DomainWord::Fence,
            Self::Prepare { .. } => DomainWord::Prepare,
            Self::Cancel => DomainWord::Cancel,
            Self::Priority { .. } => DomainWord::Priority,
            Self::Pin { .. } => DomainWord::Pin,
            Self::With { .. } => DomainWord::With,
            Self::Apart { .. } => DomainWord::Apart,
        }
    }
}

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum ServerCommand {
    /// Whether it takes domains from others.
    Accept {
        /// Yes or no.
        on: bool,
    },
    /// How often it says that it lives.
    Heartbeat {
        /// Milliseconds, see [`HEARTBEAT_RANGE_MS`].
        ms: u32,
    },
    /// The overload counter (the file `watchdog`): what is none stays as it is.
    Watchdog {
        /// The counter's value itself.
        points: Option<u16>,
        /// See [`Watchdog::threshold`].
        threshold: Option<Ratio>,
        /// See [`Watchdog::limit`].
        limit: Option<u16>,
        /// See [`Watchdog::unit`].
        unit: Option<u16>,
    },
    /// The policy (the file `policy`).
    Policy {
        /// The new value.
        name: PolicyName,
    },
    /// Whether `adaptive` evens out servers below its upper threshold (the file `even`).
    Even {
        /// Yes or no.
        on: bool,
    },
    /// What the whole cluster is told about balancing; one that is older than what the server knows changes nothing.
    Balance {
        /// The new value.
        balance: Balance,
    },
    /// Give all domains away, and accept none.
    Evacuate,
    /// Take the domains back that were given away, and accept domains.
    Restore,
    /// End the server's own job.
    Cancel,
    /// Look after what is imported: attach what domains here need and lack, detach what nobody uses.
    UpdateImports,
}

/// What is asked of the mount itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterCommand {
    /// Ask every daemon for a heartbeat now.
    RollCall,
    /// Whether servers help each other by themselves.
    Balance {
        /// The new value.
        mode: BalanceMode,
    },
    /// Something of a config that imaged is to make or bring back.
    Config {
        /// Which.
        name: ConfigName,
        /// What.
        command: ConfigCommand,
    },
}

/// One row of a table of commands.
pub struct Verb<C: 'static> {
    /// The first word of the line.
    pub word: &'static str,
    /// What follows it, `[X]` for what may be left out.
    pub args: &'static str,
    /// The least and the greatest number of words after the first.
    pub arity: (usize, usize),
    /// One line: what it does.
    pub about: &'static str,
    /// Reads the words after the first; their number was checked.
    pub parse: fn(&[&str]) -> Result<C, String>,
}

impl<C> Verb<C> {
    /// The word with its arguments.
    pub fn usage(&self) -> String {
        if self.args.is_empty() { self.word.to_owned() } else { format!("{} {}", self.word, self.args) }
    }
}

/// `domains/NAME/ctl`.
pub const DOMAIN_VERBS: &[Verb<DomainCommand>] = &[
    Verb {
        word: "start",
        args: "",
        arity: (0, 0),
        about: "boot a domain that is shut off",
        parse: |_| Ok(DomainCommand::Start),
    },
    Verb {
        word: "pause",
        args: "",
        arity: (0, 0),
        about: "stop its vCPUs; its memory stays",
        parse: |_| Ok(DomainCommand::Pause),
    },
    Verb {
        word: "unpause",
        args: "",
        arity: (0, 0),
        about: "let its vCPUs go on",
        parse: |_| Ok(DomainCommand::Unpause),
    },
    Verb {
        word: "shutdown",
        args: "",
        arity: (0, 0),
        about: "ask the guest to power off (a job)",
        parse: |_| Ok(DomainCommand::Shutdown),
    },
    Verb {
        word: "reboot",
        args: "",
        arity: (0, 0),
        about: "ask the guest to start anew",
        parse: |_| Ok(DomainCommand::Reboot),
    },
    Verb {
        word: "destroy",
        args: "",
        arity: (0, 0),
        about: "power off at once, as by pulling the plug",
        parse: |_| Ok(DomainCommand::Destroy),
    },
    Verb {
        word: "migrate",
        args: "[--paused] [SERVER]",
        arity: (0, 2),
        about: "move it while it runs (a job); to the best server when none is named; with --paused it stands meanwhile, for guests that cannot move while they run",
        parse: parse_migrate,
    },
    Verb {
        word: "load",
        args: "[PERCENT] SECONDS",
        arity: (1, 2),
        about: "work for its vCPUs, by its guest when that is heard: PERCENT (1 to 100, else 100) of each for SECONDS (0 ends it)",
        parse: parse_load,
    },
    Verb {
        word: "cancel",
        args: "",
        arity: (0, 0),
        about: "end the job that runs",
        parse: |_| Ok(DomainCommand::Cancel),
    },
];

/// `servers/NAME/ctl`.
pub const SERVER_VERBS: &[Verb<ServerCommand>] = &[
    Verb {
        word: "accept",
        args: "on|off",
        arity: (1, 1),
        about: "whether it takes domains from other servers",
        parse: |w| parse_accepting(w[0]),
    },
    Verb {
        word: "heartbeat",
        args: "SECONDS",
        arity: (1, 1),
        about: "how often it says that it lives, 0.1 to 60",
        parse: |w| parse_heartbeat(w[0]),
    },
    Verb {
        word: "evacuate",
        args: "",
        arity: (0, 0),
        about: "give all its domains to other servers and accept none (a job)",
        parse: |_| Ok(ServerCommand::Evacuate),
    },
    Verb {
        word: "restore",
        args: "",
        arity: (0, 0),
        about: "accept domains again, and take those back that left by evacuate (a job)",
        parse: |_| Ok(ServerCommand::Restore),
    },
    Verb {
        word: "cancel",
        args: "",
        arity: (0, 0),
        about: "end its evacuate or restore where it is",
        parse: |_| Ok(ServerCommand::Cancel),
    },
    Verb {
        word: "update-imports",
        args: "",
        arity: (0, 0),
        about: "attach the volumes and fetch the kernels that its domains need and lack, and drop what nobody uses",
        parse: |_| Ok(ServerCommand::UpdateImports),
    },
];

/// `ctl` of the whole cluster.
pub const CLUSTER_VERBS: &[Verb<ClusterCommand>] = &[
    Verb {
        word: "balance",
        args: "on|off|dry-run",
        arity: (1, 1),
        about: "whether servers help each other by themselves; dry-run only records what they would do",
        parse: |w| parse_balance(w[0]),
    },
    Verb {
        word: "create",
        args: "NAME [KEY=VALUE]...",
        arity: (1, 64),
        about: "a new config (a job): memory=512 swap=256 disk=2048 os=debian/bookworm address=dhcp vlan=12 packages=vim,curl ...",
        parse: |w| {
            let name = ConfigName::parse(w[0]).map_err(|e| e.to_string())?;
            let settings = crate::config::settings::parse_pairs(&w[1..])?;
            Ok(ClusterCommand::Config {
                name,
                command: ConfigCommand::Create { settings, rights: Rights::default() },
            })
        },
    },
    Verb {
        word: "restore",
        args: "NAME",
        arity: (1, 1),
        about: "bring back a config that was removed within a day",
        parse: |w| {
            let name = ConfigName::parse(w[0]).map_err(|e| e.to_string())?;
            Ok(ClusterCommand::Config { name, command: ConfigCommand::Restore })
        },
    },
    Verb {
        word: "roll-call",
        args: "",
        arity: (0, 0),
        about: "ask every server for a heartbeat now",
        parse: |_| Ok(ClusterCommand::RollCall),
    },
];

/// Reads one line by a table. The error quotes the line and says what is allowed.
pub fn parse_line<C>(verbs: &[Verb<C>], line: &str) -> Result<C, Failure> {
    let quoted = quote(line);
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else {
        return Err(Failure::invalid(format!("cannot run an empty line: commands are {}", words_of(verbs))));
    };
    let Some(verb) = verbs.iter().find(|v| v.word == first) else {
        return Err(Failure::invalid(format!(
            "cannot run {quoted}: unknown command; commands are {}",
            words_of(verbs)
        )));
    };
    let rest: Vec<&str> = words.collect();
    if rest.len() < verb.arity.0 || rest.len() > verb.arity.1 {
        let why = if rest.len() < verb.arity.0 { "too few words" } else { "too many words" };
        return Err(Failure::invalid(format!("cannot run {quoted}: {why}; usage: {}", verb.usage())));
    }
    (verb.parse)(&rest)
        .map_err(|why| Failure::invalid(format!("cannot run {quoted}: {why}; usage: {}", verb.usage())))
}

fn words_of<C>(verbs: &[Verb<C>]) -> String {
    verbs.iter().map(|v| v.word).collect::<Vec<_>>().join(", ")
}

/// What a user wrote, for an error: in quotes, control characters shown, cut after 80 characters.
pub fn quote(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}

fn parse_migrate(words: &[&str]) -> Result<DomainCommand, String> {
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

fn parse_load(words: &[&str]) -> Result<DomainCommand, String> {
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

fn parse_balance(text: &str) -> Result<ClusterCommand, String> {
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
    fn a_wrong_line_is_quoted_with_what_is_allowed() {
        let text = |line| parse_line(DOMAIN_VERBS, line).expect_err("wrong").text;
        assert!(
            text("paws").starts_with("cannot run \"paws\": unknown command; commands are start, pause, ")
        );
        assert_eq!(text("pause now"), "cannot run \"pause now\": too many words; usage: pause");
        assert!(text("migrate a/b").contains("server name \"a/b\" is not valid"));
        assert!(text("load 101 5").contains("PERCENT \"101\" is not a whole number from 1 to 100"));
        assert!(text("").starts_with("cannot run an empty line"));
    }

    #[test]
    fn lines_become_commands() {
        assert_eq!(parse_line(DOMAIN_VERBS, "  pause ").expect("ok"), DomainCommand::Pause);
        assert_eq!(
            parse_line(DOMAIN_VERBS, "load 60").expect("ok"),
            DomainCommand::Load { share: Ratio::ONE, seconds: 60 }
        );
        assert_eq!(
            parse_line(SERVER_VERBS, "heartbeat 0.5").expect("ok"),
            ServerCommand::Heartbeat { ms: 500 }
        );
        for bad in ["heartbeat 0", "heartbeat NaN", "heartbeat 1e300", "heartbeat -1", "accept maybe"] {
            assert!(parse_line(SERVER_VERBS, bad).is_err(), "{bad}");
        }
    }

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

    #[test]
    fn commands_travel() {
        let c = DomainCommand::Migrate {
            to: Some(ServerName::parse("herby").expect("ok")),
            address: "x:1".into(),
            paused: false,
        };
        let json = serde_json::to_string(&c).expect("json");
        assert_eq!(json, r#"{"do":"migrate","to":"herby","address":"x:1"}"#);
        assert_eq!(serde_json::from_str::<DomainCommand>(&json).expect("back"), c);
    }
}
