//! What our logical volumes are called: `xvm.CONFIG.disk` and `xvm.CONFIG.swap`, with `.new` while they are made, `.old` while another
//! takes their place, `.removed` when they are removed. A config's name holds no dot, so no two of them share a name; and none begins
//! or ends with a word that LVM keeps for itself, whatever a config is called.

use crate::store::Volume;
use xvm_model::ConfigName;

/// The longest name of a device, in bytes. It is that of the group and that of the volume, with each `-` of theirs written twice.
const DEVICE_MAX: usize = 127;

/// What a logical volume of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A config's volume.
    Whole,
    /// One that is being made.
    New,
    /// One that has lost its place to another.
    Old,
    /// One of a removed config.
    Removed,
}

impl Role {
    fn suffix(self) -> &'static str {
        match self {
            Role::Whole => "",
            Role::New => ".new",
            Role::Old => ".old",
            Role::Removed => ".removed",
        }
    }
}

/// The name of a logical volume.
pub(super) fn lv_name(role: Role, config: &ConfigName, volume: Volume) -> String {
    format!("xvm.{config}.{volume}{}", role.suffix())
}

/// What a logical volume is, by its name; none when no name of ours is like that.
pub(super) fn parse_name(name: &str) -> Option<(Role, ConfigName, Volume)> {
    let mut words = name.strip_prefix("xvm.")?.split('.');
    let config = ConfigName::parse(words.next()?).ok()?;
    let word = words.next()?;
    let volume = Volume::ALL.iter().copied().find(|v| v.word() == word)?;
    let role = match (words.next(), words.next()) {
        (None, _) => Role::Whole,
        (Some("new"), None) => Role::New,
        (Some("old"), None) => Role::Old,
        (Some("removed"), None) => Role::Removed,
        _ => return None,
    };
    Some((role, config, volume))
}

/// Whether the names of a config's volumes fit into a group; the error says how long they may be.
pub(super) fn fits(group: &str, config: &ConfigName) -> Result<(), String> {
    let length = |text: &str| text.len() + text.matches('-').count();
    let longest = lv_name(Role::Removed, config, Volume::Disk);
    let taken = length(group) + 1 + length(&longest);
    if taken <= DEVICE_MAX {
        return Ok(());
    }
    let most = (DEVICE_MAX + length(config.as_str())).saturating_sub(taken);
    Err(format!(
        "its name is too long for the volume group {group}: at most {most} characters, each - counted twice"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_volumes_and_nobody_elses() {
        for config in ["a-disk", "snapshot", "pvmove0", "x"] {
            let config = ConfigName::parse(config).expect("name");
            for role in [Role::Whole, Role::New, Role::Old, Role::Removed] {
                for volume in Volume::ALL {
                    let name = lv_name(role, &config, *volume);
                    assert_eq!(parse_name(&name), Some((role, config.clone(), *volume)), "{name}");
                }
            }
        }
        for other in ["root", "xvm.a", "xvm.a.disk.new.old", "xvm.a_b.disk", "a.disk", "xvm..disk", "xvm.a.x"]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_with_the_number_that_is_allowed() {
        let config = |n: usize| ConfigName::parse(&"a".repeat(n)).expect("name");
        let group = "g-".repeat(29); // 87 with each - twice: 127 - 87 - 1 - 17
        assert_eq!(fits(&group, &config(22)), Ok(()));
        assert!(fits(&group, &config(23)).expect_err("too long").contains("at most 22 characters"));
        assert!(fits("vg0", &config(40)).is_ok());
    }
}
