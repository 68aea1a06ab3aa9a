//! If this fails, a command to a domain does not do what it says, or means something else on one kind of hypervisor than on another.
//!
//! One suite, through the mounted tree only, over simulated servers and over real QEMU hosts.

#[path = "lifecycle/failures.rs"]
mod failures;
#[path = "lifecycle/jobs.rs"]
mod jobs;
#[path = "lifecycle/stage.rs"]
mod stage;
#[path = "lifecycle/states.rs"]
mod states;

use stage::{Act, Stage};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use xvm_tests::{lab, requires, say};

/// The suite. Each act begins with all domains running on ferby.
const SUITE: &[(&str, Act)] = &[
    ("pause_is_seen_at_once", states::pause_is_seen_at_once),
    ("figures", states::figures),
    ("settings", states::settings),
    ("events", states::events),
    ("migrate_and_back", jobs::migrate_and_back),
    ("mv", jobs::mv),
    ("a_paused_domain_moves_paused", jobs::a_paused_domain_moves_paused),
    ("a_job_lets_only_cancel_in", jobs::a_job_lets_only_cancel_in),
    ("shutdown_and_start", jobs::shutdown_and_start),
    ("reboot", jobs::reboot),
    ("destroy_and_start", states::destroy_and_start),
];

fn play(stage: &mut Stage, suite: &[(&str, Act)]) {
    for (name, act) in suite {
        let start = std::time::Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            stage.rewind();
            act(stage);
        }));
        say(&format!("{}::{name}: {} ms", stage.kind(), start.elapsed().as_millis()));
        if let Err(panic) = result {
            say(&format!("{}::{name} FAILED", stage.kind()));
            resume_unwind(panic);
        }
    }
}

#[test]
fn sim() {
    requires!("/dev/fuse");
    play(&mut Stage::sim(), SUITE);
}

#[test]
fn sim_failures() {
    requires!("/dev/fuse");
    play(&mut Stage::sim(), failures::SIM);
}

#[test]
fn qemu() {
    requires!("/dev/fuse");
    for need in lab::NEEDS {
        requires!(need);
    }
    let mut stage = Stage::qemu();
    play(&mut stage, SUITE);
    play(&mut stage, states::BEHIND_THE_BACK);
    play(&mut stage, failures::QEMU);
}
