//! One simulated domain as a flag names it: `NAME[,KEY=VALUE]...`.
//!
//! | key | value | without it |
//! |---|---|---|
//! | `vcpus` | 1 to 1024 | 1 |
//! | `memory` | MiB, 1 to 1073741824 | 512 |
//! | `demand` | the share of each vCPU that the guest wants, 0 to 1 | wanders around 0.2 |
//! | `trace` | a file with a number from 0 to 100 a line, one for each `trace-step` | none |
//! | `trace-step` | seconds, 1 to 86400 | 300 |
//! | `dirty` | MiB of memory that the running guest changes in a second | 8 |
//! | `state` | `running`, `paused` or `shutoff` | `running` |
//! | `boot` | seconds after its start in which the guest wants all of its vCPUs | 0 |
//! | `shutdown` | seconds that the guest takes to power off | 0.5 |

use super::demand::{Demand, trace};
use std::{path::Path, str::FromStr};
use xvm_model::{DomainName, DomainState, NameError};

/// Most vCPUs of a simulated domain.
pub const VCPUS_MAX: u16 = 1024;
/// Most memory of a simulated domain in KiB: 1 PiB.
pub const MEMORY_MAX: u64 = 1 << 40;
/// The dirty rate when nobody chose, in bytes a second.
pub const DIRTY_DEFAULT: u64 = 8 << 20;

/// A domain that a simulated hypervisor creates when it starts for the first time.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainSpec {
    /// Its name.
    pub name: DomainName,
    /// How many virtual CPUs, 1 to [`VCPUS_MAX`].
    pub vcpus: u16,
    /// Its memory in KiB.
    pub memory: u64,
    /// What its guest wants of each vCPU.
    pub demand: Demand,
    /// Bytes of memory that the running guest changes in a second.
    pub dirty: u64,
    /// Its state at the beginning: running, paused or shutoff.
    pub state: DomainState,
    /// Milliseconds after its start in which the guest wants all of its vCPUs.
    pub boot_ms: u64,
    /// Milliseconds that the guest takes to power off.
    pub shutdown_ms: u64,
}

/// Why a text names no domain; each says the key, the value and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The first part is not a name.
    #[error("cannot use {text:?} as a simulated domain: {why}")]
    Name {
        /// The whole text.
        text: String,
        /// What is wrong with the name.
        why: NameError,
    },
    /// A part is not `KEY=VALUE`, or nobody knows the key.
    #[error(
        "cannot use {part:?} of the simulated domain {name}: not a known KEY=VALUE; allowed are vcpus, memory, demand, \
         trace, trace-step, dirty, state, boot and shutdown"
    )]
    Key {
        /// The domain.
        name: DomainName,
        /// The part between two commas.
        part: String,
    },
    /// The value is not allowed.
    #[error("cannot set {key} of the simulated domain {name} to {value:?}: {rule}")]
    Value {
        /// The domain.
        name: DomainName,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed, or what is wrong.
        rule: String,
    },
}

impl DomainSpec {
    /// A running domain of the defaults.
    pub fn new(name: DomainName) -> Self {
        DomainSpec {
            name,
            vcpus: 1,
            memory: 512 << 10,
            demand: Demand::Wander,
            dirty: DIRTY_DEFAULT,
            state: DomainState::Running,
            boot_ms: 0,
            shutdown_ms: 500,
        }
    }

    /// Reads `NAME[,KEY=VALUE]...`; a trace file is read at once.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut parts = text.split(',');
        let name = DomainName::parse(parts.next().unwrap_or_default().trim())
            .map_err(|why| SpecError::Name { text: text.chars().take(200).collect(), why })?;
        let mut spec = DomainSpec::new(name.clone());
        let mut step = 300;
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(SpecError::Key { name, part: part.into() });
            };
            let (key, value) = (key.trim(), value.trim());
            let bad = |rule: String| SpecError::Value {
                name: name.clone(),
                key: key.into(),
                value: value.into(),
                rule,
            };
            match key {
                "vcpus" => spec.vcpus = whole(value, 1, u64::from(VCPUS_MAX)).map_err(bad)? as u16,
                "memory" => spec.memory = whole(value, 1, MEMORY_MAX >> 10).map_err(bad)? << 10,
                "demand" => spec.demand = Demand::Constant(number(value, 1.0).map_err(bad)?),
                "trace" => {
                    spec.demand =
                        Demand::Trace { step, shares: trace(Path::new(value)).map_err(bad)?.into() };
                }
                "trace-step" => {
                    step = whole(value, 1, 86_400).map_err(bad)?;
                    if let Demand::Trace { step: s, .. } = &mut spec.demand {
                        *s = step;
                    }
                }
                "dirty" => spec.dirty = (number(value, 1e6).map_err(bad)? * f64::from(1 << 20)) as u64,
                "state" => {
                    spec.state = match value {
                        "running" => DomainState::Running,
                        "paused" => DomainState::Paused,
                        "shutoff" => DomainState::Shutoff,
                        _ => return Err(bad("allowed are running, paused and shutoff".into())),
                    };
                }
                "boot" => spec.boot_ms = (number(value, 86_400.0).map_err(bad)? * 1e3) as u64,
                "shutdown" => spec.shutdown_ms = (number(value, 86_400.0).map_err(bad)? * 1e3) as u64,
                _ => return Err(SpecError::Key { name, part: part.into() }),
            }
        }
        Ok(spec)
    }
}

impl FromStr for DomainSpec {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Self, SpecError> {
        DomainSpec::parse(text)
    }
}

fn whole(value: &str, least: u64, most: u64) -> Result<u64, String> {
    value
        .parse()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("allowed is a whole number from {least} to {most}"))
}

fn number(value: &str, most: f64) -> Result<f64, String> {
    value
        .parse()
        .ok()
        .filter(|n| (0.0..=most).contains(n))
        .ok_or_else(|| format!("allowed is a number from 0 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn a_name_alone_has_the_defaults() {
        let spec = DomainSpec::parse("small-1").expect("valid");
        assert_eq!(spec, DomainSpec::new(DomainName::parse("small-1").expect("valid")));
        assert_eq!((spec.vcpus, spec.memory, spec.dirty), (1, 524_288, 8_388_608));
    }

    #[test]
    fn every_key_is_read() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        writeln!(file, "10\n 20.5 \n\n100").expect("written");
        let text = format!(
            "a b,vcpus=2,memory=64,trace={},trace-step=5,dirty=0.5,state=paused,boot=2,shutdown=0",
            file.path().display()
        );
        let spec: DomainSpec = text.parse().expect("valid");
        assert_eq!((spec.name.as_str(), spec.vcpus, spec.memory, spec.dirty), ("a b", 2, 65_536, 524_288));
        assert_eq!((spec.state, spec.boot_ms, spec.shutdown_ms), (DomainState::Paused, 2_000, 0));
        assert_eq!(spec.demand, Demand::Trace { step: 5, shares: [0.1, 0.205, 1.0].into() });
        assert_eq!(DomainSpec::parse("a,demand=0.3").expect("valid").demand, Demand::Constant(0.3));
    }

    #[test]
    fn errors_say_key_value_and_rule() {
        for (text, says) in [
            (
                "a,vcpus=0",
                "cannot set vcpus of the simulated domain a to \"0\": allowed is a whole number from 1 to 1024",
            ),
            (
                "a,demand=NaN",
                "cannot set demand of the simulated domain a to \"NaN\": allowed is a number from 0 to 1",
            ),
            (
                "a,state=gone",
                "cannot set state of the simulated domain a to \"gone\": allowed are running, paused and shutoff",
            ),
            ("a,colour=red", "cannot use \"colour=red\" of the simulated domain a: not a known KEY=VALUE"),
            ("a,vcpus", "cannot use \"vcpus\""),
            ("a,trace=/nowhere", "cannot set trace of the simulated domain a to \"/nowhere\": "),
            ("../etc", "cannot use \"../etc\" as a simulated domain: domain name"),
        ] {
            let e = DomainSpec::parse(text).expect_err(text).to_string();
            assert!(e.starts_with(says), "{text}: {e}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|[a-z]{1,3}(,[a-z-]{1,10}=[-0-9a-z.]{0,12}){0,4}") {
            if let Ok(spec) = DomainSpec::parse(&text) {
                prop_assert!((1..=VCPUS_MAX).contains(&spec.vcpus));
                prop_assert!((1..=MEMORY_MAX).contains(&spec.memory));
            }
        }
    }
}
