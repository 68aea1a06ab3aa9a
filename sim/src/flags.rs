//! The program's flags.

use clap::{Args, Command, CommandFactory, Parser};
use std::path::PathBuf;

/// Replays recorded loads under xvm's policies in simulated time.
#[derive(Debug, Parser)]
#[command(name = "xvm-sim", version, about, long_about = LONG)]
pub struct Flags {
    /// Archives (.tar.gz) or folders with one file a domain
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// A policy to replay, repeatable; all when none is given
    #[arg(long, value_parser = ["none", "points", "three-in-a-row", "three-of-five", "adaptive"])]
    pub policy: Vec<String>,
    /// Mean loads of the servers in percent, with commas between
    #[arg(long, default_value = "60,70,80", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100))]
    pub load: Vec<u32>,
    #[command(flatten)]
    /// What is replayed on
    pub cluster: Cluster,
    /// Draw what was missing over time for the last day and load into this file
    #[arg(long)]
    pub svg: Option<PathBuf>,
}

/// What is replayed on.
#[derive(Debug, Args)]
pub struct Cluster {
    /// The number of servers, instead of what the mean load asks for
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub servers: Option<u32>,
    /// CPUs of each server
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub cpus: u32,
    /// How many times the mean number of domains a server has memory for, in percent
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u32).range(100..=10_000))]
    pub crowd: u32,
    /// Seconds between two samples of the recordings
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub unit: u32,
    /// Seconds that a move takes; the domain loses a tenth of its CPU in them
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub move_seconds: u32,
    /// What chance is made of: the same seed gives the same table
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const LONG: &str = "Replays recorded loads under xvm's policies in simulated time, with the code that agents run, and prints a table: \
the share of server time at or above 100 % demand, the CPU hours that domains lost (by contention, and a tenth of a domain's CPU \
while it moves), moves, moves undone within 30 minutes, messages of a round that moved a domain, requests that moved nothing and \
their messages, mean time from overload to relief; a last line says what free repacking at every sample would lose. Of a move's \
messages two are a renewal of its lease, every 10 s.

A file is one domain: a line a sample, a percentage of one CPU, or TIME LOAD as in the files `history` of the tree; lines that begin with # are passed over. Domains are \
dealt to the servers in a seeded random order, the same number to each. All have the same memory; servers have memory for --crowd \
percent of the mean number of domains. After each sample each server may ask once for help and give one domain away; the rounds are those of the agents, \
with messages that take a millisecond. Agents see what domains want: what \
they use and what they wait for. The guards (memory, limits, a cooldown of an hour for a domain) hold for every policy.

The policies none, three-in-a-row and three-of-five are there for comparison only; see xvm-policy(7).";

/// The flags as clap knows them, for the manual page.
pub fn command() -> Command {
    Flags::command()
}
