//! `make bench`: what xvm costs, each figure measured side by side with what it is compared with, in one run.
//!
//! It prints one table (`what | ours | beside | ratio | goal`) and decides nothing: a figure that misses its goal is printed as any
//! other. It fails only when something could not be measured, and says what.
//!
//! | file | what |
//! |---|---|
//! | `open` | reading a file of the tree against an empty FUSE file and against virsh |
//! | `pause` | an order through the tree against an order on the bare bus |
//! | `forward` | messages through xvm-forwarder against libzmq's proxy |
//! | `many`, `crowd` | a mount and a forwarder with 1,000 servers of 100 domains |
//! | `agent` | an agent with 100 simulated domains |
//! | `images` | machines from configs on QEMU hosts against virsh, cp and mmdebstrap |
//! | `empty` | the empty FUSE file |
//! | `cluster`, `process`, `stats`, `table` | what the rows share |

mod agent;
mod cluster;
mod crowd;
mod empty;
mod forward;
mod images;
mod many;
mod open;
mod pause;
mod process;
mod stats;
mod table;

use clap::{Parser, ValueEnum};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use table::Table;

/// What xvm costs, side by side with what it is compared with.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Flags {
    /// Shorter runs: the figures are rougher
    #[arg(long)]
    quick: bool,
    /// What to measure; without it everything
    #[arg(value_name = "ROW")]
    rows: Vec<Measure>,
    /// Serve the empty file at this directory (the bench starts itself so)
    #[arg(long, value_name = "DIR", hide = true)]
    empty: Option<PathBuf>,
    /// Run libzmq's proxy between these two addresses (the bench starts itself so)
    #[arg(long, value_names = ["IN", "OUT"], num_args = 2, hide = true)]
    proxy: Option<Vec<String>>,
    /// Be the simulated servers at this forwarder until standard input ends (the bench starts itself so)
    #[arg(long, value_name = "FORWARDER", hide = true)]
    crowd: Option<String>,
}

/// The groups of rows, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Reading `servers/NAME/load`
    #[value(alias = "a")]
    Open,
    /// `pause` through the tree
    #[value(alias = "b")]
    Pause,
    /// Messages through the forwarder
    #[value(alias = "c")]
    Forward,
    /// 1,000 servers with 100 domains each
    #[value(alias = "d")]
    Many,
    /// An agent with 100 domains
    #[value(alias = "e")]
    Agent,
    /// Machines from configs: start, migration, clone, builds
    #[value(alias = "f")]
    Images,
}

/// How long things are measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Pairs of batches that are compared.
    pub pairs: usize,
    /// How long a CPU's use is watched.
    pub watch: Duration,
}

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    if let Some(dir) = &flags.empty {
        return empty::serve(dir).map(|()| ExitCode::SUCCESS);
    }
    if let Some([front, back]) = flags.proxy.as_deref() {
        return forward::proxy(front, back).map(|()| ExitCode::SUCCESS);
    }
    if let Some(forwarder) = &flags.crowd {
        return crowd::serve(forwarder).map(|()| ExitCode::SUCCESS);
    }
    let effort = if flags.quick {
        Effort { pairs: 10, watch: Duration::from_secs(6) }
    } else {
        Effort { pairs: 40, watch: Duration::from_secs(20) }
    };
    let mut table = Table::new();
    let mut failed = 0;
    for measure in Measure::value_variants() {
        if !flags.rows.is_empty() && !flags.rows.contains(measure) {
            continue;
        }
        let done = match measure {
            Measure::Open => open::rows(effort, &mut table),
            Measure::Pause => pause::rows(effort, &mut table),
            Measure::Forward => forward::rows(effort, &mut table),
            Measure::Many => many::rows(effort, &mut table),
            Measure::Agent => agent::rows(effort, &mut table),
            Measure::Images => images::rows(effort, &mut table),
        };
        if let Err(e) = done {
            failed += 1;
            let name = measure.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned());
            println!("cannot measure {name}: {e:#}");
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
