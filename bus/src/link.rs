//! What a [`crate::Receiver`] gives: messages, and whether there is a forwarder.

use xvm_model::{DomainName, Envelope, Topic};

/// Whether the bus is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A forwarder is heard and hears us.
    Up,
    /// No forwarder; the sentence says where and why (`no forwarder at ADDRESS: ...`).
    Down(String),
}

impl Link {
    /// Whether it is [`Link::Up`].
    pub fn is_up(&self) -> bool {
        matches!(self, Link::Up)
    }
}

/// What comes from the bus.
#[derive(Debug)]
pub enum Incoming {
    /// A message that passed all checks: of the bus's form, of a sender who may speak there, and not heard before.
    Message {
        /// Under which topic.
        topic: Topic,
        /// Who said what.
        envelope: Envelope,
    },
    /// A guest says more than receivers read; told once a minute.
    Flood(DomainName),
    /// Somebody speaks as a guest without its key; told once a minute.
    Forged(DomainName),
    /// The link changed. At the start it is down, which is not told. `Up` may come twice without a `Down` between when the link
    /// was lost for a moment: whoever joins by a roll-call does so at each `Up`.
    Link(Link),
}
