//! The archive that a kernel unpacks into its first file system: cpio, the form `newc` (Documentation/driver-api/early-userspace).

/// An archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory; its parents come before it.
    pub fn dir(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[]);
    }

    /// Adds a file with its permission bits.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.entry(path, 0o100_000 | mode, data);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let (size, name) = (data.len(), path.len() + 1);
        // inode, mode, uid, gid, links, time, size, device (4), name, sum
        let head = format!(
            "070701{:08x}{mode:08x}{:016x}{:08x}{:08x}{size:08x}{:032x}{name:08x}{:08x}",
            self.entries, 0, 1, 0, 0, 0
        );
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// busybox's cpio, which is not ours, finds in it what went in.
    #[test]
    fn another_cpio_reads_it() {
        let dir = tempfile::tempdir().expect("dir");
        let mut archive = Archive::default();
        archive.dir("m");
        archive.file("m/a", 0o600, b"hello");
        archive.file("init", 0o755, b"#!/bin/sh\n");
        std::fs::write(dir.path().join("x"), archive.finish()).expect("written");
        let file = std::fs::File::open(dir.path().join("x")).expect("open");
        let status = Command::new("busybox")
            .args(["cpio", "-idu"])
            .current_dir(dir.path())
            .stdin(file)
            .stderr(Stdio::null())
            .status()
            .expect("busybox");
        assert!(status.success());
        assert_eq!(std::fs::read(dir.path().join("m/a")).expect("a"), b"hello");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join("init")).expect("init").permissions(),
        );
        assert_eq!(mode & 0o777, 0o755);
    }
}
