//! Fibonacci numbers by their recursion: one CPU, next to no memory.

use super::{Cost, Problem, at_most, number};
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

/// `[N]`
pub(super) fn run(args: &[String], out: &mut dyn Write) -> Result<(), Problem> {
    at_most(args, 1)?;
    let n = number(args, 0, "N", 0..=50, 38)?;
    writeln!(out, "{}", fibonacci(n))?;
    Ok(())
}

/// The golden ratio more with each N.
pub(super) fn cost(args: &[String]) -> Result<Cost, Problem> {
    at_most(args, 1)?;
    let n = number(args, 0, "N", 0..=50, 38)?;
    let (value, _) = (0..n).fold((0u64, 1u64), |(a, b), _| (b, a + b));
    // some calls of three nanoseconds each
    Ok(Cost { cpu: Duration::from_nanos(5 * value), output: format!("{value}\n") })
}

/// Each call is made: the compiler must not find the short way.
fn fibonacci(n: u32) -> u64 {
    if n < 2 { u64::from(n) } else { fibonacci(black_box(n - 1)) + fibonacci(black_box(n - 2)) }
}

#[cfg(test)]
mod tests {
    use super::cost;
    use crate::builtin::tests::run;

    #[test]
    fn the_first_ones() {
        for (n, text) in [("0", "0\n"), ("1", "1\n"), ("2", "1\n"), ("20", "6765\n")] {
            assert_eq!(run("fibonacci", &[n]).expect("it runs"), text);
            assert_eq!(cost(&[n.to_owned()]).expect("reckoned").output, text);
        }
    }
}
