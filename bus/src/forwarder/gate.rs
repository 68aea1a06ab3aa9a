//! What passes between guests and the rest of the bus, when guests have sockets of their own.
//!
//! | from | passes |
//! |---|---|
//! | guests | `guest.NAME`, `guest-return.NAME`, `guest-top.NAME` of who says that it is NAME, and a guest's `reply.CLIENT` |
//! | the others | `guest-control.NAME`, `roll-call` |
//!
//! Whoever a guest says that it is, it says that it is a guest: what that may do is decided by each receiver (`inbox`), which
//! also believes guests that have a key what they have signed alone. What is told one guest can be heard by the others.

use serde::Deserialize;
use xvm_model::{Sender, Topic};

/// The longest body of a guest, in bytes: all the tests that it remembers with what they printed.
const BODY_MAX: usize = 1 << 20;
/// What guests say.
const SAID: [&[u8]; 4] = [b"guest.", b"guest-return.", b"guest-top.", b"reply."];
/// What guests are told begins so; the forwarder's own beacon reaches them by itself.
const TOLD: [&[u8]; 2] = [b"guest-control.", b"roll-call"];

/// The part of an envelope that is looked at.
#[derive(Deserialize)]
struct Head {
    from: Sender,
}

/// Whether a guest's message passes.
pub(super) fn inwards(topic: &[u8], body: &[u8]) -> bool {
    if body.len() > BODY_MAX {
        return false;
    }
    let topic = std::str::from_utf8(topic).ok().and_then(|text| Topic::parse(text).ok());
    let (Some(topic), Ok(Head { from: Sender::Guest(guest) })) = (topic, serde_json::from_slice(body)) else {
        return false;
    };
    match topic {
        Topic::Guest(name) | Topic::GuestReturn(name) | Topic::GuestTop(name) => name == guest,
        Topic::Reply(_) => true,
        _ => false,
    }
}

/// Whether a message passes to guests.
pub(super) fn outwards(topic: &[u8]) -> bool {
    TOLD.iter().any(|told| topic.starts_with(told))
}

/// Whether a guest's subscription is told to the publishers: it wants nothing but what guests are told.
pub(super) fn may_want(prefix: &[u8]) -> bool {
    outwards(prefix)
}

/// Whether guests' publishers are told of a subscription: something that they say may begin so.
pub(super) fn concerns(prefix: &[u8]) -> bool {
    SAID.iter().any(|said| prefix.starts_with(said) || said.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn says(topic: &str, from: &str) -> bool {
        let body = format!(r#"{{"v":1,"from":"{from}","boot":1,"seq":1,"at":0,"body":{{"type":"x"}}}}"#);
        inwards(topic.as_bytes(), body.as_bytes())
    }

    #[test]
    fn a_guest_speaks_as_a_guest_alone() {
        for topic in ["guest.small-1", "guest-return.small-1", "guest-top.small-1", "reply.client-1"] {
            assert!(says(topic, "guest/small-1"), "{topic}");
            for other in ["agent/ferby", "images/kerby", "client/client-1", "forwarder/main", "root/x", ""] {
                assert!(!says(topic, other), "{topic} from {other}");
            }
        }
        for topic in [
            "guest.small-2",
            "guest-top.small-2",
            "guest-return.small-2",
            "guest-control.small-1",
            "heartbeat.small-1",
            "domain.ferby",
            "watchdog.ferby",
            "rounds.ferby",
            "control.ferby",
            "control.images",
            "configs",
            "config",
            "roll-call",
            "forwarder.main",
            "guest",
            "guest.",
            "",
        ] {
            assert!(!says(topic, "guest/small-1"), "{topic}");
        }
        // which of two would count is not for us to say
        let twice = br#"{"from":"guest/small-1","from":"agent/ferby"}"#;
        assert!(!inwards(b"reply.c", twice));
        let long = format!(r#"{{"from":"guest/small-1","x":"{}"}}"#, "x".repeat(BODY_MAX));
        assert!(!inwards(b"guest.small-1", long.as_bytes()));
    }

    #[test]
    fn guests_are_told_their_orders_and_nothing_else() {
        for topic in ["guest-control.small-1", "roll-call"] {
            assert!(outwards(topic.as_bytes()), "{topic}");
        }
        for topic in
            ["heartbeat.ferby", "control.ferby", "guest.small-1", "guest-top.small-1", "reply.c", "configs"]
        {
            assert!(!outwards(topic.as_bytes()), "{topic}");
        }
        assert!(may_want(b"guest-control.small-1") && may_want(b"roll-call"));
        assert!(![&b""[..], b"guest-", b"heartbeat.", b"control.ferby"].iter().any(|p| may_want(p)));
        assert!(
            [&b""[..], b"guest.", b"guest", b"guest-top.small-1", b"reply.c"].iter().all(|p| concerns(p))
        );
        assert!(![&b"heartbeat."[..], b"control.", b"guest-control."].iter().any(|p| concerns(p)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(topic in any::<Vec<u8>>(), body in any::<Vec<u8>>()) {
            prop_assert!(!inwards(&topic, &body));
            prop_assert!(!(outwards(&topic) && concerns(&topic)), "what is told is not said");
        }
    }
}
