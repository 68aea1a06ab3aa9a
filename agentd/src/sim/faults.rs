//! Faults on request: what goes wrong the next N times, so that tests reach every corner of a migration.
//!
//! They come from the configuration, or while the hypervisor runs from the file `faults` in its state directory: one `WORD [COUNT]`
//! a line. A word without a count fails each time as long as it is there.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Fault] = &[$(Fault::$name),*];

            /// The word that flags and the file use.
            pub fn word(self) -> &'static str {
                match self { $(Fault::$name => $word,)* }
            }
        }
    };
}

faults! {
    /// The source fails before it asks the destination.
    Prepare = "prepare",
    /// The source loses the connection in the middle of the copy.
    Copy = "copy",
    /// The source loses the connection after it noted the hand-over, before the commit is out.
    CommitLost = "commit-lost",
    /// The destination takes the domain over and loses the connection before its answer is out.
    AckLost = "ack-lost",
    /// The destination refuses to take a domain.
    Refuse = "refuse",
    /// The domain stands 2 s longer before its hand-over.
    SlowStop = "slow-stop",
    /// All calls hang, as those of a hung libvirtd; they go on when the word is gone from the file.
    HangCalls = "hang-calls",
    /// The source dies when the destination has agreed.
    DieBegin = "die-begin",
    /// The source dies in the middle of the copy.
    DieCopy = "die-copy",
    /// The source dies when the domain stands, before the hand-over is noted.
    DieStopped = "die-stopped",
    /// The source dies when the hand-over is noted and the commit is not out.
    DieNoted = "die-noted",
    /// The source dies when the commit is out.
    DieAsked = "die-asked",
    /// The source dies when it has heard that the domain is over, before it forgets it.
    DieAnswered = "die-answered",
    /// The source dies when it has forgotten the domain.
    DieForgot = "die-forgot",
    /// The destination dies when it has agreed.
    DieAgreed = "die-agreed",
    /// The destination dies when the commit is in, before it is noted.
    DieCommit = "die-commit",
    /// The destination dies when it has noted that the domain is its own, before it says so.
    DieTaken = "die-taken",
    /// The destination dies when it has said that the domain is its own.
    DieSaid = "die-said",
}

/// A fault and how often: from `WORD`, `WORD=COUNT` or `WORD COUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultSpec {
    /// What goes wrong.
    pub fault: Fault,
    /// How many times; none is each time.
    pub times: Option<u32>,
}

/// Why a text is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {text:?} as a fault: allowed is WORD or WORD=COUNT, where WORD is one of {}", words())]
pub struct FaultError {
    text: String,
}

fn words() -> String {
    Fault::ALL.iter().map(|f| f.word()).collect::<Vec<_>>().join(", ")
}

impl FromStr for FaultSpec {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let bad = || FaultError { text: text.chars().take(80).collect() };
        let mut parts = text.split(['=', ' ', '\t']).filter(|p| !p.is_empty());
        let word = parts.next().ok_or_else(bad)?;
        let fault = *Fault::ALL.iter().find(|f| f.word() == word).ok_or_else(bad)?;
        let times = parts.next().map(|n| n.parse().map_err(|_| bad())).transpose()?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(FaultSpec { fault, times })
    }
}

/// The faults that are still to come.
#[derive(Debug)]
pub struct Faults {
    /// Those of the configuration.
    set: Mutex<Vec<FaultSpec>>,
    /// The file that may name more; none without a state directory.
    file: Option<PathBuf>,
}

impl Faults {
    /// Those of the configuration, and the file `faults` in `state`.
    pub fn new(set: &[FaultSpec], state: Option<&Path>) -> Self {
        Faults { set: Mutex::new(set.to_vec()), file: state.map(|s| s.join("faults")) }
    }

    /// Whether `fault` happens now; a counted one is used up by that.
    pub fn take(&self, fault: Fault) -> bool {
        // plain data: a panic elsewhere cannot leave it half changed
        take(&mut self.set.lock().unwrap_or_else(PoisonError::into_inner), fault)
            || self.take_from_file(fault)
    }

    fn take_from_file(&self, fault: Fault) -> bool {
        let Some(path) = &self.file else { return false };
        let mut specs = read(path);
        let before = specs.clone();
        let taken = take(&mut specs, fault);
        if specs != before {
            let text: String = specs
                .iter()
                .map(|s| match s.times {
                    Some(n) => format!("{} {n}\n", s.fault.word()),
                    None => format!("{}\n", s.fault.word()),
                })
                .collect();
            // a fault that cannot be counted down happens again: seen at once in a test, and harmless
            if let Err(e) = std::fs::write(path, text) {
                tracing::warn!("cannot count down {}: {e}", path.display());
            }
        }
        taken
    }

    /// Whether the uncounted `fault` is set: nothing is used up.
    pub fn is_set(&self, fault: Fault) -> bool {
        let held = |specs: &[FaultSpec]| specs.iter().any(|s| s.fault == fault && s.times.is_none());
        held(&self.set.lock().unwrap_or_else(PoisonError::into_inner))
            || self.file.as_deref().is_some_and(|p| held(&read(p)))
    }
}

fn take(specs: &mut Vec<FaultSpec>, fault: Fault) -> bool {
    let Some(spec) = specs.iter_mut().find(|s| s.fault == fault && s.times != Some(0)) else { return false };
    spec.times = spec.times.map(|n| n - 1);
    specs.retain(|s| s.times != Some(0));
    true
}

fn read(path: &Path) -> Vec<FaultSpec> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().take(1_000).filter_map(|l| l.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_refused_with_the_list() {
        let spec = |t: &str| t.parse::<FaultSpec>();
        assert_eq!(spec("copy"), Ok(FaultSpec { fault: Fault::Copy, times: None }));
        assert_eq!(spec("ack-lost=2"), Ok(FaultSpec { fault: Fault::AckLost, times: Some(2) }));
        assert_eq!(spec(" ack-lost  2"), spec("ack-lost=2"));
        for bad in ["", "burn", "copy=x", "copy 1 2", "copy=-1"] {
            let e = spec(bad).expect_err(bad).to_string();
            assert!(e.contains("commit-lost, ack-lost"), "{e}");
        }
    }

    #[test]
    fn counted_faults_are_used_up() {
        let dir = tempfile::tempdir().expect("dir");
        let faults = Faults::new(&["copy=1".parse().expect("fault")], Some(dir.path()));
        assert!(faults.take(Fault::Copy));
        assert!(!faults.take(Fault::Copy));
        std::fs::write(dir.path().join("faults"), "nonsense\ncopy 2\nrefuse\n").expect("written");
        assert!(faults.take(Fault::Copy) && faults.take(Fault::Copy) && !faults.take(Fault::Copy));
        assert!(faults.take(Fault::Refuse) && faults.take(Fault::Refuse) && faults.is_set(Fault::Refuse));
        assert!(!faults.is_set(Fault::Copy));
    }
}
