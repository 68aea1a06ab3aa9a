//! What users set of a domain, kept in libvirt's metadata so that it survives and migrates with the domain:
//!
//! ```xml
//! <xvm:domain xmlns:xvm="urn:xvm:domain:1" priority="70" pin="ferby gerby" with="web" apart="db"
//!             from="herby" at="1763846400000" round="herby.1763846000000.3" why="overload"
//!             config="small-1" server="ferby" epoch="3" host="10.0.0.9" port="10809" disks="vda:disk:2147483648 vdb:swap:134217728"/>
//! ```
//!
//! An attribute that is not there is the default. The last line is the lease of a domain that was made from a config; the exports' names
//! follow from it.

use super::xml::{attribute, unescape};
use super::{fault, raw};
use crate::hypervisor::HvResult;
use std::fmt::Write as _;
use virt::{
    domain::Domain,
    error::{Error, ErrorNumber},
    sys,
};
use xvm_model::config::render::escape;
use xvm_model::spec::{GrantDisk, export_name};
use xvm_model::{
    Came, ConfigName, DomainName, DomainSettings, Grant, Pin, ServerName, Wall, command::parse_groups,
};

/// Tells xvm's element from others'.
pub const NAMESPACE: &str = "urn:xvm:domain:1";
const PREFIX: &str = "xvm";
const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;

/// The element as libvirt's call for metadata takes it, which adds prefix and namespace.
fn render(settings: &DomainSettings) -> String {
    format!("<domain{}/>", attributes(settings))
}

/// The element as it is within a definition.
pub fn element(settings: &DomainSettings) -> String {
    format!("<{PREFIX}:domain xmlns:{PREFIX}=\"{NAMESPACE}\"{}/>", attributes(settings))
}

fn attributes(settings: &DomainSettings) -> String {
    let mut out = format!(" priority=\"{}\"", settings.priority);
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
    if let Some(grant) = &settings.grant {
        put("config", grant.config.as_str());
        put("server", grant.server.as_str());
        put("epoch", &grant.epoch.to_string());
        put("host", &grant.host);
        put("port", &grant.port.to_string());
        if grant.tls {
            put("tls", "yes");
        }
        let disk = |d: &GrantDisk| format!("{}:{}:{}", d.target, d.volume, d.size);
        put("disks", &grant.disks.iter().map(disk).collect::<Vec<_>>().join(" "));
    }
    out
}

/// What cannot be read is as if nobody had chosen it.
pub fn parse(xml: &str) -> DomainSettings {
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
    settings.grant = grant(xml).map(Box::new);
    settings
}

/// A lease that does not read whole is none: the domain then moves no more, and imaged knows better.
fn grant(xml: &str) -> Option<Grant> {
    let config = ConfigName::parse(attribute(xml, "config")?).ok()?;
    let server = ServerName::parse(attribute(xml, "server")?).ok()?;
    let epoch = attribute(xml, "epoch")?.parse().ok()?;
    let disk = |text: &str| {
        let mut parts = text.splitn(3, ':');
        let (target, volume) = (parts.next()?, parts.next()?);
        let export = export_name(&config, &server, epoch, volume);
        let size = parts.next()?.parse().ok()?;
        Some(GrantDisk { target: target.into(), volume: volume.into(), export, size })
    };
    let disks = attribute(xml, "disks")?.split(' ').map(disk).collect::<Option<Vec<_>>>()?;
    let (host, port) = (unescape(attribute(xml, "host")?).into(), attribute(xml, "port")?.parse().ok()?);
    let tls = attribute(xml, "tls") == Some("yes");
    let grant = Grant { config, server, epoch, host, port, tls, disks };
    grant.check().is_ok().then_some(grant)
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

/// Reads a domain's settings; nothing set is the default. None for a domain that is not there any more or not yet: libvirt forgets a
/// transient one when it is off, and knows it for a moment before it runs and after it has ended.
pub fn read(domain: &Domain) -> Result<Option<DomainSettings>, Error> {
    match domain.metadata(ELEMENT, Some(NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT) {
        Ok(xml) => Ok(Some(parse(&xml))),
        Err(e) if e.code().is_known_and(|c| c == ErrorNumber::NoDomainMetadata) => {
            Ok(Some(DomainSettings::default()))
        }
        // "transient domains do not have any persistent config": it was not active when it was asked
        Err(e)
            if e.code().is_known_and(|c| c == ErrorNumber::OperationInvalid)
                && !domain.is_persistent()? =>
        {
            Ok(None)
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
        let config = ConfigName::parse("small-1").expect("name");
        let server = ServerName::parse("ferby.x").expect("name");
        let disk = |target: &str, volume: &str| {
            let export = export_name(&config, &server, 3, volume);
            GrantDisk { target: target.into(), volume: volume.into(), export, size: 1 << 31 }
        };
        let disks = vec![disk("vda", "disk"), disk("vdb", "swap")];
        let (config, server) = (config.clone(), server.clone());
        let grant = Grant { config, server, epoch: 3, host: "fd00::9".into(), port: 10809, tls: true, disks };
        let old = DomainSettings { priority: 70, pin, with, apart, came, grant: None };
        let all = DomainSettings { grant: Some(Box::new(grant)), ..old.clone() };
        for settings in [DomainSettings::default(), old, all.clone()] {
            assert_eq!(parse(&render(&settings)), settings);
            assert_eq!(parse(&element(&settings)), settings);
        }
        // half a lease is none, and the rest stays
        for (part, other) in
            [(" port=", " prt="), ("vdb:swap:", "vdb:"), ("\"vda:", "\"sda:"), ("epoch=\"3", "epoch=\"x")]
        {
            let half = parse(&render(&all).replace(part, other));
            assert_eq!((half.grant, half.priority), (None, 70), "{part}");
        }
        let foreign = parse("<xvm:domain xmlns:xvm='urn:xvm:domain:1' priority='700' pin='a/b'/>");
        assert_eq!(foreign, DomainSettings::default());
    }
}
