//! What whole-cluster tests share. Everything that a test starts is ended and removed when its value is dropped, also in a panic.
//!
//! | file | what |
//! |---|---|
//! | `program.rs` | the workspace's own programs, built when they are missing or old |
//! | `daemon.rs` | one of them as a process that can be stopped, frozen, killed and started again |
//! | `calls.rs` | calls that are measured, and end in a panic when they hang |
//! | `tree.rs` | the mounted tree: read, write, refusals, what blocks |
//! | `events.rs` | an open `events` file |
//! | `probe.rs` | a reader that never rests while something breaks |
//! | `cluster.rs` | forwarder, agents and mount together, simulated or on hosts of a lab |
//! | `evaluation.rs` | the same tests without and with balancing |
//! | `lab.rs` | libvirt hosts in namespaces, `tests/lab/hosts.sh` |
//! | `shell.rs` | other people's programs |

pub mod calls;
pub mod cluster;
pub mod daemon;
pub mod evaluation;
pub mod events;
pub mod lab;
pub mod probe;
pub mod program;
pub mod shell;
pub mod tree;

pub use calls::Calls;
pub use cluster::Cluster;
pub use daemon::Daemon;
pub use events::Events;
pub use lab::Lab;
pub use probe::Probe;
pub use tree::{Refusal, Tree};

use std::{
    fmt::Debug,
    io::Write,
    time::{Duration, Instant},
};

/// How long a condition may take to come true. Generous: what waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks every 20 ms until there is an answer; panics after [`PATIENCE`] with what it waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, answer: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, answer)
}

/// The same with another patience; what may take long is asked less often.
#[track_caller]
pub fn wait_within<T>(patience: Duration, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let (start, pause) = (Instant::now(), if patience > PATIENCE { 100 } else { 20 });
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(pause));
    }
}

/// Asks every 20 ms until what is there is what is wanted; panics after [`PATIENCE`] with both.
#[track_caller]
pub fn wait_eq<T: PartialEq + Debug>(what: &str, wanted: T, mut now: impl FnMut() -> T) {
    let start = Instant::now();
    loop {
        let is = now();
        if is == wanted {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {what} to be {wanted:?}, it is {is:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says a line that is seen also when the test passes.
pub fn say(line: &str) {
    // a closed standard error keeps no test from passing
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Whether `need` is here: the path of a file, or the name of a program. Without it says which test is skipped, and fails it when
/// `XVM_NO_SKIP` is set, as where everything was installed.
pub fn have(test: &str, need: &str) -> bool {
    let found = if need.starts_with('/') {
        std::path::Path::new(need).exists()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|d| d.join(need).is_file())
    };
    if !found {
        assert!(std::env::var_os("XVM_NO_SKIP").is_none(), "{test} needs {need}, and XVM_NO_SKIP is set");
        say(&format!("SKIP {test}: needs {need}"));
    }
    found
}

/// Whether this process is root; without it says which test is skipped, as [`have`] does.
pub fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("XVM_NO_SKIP").is_none(), "{test} needs root, and XVM_NO_SKIP is set");
        say(&format!("SKIP {test}: needs root"));
    }
    root
}

/// Ends the test, loudly, unless all programs and files are here; `root` is this process's own right.
#[macro_export]
macro_rules! requires {
    ($($need:expr),+ $(,)?) => {
        $(
            let test = std::thread::current().name().unwrap_or("test").to_owned();
            let here = if $need == "root" { $crate::root(&test) } else { $crate::have(&test, $need) };
            if !here {
                return;
            }
        )+
    };
}
