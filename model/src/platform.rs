//! What a server runs domains on: its hypervisor and its processors. A domain moves only where it can go on.

use crate::{HypervisorKind, text::as_text};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name of an architecture or a model, in bytes.
pub const PART_MAX: usize = 64;

/// Processors by architecture and model, in libvirt's names: `x86_64/EPYC-Rome`; `x86_64/-` where only the architecture is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpu {
    arch: Box<str>,
    model: Box<str>,
}

impl Cpu {
    /// Both parts; an empty model is not known.
    pub fn new(arch: &str, model: &str) -> Result<Cpu, String> {
        let model = if model.is_empty() { "-" } else { model };
        let bad = |part: &str| {
            part.is_empty()
                || part.len() > PART_MAX
                || !part.bytes().all(|c| c.is_ascii_graphic() && c != b'/')
        };
        match [arch, model].into_iter().find(|part| bad(part)) {
            Some(part) => Err(format!(
                "{part:?} is no name of processors; allowed are 1 to {PART_MAX} printable characters without / and space"
            )),
            None => Ok(Cpu { arch: arch.into(), model: model.into() }),
        }
    }

    /// Reads `ARCHITECTURE/MODEL`.
    pub fn parse(text: &str) -> Result<Cpu, String> {
        let (arch, model) =
            text.split_once('/').ok_or_else(|| format!("{text:?} is not of the form ARCHITECTURE/MODEL"))?;
        Cpu::new(arch, model)
    }

    fn model(&self) -> Option<&str> {
        (&*self.model != "-").then_some(&self.model)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.arch, self.model)
    }
}

as_text!(Cpu);

/// A hypervisor on processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Which hypervisor it is.
    pub hypervisor: HypervisorKind,
    /// Its processors, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
}

/// Why a running domain cannot go on elsewhere, as the end of a sentence about there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Another hypervisor.
    #[error("its hypervisor is {0}, the domain's is {1}")]
    Hypervisor(HypervisorKind, HypervisorKind),
    /// Other processors.
    #[error("its processors are {0}, the domain's are {1}")]
    Cpu(Cpu, Cpu),
}

impl Platform {
    /// Whether a running domain of `other` could go on here.
    ///
    /// What is not known is no reason. On Xen a domain sees the processors of the server that it started on, so that they must be of one
    /// model; libvirt's other drivers give it processors of a model by name, and refuse by themselves what cannot have them.
    pub fn takes(&self, other: &Platform) -> Result<(), Misfit> {
        let (here, there) = (self.hypervisor, other.hypervisor);
        if here != there {
            return Err(Misfit::Hypervisor(here, there));
        }
        let (Some(cpu), Some(its)) = (&self.cpu, &other.cpu) else { return Ok(()) };
        let models = cpu.model().zip(its.model());
        let other_model = here == HypervisorKind::Xen && models.is_some_and(|(a, b)| a != b);
        if cpu.arch != its.arch || other_model {
            return Err(Misfit::Cpu(cpu.clone(), its.clone()));
        }
        Ok(())
    }
}

impl From<HypervisorKind> for Platform {
    fn from(hypervisor: HypervisorKind) -> Platform {
        Platform { hypervisor, cpu: None }
    }
}

impl fmt::Display for Platform {
    /// `xen x86_64/EPYC-Rome`, `sim -`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cpu {
            Some(cpu) => write!(f, "{} {cpu}", self.hypervisor),
            None => write!(f, "{} -", self.hypervisor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on(hypervisor: HypervisorKind, cpu: &str) -> Platform {
        Platform { hypervisor, cpu: Some(Cpu::parse(cpu).unwrap()) }
    }

    #[test]
    fn who_takes_whose_domains() {
        use HypervisorKind::{Qemu, Sim, Xen};
        let why =
            |here: &Platform, there: &Platform| here.takes(there).expect_err("another platform").to_string();
        let (old, new) = ("x86_64/Opteron_G3", "x86_64/EPYC");
        assert_eq!(on(Xen, old).takes(&on(Xen, old)), Ok(()));
        assert_eq!(
            why(&on(Xen, old), &on(Xen, new)),
            "its processors are x86_64/Opteron_G3, the domain's are x86_64/EPYC"
        );
        assert_eq!(on(Qemu, old).takes(&on(Qemu, new)), Ok(()), "QEMU compares what the domain has");
        assert!(why(&on(Qemu, "aarch64/-"), &on(Qemu, new)).contains("aarch64/-"));
        assert_eq!(why(&on(Qemu, old), &on(Xen, old)), "its hypervisor is qemu, the domain's is xen");
        for unknown in [on(Xen, "x86_64/-"), Xen.into()] {
            assert_eq!(unknown.takes(&on(Xen, new)), Ok(()), "{unknown}");
            assert_eq!(on(Xen, new).takes(&unknown), Ok(()), "{unknown}");
        }
        assert_eq!(Platform::from(Sim).to_string(), "sim -");
        assert_eq!(on(Xen, new).to_string(), "xen x86_64/EPYC");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "x86_64",
            "/EPYC",
            "x86_64/a b",
            "x86_64/a\n",
            "x86_64/a/b",
            &format!("x/{}", "a".repeat(65)),
        ] {
            assert!(Cpu::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Cpu::new("x86_64", "").map(|cpu| cpu.to_string()), Ok("x86_64/-".into()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_it_was_written_or_refused(text: String) {
            if let Ok(cpu) = Cpu::parse(&text) {
                prop_assert_eq!(Cpu::parse(&cpu.to_string()), Ok(cpu));
            }
        }

        #[test]
        fn two_servers_take_from_each_other_or_neither_does(
            kinds in prop::array::uniform2(0usize..3), cpus in prop::array::uniform2(prop::option::of("[ab]/[-ab]"))
        ) {
            use HypervisorKind::{Qemu, Sim, Xen};
            let [a, b] = [0, 1].map(|i| Platform {
                hypervisor: [Sim, Qemu, Xen][kinds[i]],
                cpu: cpus[i].as_deref().map(|cpu| Cpu::parse(cpu).unwrap()),
            });
            prop_assert_eq!(a.takes(&b).is_ok(), b.takes(&a).is_ok());
            prop_assert!(a.takes(&a).is_ok());
        }
    }
}
