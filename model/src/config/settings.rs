//! What of a config can be set: one row a setting. The files of `configs/NAME`, `create NAME key=value ...`, the checks of a config's
//! file and the manual pages come from it.

use super::{
    Address, Config, DISK_MIB, GuestType, ITEMS_MAX, MEMORY_MIB, Mac, Os, Restart, SWAP_MIB, VCPUS, VLANS,
};
use crate::command::{parse_pin, quote};
use crate::{DomainCommand, domain::words};
use serde::{Deserialize, Serialize};

words! {
    /// When a setting may be changed, and when it counts.
    When {
        /// At any time.
        Always = "at any time",
        /// While it does not run; counts at the next start.
        Stopped = "while it does not run",
        /// While it does not run; written into the image at once.
        Personal = "while it does not run; goes into its image at once",
        /// While it does not run; a volume is made larger at once.
        Grow = "while it does not run; only larger",
        /// While it does not run; counts at the next `rebuild`.
        Rebuild = "while it does not run; counts at the next rebuild",
    }
}

/// One row of the table.
pub struct Setting {
    /// The file's name, and the key in `create` and in the config's file.
    pub key: &'static str,
    /// One line: what it is, with units and what is allowed.
    pub about: &'static str,
    /// When it may be changed.
    pub when: When,
    /// The value as it is written.
    pub show: fn(&Config) -> String,
    /// Reads a value in the same form; the error says what is allowed.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
}

/// All settings, in the order of the listing.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "memory",
        about: "memory in MiB, 16 to 4194304",
        when: When::Stopped,
        show: |c| c.memory.to_string(),
        set: |c, t| within(t, MEMORY_MIB, "MiB").map(|v| c.memory = v),
    },
    Setting {
        key: "vcpus",
        about: "virtual CPUs, 1 to 256",
        when: When::Stopped,
        show: |c| c.vcpus.to_string(),
        set: |c, t| within(t, VCPUS, "vCPUs").map(|v| c.vcpus = v),
    },
    Setting {
        key: "swap",
        about: "swap in MiB, 0 (none) to 1048576",
        when: When::Stopped,
        show: |c| c.swap.to_string(),
        set: |c, t| within(t, SWAP_MIB, "MiB").map(|v| c.swap = v),
    },
    Setting {
        key: "disk",
        about: "its disk in MiB, 16 to 67108864; only larger",
        when: When::Grow,
        show: |c| c.disk.to_string(),
        set: |c, t| within(t, DISK_MIB, "MiB").map(|v| c.disk = v),
    },
    Setting {
        key: "os",
        about: "what is on its disk: BUILDER or BUILDER/WHAT, as debian/bookworm",
        when: When::Rebuild,
        show: |c| c.os.to_string(),
        set: |c, t| Os::parse(t).map(|v| c.os = v),
    },
    Setting {
        key: "address",
        about: "its guest's address: none, dhcp, IP/PREFIX or IP/PREFIX via ROUTER",
        when: When::Personal,
        show: |c| c.address.to_string(),
        set: |c, t| Address::parse(t).map(|v| c.address = v),
    },
    Setting {
        key: "vlan",
        about: "the VLAN of its interface, 1 to 4094; none",
        when: When::Stopped,
        show: |c| c.vlan.map_or("none".into(), |v| v.to_string()),
        set: |c, t| match t {
            "none" => {
                c.vlan = None;
                Ok(())
            }
            t => within(t, VLANS, "VLANs, or none").map(|v| c.vlan = Some(v)),
        },
    },
    Setting {
        key: "mac",
        about: "its interface's Ethernet address",
        when: When::Stopped,
        show: |c| c.mac.to_string(),
        set: |c, t| Mac::parse(t).map(|v| c.mac = v),
    },
    Setting {
        key: "keys",
        about: "public SSH keys that may log in, one a line; none when there are none",
        when: When::Personal,
        show: |c| lines(&c.keys),
        set: |c, t| keys(t).map(|v| c.keys = v),
    },
    Setting {
        key: "packages",
        about: "packages beyond the system's own, spaces between; none when there are none",
        when: When::Rebuild,
        show: |c| if c.packages.is_empty() { "none".into() } else { c.packages.join(" ") },
        set: |c, t| packages(t).map(|v| c.packages = v),
    },
    Setting {
        key: "priority",
        about: "its domain's priority when it starts, 0 to 100",
        when: When::Always,
        show: |c| c.priority.to_string(),
        set: |c, t| within(t, 0..=100u8, "").map(|v| c.priority = v),
    },
    Setting {
        key: "pin",
        about: "the servers where it may be started and run, spaces between; none when anywhere",
        when: When::Always,
        show: |c| c.pin.to_string(),
        set: |c, t| {
            let DomainCommand::Pin { value } = parse_pin(t)? else { return Err("is no pin".into()) };
            c.pin = value;
            Ok(())
        },
    },
    Setting {
        key: "restart",
        about: "never, or always: started on another server after its own is down",
        when: When::Always,
        show: |c| c.restart.to_string(),
        set: |c, t| word(t, Restart::ALL, Restart::word).map(|v| c.restart = v),
    },
    Setting {
        key: "type",
        about: "how Xen runs it: auto (pvh), pv, pvh or hvm",
        when: When::Stopped,
        show: |c| c.kind.to_string(),
        set: |c, t| word(t, GuestType::ALL, GuestType::word).map(|v| c.kind = v),
    },
];

/// The row of a key; the error names all keys.
pub fn row(key: &str) -> Result<&'static Setting, String> {
    SETTINGS.iter().find(|r| r.key == key).ok_or_else(|| {
        let keys: Vec<&str> = SETTINGS.iter().map(|r| r.key).collect();
        format!("unknown key {}; keys are {}", quote(key), keys.join(", "))
    })
}

/// Sets one value. The error says what is allowed.
pub fn set(config: &mut Config, key: &str, value: &str) -> Result<(), String> {
    let row = row(key)?;
    (row.set)(config, value.trim()).map_err(|why| format!("{key}: {why}"))
}

/// Keys and values, as `create` takes them.
pub type Pairs = Box<[(Box<str>, Box<str>)]>;

/// Reads the words `key=value`; a comma stands for a space in a value (`packages=vim,curl`), for words cannot hold spaces.
pub fn parse_pairs(words: &[&str]) -> Result<Pairs, String> {
    let mut probe = Config::new(uuid::Uuid::nil());
    words
        .iter()
        .map(|word| {
            let (key, value) =
                word.split_once('=').ok_or_else(|| format!("{} is not key=value", quote(word)))?;
            let value = if matches!(key, "packages" | "pin" | "address") {
                value.replace(',', " ")
            } else {
                value.into()
            };
            set(&mut probe, key, &value)?;
            Ok((key.into(), value.into()))
        })
        .collect()
}

fn within<T>(text: &str, range: std::ops::RangeInclusive<T>, unit: &str) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    text.parse().ok().filter(|v| range.contains(v)).ok_or_else(|| {
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        format!("{} is not a whole number from {} to {}{unit}", quote(text), range.start(), range.end())
    })
}

fn word<T: Copy>(text: &str, all: &[T], of: fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|v| of(*v) == text).ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|v| of(*v)).collect();
        format!("{} is none of {}", quote(text), words.join(", "))
    })
}

fn lines(items: &[Box<str>]) -> String {
    if items.is_empty() { "none".into() } else { items.join("\n") }
}

fn keys(text: &str) -> Result<Vec<Box<str>>, String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    if lines == ["none"] || lines.is_empty() {
        return Ok(Vec::new());
    }
    if lines.len() > ITEMS_MAX {
        return Err(format!("{} keys; at most {ITEMS_MAX} are allowed", lines.len()));
    }
    for line in &lines {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let known = kind.starts_with("ssh-") || kind.starts_with("ecdsa-sha2-") || kind.starts_with("sk-");
        let blob = words.next().unwrap_or_default();
        let base64 = blob.len() >= 16
            && blob.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='));
        if !known || !base64 || line.len() > 4096 || line.contains(|c: char| c.is_control()) {
            return Err(format!("{} is no public SSH key such as `ssh-ed25519 AAAA... name`", quote(line)));
        }
    }
    Ok(lines.into_iter().map(Into::into).collect())
}

fn packages(text: &str) -> Result<Vec<Box<str>>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words == ["none"] {
        return Ok(Vec::new());
    }
    if words.len() > ITEMS_MAX {
        return Err(format!("{} packages; at most {ITEMS_MAX} are allowed", words.len()));
    }
    // Debian Policy 5.6.1, with an architecture after a colon
    let good = |w: &&str| {
        (2..=100).contains(&w.len())
            && w.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && w.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | ':'))
    };
    match words.iter().find(|w| !good(w)) {
        Some(bad) => Err(format!("{} is no package name", quote(bad))),
        None => Ok(words.into_iter().map(Into::into).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[test]
    fn what_is_shown_can_be_set() {
        let mut c = Config::new(Uuid::from_u128(1));
        for (key, value) in [
            ("memory", "512"),
            ("vlan", "12"),
            ("packages", "vim curl"),
            ("keys", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@here"),
            ("pin", "ferby gerby"),
            ("restart", "always"),
            ("address", "10.0.0.5/24 via 10.0.0.1"),
        ] {
            set(&mut c, key, value).expect(key);
            assert_eq!((row(key).expect("known").show)(&c), value);
        }
        c.check().expect("allowed");
    }

    #[test]
    fn errors_name_key_value_and_rule() {
        let mut c = Config::new(Uuid::from_u128(1));
        let e = set(&mut c, "memory", "8").expect_err("too small");
        assert_eq!(e, "memory: \"8\" is not a whole number from 16 to 4194304 MiB");
        assert!(set(&mut c, "colour", "red").expect_err("unknown").contains("keys are memory, vcpus"));
        for (key, bad) in [
            ("keys", "hello"),
            ("packages", "a; rm -rf /"),
            ("vlan", "4095"),
            ("restart", "often"),
            ("mac", "x"),
            ("pin", "../x"),
        ] {
            assert!(set(&mut c, key, bad).is_err(), "{key} {bad}");
        }
        assert_eq!(c, Config::new(Uuid::from_u128(1)), "a refused value changes nothing");
    }

    #[test]
    fn pairs() {
        let pairs = parse_pairs(&["memory=512", "packages=vim,curl"]).expect("good");
        assert_eq!(&*pairs[1].1, "vim curl");
        for bad in ["memory", "memory=", "=1", "memory=x", "nonsense=1"] {
            assert!(parse_pairs(&[bad]).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_setting(text in ".{0,200}", i in 0..SETTINGS.len()) {
            let mut c = Config::new(Uuid::from_u128(1));
            let row = &SETTINGS[i];
            if (row.set)(&mut c, &text).is_ok() {
                let shown = (row.show)(&c);
                let mut again = Config::new(Uuid::from_u128(1));
                prop_assert_eq!((row.set)(&mut again, &shown), Ok(()));
                prop_assert_eq!(again, c);
            }
        }
    }
}
