//! What an agent keeps of help from life to life: its rounds, whom it gave away, and the job of the server as a whole.

use serde::{Deserialize, Serialize};
use xvm_model::{DomainName, JobKind, ServerName, Wall, round::Round};

/// The content of `STATE/help.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The server's own rounds, the latest last.
    pub rounds: Vec<Round>,
    /// Domains that left by `evacuate` and have not come back.
    pub away: Vec<DomainName>,
    /// Domains that began to leave by `evacuate`, and of which it was not yet heard that they have.
    pub leaving: Vec<Leaving>,
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
    /// Evacuate: domains of a group whose first has gone, and where it went; the next one first.
    #[serde(default)]
    pub follow: Vec<(DomainName, ServerName)>,
}

/// A domain that leaves by `evacuate`. Its migration may go on, and end, while no agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Which.
    pub domain: DomainName,
    /// Where to.
    pub to: ServerName,
    /// Those that are to follow it.
    pub mates: Vec<DomainName>,
    /// When it began.
    pub since: Wall,
    /// Whether it began in a life before.
    #[serde(skip, default = "yes")]
    pub before: bool,
}

/// What is read from disk is of a life before.
fn yes() -> bool {
    true
}
