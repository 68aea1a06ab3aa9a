//! Memory is written and checked.

use super::{Cost, Problem, at_most, mix, number};
use crate::machine::memory::parse_meminfo;
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

/// `[MIB] [SECONDS]`
pub(super) fn run(args: &[String], out: &mut dyn Write) -> Result<(), Problem> {
    at_most(args, 2)?;
    let mib = number(args, 0, "MIB", 1..=1_048_576usize, 64)?;
    let time = Duration::from_secs(number(args, 1, "SECONDS", 0..=3600, 0)?);
    let there = parse_meminfo(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()).available / 1024;
    if there > 0 && mib as u64 > there {
        return Err(Problem::Failed(format!("{mib} MiB are asked for, and {there} MiB are available")));
    }
    let words = mib * (1 << 20) / size_of::<u64>();
    let mut memory: Vec<u64> = Vec::new();
    memory.try_reserve_exact(words).map_err(|e| Problem::Failed(format!("cannot take {mib} MiB: {e}")))?;
    let (begun, mut passes) = (Instant::now(), 0u64);
    loop {
        pass(&mut memory, words, passes)?;
        passes += 1;
        if begun.elapsed() >= time {
            break;
        }
    }
    let rate = 2.0 * mib as f64 * passes as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    writeln!(out, "{mib} MiB written and checked {passes} times, {rate:.0} MiB/s")?;
    Ok(())
}

/// At 2 GiB a second.
pub(super) fn cost(args: &[String]) -> Result<Cost, Problem> {
    at_most(args, 2)?;
    let mib: u64 = number(args, 0, "MIB", 1..=1_048_576, 64)?;
    let time = Duration::from_secs(number(args, 1, "SECONDS", 0..=3600, 0)?);
    let cpu = time.max(Duration::from_micros(500 * mib));
    Ok(Cost { cpu, output: format!("{mib} MiB written and checked: simulated\n") })
}

/// Each pass writes other numbers, so that what stayed of the last one is seen.
fn pass(memory: &mut Vec<u64>, words: usize, number: u64) -> Result<(), Problem> {
    let seed = mix(number);
    memory.clear();
    memory.extend((0..words as u64).map(|i| mix(seed ^ i)));
    black_box(memory.as_mut_slice());
    match memory.iter().zip(0u64..).position(|(word, i)| *word != mix(seed ^ i)) {
        None => Ok(()),
        Some(at) => Err(Problem::Failed(format!("byte {} is not what was written", at * size_of::<u64>()))),
    }
}

#[cfg(test)]
mod tests {
    use crate::builtin::tests::run;

    #[test]
    fn once_without_a_time() {
        let out = run("memory", &["1"]).expect("it runs");
        assert!(out.starts_with("1 MiB written and checked 1 times, "), "{out}");
    }
}
