//! Fibonacci numbers by their recursion: one CPU, next to no memory.

use super::{Problem, at_most, number};
use std::hint::black_box;
use std::io::Write;

/// `[N]`
pub(super) fn run(args: &[String], out: &mut dyn Write) -> Result<(), Problem> {
    at_most(args, 1)?;
    let n = number(args, 0, "N", 0..=50, 38)?;
    writeln!(out, "{}", fibonacci(n))?;
    Ok(())
}

/// Each call is made: the compiler must not find the short way.
fn fibonacci(n: u32) -> u64 {
    if n < 2 { u64::from(n) } else { fibonacci(black_box(n - 1)) + fibonacci(black_box(n - 2)) }
}

#[cfg(test)]
mod tests {
    use crate::builtin::tests::run;

    #[test]
    fn the_first_ones() {
        for (n, text) in [("0", "0\n"), ("1", "1\n"), ("2", "1\n"), ("20", "6765\n")] {
            assert_eq!(run("fibonacci", &[n]).expect("it runs"), text);
        }
    }
}
