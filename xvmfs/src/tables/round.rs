//! `help/ROUND`

use crate::row::{Kind, Row, Scene};
use xvm_model::round::Round;

/// Its files, in the order of the listing.
pub const ROWS: &[Row] = &[
    Row {
        name: "request",
        mode: 0o444,
        about: "what was asked, `key value` lines: asker, need, policy, at, load, why; then for each domain that may go `wish DOMAIN`, CPUs wanted, memory in KiB, relief",
        kind: Kind::Text(request),
    },
    Row {
        name: "offers",
        mode: 0o444,
        about: "a line an offer: server, hypervisor, processors (or -), domain, its projected load, gain, then accepted or declined and why; then the servers that refused, and why",
        kind: Kind::Text(offers),
    },
    Row {
        name: "accept",
        mode: 0o444,
        about: "the offer that was taken, `key value` lines: helper, domain, at; empty while there is none",
        kind: Kind::Text(accept),
    },
    Row {
        name: "outcome",
        mode: 0o444,
        about: "the whole story, a sentence a line: who asked and why, who offered, who was declined and why, what moved, what it brought",
        kind: Kind::Text(outcome),
    },
    Row { name: "json", mode: 0o444, about: "all that is known of it, for programs", kind: Kind::Text(json) },
];

fn of(scene: &Scene, f: impl FnOnce(&Round) -> String) -> String {
    scene.round().map(f).unwrap_or_default()
}

fn request(scene: &Scene) -> String {
    of(scene, Round::request)
}

fn offers(scene: &Scene) -> String {
    of(scene, Round::offers)
}

fn accept(scene: &Scene) -> String {
    of(scene, Round::accept)
}

fn outcome(scene: &Scene) -> String {
    of(scene, Round::outcome)
}

fn json(scene: &Scene) -> String {
    of(scene, |r| crate::json::pretty(&crate::json::round(r)))
}
