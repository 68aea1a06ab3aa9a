//! `three-in-a-row`: the idea of the balancer of Proxmox VE 9, for comparison, with one decision a server instead of one a cluster.
//!
//! There, the spread (standard deviation over mean) of all servers' (cpu + mem) / 2 must be over a threshold of 30 % for three
//! rounds, and a move must make it smaller by 10 %. Taken literally it never acts on some forty servers with a thousand domains: no
//! single move changes the spread of the whole by a tenth. So that it is no man of straw, a server asks here when its own score is
//! more than 10 % above the mean of all in three samples in a row, and a move must make the spread of asker and helper around that
//! mean smaller by 10 %; the move that makes it smallest wins.

use super::{Guest, Host, Peers, Policy, Request, Sums, Worth};
use crate::Mono;

/// How far above the mean a score must be, and what share of the spread a move must take away.
pub const MARGIN: f64 = 0.10;
/// Samples in a row.
pub const HOLD: u32 = 3;

/// The rule's memory.
#[derive(Debug, Default)]
pub struct ThreeInARow {
    /// How many samples in a row were over the margin.
    row: u32,
    /// The mean score of all servers.
    mean: f64,
}

impl ThreeInARow {
    fn spread(&self, cpu: f64, memory: f64) -> f64 {
        ((cpu.min(1.0) + memory) / 2.0 - self.mean).powi(2)
    }

    /// How much smaller the squared distance from the mean gets when `guest` comes (`sign` 1) or goes (-1).
    fn change(&self, host: &Host, sums: &Sums, guest: &Guest, sign: f64) -> (f64, f64) {
        let total = host.memory.max(1) as f64;
        let (cpu, memory) = (sums.demand / host.cpus, sums.memory as f64 / total);
        let now = self.spread(cpu, memory);
        let then =
            self.spread(cpu + sign * guest.load / host.cpus, memory + sign * guest.memory as f64 / total);
        (now, now - then)
    }
}

impl Policy for ThreeInARow {
    fn name(&self) -> &'static str {
        "three-in-a-row"
    }

    fn sample(&mut self, host: &Host, peers: &Peers, _: Mono) {
        self.mean = peers.score;
        self.row = if host.score() > self.mean * (1.0 + MARGIN) { self.row + 1 } else { 0 };
    }

    fn pain(&self, host: &Host, _: Mono) -> Option<f64> {
        (self.row >= HOLD).then(|| self.spread(host.load(), host.memory_share()))
    }

    fn relief(&self, host: &Host, sums: &Sums, guest: &Guest, _: f64) -> Option<f64> {
        Some(self.change(host, sums, guest, -1.0).1)
    }

    fn wishes(&self) -> usize {
        usize::MAX
    }

    fn worth(&self, host: &Host, sums: &Sums, request: &Request, index: usize) -> Option<Worth> {
        let wish = &request.wishes[index];
        let (own, change) = self.change(host, sums, &wish.guest, 1.0);
        let (gain, all) = (wish.relief + change, request.pain + own);
        (gain > MARGIN * all).then(|| Worth { gain, delay_ms: 100.0 * (1.0 - gain / all) })
    }

    fn room(&self, host: &Host, sums: &Sums, guest: &Guest) -> bool {
        sums.with(guest).projected(host.cpus) < 1.0
    }

    fn gave(&mut self, _: Mono) {
        self.row = 0;
    }
}
