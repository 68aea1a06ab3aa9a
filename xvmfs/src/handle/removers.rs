//! Who removes trees file by file. `rm -rf` gives up on a directory whose files it could not remove, `find -delete` and python's
//! `shutil.rmtree(ignore_errors=True)` do not: they go on to `rmdir`, which in `configs` is a command. So a process that has tried to
//! remove a file of a directory cannot remove that directory; `rmdir configs/NAME` never tries.

use crate::handle::process;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How many are remembered; of more, the oldest are forgotten.
const KEPT: usize = 1024;

/// Who has tried to remove a file, and in which directory.
#[derive(Debug, Default)]
pub struct Removers {
    /// The directory's inode and the thread. A plain mutex: held for a look through the list.
    tried: Mutex<VecDeque<(u64, u32)>>,
}

impl Removers {
    /// `pid` tries to remove a file in the directory `dir`.
    pub fn tries(&self, dir: u64, pid: u32) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.back() == Some(&(dir, pid)) {
            return;
        }
        if tried.len() >= KEPT {
            tried.pop_front();
        }
        tried.push_back((dir, pid));
    }

    /// Whether `pid` has tried to remove a file in `dir`.
    pub fn has_tried(&self, dir: u64, pid: u32) -> bool {
        let pids: Vec<u32> = {
            let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            tried.iter().filter(|(d, _)| *d == dir).map(|(_, p)| *p).collect()
        };
        pids.iter().any(|p| process::same(*p, pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_tried_there_is_one() {
        let (r, me) = (Removers::default(), std::process::id());
        r.tries(7, me);
        assert!(r.has_tried(7, me) && !r.has_tried(8, me) && !r.has_tried(7, 1));
        for dir in 0..5000 {
            r.tries(dir + 100, 1);
        }
        assert!(!r.has_tried(7, me), "memory is bounded");
    }
}
