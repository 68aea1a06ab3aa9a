//! An open `events` file: its lines are collected by a thread from the moment of opening.

use crate::wait_for;
use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The lines so far.
pub struct Events {
    lines: Arc<Mutex<Vec<String>>>,
    /// Tells the thread to end; a held read comes back once a second.
    over: Arc<AtomicBool>,
}

impl Events {
    /// Opens the file, and reads it from then on.
    #[track_caller]
    pub fn open(path: &Path) -> Events {
        let mut file = File::open(path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
        let (lines, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (kept, ended) = (lines.clone(), over.clone());
        std::thread::spawn(move || {
            let (mut rest, mut bytes) = (Vec::new(), [0; 4096]);
            while !ended.load(Relaxed) {
                match file.read(&mut bytes) {
                    Ok(0) => return,
                    Ok(n) => rest.extend_from_slice(&bytes[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => return,
                }
                while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                }
            }
        });
        Events { lines, over }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line with `part` after its time stamp.
    #[track_caller]
    pub fn expect(&self, part: &str) -> String {
        wait_for(&format!("an event with {part:?}"), || self.lines().into_iter().find(|l| l.contains(part)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if std::thread::panicking() {
            eprintln!("---- events that were heard:\n{}", self.lines().join("\n"));
        }
    }
}
