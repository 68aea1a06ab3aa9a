//! What imaged says of configs, and what it is told.

mod record;

use crate::command::{Verb, quote};
use crate::config::{Config, Rights, settings};
use crate::domain::words;
use crate::lease::Lease;
use crate::spec::Boot;
use crate::{ConfigName, Job, Outcome, PublicKey, ServerName, Wall};
use serde::{Deserialize, Serialize};

words! {
    /// What a config is.
    ConfigState {
        /// Its volumes and image are being made; nothing of them is exported.
        Creating = "creating",
        /// That failed or was cancelled; `rebuild` begins anew.
        Failed = "failed",
        /// Its file does not read, and there never was one that did.
        Invalid = "invalid",
        /// It can be started.
        Ready = "ready",
        /// A server holds its lease.
        Running = "running",
        /// A server that is down holds its lease.
        Lost = "lost",
    }
}

/// One config as imaged knows it; the files of `configs/NAME` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// Its name.
    pub name: ConfigName,
    /// The definition.
    pub config: Config,
    /// What it is.
    pub state: ConfigState,
    /// What goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<Job>>,
    /// Seconds until the job is likely to end, where an earlier one tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
    /// How the last job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Box<Outcome>>,
    /// Who may use its volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    /// What its image boots with; none when it boots by itself, or is not made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// The key with which its guestd signs what it says; none: it does not sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_key: Option<PublicKey>,
    /// Bytes of its log.
    #[serde(default)]
    pub log: u64,
    /// Why its file as it is now is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<Box<str>>,
}

/// A removed config that can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its name.
    pub name: ConfigName,
    /// Until when, by imaged's clock.
    pub until: Wall,
}

/// The room for volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreRoom {
    /// The store's word: `dir`, `lvm`.
    pub kind: Box<str>,
    /// MiB in all.
    pub total: u64,
    /// MiB that are free.
    pub free: u64,
}

/// Everything that imaged knows: what it does not name is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Configs {
    /// How often it says so, in milliseconds.
    pub interval_ms: u32,
    /// Where its exports are reached.
    pub host: Box<str>,
    /// The room for volumes.
    pub store: StoreRoom,
    /// What `os` may be.
    pub systems: Vec<Box<str>>,
    /// All configs, by name.
    pub configs: Vec<ConfigRecord>,
    /// Those that can be restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Removed>,
}

/// One config's news: a state, not a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub enum ConfigChange {
    /// This is all about it.
    Is {
        /// The whole record.
        record: ConfigRecord,
    },
    /// There is none any more.
    Gone {
        /// Which.
        name: ConfigName,
    },
}

impl ConfigChange {
    /// The config that it is about.
    pub fn name(&self) -> &ConfigName {
        match self {
            ConfigChange::Is { record } => &record.name,
            ConfigChange::Gone { name } => name,
        }
    }
}

/// What can be made larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resizable {
    /// The disk with its file system.
    Disk,
    /// The swap; any size.
    Swap,
    /// The memory; any size.
    Memory,
    /// The number of vCPUs; any.
    Vcpus,
}

/// What is asked of a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum ConfigCommand {
    /// Make it: volumes, then the image. `rights` are those of who asks.
    Create {
        /// Settings that differ from the site's defaults.
        settings: settings::Pairs,
        /// Whose it will be.
        rights: Rights,
    },
    /// Run it on a server, the best when none is named.
    Start {
        /// Where.
        on: Option<ServerName>,
    },
    /// Make another one with the same content and its own identity.
    Clone {
        /// Its name.
        new: ConfigName,
        /// Whose it will be.
        rights: Rights,
    },
    /// Change a size.
    Resize {
        /// Of what.
        what: Resizable,
        /// MiB, or a number of vCPUs.
        to: u64,
    },
    /// End the job that runs; nothing of it remains.
    Cancel,
    /// Make its image anew.
    Rebuild,
    /// Take it away; its volumes stay restorable for a day.
    Remove,
    /// Bring a removed one back.
    Restore,
    /// Change a setting.
    Set {
        /// Its key in [`settings::SETTINGS`].
        key: Box<str>,
        /// The new value.
        value: Box<str>,
    },
    /// Change whose it is; what is none stays.
    Own {
        /// The user.
        uid: Option<u32>,
        /// The group.
        gid: Option<u32>,
        /// Permission bits.
        mode: Option<u16>,
    },
    /// A part of its log, at most [`LOG_PART`] bytes: the answer is `done` with it. Changes nothing and is not remembered.
    ///
    /// Offsets are bytes of the log, and a part has as many bytes as what it stands for, see [`log_part`]: it begins at `from`
    /// exactly and ends at a character's border, perhaps shorter than [`LOG_PART`]; at the log's end it is empty. Askers begin at 0
    /// or at the end of a part.
    Log {
        /// From which byte on.
        from: u64,
    },
    /// An agent is about to migrate the domain: a second lease for the destination, which is told to get ready too. The answer's news
    /// hold the record with it.
    Lend {
        /// The agent's server.
        from: ServerName,
        /// The destination.
        to: ServerName,
        /// The migration's id.
        job: Box<str>,
    },
}

/// The most of a log in one answer, in bytes.
pub const LOG_PART: usize = 32 << 10;

/// The part of a log that begins with `bytes`: at most [`LOG_PART`] of them, up to the border of a character. A byte that is no UTF-8
/// becomes one `?`, so the answer has as many bytes as the part of the log, whatever tools wrote there. Empty only for no bytes.
pub fn log_part(bytes: &[u8]) -> String {
    let mut rest = &bytes[..bytes.len().min(LOG_PART)];
    let mut out = String::with_capacity(rest.len());
    while !rest.is_empty() {
        let (good, bad) = match std::str::from_utf8(rest) {
            Ok(text) => (text.len(), 0),
            Err(e) => (e.valid_up_to(), e.error_len().unwrap_or(0)),
        };
        out.push_str(std::str::from_utf8(&rest[..good]).expect("valid up to there"));
        out.extend(std::iter::repeat_n('?', bad));
        rest = &rest[good + bad..];
        if bad == 0 {
            break;
        }
    }
    // the beginning of a character whose rest is to come in the next part, unless there is nothing else
    if out.is_empty() {
        out.extend(std::iter::repeat_n('?', rest.len()));
    }
    out
}

impl ConfigCommand {
    /// The command's word, for sentences.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Start { .. } => "start",
            Self::Clone { .. } => "clone",
            Self::Resize { .. } => "resize",
            Self::Cancel => "cancel",
            Self::Rebuild => "rebuild",
            Self::Remove => "remove",
            Self::Restore => "restore",
            Self::Set { .. } => "set",
            Self::Own { .. } => "change the owner of",
            Self::Log { .. } => "read the log of",
            Self::Lend { .. } => "lend",
        }
    }

    /// Whether carrying it out twice does no harm, so that its id need not be remembered.
    pub fn is_question(&self) -> bool {
        matches!(self, Self::Log { .. })
    }
}

/// `configs/NAME/ctl`. Owners of new configs are filled in by who sends the command.
pub const CONFIG_VERBS: &[Verb<ConfigCommand>] = &[
    Verb {
        word: "start",
        args: "[SERVER]",
        arity: (0, 1),
        about: "run it (a job); on the best server when none is named",
        parse: |w| {
            let on = w.first().map(|s| ServerName::parse(s).map_err(|e| e.to_string())).transpose()?;
            Ok(ConfigCommand::Start { on })
        },
    },
    Verb {
        word: "clone",
        args: "NEW",
        arity: (1, 1),
        about: "another one with the same content and its own identity (a job)",
        parse: |w| {
            let new = ConfigName::parse(w[0]).map_err(|e| e.to_string())?;
            Ok(ConfigCommand::Clone { new, rights: Rights::default() })
        },
    },
    Verb {
        word: "resize",
        args: "disk|swap|memory|vcpus NUMBER",
        arity: (2, 2),
        about: "change a size in MiB, or the vCPUs; a disk only gets larger",
        parse: parse_resize,
    },
    Verb {
        word: "cancel",
        args: "",
        arity: (0, 0),
        about: "end the job that runs; nothing of it remains",
        parse: |_| Ok(ConfigCommand::Cancel),
    },
    Verb {
        word: "rebuild",
        args: "",
        arity: (0, 0),
        about: "make its image anew (a job); what is on its disk is lost",
        parse: |_| Ok(ConfigCommand::Rebuild),
    },
];

fn parse_resize(words: &[&str]) -> Result<ConfigCommand, String> {
    let what = match words[0] {
        "disk" => Resizable::Disk,
        "swap" => Resizable::Swap,
        "memory" => Resizable::Memory,
        "vcpus" => Resizable::Vcpus,
        other => return Err(format!("{} is none of disk, swap, memory, vcpus", quote(other))),
    };
    let mut probe = Config::new(uuid::Uuid::nil());
    settings::set(&mut probe, words[0], words[1])?;
    let to = words[1].parse().map_err(|_| format!("{} is not a number", quote(words[1])))?;
    Ok(ConfigCommand::Resize { what, to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::parse_line;

    #[test]
    fn a_part_of_a_log_ends_between_two_characters() {
        let log = "ä".repeat(LOG_PART);
        assert_eq!(log_part(log.as_bytes()).len(), LOG_PART);
        assert_eq!(log_part(&log.as_bytes()[..5]), "ää");
        let odd = format!("x{log}");
        assert_eq!(log_part(odd.as_bytes()).len(), LOG_PART - 1);
        assert_eq!(log_part(b""), "");
        assert_eq!(log_part(b"a\xff\xc3\x28z"), "a??(z", "a byte for a byte");
        assert_eq!(log_part(b"\xc3"), "?", "it always goes on");
        assert_eq!(log_part(b"a\xc3"), "a");
    }

    proptest::proptest! {
        #[test]
        fn parts_of_whatever_have_the_lengths_of_what_they_stand_for(bytes: Vec<u8>) {
            let (mut at, mut text) = (0, String::new());
            while at < bytes.len() {
                let part = log_part(&bytes[at..]);
                proptest::prop_assert!(!part.is_empty());
                at += part.len();
                text.push_str(&part);
            }
            proptest::prop_assert_eq!(text.len(), bytes.len());
            if let Ok(same) = std::str::from_utf8(&bytes) {
                proptest::prop_assert_eq!(same, text);
            }
        }
    }

    #[test]
    fn lines_become_commands() {
        let run = |line| parse_line(CONFIG_VERBS, line).map_err(|e| e.text);
        assert_eq!(run("start"), Ok(ConfigCommand::Start { on: None }));
        assert_eq!(run("resize disk 4096"), Ok(ConfigCommand::Resize { what: Resizable::Disk, to: 4096 }));
        let e = run("resize disk 1").expect_err("too small");
        assert!(e.contains("is not a whole number from 16 to 67108864 MiB; usage: resize"), "{e}");
        assert!(run("clone ../x").is_err() && run("resize colour 3").is_err() && run("clone").is_err());
    }
}
