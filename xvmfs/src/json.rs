//! The `json` files: all that a directory knows, for jq and programs.

use serde_json::{Value, json};
use xvm_model::round::Round;
use xvm_model::{ConfigView, DomainView, Guest, Now, Server, View};

/// With indents and a line end.
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a Value has string keys only");
    text.push('\n');
    text
}

/// A domain: its record with the cluster's view of it, and its guest while that is heard. Memory in KiB, times in milliseconds since
/// 1970.
pub fn domain(view: &View, d: &DomainView, now: Now) -> Value {
    let mut value = serde_json::to_value(&*d.domain).expect("records have string keys only");
    if let Value::Object(map) = &mut value {
        map.insert("hypervisor_state".into(), json!(d.domain.state));
        map.insert("state".into(), json!(d.shown.word()));
        map.insert("server".into(), json!(d.server));
        map.insert("claimed_by".into(), json!(d.claimed_by));
        map.insert("heard".into(), json!(d.heard.wall));
        map.insert("age_ms".into(), json!(now.mono.since(d.heard.mono)));
        map.insert("settings".into(), json!(d.domain.settings));
        map.insert("job".into(), json!(d.domain.job));
        map.insert("last".into(), json!(d.last));
        if let Some(g) = view.guest(d.domain.name.as_str(), now.mono) {
            map.insert("guest".into(), guest(view, g, now));
        }
    }
    value
}

/// A guest: its heartbeat with its tests, the latest last. Memory in KiB, times in milliseconds since 1970, those of tests by its own
/// clock.
pub fn guest(view: &View, g: &Guest, now: Now) -> Value {
    let mut value = serde_json::to_value(&*g.beat).expect("records have string keys only");
    if let Value::Object(map) = &mut value {
        map.insert("state".into(), json!(view.guest_reach(g, now.mono).word()));
        map.insert("runs".into(), json!(g.runs.runs));
        map.insert("boot".into(), json!(g.stamp.boot));
        map.insert("heard".into(), json!(g.heard.wall));
        map.insert("age_ms".into(), json!(now.mono.since(g.heard.mono)));
    }
    value
}

/// A server: its heartbeat with the names of its domains.
pub fn server(view: &View, s: &Server, now: Now) -> Value {
    let mut value = serde_json::to_value(&*s.beat).expect("records have string keys only");
    if let Value::Object(map) = &mut value {
        map.insert("name".into(), json!(s.name));
        map.insert("state".into(), json!(view.reach(s, now.mono).word()));
        map.insert("load".into(), json!(s.beat.load()));
        map.insert("boot".into(), json!(s.stamp.boot));
        map.insert("heard".into(), json!(s.heard.wall));
        map.insert("age_ms".into(), json!(now.mono.since(s.heard.mono)));
        map.insert("job".into(), json!(s.beat.job));
        map.insert("last".into(), json!(s.last()));
        let names: Vec<_> = view.domains_of(s, now.mono).collect();
        map.insert("domains".into(), json!(names));
    }
    value
}

/// A config: its record with imaged as the view knows it. Sizes in MiB, times in milliseconds since 1970.
pub fn config(view: &View, c: &ConfigView, now: Now) -> Value {
    let mut value = serde_json::to_value(&c.record).expect("records have string keys only");
    if let (Value::Object(map), Some(images)) = (&mut value, view.images()) {
        map.insert("job".into(), json!(c.record.job));
        map.insert("remaining".into(), json!(c.record.remaining));
        map.insert("last".into(), json!(c.last()));
        map.insert("leases".into(), json!(c.record.leases));
        map.insert("wrong".into(), json!(c.record.wrong));
        map.insert("imaged".into(), json!(images.name));
        map.insert("imaged_state".into(), json!(view.images_reach(images, now.mono).word()));
        map.insert("heard".into(), json!(images.heard.wall));
        map.insert("age_ms".into(), json!(now.mono.since(images.heard.mono)));
    }
    value
}

/// A round of help: what its asker wrote down.
pub fn round(r: &Round) -> Value {
    serde_json::to_value(r).expect("records have string keys only")
}
