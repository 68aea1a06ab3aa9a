//! What users set of a domain, kept in libvirt's metadata so that it survives and migrates with the domain:
//!
//! ```xml
//! <xvm:domain xmlns:xvm="urn:xvm:domain:1" priority="70" pin="ferby gerby" with="web" apart="db"
//!             from="herby" at="1763846400000" round="herby.1763846000000.3" why="overload"/>
//! ```
//!
//! An attribute that is not there is the default.

use super::{fault, raw};
use crate::hypervisor::HvResult;
use std::fmt::Write as _;
use virt::{
    domain::Domain,
    error::{Error, ErrorNumber},
    sys,
};
use xvm_model::{Came, DomainName, DomainSettings, Pin, ServerName, Wall, command::parse_groups};

const NAMESPACE: &str = "urn:xvm:domain:1";
const PREFIX: &str = "xvm";
const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;

fn render(settings: &DomainSettings) -> String {
    let mut out = format!("<domain priority=\"{}\"", settings.priority);
    let mut put = |name: &str, value: &str| {
        write!(out, " {name}=\"{}\"", escape(value)).expect("a String takes all");
    };
    if !settings.pin.0.is_empty() {
        put("pin", &settings.pin.to_string());
    }
    for (name, groups) in [("with", &settings.with), ("apart", &settings.apart)] {
        if !groups.0.is_empty() {
            put(name, &groups.to_string());
        }
    }
    if let Some(came) = &settings.came {
        put("from", came.from.as_str());
        put("at", &came.at.0.to_string());
        if let Some(round) = &came.round {
            put("round", round);
        }
        put("why", &came.why);
        if let Some(helped) = came.helped {
            put("helped", &helped.0.to_string());
        }
    }
    out.push_str("/>");
    out
}

/// What cannot be read is as if nobody had chosen it.
fn parse(xml: &str) -> DomainSettings {
    let mut settings = DomainSettings::default();
    if let Some(priority) = attribute(xml, "priority").and_then(|p| p.parse().ok()).filter(|p| *p <= 100) {
        settings.priority = priority;
    }
    if let Some(pin) = attribute(xml, "pin") {
        let names = pin.split_whitespace().map(ServerName::parse);
        settings.pin = Pin(names.collect::<Result<_, _>>().unwrap_or_default());
    }
    let groups = |name| attribute(xml, name).and_then(|text| parse_groups(text).ok()).unwrap_or_default();
    (settings.with, settings.apart) = (groups("with"), groups("apart"));
    settings.came = came(xml).map(Box::new);
    settings
}

fn came(xml: &str) -> Option<Came> {
    Some(Came {
        from: ServerName::parse(attribute(xml, "from")?).ok()?,
        at: Wall(attribute(xml, "at")?.parse().ok()?),
        round: attribute(xml, "round").map(|r| unescape(r).into()),
        why: unescape(attribute(xml, "why").unwrap_or_default()).into(),
        helped: attribute(xml, "helped").and_then(|h| h.parse().ok()).map(Wall),
    })
}

const ESCAPES: [(&str, &str); 5] =
    [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&apos;")];

/// Text as an attribute's value.
fn escape(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    ESCAPES.iter().fold(plain, |text, (plain, escaped)| text.replace(plain, escaped))
}

/// The text of an attribute's value.
fn unescape(value: &str) -> String {
    ESCAPES.iter().rev().fold(value.to_owned(), |text, (plain, escaped)| text.replace(escaped, plain))
}

/// The value of an attribute of a single element; libvirt writes either kind of quote.
pub fn attribute<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    for quote in ['\'', '"'] {
        if let Some(at) = xml.find(&format!(" {name}={quote}")) {
            let rest = &xml[at + name.len() + 3..];
            return rest.split(quote).next();
        }
    }
    None
}

/// Reads a domain's settings. None at all is the default.
pub fn read(domain: &Domain) -> Result<DomainSettings, Error> {
    match domain.metadata(ELEMENT, Some(NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT) {
        Ok(xml) => Ok(parse(&xml)),
        Err(e) if e.code().is_known_and(|c| c == ErrorNumber::NoDomainMetadata) => {
            Ok(DomainSettings::default())
        }
        Err(e) => Err(e),
    }
}

/// Keeps a domain's settings, in the running domain and in its definition where it has both.
pub fn write(domain: &Domain, name: &DomainName, settings: &DomainSettings) -> HvResult<()> {
    let wrong = |e: Error| fault::of(&e, name);
    let active =
        !matches!(raw::state(domain).map_err(wrong)?.0, sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED);
    let mut flags = 0;
    if active {
        flags |= sys::VIR_DOMAIN_AFFECT_LIVE;
    }
    if !active || domain.is_persistent().map_err(wrong)? {
        flags |= sys::VIR_DOMAIN_AFFECT_CONFIG;
    }
    domain.set_metadata(ELEMENT, Some(&render(settings)), Some(PREFIX), Some(NAMESPACE), flags).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_as_written() {
        let pin =
            Pin(vec![ServerName::parse("ferby").expect("name"), ServerName::parse("g.x").expect("name")]);
        let groups = |text| parse_groups(text).expect("groups");
        let from = ServerName::parse("herby").expect("name");
        let why = "it's \"full\" & <over> &amp; done".into();
        let (round, helped) = (Some("herby.1.2".into()), Some(Wall(5)));
        let came = Some(Box::new(Came { from, at: Wall(7), round, why, helped }));
        let (with, apart) = (groups("web db"), groups("x"));
        let all = DomainSettings { priority: 70, pin, with, apart, came, grant: None };
        for settings in [DomainSettings::default(), all] {
            assert_eq!(parse(&render(&settings)), settings);
        }
        let foreign = parse("<xvm:domain xmlns:xvm='urn:xvm:domain:1' priority='700' pin='a/b'/>");
        assert_eq!(foreign, DomainSettings::default());
    }
}
