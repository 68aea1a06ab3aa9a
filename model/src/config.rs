//! The definition of a domain: what `configs/NAME` shows, what its file `NAME.toml` holds, and what may be set.
//!
//! | file | what |
//! |---|---|
//! | `settings` | the table of what can be set: key, form, when |
//! | `text` | the file: TOML in and out, errors with their line |
//! | `render` | `xl.cfg` and `libvirt.xml` |

pub mod render;
pub mod settings;
pub mod text;

use crate::{Pin, domain::words, text::as_text};
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, sync::Arc};
use uuid::Uuid;

/// Memory of a domain in MiB.
pub const MEMORY_MIB: std::ops::RangeInclusive<u64> = 16..=4 << 20;
/// A disk in MiB: what holds a small system, to 64 TiB.
pub const DISK_MIB: std::ops::RangeInclusive<u64> = 16..=64 << 20;
/// Swap in MiB; 0 is none.
pub const SWAP_MIB: std::ops::RangeInclusive<u64> = 0..=1 << 20;
/// vCPUs of a domain.
pub const VCPUS: std::ops::RangeInclusive<u16> = 1..=256;
/// VLAN numbers (IEEE 802.1Q).
pub const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
/// SSH keys, and packages, of one config at most.
pub const ITEMS_MAX: usize = 64;

words! {
    /// What becomes of a domain whose server is down.
    Restart {
        /// It waits for its server, or for somebody who starts it.
        Never = "never",
        /// Its lease is revoked, then it is started on another server.
        Always = "always",
    }
}

words! {
    /// How a hypervisor runs it, where there is a choice.
    GuestType {
        /// Whatever that hypervisor does best (QEMU: hvm, Xen: pvh).
        Auto = "auto",
        /// Xen's paravirtual mode.
        Pv = "pv",
        /// Xen's paravirtual mode in a hardware container.
        Pvh = "pvh",
        /// A whole machine.
        Hvm = "hvm",
    }
}

/// An Ethernet address in the form `52:54:00:12:34:56`; unicast.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// One of QEMU's and libvirt's own range (52:54:00), its rest taken from `uuid`: two configs hardly ever share one.
    pub fn of(uuid: Uuid) -> Mac {
        let b = uuid.as_bytes();
        Mac([0x52, 0x54, 0x00, b[13], b[14], b[15]])
    }

    /// Reads the usual form.
    pub fn parse(text: &str) -> Result<Mac, String> {
        let bytes: Vec<u8> = text
            .split(':')
            .map_while(|h| {
                (h.len() == 2 && !h.starts_with('+')).then(|| u8::from_str_radix(h, 16).ok()).flatten()
            })
            .collect();
        match <[u8; 6]>::try_from(bytes) {
            Ok(mac) if text.len() == 17 && mac[0] & 1 == 0 => Ok(Mac(mac)),
            _ => Err(format!("{text:?} is no unicast Ethernet address such as 52:54:00:12:34:56")),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

as_text!(Mac);

/// How its guest gets an address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// No network at all.
    None,
    /// From a DHCP server.
    #[default]
    Dhcp,
    /// This one: `10.0.0.5/24` or `10.0.0.5/24 via 10.0.0.1`.
    Static {
        /// The address.
        ip: IpAddr,
        /// Bits of the network's part.
        prefix: u8,
        /// The default router.
        via: Option<IpAddr>,
    },
}

impl Address {
    /// Reads `none`, `dhcp`, `IP/PREFIX` or `IP/PREFIX via IP`.
    pub fn parse(text: &str) -> Result<Address, String> {
        let wrong = || format!("{text:?} is none of `none`, `dhcp`, `IP/PREFIX`, `IP/PREFIX via ROUTER`");
        let words: Vec<&str> = text.split_whitespace().collect();
        let (net, via) = match words[..] {
            ["none"] => return Ok(Address::None),
            ["dhcp"] => return Ok(Address::Dhcp),
            [net] => (net, None),
            [net, "via", router] => (net, Some(router.parse().map_err(|_| wrong())?)),
            _ => return Err(wrong()),
        };
        let (ip, prefix) = net.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let mixed = via.is_some_and(|v: IpAddr| v.is_ipv4() != ip.is_ipv4());
        if prefix > most || prefix == 0 || mixed || ip.is_unspecified() || ip.is_multicast() {
            return Err(wrong());
        }
        Ok(Address::Static { ip, prefix, via })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::None => f.write_str("none"),
            Address::Dhcp => f.write_str("dhcp"),
            Address::Static { ip, prefix, via: None } => write!(f, "{ip}/{prefix}"),
            Address::Static { ip, prefix, via: Some(via) } => write!(f, "{ip}/{prefix} via {via}"),
        }
    }
}

as_text!(Address);

/// Which builder makes the image, and of what: `tiny`, `debian/bookworm`, `ubuntu/noble`, `image/NAME`. Which ones there are, imaged
/// knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Os(Arc<str>);

impl Os {
    /// Checks the form: words of lower-case letters, digits, `-`, `.` and `_`, one `/` between two of them at most.
    pub fn parse(text: &str) -> Result<Os, String> {
        let word = |w: &str| {
            (1..=64).contains(&w.len())
                && w.starts_with(|c: char| c.is_ascii_alphanumeric())
                && w.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|p| word(p)) {
            return Err(format!("{text:?} is not in the form BUILDER or BUILDER/WHAT, as debian/bookworm"));
        }
        Ok(Os(text.into()))
    }

    /// The builder's word, and what follows the slash.
    pub fn parts(&self) -> (&str, Option<&str>) {
        self.0.split_once('/').map_or((&*self.0, None), |(builder, what)| (builder, Some(what)))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Os {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

as_text!(Os);

/// Whose it is, as `chown` and `chmod` on its directory set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permission bits of the directory, 0 to 0o777; its files have those of its bits that their kind allows.
    pub mode: u16,
}

impl Default for Rights {
    fn default() -> Self {
        Rights { uid: 0, gid: 0, mode: 0o755 }
    }
}

/// The definition of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The domain's identity.
    pub uuid: Uuid,
    /// Its network interface's address.
    pub mac: Mac,
    /// In MiB, [`MEMORY_MIB`].
    pub memory: u64,
    /// [`VCPUS`].
    pub vcpus: u16,
    /// In MiB, [`SWAP_MIB`].
    pub swap: u64,
    /// In MiB, [`DISK_MIB`].
    pub disk: u64,
    /// What is on the disk.
    pub os: Os,
    /// Its guest's address.
    pub address: Address,
    /// The VLAN that its interface is in; none: untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Public SSH keys, a line of `authorized_keys` each, that may log in.
    #[serde(default)]
    pub keys: Vec<Box<str>>,
    /// Packages beyond the builder's own.
    #[serde(default)]
    pub packages: Vec<Box<str>>,
    /// As [`crate::DomainSettings::priority`].
    pub priority: u8,
    /// Where it may run.
    #[serde(default)]
    pub pin: Pin,
    /// What becomes of it when its server is down.
    pub restart: Restart,
    /// How Xen runs it.
    #[serde(default = "auto", rename = "type")]
    pub kind: GuestType,
    /// Whose it is.
    #[serde(default)]
    pub rights: Rights,
}

fn auto() -> GuestType {
    GuestType::Auto
}

impl Config {
    /// A new definition with the defaults of xvm; a site's own come over it.
    pub fn new(uuid: Uuid) -> Config {
        Config {
            uuid,
            mac: Mac::of(uuid),
            memory: 256,
            vcpus: 1,
            swap: 128,
            disk: 2048,
            os: Os("debian/bookworm".into()),
            address: Address::Dhcp,
            vlan: None,
            keys: Vec::new(),
            packages: Vec::new(),
            priority: 50,
            pin: Pin::default(),
            restart: Restart::Never,
            kind: GuestType::Auto,
            rights: Rights::default(),
        }
    }

    /// The same for another domain: all but its identity.
    #[must_use]
    pub fn twin(&self, uuid: Uuid) -> Config {
        Config { uuid, mac: Mac::of(uuid), ..self.clone() }
    }

    /// Values that came from a file or the bus: the first that is not allowed, by its key.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        for row in settings::SETTINGS {
            let shown = (row.show)(self);
            let mut copy = self.clone();
            (row.set)(&mut copy, shown.trim_end()).map_err(|why| (row.key, why))?;
        }
        if self.rights.mode > 0o777 {
            return Err(("rights", "its mode is 0 to 0o777 (511)".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_their_edges() {
        for good in ["none", "dhcp", "10.0.0.5/24", "10.0.0.5/24 via 10.0.0.1", "fd00::5/64 via fd00::1"] {
            assert_eq!(Address::parse(good).expect(good).to_string(), good);
        }
        for bad in [
            "",
            "10.0.0.5",
            "10.0.0.5/33",
            "10.0.0.5/0",
            "10.0.0.5/24 via fd00::1",
            "0.0.0.0/8",
            "x/24",
            "dhcp x",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ethernet_addresses_and_systems() {
        assert_eq!(Mac::parse("52:54:00:AB:cd:0f").expect("ok").to_string(), "52:54:00:ab:cd:0f");
        for bad in ["", "52:54:00:ab:cd", "53:54:00:ab:cd:ef", "52:54:00:ab:cd:ef:00", "+2:54:00:ab:cd:ef"] {
            assert!(Mac::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Os::parse("debian/bookworm").expect("ok").parts(), ("debian", Some("bookworm")));
        for bad in ["", "/", "a/b/c", "../x", "debian/", "a b"] {
            assert!(Os::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_allowed() {
        Config::new(Uuid::from_u128(7)).check().expect("allowed");
    }
}
