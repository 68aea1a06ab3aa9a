//! What a receiver believes: the checks between two frames and a message. Pure; the same for ZeroMQ and the in-memory net.
//!
//! ```text
//! frames -> topic in the table? -> subscribed? -> signed, if of a guest that has a key? -> not too much of a guest? -> JSON of at most MESSAGE_MAX, of our version?
//!        -> body belongs under the topic? -> sender may speak there? -> not ourselves? -> not heard before? -> message
//! ```
//! What fails is dropped and counted; the log gets one line a minute at most.

mod flood;

use crate::{
    GuestKeys, Incoming,
    counts::{Meter, add, one},
    publisher::Frames,
};
use flood::{Admit, Floods};
use serde::Deserialize;
use std::{collections::HashMap, sync::Arc};
use xvm_model::{
    Body, Boot, DomainName, Envelope, Heartbeat, Mono, PublicKey, Sender, Topic, Wall, Window,
    message::{GUEST_MESSAGE_MAX, MESSAGE_MAX, News, VERSION},
    round::Round,
};

/// Senders that are remembered; beyond it the half that was silent longest is forgotten.
const PEERS_MAX: usize = 8192;
/// After this silence a sender's life with a lower number is heard: its clock was set back.
const FORGET_MS: u64 = 30_000;
/// Between two log lines about malformed messages.
const LOG_EVERY_MS: u64 = 60_000;

/// In so many bytes is the beginning of the body, where we wrote the message.
const HEAD_MAX: usize = 256;

/// What is remembered of one sender.
struct Peer {
    /// Its numbers.
    window: Window,
    /// Its life in that window.
    boot: Boot,
    /// When it was last believed.
    heard: Mono,
    /// With which key, of a guest: what was believed without it says nothing of the numbers of who has it.
    key: Option<PublicKey>,
}

/// The checks and what they remember.
pub(crate) struct Inbox {
    /// What the owner asked for: whole topics or prefixes.
    subscriptions: Vec<Subscription>,
    /// Ourselves: what we said ourselves is not news.
    own: (Sender, Boot),
    /// Everyone who spoke.
    peers: HashMap<Sender, Peer>,
    /// What guests said lately.
    floods: Floods,
    /// The keys of guests, as far as they are known.
    keys: GuestKeys,
    /// The counters.
    meter: Arc<Meter>,
    /// When the log last complained.
    logged: Option<Mono>,
}

/// What the checks without memory say.
enum Checked {
    /// It is a message.
    Message(Topic, Envelope),
    /// It is well-formed, and not for us.
    Other,
    /// It is one too many of a guest.
    Flood(DomainName, Admit),
    /// It is not of the guest whose name it has; whether that is to be told.
    Forged(DomainName, bool),
}

/// Bounds and sense of what is in a body.
fn checked(body: &Body) -> Result<(), String> {
    match body {
        Body::Watchdog(say) => say.check(),
        Body::Rounds(all) => all.rounds.iter().try_for_each(Round::check),
        Body::Guest(beat) => beat.check(),
        Body::GuestRuns(runs) => runs.check(),
        Body::GuestTop(top) => top.check(),
        Body::Reply(reply) => match &reply.news {
            Some(News::Guest { runs }) => runs.check(),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// One subscription.
#[derive(Debug, Clone)]
pub(crate) enum Subscription {
    /// A topic of the table by its full name: `control.ferby` does not let `control.ferby2` through.
    Topic(Topic),
    /// Whatever begins so: `heartbeat.`, or the empty text for all.
    Prefix(String),
}

impl Subscription {
    /// A full topic is exact, anything else a prefix.
    pub(crate) fn new(text: &str) -> Self {
        match Topic::parse(text) {
            Ok(topic) => Subscription::Topic(topic),
            Err(_) => Subscription::Prefix(text.to_owned()),
        }
    }

    fn matches(&self, topic: &Topic, text: &str) -> bool {
        match self {
            Subscription::Topic(t) => t == topic,
            Subscription::Prefix(p) => text.starts_with(p.as_str()),
        }
    }
}

impl Inbox {
    pub(crate) fn new(subscriptions: &[String], own: (Sender, Boot), meter: Arc<Meter>) -> Self {
        Inbox {
            subscriptions: subscriptions.iter().map(|s| Subscription::new(s)).collect(),
            own,
            peers: HashMap::new(),
            floods: Floods::default(),
            keys: GuestKeys::default(),
            meter,
            logged: None,
        }
    }

    /// From now on guests with these keys must sign.
    pub(crate) fn check_with(&mut self, keys: GuestKeys) {
        self.keys = keys;
    }

    /// The message in `frames`, when it is to be believed; or that there are too many of a guest.
    pub(crate) fn accept(&mut self, frames: &Frames, now: Mono) -> Option<Incoming> {
        add(&self.meter.received_bytes, frames.len());
        let (topic, envelope) = match self.check(frames, now) {
            Ok(Checked::Message(topic, envelope)) => (topic, envelope),
            Ok(Checked::Other) => return None,
            Ok(Checked::Flood(name, admit)) => {
                one(&self.meter.flooded);
                return (admit == Admit::Tell).then_some(Incoming::Flood(name));
            }
            Ok(Checked::Forged(name, tell)) => {
                one(&self.meter.forged);
                return tell.then_some(Incoming::Forged(name));
            }
            Err(why) => {
                one(&self.meter.malformed);
                if self.logged.is_none_or(|at| now.since(at) >= LOG_EVERY_MS) {
                    self.logged = Some(now);
                    tracing::warn!(
                        "a message was dropped: {why} (further ones are only counted for a minute)"
                    );
                }
                return None;
            }
        };
        if !self.fresh(&envelope, now) {
            one(&self.meter.doubled);
            return None;
        }
        one(&self.meter.received);
        Some(Incoming::Message { topic, envelope })
    }

    /// Everything that can be said without memory of the sender's other messages, but how many there are of a guest.
    fn check(&mut self, frames: &Frames, now: Mono) -> Result<Checked, String> {
        let text = std::str::from_utf8(&frames.topic).map_err(|_| "its topic is not UTF-8".to_owned())?;
        if text.len() > 300 {
            return Err(format!("its topic has {} bytes", text.len()));
        }
        let topic = Topic::parse(text)?;
        if !self.subscriptions.iter().any(|s| s.matches(&topic, text)) {
            return Ok(Checked::Other);
        }
        let guest = match &topic {
            Topic::Guest(name) | Topic::GuestReturn(name) | Topic::GuestTop(name) => Some(name),
            _ => None,
        };
        if let Some(name) = guest
            && let Some(dropped) = self.guest(name, frames, now)
        {
            return Ok(dropped);
        }
        let most = if guest.is_some() { GUEST_MESSAGE_MAX } else { MESSAGE_MAX };
        if frames.body.len() > most {
            return Err(format!("{text} has {} bytes; at most {most} are read", frames.body.len()));
        }
        let envelope = read(&frames.body).map_err(|e| format!("{text} does not read: {e}"))?;
        if envelope.v != VERSION {
            return Err(format!("{text} is of version {}; only {VERSION} is understood", envelope.v));
        }
        if envelope.body.kind() != topic.body() {
            return Err(format!(
                "{text} holds a {}; only a {} belongs there",
                envelope.body.kind(),
                topic.body()
            ));
        }
        let own_name = match (&topic, &envelope.from) {
            (
                Topic::Heartbeat(name) | Topic::Domain(name) | Topic::Watchdog(name) | Topic::Rounds(name),
                from,
            ) => *from == Sender::Agent(name.clone()),
            (Topic::Forwarder(name), from) => *from == Sender::Forwarder(name.clone()),
            (Topic::Configs | Topic::Config, from) => matches!(from, Sender::Images(_)),
            (Topic::Guest(name) | Topic::GuestReturn(name) | Topic::GuestTop(name), from) => {
                *from == Sender::Guest(name.clone())
            }
            (Topic::Control(_) | Topic::ControlImages | Topic::GuestControl(_) | Topic::RollCall, from) => {
                !matches!(from, Sender::Guest(_))
            }
            (Topic::Reply(_), _) => true,
        };
        if !own_name {
            return Err(format!("{} may not speak under {text}", envelope.from));
        }
        checked(&envelope.body).map_err(|why| format!("{text} is not believed: {why}"))?;
        if envelope.from == self.own.0 && envelope.boot == self.own.1 {
            return Ok(Checked::Other);
        }
        if let (Topic::Reply(_), Sender::Guest(name)) = (&topic, &envelope.from)
            && let Some(dropped) = self.guest(name, frames, now)
        {
            return Ok(dropped);
        }
        Ok(Checked::Message(topic, envelope))
    }

    /// Why a message under a guest's name is not read.
    fn guest(&mut self, name: &DomainName, frames: &Frames, now: Mono) -> Option<Checked> {
        // of one that says too much no signature is looked at
        if self.keys.get(name).is_some() && self.floods.would_admit(name, now) {
            if !self.floods.check(now) {
                return Some(Checked::Flood(name.clone(), Admit::No));
            }
            if !self.keys.believes(name, &frames.topic, &frames.body) {
                return Some(Checked::Forged(name.clone(), self.floods.forged(name, now)));
            }
        }
        match self.floods.admit(name, now) {
            Admit::Yes => None,
            admit => Some(Checked::Flood(name.clone(), admit)),
        }
    }

    /// Whether this number of this sender is new.
    fn fresh(&mut self, envelope: &Envelope, now: Mono) -> bool {
        if !self.peers.contains_key(&envelope.from) && self.peers.len() >= PEERS_MAX {
            self.forget_half();
        }
        let key = match &envelope.from {
            Sender::Guest(name) => self.keys.get(name),
            _ => None,
        };
        let peer = self.peers.entry(envelope.from.clone()).or_insert_with(|| Peer {
            window: Window::default(),
            boot: envelope.boot,
            heard: now,
            key,
        });
        if peer.key != key {
            (peer.window, peer.key) = (Window::default(), key);
        }
        if envelope.boot < peer.boot && now.since(peer.heard) >= FORGET_MS {
            peer.window.reset();
        }
        let fresh = peer.window.fresh(envelope.stamp());
        if fresh {
            peer.boot = envelope.boot;
            peer.heard = now;
        }
        fresh
    }

    /// Forgets those who were silent longest; half at once, so that a flood of names costs little each.
    fn forget_half(&mut self) {
        let mut heard: Vec<Mono> = self.peers.values().map(|p| p.heard).collect();
        let middle = heard.len() / 2;
        let (_, &mut median, _) = heard.select_nth_unstable(middle);
        self.peers.retain(|_, p| p.heard > median);
    }
}

/// Reads an envelope.
///
/// Of a tagged body serde makes a tree of values before it makes the body, which doubles the cost of the one message that is long and
/// comes often. So a heartbeat in the form in which we write it is read straight; everything else, and every other form, the long way.
fn read(text: &[u8]) -> serde_json::Result<Envelope> {
    /// An envelope whose body is known to be a heartbeat; `type` is then a field that nobody reads.
    #[derive(Deserialize)]
    struct Beat {
        v: u32,
        from: Sender,
        boot: Boot,
        seq: u64,
        at: Wall,
        body: Box<Heartbeat>,
    }
    // a quotation mark in a text would have a backslash before it, so this can only be structure
    const MARK: &[u8] = br#","body":{"type":"heartbeat","#;
    let head = &text[..text.len().min(HEAD_MAX)];
    if !head.windows(MARK.len()).any(|w| w == MARK) {
        return serde_json::from_slice(text);
    }
    let Beat { v, from, boot, seq, at, body } = serde_json::from_slice(text)?;
    Ok(Envelope { v, from, boot, seq, at, body: Body::Heartbeat(body) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;
    use xvm_model::{Answer, Reply, ServerName, message::Counters};

    fn agent(name: &str) -> Sender {
        Sender::Agent(ServerName::parse(name).unwrap())
    }

    fn inbox(subscriptions: &[&str]) -> Inbox {
        let subscriptions: Vec<String> = subscriptions.iter().map(|s| (*s).to_owned()).collect();
        Inbox::new(&subscriptions, (agent("me"), Boot(5)), Arc::default())
    }

    fn frames(topic: &str, from: Sender, boot: u64, seq: u64, body: Body) -> Frames {
        let e = Envelope { v: VERSION, from, boot: Boot(boot), seq, at: Wall(0), body };
        Frames { topic: topic.into(), body: serde_json::to_vec(&e).unwrap() }
    }

    fn call(from: &str, boot: u64, seq: u64) -> Frames {
        frames("roll-call", agent(from), boot, seq, Body::RollCall)
    }

    #[test]
    fn what_is_not_of_the_form_is_counted_and_dropped() {
        let mut b = inbox(&[""]);
        let good = call("a", 1, 1);
        let beacon = Body::Forwarder(Counters::default());
        let bad = [
            Frames { topic: vec![0xff], ..good.clone() },
            Frames { topic: b"nonsense".to_vec(), ..good.clone() },
            Frames { topic: vec![b'x'; 400], ..good.clone() },
            Frames { topic: b"heartbeat.a".to_vec(), ..good.clone() },
            Frames { body: b"{".to_vec(), ..good.clone() },
            Frames { body: vec![b' '; MESSAGE_MAX + 1], ..good.clone() },
            Frames { body: good.body.clone().into_iter().chain(*b"x").collect(), ..good.clone() },
            Frames {
                body: String::from_utf8(good.body.clone()).unwrap().replace("\"v\":1", "\"v\":2").into(),
                ..good.clone()
            },
            frames("forwarder.main", agent("main"), 1, 1, beacon.clone()),
            frames("forwarder.main", Sender::Forwarder(ServerName::parse("x").unwrap()), 1, 1, beacon),
        ];
        for f in &bad {
            assert!(b.accept(f, Mono(0)).is_none(), "{:?}", String::from_utf8_lossy(&f.topic));
        }
        assert_eq!(b.meter.read().malformed, bad.len() as u64);
        assert!(b.accept(&good, Mono(0)).is_some());
        assert_eq!(b.meter.read().received, 1);
    }

    #[test]
    fn a_full_topic_is_exact_and_a_prefix_is_not() {
        let mut b = inbox(&["control.ferby", "roll"]);
        let text = r#"{"v":1,"from":"client/c","boot":1,"seq":SEQ,"at":0,"body":{"type":"command","id":"c.1.1","client":"c","boot":1,"deadline":9,"order":{"to":"server","command":{"do":"accept","on":true}}}}"#;
        let order = |topic: &str, seq: u64| Frames {
            topic: topic.into(),
            body: text.replace("SEQ", &seq.to_string()).into(),
        };
        assert!(b.accept(&order("control.ferby2", 1), Mono(0)).is_none());
        assert!(b.accept(&order("control.ferby", 2), Mono(0)).is_some());
        assert!(b.accept(&call("a", 1, 1), Mono(0)).is_some());
        assert_eq!(b.meter.read().malformed, 0);
    }

    #[test]
    fn doubles_and_our_own_words_are_dropped() {
        let mut b = inbox(&[""]);
        assert!(b.accept(&call("a", 1, 1), Mono(0)).is_some());
        assert!(b.accept(&call("a", 1, 1), Mono(0)).is_none());
        assert_eq!(b.meter.read().doubled, 1);
        assert!(b.accept(&call("me", 5, 1), Mono(0)).is_none());
        assert!(
            b.accept(&call("me", 4, 1), Mono(0)).is_some(),
            "another life of our name is another speaker"
        );
    }

    /// If this fails, root in one guest speaks as another, or silences it.
    #[test]
    fn under_a_guests_name_who_has_its_key_is_heard_and_nobody_else() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let (own, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let beat = |guest: &str, boot: u64, seq: u64| {
            let body = Body::GuestRuns(Box::default());
            frames(&format!("guest-return.{guest}"), Sender::Guest(name(guest)), boot, seq, body)
        };
        let signed = |key: &SecretKey, f: Frames| Frames { body: key.sign(&f.topic, f.body.clone()), ..f };
        let mut b = inbox(&[""]);
        let keys = GuestKeys::default();
        b.check_with(keys.clone());
        // before its key is known, a forged life with great numbers
        assert!(b.accept(&beat("a", 1 << 50, 9), Mono(0)).is_some());
        keys.set([(name("a"), own.public())]);
        assert!(b.accept(&signed(&own, beat("a", 1, 1)), Mono(1)).is_some(), "its numbers are its own");
        for forged in [beat("a", 2, 1), signed(&other, beat("a", 2, 2))] {
            let first = b.meter.read().forged == 0;
            let told = matches!(b.accept(&forged, Mono(2)), Some(Incoming::Forged(of)) if of == name("a"));
            assert_eq!(told, first, "told once");
        }
        // what is signed for one topic is not for another
        let moved = Frames { topic: b"guest-return.b".to_vec(), ..signed(&own, beat("a", 1, 2)) };
        assert!(b.accept(&moved, Mono(2)).is_none());
        // a flood in its name does not silence it
        for seq in 0..1_000 {
            assert!(b.accept(&beat("a", 3, seq), Mono(3)).is_none());
        }
        assert!(b.accept(&signed(&own, beat("a", 1, 3)), Mono(4)).is_some());
        // one that signs and says too much is as any other
        let read = (4..1_000).filter(|seq| {
            matches!(b.accept(&signed(&own, beat("a", 1, *seq)), Mono(5)), Some(Incoming::Message { .. }))
        });
        assert!(read.count() as u64 <= flood::BURST);
        assert!(b.accept(&beat("b", 1, 1), Mono(5)).is_some(), "a guest without a key is heard as it was");
        // an answer too
        let reply = Body::Reply(Box::new(Reply { id: "x".into(), answer: Answer::Working, news: None }));
        let reply = |guest: &str| frames("reply.c", Sender::Guest(name(guest)), 5, 1, reply.clone());
        assert!(b.accept(&reply("a"), Mono(9_000)).is_none());
        assert!(b.accept(&signed(&own, reply("a")), Mono(9_000)).is_some());
    }

    #[test]
    fn a_clock_that_went_back_is_heard_after_a_silence() {
        let mut b = inbox(&[""]);
        assert!(b.accept(&call("a", 9, 1), Mono(0)).is_some());
        assert!(b.accept(&call("a", 3, 1), Mono(29_999)).is_none());
        assert!(b.accept(&call("a", 3, 2), Mono(30_000)).is_some());
        assert!(b.accept(&call("a", 3, 3), Mono(30_001)).is_some());
        assert!(b.accept(&call("a", 3, 3), Mono(90_001)).is_none(), "a double stays one");
    }

    #[test]
    fn the_memory_of_senders_is_bounded() {
        let mut b = inbox(&[""]);
        for i in 0..3 * PEERS_MAX as u64 {
            assert!(b.accept(&call(&format!("a{i}"), 1, 1), Mono(i)).is_some());
            assert!(b.peers.len() <= PEERS_MAX);
        }
    }

    #[test]
    fn the_straight_way_and_the_long_way_read_the_same() {
        let beat = r#""settings":{},"points":1,"hypervisor":"sim","address":"a:1","cpus":[0.5],"memory":{"total":2,"free":1},"domains":[]"#;
        let ours = format!(
            r#"{{"v":1,"from":"agent/a","boot":1,"seq":1,"at":7,"body":{{"type":"heartbeat",{beat}}}}}"#
        );
        let long = format!(
            r#"{{"body":{{{beat},"type":"heartbeat"}},"v":1,"from":"agent/a","boot":1,"seq":1,"at":7}}"#
        );
        let read_of = |text: &str| read(text.as_bytes()).unwrap();
        assert_eq!(read_of(&ours), read_of(&long));
        assert_eq!(
            serde_json::to_string(&read_of(&ours)).unwrap(),
            serde_json::to_string(&read_of(&long)).unwrap()
        );
        let written = serde_json::to_vec(&read_of(&ours)).unwrap();
        assert!(
            written[..HEAD_MAX].windows(28).any(|w| w == br#","body":{"type":"heartbeat","#),
            "what we write takes the straight way"
        );
        assert!(
            read(ours.replace("heartbeat", "roll-call").as_bytes()).is_ok_and(|e| e.body == Body::RollCall)
        );
        assert!(read(ours.replace("points", "pints").as_bytes()).is_err());
    }
}
