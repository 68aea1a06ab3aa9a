//! Names of logical volumes, and what lvs says of them.

use super::super::Volume;
use xvm_model::ConfigName;

/// What a logical volume is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A whole volume under its real name.
    Whole,
    /// In the build area.
    New,
    /// Another is about to take its place.
    Old,
    /// Can be restored.
    Removed,
}

/// Its name.
pub fn lv_name(role: Role, config: &ConfigName, volume: Volume) -> String {
    match role {
        Role::Whole => format!("{config}-{volume}"),
        Role::New => format!("{config}-{volume}.new"),
        Role::Old => format!("{config}-{volume}.old"),
        Role::Removed => format!("removed.{config}-{volume}"),
    }
}

fn parse_name(name: &str) -> Option<(Role, ConfigName, Volume)> {
    let (role, name) = if let Some(rest) = name.strip_prefix("removed.") {
        (Role::Removed, rest)
    } else if let Some(rest) = name.strip_suffix(".new") {
        (Role::New, rest)
    } else if let Some(rest) = name.strip_suffix(".old") {
        (Role::Old, rest)
    } else {
        (Role::Whole, name)
    };
    let (config, word) = name.rsplit_once('-')?;
    let volume = Volume::ALL.iter().copied().find(|v| v.word() == word)?;
    Some((role, ConfigName::parse(config).ok()?, volume))
}

/// One logical volume of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lv {
    /// Where it is in its life.
    pub role: Role,
    /// Whose.
    pub config: ConfigName,
    /// Which of them.
    pub volume: Volume,
    /// Its size.
    pub bytes: u64,
}

/// Reads the answer of lvs: a name and bytes a line.
pub fn parse_lvs(text: &str) -> Vec<Lv> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (role, config, volume) = parse_name(words.next()?)?;
        Some(Lv { role, config, volume, bytes: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_volumes_and_nobody_elses() {
        let config = ConfigName::parse("a-disk").expect("name");
        for role in [Role::Whole, Role::New, Role::Old, Role::Removed] {
            for volume in Volume::ALL {
                let name = lv_name(role, &config, *volume);
                assert_eq!(parse_name(&name), Some((role, config.clone(), *volume)), "{name}");
            }
        }
        for other in ["root", "swap", "-disk", "a_b-disk", "pool_tdata", "a-disk.old.new"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        let lvs = parse_lvs("  a-disk 4194304\n  root 1\n  removed.a-swap 8\n  broken-disk x\n");
        assert_eq!(lvs.iter().map(|lv| lv.bytes).collect::<Vec<_>>(), [4_194_304, 8]);
    }
}
