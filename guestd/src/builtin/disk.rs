//! A file is written to the disk, and read back.
//!
//! The file has no name: the kernel removes it when the process ends, however it ends.

use super::{Cost, Problem, at_most, mix, number};
use rustix::fs::{Advice, fadvise};
use std::io::{Read as _, Seek as _, Write};
use std::time::{Duration, Instant};

/// Bytes that are written at once.
const BLOCK: usize = 1 << 20;
/// Where the file is made when nothing else is asked for: the first that is there.
const PLACES: [&str; 2] = ["/var/tmp", "/tmp"];

/// At 200 MiB a second.
pub(super) fn cost(args: &[String]) -> Result<Cost, Problem> {
    at_most(args, 2)?;
    let mib: u64 = number(args, 0, "MIB", 1..=65_536, 64)?;
    let output = format!("{mib} MiB written and read: simulated\n");
    Ok(Cost { cpu: Duration::from_millis(5 * mib), output })
}

/// `[MIB] [DIR]`
pub(super) fn run(args: &[String], out: &mut dyn Write) -> Result<(), Problem> {
    at_most(args, 2)?;
    let mib = number(args, 0, "MIB", 1..=65_536u64, 64)?;
    let usual = PLACES.iter().find(|p| std::path::Path::new(p).is_dir()).unwrap_or(&PLACES[0]);
    let dir = args.get(1).map_or(*usual, String::as_str);
    let failed = |what: &str, e: std::io::Error| Problem::Failed(format!("cannot {what} in {dir}: {e}"));
    let mut file = tempfile::tempfile_in(dir).map_err(|e| failed("make a file", e))?;
    let begun = Instant::now();
    let (mut block, mut written) = (vec![0; BLOCK], crc32fast::Hasher::new());
    for i in 0..mib {
        fill(&mut block, i);
        written.update(&block);
        file.write_all(&block).map_err(|e| failed(&format!("write MiB {} of {mib}", i + 1), e))?;
    }
    file.sync_all().map_err(|e| failed("bring the file to the disk", e))?;
    let write = rate(mib, begun);
    // what the kernel still holds of it would be read instead of the disk; where it keeps it, memory is read
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    file.rewind().map_err(|e| failed("read", e))?;
    let (begun, mut read) = (Instant::now(), crc32fast::Hasher::new());
    for i in 0..mib {
        file.read_exact(&mut block).map_err(|e| failed(&format!("read MiB {} of {mib}", i + 1), e))?;
        read.update(&block);
    }
    let (written, read) = (written.finalize(), read.finalize());
    if written != read {
        return Err(Problem::Failed(format!(
            "what was read ({read:08x}) is not what was written ({written:08x})"
        )));
    }
    writeln!(
        out,
        "{mib} MiB in {dir}: written {write:.0} MiB/s, read {:.0} MiB/s, checksum {read:08x}",
        rate(mib, begun)
    )?;
    Ok(())
}

fn rate(mib: u64, begun: Instant) -> f64 {
    mib as f64 / begun.elapsed().as_secs_f64().max(1e-9)
}

/// No two blocks are alike: a disk that finds copies would not write them.
fn fill(block: &mut [u8], number: u64) {
    let first = number.wrapping_mul(BLOCK as u64);
    for (chunk, i) in block.chunks_exact_mut(8).zip(0u64..) {
        chunk.copy_from_slice(&mix(first + i).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::Problem;
    use crate::builtin::tests::run;

    /// If this fails, a test of the disk leaves its file, or does not say where it cannot write.
    #[test]
    fn no_file_stays() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let place = dir.path().to_str().expect("text");
        let out = run("disk", &["2", place]).expect("it runs");
        assert!(out.starts_with(&format!("2 MiB in {place}: written ")), "{out}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
        let Err(Problem::Failed(why)) = run("disk", &["1", "/nowhere"]) else { panic!("refused") };
        assert!(why.starts_with("cannot make a file in /nowhere: "), "{why}");
    }
}
