//! The content of block devices: made zero, or copied but for zeros. What a device can do by itself (unmap, write zeros) it does.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

/// How much is done between two looks whether it is still wanted, in bytes.
const STEP: u64 = 64 << 20;
/// How much is read at once.
const READ: usize = 1 << 20;
/// Zeros are looked for in parts of this size, the usual size of a thin pool's chunks.
const PART: usize = 64 << 10;

/// Makes `from..to` of a device zero, for good; without `to` up to its end. Dropping the future ends it after a moment.
pub(super) async fn zero(device: PathBuf, from: u64, to: Option<u64>) -> io::Result<()> {
    stoppable(move |stop| {
        let mut file = File::options().write(true).open(device)?;
        let to = to.map_or_else(|| file.seek(SeekFrom::End(0)), Ok)?;
        zero_part(&file, from, to, stop)?;
        file.sync_all()
    })
    .await
}

/// Copies a device over another of the same size, for good. Dropping the future ends it after a moment.
pub(super) async fn copy(from: PathBuf, to: PathBuf, bytes: u64) -> io::Result<()> {
    stoppable(move |stop| copy_all(&from, &to, bytes, stop)).await
}

fn copy_all(from: &Path, to: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<()> {
    let (source, target) = (File::open(from)?, File::options().write(true).open(to)?);
    let zeros = [0; PART];
    let mut buffer = vec![0; READ];
    // zeros are collected: a device makes many at once as fast as few
    let (mut at, mut zeros_from) = (0, 0);
    while at < bytes {
        go_on(stop)?;
        let count = usize::try_from(bytes - at).unwrap_or(READ).min(READ);
        source.read_exact_at(&mut buffer[..count], at)?;
        for part in buffer[..count].chunks(PART) {
            let length = part.len() as u64;
            if *part != zeros[..part.len()] {
                zero_part(&target, zeros_from, at, stop)?;
                target.write_all_at(part, at)?;
                zeros_from = at + length;
            }
            at += length;
        }
    }
    zero_part(&target, zeros_from, bytes, stop)?;
    target.sync_all()
}

fn zero_part(file: &File, mut from: u64, to: u64, stop: &AtomicBool) -> io::Result<()> {
    while from < to {
        go_on(stop)?;
        let count = (to - from).min(STEP);
        match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, count) {
            // a device that cannot by itself gets zeros written by the kernel
            Err(Errno::OPNOTSUPP) => {
                fallocate(file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, from, count)?;
            }
            other => other?,
        }
        from += count;
    }
    Ok(())
}

fn go_on(stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Runs work where it may block, and tells it to stop when nobody waits for it any more.
async fn stoppable(work: impl FnOnce(&AtomicBool) -> io::Result<()> + Send + 'static) -> io::Result<()> {
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Stop(Arc::default());
    let flag = stop.0.clone();
    let done = tokio::task::spawn_blocking(move || work(&flag)).await;
    drop(stop);
    done.unwrap_or_else(|e| Err(io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, a copy has what its place held before, or lacks what its model has.
    #[tokio::test]
    async fn a_copy_is_the_same_whatever_was_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let bytes = 5 * (READ as u64) + 4096;
        let source = File::create(&a).expect("file");
        source.set_len(bytes).expect("length");
        for at in [0, 3 * PART as u64 + 7, 2 * READ as u64, bytes - 1] {
            source.write_all_at(b"x", at).expect("written");
        }
        std::fs::write(&b, vec![7; usize::try_from(bytes).expect("fits")]).expect("file");
        copy(a.clone(), b.clone(), bytes).await.expect("copied");
        assert!(std::fs::read(&a).expect("a") == std::fs::read(&b).expect("b"));
        zero(b.clone(), 4096, None).await.expect("zero");
        let mut wanted = vec![0; usize::try_from(bytes).expect("fits")];
        wanted[0] = b'x';
        assert!(std::fs::read(&b).expect("b") == wanted);
    }
}
