//! Xen's own tool, xl(1).

use crate::hypervisor::{HvError, HvResult};
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long xl may take to tell something.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a guest's word is waited for when it is asked for something; xl waits a minute.
const WORD: Duration = Duration::from_secs(3);

/// What it prints; none when it does not end well, or in time.
pub fn read(args: &[&str]) -> Option<String> {
    let mut child = spawn(args).ok()?;
    // it prints less than a pipe holds
    if !ends(&mut child, LIMIT) {
        drop((child.kill(), child.wait()));
        return None;
    }
    let out = child.wait_with_output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// What guests are asked for and have not heard yet.
static ASKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Lets it ask a guest for something. A guest that does not say that it heard keeps nobody waiting: it may hear later, and is not asked
/// for the same once more meanwhile.
pub fn ask(args: &[&str]) -> HvResult<()> {
    let line = format!("xl {}", args.join(" "));
    if asked().contains(&line) {
        return Ok(());
    }
    let mut child = spawn(args).map_err(|e| HvError::Refused(format!("{line}: {e}")))?;
    if ends(&mut child, WORD) {
        return heard(child).map_err(|why| HvError::Refused(format!("{line}: {why}")));
    }
    asked().insert(line.clone());
    let own = line.clone();
    let wait = move || {
        if let Err(why) = heard(child) {
            tracing::warn!(line = own, why, "a guest was asked, and does not hear");
        }
        asked().remove(&own);
    };
    thread::Builder::new().name("xl".into()).spawn(wait).map(drop).map_err(|e| {
        asked().remove(&line);
        HvError::Refused(format!("{line}: {e}"))
    })
}

fn asked() -> MutexGuard<'static, BTreeSet<String>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for its end; why it did not end well.
fn heard(child: Child) -> Result<(), String> {
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let words: Vec<&str> = said.split_whitespace().collect();
    Err(if words.is_empty() { format!("it ended with {}", out.status) } else { words.join(" ") })
}

fn spawn(args: &[&str]) -> std::io::Result<Child> {
    let mut command = Command::new("xl");
    command.args(args).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Whether it ends within some time.
fn ends(child: &mut Child, limit: Duration) -> bool {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if begin.elapsed() < limit => thread::sleep(Duration::from_millis(10)),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}
