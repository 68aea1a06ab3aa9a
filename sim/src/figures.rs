//! What a replay is measured by.

/// The figures of one replay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// The share of server time in which as much as all CPUs or more was wanted (SLATAH).
    pub overload: f64,
    /// CPU hours that domains wanted and their servers did not have.
    pub contention: f64,
    /// CPU hours that moved domains lost while they moved.
    pub moving: f64,
    /// Moves.
    pub moves: u64,
    /// Moves that took a domain back within 30 minutes to where it came from.
    pub undone: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// All messages (requests, offers, accepts, words that room is held, renewals, refusals, ends) of the rounds that moved a domain,
    /// and of those that did not.
    pub messages: (u64, u64),
    /// Overloads that ended, and how many samples they lasted in all.
    pub relieved: (u64, u64),
    /// What was missing in each sample, in CPUs.
    pub missing: Vec<f64>,
}

impl Figures {
    /// The domains' lost CPU time in hours.
    pub fn lost(&self) -> f64 {
        self.contention + self.moving
    }

    /// The mean time from an overload's begin to its end, in samples.
    pub fn relief(&self) -> f64 {
        self.relieved.1 as f64 / self.relieved.0.max(1) as f64
    }

    /// Messages of a round that moved a domain, in the mean.
    pub fn messages_a_move(&self) -> f64 {
        self.messages.0 as f64 / self.moves.max(1) as f64
    }

    /// Requests that moved nothing.
    pub fn vain(&self) -> u64 {
        self.requests.saturating_sub(self.moves)
    }

    /// Messages of such a round, in the mean.
    pub fn messages_in_vain(&self) -> f64 {
        self.messages.1 as f64 / self.vain().max(1) as f64
    }
}
