//! What the kernel's /proc tells of the process at the other end of a request. FUSE names a thread; all of this also holds for
//! a thread's number. A process in another pid namespace has the number 0: nothing is known of it.

use std::path::Path;

/// Whether a signal waits for the process: a held read must then be answered, or the signal waits for ever. `None` when the
/// process cannot be seen.
pub fn signalled(pid: u32) -> Option<bool> {
    let status = status(pid)?;
    let mask = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Some((mask("SigPnd:")? | mask("ShdPnd:")?) & !mask("SigBlk:")? != 0)
}

/// Whether two threads are of one process.
pub fn same(a: u32, b: u32) -> bool {
    a == b || group(a).is_some_and(|g| group(b) == Some(g))
}

/// How many descriptors of the process are of a file whose path ends with `path`. Links are read, never followed: following one
/// into this mount would ask this mount.
pub fn descriptors(pid: u32, path: &str) -> usize {
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let here = |link: std::path::PathBuf| link.ends_with(Path::new(path));
    open.flatten().filter(|fd| std::fs::read_link(fd.path()).is_ok_and(here)).count()
}

fn group(pid: u32) -> Option<u32> {
    status(pid)?.lines().find_map(|l| l.strip_prefix("Tgid:"))?.trim().parse().ok()
}

fn status(pid: u32) -> Option<String> {
    if pid == 0 {
        return None;
    }
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let me = std::process::id();
        assert_eq!(signalled(me), Some(false));
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw()).join().expect("a number");
        assert!(same(me, me) && !same(me, 1) && !same(me, 0));
        let _gone = thread;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().strip_prefix("/").expect("absolute").to_str().expect("utf-8").to_owned();
        assert_eq!(descriptors(me, &path), 1);
        drop(file);
        assert_eq!(descriptors(me, &path), 0);
        assert_eq!(signalled(0), None);
    }
}
