//! The mounted tree as a test uses it. Each call is measured, see [`Calls`].

use crate::{Calls, Events, PATIENCE};
use nix::errno::Errno;
use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::{fd::IntoRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc,
};

/// A mounted tree.
#[derive(Clone)]
pub struct Tree {
    /// Where it is mounted.
    root: PathBuf,
    /// Where its calls are recorded.
    calls: Calls,
}

/// A write that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The errno's name.
    pub errno: String,
    /// What the file `error` of the directory says after its time.
    pub sentence: String,
}

/// The name of an error's errno.
pub fn errno(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| format!("{error}"), |n| format!("{:?}", Errno::from_raw(n)))
}

impl Tree {
    /// The tree at `root`.
    pub fn new(root: &Path, calls: Calls) -> Tree {
        Tree { root: root.into(), calls }
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The record of its calls.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Opens, reads to the end and closes.
    pub fn get(&self, path: &str) -> io::Result<String> {
        let full = self.path(path);
        self.calls.run(&format!("read {path}"), move || std::fs::read_to_string(full))
    }

    /// The file's text without its last line end.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let text = self.get(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// The value after `key` in a file of `key value` lines.
    #[track_caller]
    pub fn value(&self, path: &str, key: &str) -> Option<String> {
        let text = self.text(path);
        text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ').map(str::to_owned))
    }

    /// A JSON file.
    #[track_caller]
    pub fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(path)).unwrap_or_else(|e| panic!("{path} is not JSON: {e}"))
    }

    /// Opens as a shell's `>` does, writes at once, closes; the first error of the three.
    pub fn put(&self, path: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
        let (full, bytes) = (self.path(path), text.as_ref().to_vec());
        self.calls.run(&format!("write {path}"), move || {
            let mut file = OpenOptions::new().write(true).truncate(true).open(full)?;
            file.write_all(&bytes)?;
            Ok(nix::unistd::close(file.into_raw_fd())?)
        })
    }

    /// Writes a line that must be accepted.
    #[track_caller]
    pub fn order(&self, path: &str, line: &str) {
        if let Err(e) = self.put(path, format!("{line}\n")) {
            panic!("{line:?} > {path} was refused: {} {:?}", errno(&e), self.get(&error_of(path)));
        }
    }

    /// Writes what must be refused.
    #[track_caller]
    pub fn refused(&self, path: &str, text: impl AsRef<[u8]>) -> Refusal {
        let shown = String::from_utf8_lossy(text.as_ref()).chars().take(60).collect::<String>();
        let Err(error) = self.put(path, text) else { panic!("{shown:?} > {path} was accepted") };
        self.refusal(path, &error)
    }

    /// An error of a call on `path` with what the file `error` beside it says.
    #[track_caller]
    pub fn refusal(&self, path: &str, error: &io::Error) -> Refusal {
        let line = self.text(&error_of(path));
        let mut parts = line.splitn(3, ' ').skip(1);
        let (named, sentence) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().to_owned());
        let errno = errno(error);
        assert_eq!(named, errno, "the file error names another errno than the call gave: {line}");
        Refusal { errno, sentence }
    }

    /// A directory's names, sorted; empty when there is no such directory.
    pub fn names(&self, path: &str) -> Vec<String> {
        let full = self.path(path);
        self.calls.run(&format!("list {path}"), move || {
            let Ok(entries) = std::fs::read_dir(full) else { return Vec::new() };
            let mut names: Vec<String> =
                entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        })
    }

    /// `mv`: a rename.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (a, b) = (self.path(from), self.path(to));
        self.calls.run(&format!("rename {from} {to}"), move || std::fs::rename(a, b))
    }

    /// Reads a file that blocks until something has ended (`wait`); it may take long, so it is not measured.
    #[track_caller]
    pub fn until_end(&self, path: &str) -> String {
        let (full, (sender, receiver)) = (self.path(path), mpsc::channel());
        std::thread::spawn(move || drop(sender.send(std::fs::read_to_string(full))));
        match receiver.recv_timeout(2 * PATIENCE) {
            Ok(Ok(text)) => text.trim_end().to_owned(),
            Ok(Err(e)) => panic!("cannot read {path}: {e}"),
            Err(_) => panic!(
                "{path} has no end in {:?}; the job: {:?}",
                2 * PATIENCE,
                self.get(&path.replace("wait", "job"))
            ),
        }
    }

    /// One command and its answer through one open file, as `exec 3<>ctl` gives it.
    pub fn talk(&self, path: &str, line: &str) -> (io::Result<()>, String) {
        let (full, line) = (self.path(path), format!("{line}\n"));
        self.calls.run(&format!("talk to {path}"), move || {
            let file =
                OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_CLOEXEC).open(full);
            let mut file = match file {
                Ok(file) => file,
                Err(e) => return (Err(e), String::new()),
            };
            let written = file.write_all(line.as_bytes());
            let mut bytes = [0; 4096];
            let n = file.read(&mut bytes).unwrap_or(0);
            (written, String::from_utf8_lossy(&bytes[..n]).into_owned())
        })
    }

    /// Opens an `events` file.
    #[track_caller]
    pub fn events(&self, path: &str) -> Events {
        Events::open(&self.path(path))
    }

    /// Waits until a file's text is `wanted`; the tree may be away meanwhile.
    #[track_caller]
    pub fn settles(&self, path: &str, wanted: &str) {
        crate::wait_eq(path, wanted.to_owned(), || {
            self.get(path).unwrap_or_else(|e| errno(&e)).trim_end().to_owned()
        });
    }
}

fn error_of(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/error"),
        None => "error".into(),
    }
}
