//! Which of flags, the kernel's command line, the file and the host's name counts: in this order, each value by itself.

use super::cmdline;
use super::file::File;
use std::path::Path;
use xvm_bus::Endpoint;
use xvm_model::DomainName;
use xvm_model::guest::INTERVAL_RANGE_MS;

/// What a heartbeat may be.
pub(super) const HEARTBEAT_RULE: &str = "heartbeat is 0.1 to 60 seconds";
/// How often a guest says how it is when nothing else was said, in seconds.
const HEARTBEAT: f64 = 5.0;

/// Where values may come from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The flag --name.
    pub name: Option<&'a DomainName>,
    /// The flags --forwarder.
    pub forwarders: &'a [Endpoint],
    /// The flag --heartbeat.
    pub heartbeat: Option<f64>,
    /// The text of the kernel's command line.
    pub cmdline: &'a str,
    /// The file.
    pub file: &'a File,
    /// Where the file is or would be.
    pub place: &'a Path,
    /// The host's name.
    pub host: &'a str,
}

/// What counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The domain's name.
    pub name: DomainName,
    /// Where forwarders are, one at least.
    pub forwarders: Vec<Endpoint>,
    /// Between two heartbeats, in milliseconds.
    pub interval_ms: u32,
}

/// Decides. The error is a sentence that names the wrong value, or all places where a missing one was looked for.
pub fn settle(sources: &Sources<'_>) -> Result<Settled, String> {
    let kernel = cmdline::parse(sources.cmdline);
    let name = match (sources.name, &kernel.name, &sources.file.name) {
        (Some(name), _, _) => name.clone(),
        (None, Some(name), _) => {
            DomainName::parse(name).map_err(|e| format!("cannot use xvm.name of the kernel's command line: {e}"))?
        }
        (None, None, Some(name)) => name.clone(),
        (None, None, None) => DomainName::parse(sources.host.trim()).map_err(|e| {
            let place = sources.place.display();
            format!(
                "cannot use this host's name: {e}; give a name by --name, by xvm.name=NAME on the kernel's command line, or by `name` in {place}"
            )
        })?,
    };
    let forwarders = if !sources.forwarders.is_empty() {
        sources.forwarders.to_vec()
    } else if !kernel.bus.is_empty() {
        let all = kernel.bus.iter().map(|text| Endpoint::parse(text)).collect::<Result<_, _>>();
        all.map_err(|e| format!("cannot use xvm.bus of the kernel's command line: {e}"))?
    } else if !sources.file.forwarders.is_empty() {
        sources.file.forwarders.clone()
    } else {
        let place = sources.place.display();
        return Err(format!(
            "cannot find a forwarder: there is no --forwarder, no xvm.bus=ENDPOINT on the kernel's command line, and no `forwarder` in {place}"
        ));
    };
    let heartbeat = sources.heartbeat.or(sources.file.heartbeat).unwrap_or(HEARTBEAT);
    let interval_ms =
        interval(heartbeat).ok_or_else(|| format!("cannot use {heartbeat}: {HEARTBEAT_RULE}"))?;
    Ok(Settled { name, forwarders, interval_ms })
}

/// Seconds as milliseconds, when a heartbeat may be so.
pub(super) fn interval(seconds: f64) -> Option<u32> {
    // a cast from f64 saturates, and a NaN is 0
    Some((seconds * 1000.0).round() as u32).filter(|ms| INTERVAL_RANGE_MS.contains(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which source has what: `f` flags, `k` kernel, `c` file, `h` host.
    fn from(name: &str, forwarder: &str) -> Result<(String, String), String> {
        let domain = |n: &str| DomainName::parse(n).expect("a name");
        let address = |a: &str| Endpoint::parse(a).expect("an address");
        let flag = domain("by-flag");
        let flags: Vec<_> = forwarder.contains('f').then(|| address("by-flag")).into_iter().collect();
        let mut kernel = String::from("quiet");
        kernel += if name.contains('k') { " xvm.name=by-kernel" } else { "" };
        kernel += if forwarder.contains('k') { " xvm.bus=by-kernel" } else { "" };
        let file = File {
            name: name.contains('c').then(|| domain("by-file")),
            forwarders: forwarder.contains('c').then(|| address("by-file")).into_iter().collect(),
            ..File::default()
        };
        let settled = settle(&Sources {
            name: name.contains('f').then_some(&flag),
            forwarders: &flags,
            heartbeat: None,
            cmdline: &kernel,
            file: &file,
            place: Path::new("/etc/xvm/guestd.toml"),
            host: if name.contains('h') { "by-host\n" } else { "" },
        })?;
        Ok((settled.name.to_string(), settled.forwarders[0].to_string()))
    }

    #[test]
    fn the_first_that_says_something_counts() {
        for (sources, by) in [("fkch", "by-flag"), ("kch", "by-kernel"), ("ch", "by-file"), ("h", "by-host")]
        {
            assert_eq!(from(sources, "f").expect("a name").0, by);
        }
        for (sources, by) in [("fkc", "by-flag"), ("kc", "by-kernel"), ("c", "by-file")] {
            assert_eq!(from("f", sources).expect("a forwarder").1, format!("tcp://{by}:5750"));
        }
        // each by itself
        assert_eq!(from("k", "c"), Ok(("by-kernel".into(), "tcp://by-file:5750".into())));
    }

    #[test]
    fn what_is_missing_names_all_places() {
        let why = from("f", "").expect_err("no forwarder");
        let places = ["--forwarder", "xvm.bus=", "/etc/xvm/guestd.toml"];
        assert!(places.iter().all(|p| why.contains(p)), "{why}");
        let why = from("", "f").expect_err("no name");
        assert!(["--name", "xvm.name=", "/etc/xvm/guestd.toml"].iter().all(|p| why.contains(p)), "{why}");
    }

    #[test]
    fn heartbeats_have_bounds() {
        for (seconds, ms) in
            [(0.1, Some(100)), (60.0, Some(60_000)), (0.05, None), (61.0, None), (f64::NAN, None)]
        {
            assert_eq!(interval(seconds), ms, "{seconds}");
        }
    }
}
