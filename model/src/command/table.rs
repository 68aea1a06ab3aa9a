//! The tables from which lines of `ctl` files become commands.
//!
//! A row holds the word, its usage, what it does, and how its arguments are read; help texts and manual pages come from the rows.

use super::read::{parse_accepting, parse_balance, parse_heartbeat, parse_load, parse_migrate, quote};
use super::{ClusterCommand, DomainCommand, ServerCommand};
use crate::config::Rights;
use crate::{ConfigCommand, ConfigName, Failure};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ratio;

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
}
