//! Which command is allowed in which state of a domain: used by the mount before it sends, and by the agent before it acts.
//!
//! ```text
//!              start                 pause
//!   shutoff ──────────▶ running ◀──────────▶ paused
//!   crashed                │     unpause        │
//!      ▲   shutdown (job), destroy    destroy   │
//!      └───────────────────┴────────────────────┘
//!   running, paused ── migrate (job) ──▶ incoming on the other server ──▶ running, paused there
//!   (not known) ── create (job) ──▶ running; made from a config, it is not known any more when it is off
//! ```
//!
//! While a job runs only `cancel` and `destroy` are taken, and `destroy` not during a migration: a hypervisor that is told to stop a
//! domain in mid-migration may lose the order, or answer much later.

use crate::{Code, DomainCommand, DomainState, DomainWord, Failure, Job, JobKind};

/// What a command needs: the states, and the word for what it does in them.
fn states(word: DomainWord) -> &'static [DomainState] {
    use DomainState::{Crashed, Paused, Running, Shutoff};
    match word {
        DomainWord::Start => &[Shutoff, Crashed],
        DomainWord::Pause | DomainWord::Reboot | DomainWord::Shutdown | DomainWord::Load => &[Running],
        DomainWord::Unpause => &[Paused],
        DomainWord::Destroy | DomainWord::Fence | DomainWord::Migrate => &[Running, Paused],
        // a domain that is there already is never created, see `check`
        DomainWord::Create => &[],
        DomainWord::Prepare
        | DomainWord::Cancel
        | DomainWord::Priority
        | DomainWord::Pin
        | DomainWord::With
        | DomainWord::Apart => &[Running, Paused, Shutoff, Crashed],
    }
}

/// Whether `command` is allowed for the domain `name` that is in `state` with `job`.
pub fn check(
    name: &str,
    command: &DomainCommand,
    state: DomainState,
    job: Option<&Job>,
) -> Result<(), Failure> {
    let word = command.word();
    match (word, job) {
        (DomainWord::Create, job) => {
            let job = job.map(|job| format!(", and its {} runs", job.kind)).unwrap_or_default();
            let why = format!("cannot create {name}: there is a domain of that name, which is {state}{job}");
            return Err(Failure::new(Code::Exists, why));
        }
        // that it comes changes nothing of what is here
        (DomainWord::Prepare, _) => return Ok(()),
        (DomainWord::Cancel, None) => {
            return Err(Failure::busy(format!("cannot cancel {name}: no job runs")));
        }
        (DomainWord::Cancel, Some(job)) => return cancellable(name, job),
        (DomainWord::Priority | DomainWord::Pin | DomainWord::With | DomainWord::Apart, Some(job))
            if job.kind != JobKind::Migrate => {}
        (DomainWord::Destroy | DomainWord::Fence | DomainWord::Load, Some(job))
            if job.kind != JobKind::Migrate => {}
        (_, Some(job)) => {
            return Err(Failure::busy(format!(
                "cannot {word} {name}: its {} runs ({} %); wait for it (cat wait) or `echo cancel > ctl`",
                job.kind, job.percent
            )));
        }
        (_, None) => {}
    }
    let allowed = states(word);
    if allowed.contains(&state) {
        return Ok(());
    }
    let need: Vec<&str> = allowed.iter().map(|s| s.word()).collect();
    Err(Failure::busy(format!("cannot {word} {name}: it is {state}; it must be {}", need.join(" or "))))
}

fn cancellable(name: &str, job: &Job) -> Result<(), Failure> {
    match (job.kind, &*job.phase) {
        (JobKind::Migrate, "switch" | "ask") => Err(Failure::busy(format!(
            "cannot cancel the migration of {name}: it is past the point of return ({}); it ends by itself",
            job.phase
        ))),
        _ => Ok(()),
    }
}

/// The words that are allowed now, for `ctl`'s text.
pub fn allowed(state: DomainState, job: Option<&Job>) -> Vec<DomainWord> {
    let probe = |word: DomainWord| {
        Some(match word {
            DomainWord::Start => DomainCommand::Start,
            DomainWord::Pause => DomainCommand::Pause,
            DomainWord::Unpause => DomainCommand::Unpause,
            DomainWord::Shutdown => DomainCommand::Shutdown,
            DomainWord::Reboot => DomainCommand::Reboot,
            DomainWord::Destroy => DomainCommand::Destroy,
            DomainWord::Migrate => DomainCommand::Migrate { to: None, address: "".into(), paused: false },
            DomainWord::Load => DomainCommand::Load { share: crate::Ratio::ONE, seconds: 1 },
            // imaged says these, nobody writes them
            DomainWord::Create | DomainWord::Prepare | DomainWord::Fence => return None,
            DomainWord::Cancel => DomainCommand::Cancel,
            DomainWord::Priority => DomainCommand::Priority { value: 50 },
            DomainWord::Pin => DomainCommand::Pin { value: crate::Pin::default() },
            DomainWord::With => DomainCommand::With { value: crate::Groups::default() },
            DomainWord::Apart => DomainCommand::Apart { value: crate::Groups::default() },
        })
    };
    DomainWord::ALL
        .iter()
        .copied()
        .filter(|&w| probe(w).is_some_and(|c| check("", &c, state, job).is_ok()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wall;

    fn job(kind: JobKind, phase: &str) -> Job {
        Job { id: "x".into(), kind, phase: phase.into(), percent: 10, to: None, since: Wall(0), note: None }
    }

    #[test]
    fn words_by_state() {
        let words = |s| allowed(s, None).iter().map(|w| w.word()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(DomainState::Running),
            "pause shutdown reboot destroy migrate load priority pin with apart"
        );
        assert_eq!(words(DomainState::Paused), "unpause destroy migrate priority pin with apart");
        assert_eq!(words(DomainState::Shutoff), "start priority pin with apart");
        assert_eq!(words(DomainState::Incoming), "");
    }

    #[test]
    fn what_is_there_is_not_created_again() {
        let spec = r#"{"name":"small-1","uuid":"00000000-0000-0000-0000-000000000007","memory":65536,"vcpus":1,"type":"auto",
            "grant":{"config":"small-1","server":"ferby","epoch":1,"host":"h","port":1,"disks":[]},"settings":{"priority":50}}"#;
        let spec = serde_json::from_str(spec).expect("a spec");
        let create = DomainCommand::Create { spec };
        for state in [DomainState::Running, DomainState::Shutoff] {
            let e = check("small-1", &create, state, None).expect_err("there");
            let text = format!("cannot create small-1: there is a domain of that name, which is {state}");
            assert_eq!((e.code, e.text), (Code::Exists, text));
        }
        let starts = job(JobKind::Start, "fetch");
        let e = check("small-1", &create, DomainState::Shutoff, Some(&starts)).expect_err("it starts");
        assert!(e.text.ends_with("which is shutoff, and its start runs"), "{}", e.text);
    }

    #[test]
    fn a_migration_lets_nothing_in_but_cancel_and_that_not_late() {
        let j = job(JobKind::Migrate, "copy");
        let words: Vec<_> = allowed(DomainState::Running, Some(&j));
        assert_eq!(words, [DomainWord::Cancel]);
        assert!(allowed(DomainState::Running, Some(&job(JobKind::Migrate, "ask"))).is_empty());
    }

    #[test]
    fn sentences_say_what_is_needed() {
        let e = check("small-1", &DomainCommand::Pause, DomainState::Paused, None).expect_err("paused");
        assert_eq!(e.text, "cannot pause small-1: it is paused; it must be running");
        let e = check(
            "small-1",
            &DomainCommand::Pause,
            DomainState::Running,
            Some(&job(JobKind::Migrate, "copy")),
        );
        assert!(e.expect_err("job").text.contains("its migrate runs (10 %)"));
    }
}
