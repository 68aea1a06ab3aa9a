//! What the two sides say, and what is believed of it.

use crate::policy::{Guest, Mates, Offer, Request, WISHES_MAX};
use crate::round::RoundId;
use crate::server::Balance;
use crate::{DomainName, ServerName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// The most domains of one [`Say::Recall`].
pub const RECALL_MAX: usize = 1024;
/// The longest round id, address or sentence in bytes.
const TEXT_MAX: usize = 512;
/// The most servers of a pin, and the most groups.
const NAMES_MAX: usize = 1024;
/// The most CPUs of a server, far beyond any.
const CPUS_MAX: f64 = 1e6;
/// The most memory of a domain in KiB, far beyond any: sums of them stay far below overflow.
const MEMORY_MAX: u64 = 1 << 40;

/// What the two sides say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Say {
    /// Who can take one of these?
    RequestHelp {
        /// The round that begins.
        round: RoundId,
        /// The wishes; shared, for all who hear it in one process keep it.
        #[serde(serialize_with = "shared", deserialize_with = "share")]
        request: Arc<Request>,
    },
    /// I can take this one.
    OfferHelp {
        /// The round.
        round: RoundId,
        /// The wish and the projected load.
        offer: Offer,
        /// The number of the accept that this answers: the room is the asker's. None in a first offer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<u32>,
    },
    /// This helper; nobody else.
    AcceptHelp {
        /// The round.
        round: RoundId,
        /// Whose offer is accepted.
        helper: ServerName,
        /// Counts the accepts of this round.
        number: u32,
    },
    /// No: the asker says it of an offer, the helper of a request or of its own offer.
    Decline {
        /// The round.
        round: RoundId,
        /// Whose offer it is about, or who cannot help.
        helper: ServerName,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Box<str>>,
    },
    /// The round has ended.
    Done {
        /// The round.
        round: RoundId,
        /// Whether the domain moved.
        moved: bool,
    },
    /// Whoever runs these is asked to give them back to the sender, by a round of its own.
    Recall {
        /// Which.
        domains: Vec<DomainName>,
    },
    /// How the sender stands: what the cluster was told about balancing, of which the latest is in force, and how full it is.
    Balance {
        /// What.
        balance: Balance,
        /// The mean of the shares of its CPUs and of its memory that are taken, see [`crate::policy::Host::score`]: 0 to 1.
        #[serde(default)]
        score: f64,
    },
}

impl Say {
    /// Whether every value is in a sane range; the error says which is not. Who says it may well be mistaken or hostile: nothing
    /// that has not been checked goes to [`super::Negotiation::step`].
    pub fn check(&self) -> Result<(), String> {
        match self {
            Say::RequestHelp { round, request } => id(round).and_then(|()| self::request(round, request)),
            Say::OfferHelp { round, offer, .. } => id(round).and_then(|()| self::offer(offer)),
            Say::AcceptHelp { round, .. } | Say::Done { round, .. } => id(round),
            Say::Decline { round, why, .. } => {
                id(round).and_then(|()| why.as_deref().map_or(Ok(()), |why| text("why", why)))
            }
            Say::Recall { domains } => match domains.len() {
                1..=RECALL_MAX => Ok(()),
                n => Err(format!("cannot believe a recall of {n} domains: 1 to {RECALL_MAX} are allowed")),
            },
            Say::Balance { score, .. } => number("score", *score, 0.0, 1.0),
        }
    }

    /// The round that it is about.
    pub fn round(&self) -> Option<&RoundId> {
        match self {
            Say::RequestHelp { round, .. }
            | Say::OfferHelp { round, .. }
            | Say::AcceptHelp { round, .. }
            | Say::Decline { round, .. }
            | Say::Done { round, .. } => Some(round),
            Say::Recall { .. } | Say::Balance { .. } => None,
        }
    }
}

fn shared<S: Serializer>(request: &Arc<Request>, to: S) -> Result<S::Ok, S::Error> {
    request.as_ref().serialize(to)
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Request>, D::Error> {
    Request::deserialize(from).map(Arc::new)
}

/// A round's id becomes the name of a directory.
fn id(round: &str) -> Result<(), String> {
    let good = (1..=TEXT_MAX).contains(&round.len())
        && round.starts_with(|c: char| c.is_ascii_alphanumeric())
        && round.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    let shown: String = round.chars().take(80).collect();
    good.then_some(()).ok_or_else(|| format!("cannot believe round {shown:?}: it is not SERVER.BOOT.NUMBER"))
}

fn text(what: &str, text: &str) -> Result<(), String> {
    let good = text.len() <= TEXT_MAX && !text.chars().any(char::is_control);
    good.then_some(()).ok_or_else(|| {
        format!("cannot believe {what}: it is longer than {TEXT_MAX} bytes or has control characters")
    })
}

fn number(what: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    // a NaN is in no range
    (low..=high)
        .contains(&value)
        .then_some(())
        .ok_or_else(|| format!("cannot believe {what} {value}: {low} to {high} is allowed"))
}

fn request(round: &str, request: &Request) -> Result<(), String> {
    let asker = request.asker.as_str();
    if !round.strip_prefix(asker).is_some_and(|rest| rest.starts_with('.')) {
        return Err(format!("cannot believe round {round}: it is not one of {asker}"));
    }
    if !(1..=WISHES_MAX).contains(&request.wishes.len()) {
        let n = request.wishes.len();
        return Err(format!("cannot believe a request with {n} wishes: 1 to {WISHES_MAX} are allowed"));
    }
    text("why", &request.why)?;
    text("policy", &request.policy)?;
    number("load", request.load, 0.0, CPUS_MAX)?;
    number("level", request.level, 0.0, CPUS_MAX)?;
    number("cpus", request.cpus, 0.01, CPUS_MAX)?;
    number("pain", request.pain, -1e15, 1e15)?;
    request.wishes.iter().try_for_each(|wish| {
        number("relief", wish.relief, -1e15, 1e15)?;
        guest(&wish.guest)?;
        wish.mates.as_deref().map_or(Ok(()), mates)
    })
}

fn guest(guest: &Guest) -> Result<(), String> {
    number("load", guest.load, 0.0, CPUS_MAX)?;
    number("units", guest.habit.units(), 0.0, 1e15)?;
    number("level", guest.habit.level(), 0.0, CPUS_MAX)?;
    number("variance", guest.habit.variance(), 0.0, CPUS_MAX)?;
    number("memory", guest.memory as f64, 0.0, MEMORY_MAX as f64)?;
    number("priority", guest.priority.into(), 0.0, 100.0)?;
    names(guest.pin.0.len().max(guest.with.0.len()).max(guest.apart.0.len()))
}

fn mates(mates: &Mates) -> Result<(), String> {
    number("demand", mates.sums.demand, 0.0, CPUS_MAX)?;
    number("level", mates.sums.level, 0.0, CPUS_MAX)?;
    number("variance", mates.sums.variance, 0.0, CPUS_MAX)?;
    number("memory", mates.sums.memory as f64, 0.0, MEMORY_MAX as f64)?;
    names(mates.pin.0.len().max(mates.apart.0.len()))
}

fn names(count: usize) -> Result<(), String> {
    (count <= NAMES_MAX)
        .then_some(())
        .ok_or_else(|| format!("cannot believe a pin or groups of {count} names: {NAMES_MAX} are allowed"))
}

fn offer(offer: &Offer) -> Result<(), String> {
    text("address", &offer.address)?;
    number("wish", offer.wish as f64, 0.0, (WISHES_MAX - 1) as f64)?;
    number("projected", offer.projected, 0.0, CPUS_MAX)?;
    number("gain", offer.worth.gain, -1e15, 1e15)?;
    number("delay", offer.worth.delay_ms, -1e15, 1e15)
}
