//! Who walks through a directory and copies or searches all that is in it: such a reader of `events` or `wait` gets what is there
//! and then the end, so that `cp -r`, `grep -r` and `diff -r` of the mount end by themselves. Who opens the file by its name waits.
//!
//! A walker is a process that lists a directory and opens a file in it, both within [`RECENT`], before it opens `events` there. A
//! shell that completes a name, or a program that reads `state` and then follows `events`, does only one of the two.

use crate::handle::process;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a step is remembered.
const RECENT: Duration = Duration::from_secs(5);
/// How many steps of each kind are remembered.
const KEPT: usize = 256;

/// The latest steps of all processes.
#[derive(Debug, Default)]
pub struct Walks {
    /// A plain mutex: held for one push or one copy.
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    listed: VecDeque<Step>,
    opened: VecDeque<Step>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    /// The directory's inode.
    dir: u64,
    /// The thread.
    pid: u32,
    at: Instant,
}

impl Walks {
    /// `pid` lists the directory `dir`.
    pub fn listed(&self, dir: u64, pid: u32) {
        push(&mut self.steps.lock().unwrap_or_else(PoisonError::into_inner).listed, dir, pid);
    }

    /// `pid` opens a file in the directory `dir`.
    pub fn opened(&self, dir: u64, pid: u32) {
        push(&mut self.steps.lock().unwrap_or_else(PoisonError::into_inner).opened, dir, pid);
    }

    /// Whether `pid` walks through `dir`.
    pub fn is_walker(&self, dir: u64, pid: u32) -> bool {
        let now = Instant::now();
        let recent = |steps: &VecDeque<Step>| -> Vec<u32> {
            let here = steps.iter().filter(|s| s.dir == dir && now.duration_since(s.at) < RECENT);
            here.map(|s| s.pid).collect()
        };
        let (listed, opened) = {
            let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            (recent(&steps.listed), recent(&steps.opened))
        };
        let by = |pids: Vec<u32>| pids.contains(&pid) || pids.iter().any(|p| process::same(*p, pid));
        by(listed) && by(opened)
    }
}

fn push(steps: &mut VecDeque<Step>, dir: u64, pid: u32) {
    if steps.len() >= KEPT {
        steps.pop_front();
    }
    steps.push_back(Step { dir, pid, at: Instant::now() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_lists_and_opens_is_a_walker() {
        let (w, me) = (Walks::default(), std::process::id());
        w.listed(7, me);
        assert!(!w.is_walker(7, me), "completion");
        w.opened(8, me);
        assert!(!w.is_walker(7, me) && !w.is_walker(8, me), "another directory");
        w.opened(7, me);
        assert!(w.is_walker(7, me));
        assert!(!w.is_walker(7, 1), "another process");
        for i in 0..1000 {
            w.opened(i, 1);
        }
        assert!(!w.is_walker(7, me), "memory is bounded");
    }
}
