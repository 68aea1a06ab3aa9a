//! What users set of a domain, kept in libvirt's metadata so that it survives and migrates with the domain:
//!
//! ```xml
//! <xvm:domain xmlns:xvm="urn:xvm:domain:1" priority="70" pin="ferby gerby"/>
//! ```

use super::{fault, raw};
use crate::hypervisor::HvResult;
use virt::{
    domain::Domain,
    error::{Error, ErrorNumber},
    sys,
};
use xvm_model::{DomainName, DomainSettings, Pin, ServerName};

const NAMESPACE: &str = "urn:xvm:domain:1";
const PREFIX: &str = "xvm";
const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;

fn render(settings: &DomainSettings) -> String {
    // server names hold neither quotes nor angle brackets, so nothing needs escaping
    let names: Vec<&str> = settings.pin.0.iter().map(ServerName::as_str).collect();
    format!("<domain priority=\"{}\" pin=\"{}\"/>", settings.priority, names.join(" "))
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
    settings
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
        for settings in [DomainSettings::default(), DomainSettings { priority: 70, pin }] {
            assert_eq!(parse(&render(&settings)), settings);
        }
        let foreign = parse("<xvm:domain xmlns:xvm='urn:xvm:domain:1' priority='700' pin='a/b'/>");
        assert_eq!(foreign, DomainSettings::default());
    }
}
