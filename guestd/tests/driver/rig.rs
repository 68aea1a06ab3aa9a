//! A guest on the in-memory bus, whose clock is wrong by fifty years, and who listens to it and orders.

use super::ears::{Ears, me, name, topics, wait_for};
use std::path::{Path, PathBuf};
use std::time::Duration;
use xvm_bus::{Clock, Net};
use xvm_guestd::{agent::Settings, allowed::Allowed, driver};
use xvm_model::{Boot, Sender, Wall};

pub struct Rig {
    pub net: Net,
    pub dir: tempfile::TempDir,
    ears: Ears,
    guest: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.guest.abort();
    }
}

impl std::ops::Deref for Rig {
    type Target = Ears;
    fn deref(&self) -> &Ears {
        &self.ears
    }
}

/// How the guest is made.
pub struct Guest {
    pub any: bool,
    pub limit: Duration,
    /// Tests of the site: names and shell scripts.
    pub scripts: Vec<(&'static str, &'static str)>,
}

impl Default for Guest {
    fn default() -> Self {
        Guest { any: false, limit: Duration::from_secs(3600), scripts: Vec::new() }
    }
}

impl Rig {
    pub fn begin(guest: Guest) -> Rig {
        let net = Net::new(1);
        let dir = tempfile::tempdir().expect("a scratch folder");
        let mut allowed = Allowed::new(PathBuf::from(env!("CARGO_BIN_EXE_guestd")), guest.any);
        for (name, text) in guest.scripts {
            let script = dir.path().join(name).with_extension("sh");
            std::fs::write(&script, format!("cd {}\n{text}\n", dir.path().display())).expect("written");
            allowed.add(name, &format!("/bin/sh {} ...", script.display())).expect("taken");
        }
        let settings = Settings { name: name(), interval_ms: 60_000, allowed };
        let sender = Sender::Guest(name());
        let wrong = Clock::at(Wall(86_400_000));
        let (publisher, receiver) = net.connect(sender, Boot(7), driver::subscriptions(&name()), wrong);
        let limit = guest.limit;
        let guest = tokio::spawn(async move {
            let ended =
                driver::serve(settings, limit, publisher, receiver, || {}, std::future::pending()).await;
            panic!("guestd ended: {ended:?}");
        });
        let clock = Clock::system();
        let (publisher, receiver) = net.connect(Sender::Client(me()), Boot(1), topics(), clock);
        let ears = Ears::new(publisher, receiver);
        ears.roll_call();
        Rig { net, dir, ears, guest }
    }

    /// The numbers that a script wrote to a file, when there are `n`.
    pub async fn pids(&self, file: &str, n: usize) -> Vec<u32> {
        let path = self.dir.path().join(file);
        wait_for("processes of a script", || {
            let text = std::fs::read_to_string(&path).ok()?;
            // a number is whole with its line end
            let pids: Vec<u32> =
                text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')?.parse().ok()).collect();
            (pids.len() == n).then_some(pids)
        })
        .await
    }
}

/// Whether a process has ended; one that nobody has reaped has.
pub fn is_dead(pid: u32) -> bool {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    std::fs::read_to_string(path)
        .map_or(true, |text| text.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')))
}
