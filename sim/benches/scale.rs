//! `cargo bench -p xvm-sim`: how much faster than real time a day of 10, 100 and 1,000 servers with 20 domains each is replayed on
//! one core, and how many messages a move takes: they must not grow with the servers.

use std::time::Instant;
use xvm_sim::{Loads, Setup, replay};

fn main() {
    println!(
        "{:>7} {:>7} {:<8} {:>6} {:>9} {:>7} {:>9} {:>9} {:>11}",
        "servers",
        "domains",
        "policy",
        "moves",
        "msgs/move",
        "in vain",
        "msgs/vain",
        "seconds",
        "x real time"
    );
    for servers in [10, 100, 1000] {
        let loads = Loads::made(servers * 20, 288, 1);
        let setup = Setup { servers: Some(servers), ..Setup::default() };
        for rule in ["points", "adaptive"] {
            let begin = Instant::now();
            let f = replay(&loads, &setup, rule);
            let took = begin.elapsed().as_secs_f64();
            println!(
                "{servers:>7} {:>7} {rule:<8} {:>6} {:>9.1} {:>7} {:>9.1} {took:>9.2} {:>11.0}",
                loads.domains.len(),
                f.moves,
                f.messages_a_move(),
                f.vain(),
                f.messages_in_vain(),
                loads.samples() as f64 * setup.unit_s / took
            );
        }
    }
}
