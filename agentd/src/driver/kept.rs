//! What an agent keeps of help from life to life: its rounds, whom it gave away, and the job of the server as a whole.

use serde::{Deserialize, Serialize};
use xvm_model::{DomainName, JobKind, Wall, round::Round};

/// The content of `STATE/help.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The server's own rounds, the latest last.
    pub rounds: Vec<Round>,
    /// Domains that left by `evacuate` and have not come back.
    pub away: Vec<DomainName>,
    /// The evacuation or restoration that runs.
    pub errand: Option<KeptErrand>,
}

/// A job of the server as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptErrand {
    /// The id of the command that began it.
    pub id: Box<str>,
    /// Evacuate or restore.
    pub kind: JobKind,
    /// When it began.
    pub since: Wall,
    /// How many domains it is about.
    pub total: usize,
}
