//! Copies of sparse files: by shared blocks where the file system can, else only what holds data.

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// How a copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Both files share their blocks until one of them is written.
    Shared,
    /// So many bytes were copied, the rest are holes.
    Copied(u64),
}

/// A new empty file for a volume: nobody but its owner may look into a guest's disk.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Copies a file to a new one of the same length.
pub fn copy(from: &Path, to: &Path) -> io::Result<How> {
    let source = File::open(from)?;
    let target = create(to)?;
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(How::Shared);
    }
    copy_data(&source, &target).map(How::Copied)
}

/// Copies the parts that hold data.
fn copy_data(source: &File, target: &File) -> io::Result<u64> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let (mut at, mut copied) = (0, 0);
    while at < length {
        let start = match seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = seek(source, SeekFrom::Hole(start))?.min(length);
        copy_part(source, target, start, end)?;
        copied += end - start;
        at = end;
    }
    Ok(copied)
}

/// Copies `start..end` inside the kernel, or through memory where the kernel cannot.
fn copy_part(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let most = usize::try_from(end - from).unwrap_or(usize::MAX).min(256 << 20);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), most) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => {
                return copy_plain(source, target, from, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_plain(mut source: &File, mut target: &File, start: u64, end: u64) -> io::Result<()> {
    source.seek(io::SeekFrom::Start(start))?;
    target.seek(io::SeekFrom::Start(start))?;
    let copied = io::copy(&mut source.take(end - start), &mut target)?;
    target.flush()?;
    if copied == end - start { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_copy_has_the_same_bytes_and_no_more_blocks() {
        let dir = tempfile::tempdir().expect("dir");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&a).expect("file");
        file.set_len(64 << 20).expect("length");
        for at in [0u64, 5 << 20, (64 << 20) - 4096] {
            file.write_all_at(&[at.to_le_bytes()[2] | 1; 4096], at).expect("write");
        }
        copy(&a, &b).expect("copied");
        assert_eq!(std::fs::read(&a).expect("a"), std::fs::read(&b).expect("b"));
        let blocks = |p| std::fs::metadata(p).expect("there").blocks() * 512;
        assert!(blocks(&b) <= 1 << 20, "{} bytes", blocks(&b));
        assert_eq!(copy(&a, &b).expect_err("there already").kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn data_is_copied_also_without_the_kernels_help() {
        let dir = tempfile::tempdir().expect("dir");
        let file = |name: &str| {
            let path = dir.path().join(name);
            File::options().create(true).truncate(false).read(true).write(true).open(path).expect("file")
        };
        let (a, b) = (file("a"), file("b"));
        a.write_all_at(b"0123456789", 0).expect("write");
        b.set_len(10).expect("length");
        copy_plain(&a, &b, 3, 7).expect("copied");
        let mut text = [0; 10];
        b.read_exact_at(&mut text, 0).expect("read");
        assert_eq!(&text, b"\0\0\x003456\0\0\0");
    }
}
