//! Other hosts' libvirt: which addresses are taken, and asking one for a domain.

use super::{drivers::Driver, pool};
use crate::hypervisor::{HvError, HvResult};
use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};
use virt::connect::Connect;

/// Ports of libvirt's own protocol.
const PORTS: [(&str, u16); 2] = [("tcp", 16509), ("tls", 16514)];

/// Checks an address that came over the bus.
///
/// libvirt's URIs can run programs (`+ext`, `?command=`, an ssh host that begins with `-`), so that only plain ones of the same driver
/// are taken: `qemu+tcp://HOST[:PORT]/system`.
pub fn check(driver: &Driver, address: &str) -> HvResult<()> {
    let wrong = |why: &str| Err(HvError::Refused(format!("address {address:?} is not taken: {why}")));
    let Some((reach, _)) = driver.reach else {
        return Err(HvError::NotSupported(format!("libvirt's {} driver cannot migrate", driver.kind)));
    };
    let scheme = reach.split('+').next().unwrap_or_default();
    let Some((front, rest)) = address.split_once("://") else { return wrong("it is no URI") };
    match front.split_once('+') {
        Some((s, "tcp" | "tls" | "ssh")) if s == scheme => {}
        _ => {
            return wrong(&format!("it must begin with {scheme}+tcp://, {scheme}+tls:// or {scheme}+ssh://"));
        }
    }
    if address.contains(|c: char| c == '?' || c == '#' || c.is_whitespace() || c.is_control()) {
        return wrong("parameters are not allowed");
    }
    if rest.starts_with(['-', '/']) || rest.is_empty() || rest.contains("@-") {
        return wrong("it names no host");
    }
    Ok(())
}

/// Host and port where a TCP connection can be tried first.
fn socket(address: &str) -> Option<(String, u16)> {
    let (front, rest) = address.split_once("://")?;
    let transport = front.split_once('+')?.1;
    let port = PORTS.iter().find(|p| p.0 == transport)?.1;
    let host = rest.split('/').next()?.rsplit('@').next()?;
    match host.rsplit_once(':') {
        Some((name, given)) if !name.ends_with(':') && !host.ends_with(']') => {
            Some((name.trim_matches(['[', ']']).to_owned(), given.parse().ok()?))
        }
        _ => Some((host.trim_matches(['[', ']']).to_owned(), port)),
    }
}

/// Opens a connection to another host. A host without power costs 2 s here; libvirt by itself would wait for minutes.
pub fn open(address: &str) -> HvResult<Connect> {
    if let Some((host, port)) = socket(address) {
        let unreachable = |e: std::io::Error| HvError::Unreachable(format!("cannot reach {address}: {e}"));
        let mut places = (host.as_str(), port).to_socket_addrs().map_err(unreachable)?;
        let place = places.next().ok_or_else(|| {
            HvError::Unreachable(format!("cannot reach {address}: the name has no address"))
        })?;
        drop(TcpStream::connect_timeout(&place, Duration::from_secs(2)).map_err(unreachable)?);
    }
    pool::open(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::drivers;

    #[test]
    fn addresses_that_run_programs_are_refused() {
        let qemu = drivers::of("qemu:///system");
        for good in
            ["qemu+tcp://gerby/system", "qemu+tls://10.0.0.1:99/system", "qemu+ssh://root@gerby/system"]
        {
            assert_eq!(check(qemu, good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "gerby",
            "qemu:///system",
            "xen+tcp://gerby/",
            "qemu+ext://gerby/system?command=/bin/x",
            "qemu+ssh://gerby/system?netcat=/bin/x",
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://root@-oProxyCommand=x/system",
            "qemu+tcp:///system",
            "qemu+unix:///system",
        ] {
            assert!(check(qemu, bad).is_err(), "{bad}");
        }
        assert!(matches!(check(drivers::of("test:///default"), "x"), Err(HvError::NotSupported(_))));
    }

    #[test]
    fn where_to_knock() {
        assert_eq!(socket("qemu+tcp://gerby/system"), Some(("gerby".into(), 16509)));
        assert_eq!(socket("qemu+tls://u@[::1]:5/system"), Some(("::1".into(), 5)));
        assert_eq!(socket("qemu+tcp://[::1]/system"), Some(("::1".into(), 16509)));
        assert_eq!(socket("qemu+ssh://gerby/system"), None);
    }
}
