//! `evaluation [TEST [LIMIT]]`: what balancing brings. Sixteen domains on one of four servers run TEST (`fibonacci 49` when none is
//! given: 39 s of CPU time each), without balancing and with it; a server asks for help after LIMIT seconds (5) of overload.

use xvm_tests::evaluation::{evening, side_by_side};

fn main() {
    let mut args = std::env::args().skip(1);
    let test = args.next().unwrap_or_else(|| "fibonacci 49".into());
    let limit = args.next().and_then(|l| l.parse().ok()).unwrap_or(5);
    let (off, on) = (evening("off", &test, limit), evening("on", &test, limit));
    println!("{}\n{}", side_by_side(&off.summary, &on.summary), on.results);
}
