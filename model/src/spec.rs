//! What a server is told to run: a config with the exports that its lease allows, complete, so that an agent needs nothing else.

use crate::config::{Address, Config, GuestType, Mac};
use crate::{ConfigName, DomainName, DomainSettings, ServerName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The right of one server to use the volumes of one domain: names of network block exports that exist only while the lease is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose volumes.
    pub config: ConfigName,
    /// Who may use them.
    pub server: ServerName,
    /// Which lease of this config: a later one has a greater number, and no number is used twice.
    pub epoch: u64,
    /// Where the exports are.
    pub host: Box<str>,
    /// Their TCP port.
    pub port: u16,
    /// Whether they are served by TLS alone, to the servers that hold a lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// The volumes in the order of the guest's devices.
    pub disks: Vec<GrantDisk>,
}

/// One exported volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantDisk {
    /// The guest's device: `vda`, `vdb`.
    pub target: Box<str>,
    /// What the volume is: `disk`, `swap`.
    pub volume: Box<str>,
    /// The export's name, see [`export_name`].
    pub export: Box<str>,
    /// Bytes.
    pub size: u64,
}

/// The name of an export: `CONFIG.SERVER.EPOCH` for the first volume, `CONFIG.SERVER.EPOCH.VOLUME` for others. A config's name holds no
/// dot, so no two leases share a name.
pub fn export_name(config: &ConfigName, server: &ServerName, epoch: u64, volume: &str) -> Box<str> {
    match volume {
        "disk" => format!("{config}.{server}.{epoch}").into(),
        other => format!("{config}.{server}.{epoch}.{other}").into(),
    }
}

impl Grant {
    /// The part that all of its export names begin with.
    pub fn stem(&self) -> Box<str> {
        export_name(&self.config, &self.server, self.epoch, "disk")
    }

    /// `nbd://HOST:PORT/EXPORT` of one of its disks, `nbds://` with TLS.
    pub fn uri(&self, disk: &GrantDisk) -> String {
        let scheme = if self.tls { "nbds" } else { "nbd" };
        format!("{scheme}://{}:{}/{}", bracketed(&self.host), self.port, disk.export)
    }
}

/// An IPv6 address as a URI wants it.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// A file that a server needs to boot a domain, named by its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Blob {
    /// SHA-256 of its bytes, 64 lower-case hexadecimal digits.
    pub sha256: Box<str>,
    /// Its bytes.
    pub size: u64,
}

impl Blob {
    /// The name of its read-only export on imaged's boot port, and of its file in a server's cache.
    pub fn name(&self) -> String {
        format!("boot.{}", self.sha256)
    }

    /// Whether it may become a file's name: it comes from the bus.
    pub fn check(&self) -> Result<(), String> {
        let hex =
            self.sha256.len() == 64 && self.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex || self.size == 0 || self.size > BLOB_MAX {
            return Err(format!("{:?} with {} bytes is no file to boot from", self.sha256, self.size));
        }
        Ok(())
    }
}

/// The largest file to boot from, in bytes.
pub const BLOB_MAX: u64 = 1 << 30;

/// Direct kernel boot: what a server fetches from imaged, and keeps by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Where imaged exports the files, read-only, each as [`Blob::name`].
    pub host: Box<str>,
    /// The TCP port there.
    pub port: u16,
    /// The kernel.
    pub kernel: Blob,
    /// The initial RAM file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Blob>,
    /// The kernel's command line.
    pub cmdline: Box<str>,
}

impl Boot {
    /// Both files.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.kernel).chain(&self.initrd)
    }

    /// The address of one of them: `nbd://HOST:PORT/boot.SHA256`.
    pub fn uri(&self, blob: &Blob) -> String {
        format!("nbd://{}:{}/{}", bracketed(&self.host), self.port, blob.name())
    }
}

/// A domain that a server is to create and boot. It is transient: when it is off, the hypervisor forgets it; the config remains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: DomainName,
    /// Its identity.
    pub uuid: Uuid,
    /// Its memory in KiB.
    pub memory: u64,
    /// Its virtual CPUs.
    pub vcpus: u16,
    /// How Xen runs it.
    #[serde(rename = "type")]
    pub kind: GuestType,
    /// Its interface; none: no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The VLAN of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Its volumes.
    pub grant: Grant,
    /// How it boots; none: from its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// What is kept with it; holds the grant too once it runs.
    pub settings: DomainSettings,
}

impl Spec {
    /// A config with the exports of `grant`. The settings do not hold the grant yet.
    pub fn of(config: &Config, grant: Grant, boot: Option<Boot>) -> Spec {
        Spec {
            name: grant.config.domain(),
            uuid: config.uuid,
            memory: config.memory * 1024,
            vcpus: config.vcpus,
            kind: config.kind,
            mac: (config.address != Address::None).then_some(config.mac),
            vlan: config.vlan,
            grant,
            boot,
            settings: DomainSettings {
                priority: config.priority,
                pin: config.pin.clone(),
                ..DomainSettings::default()
            },
        }
    }

    /// Values from the bus that must not reach a file's name or a hypervisor.
    pub fn check(&self) -> Result<(), String> {
        if self.name != self.grant.config.domain() {
            return Err(format!("its volumes are those of {}", self.grant.config));
        }
        if !crate::config::VCPUS.contains(&self.vcpus)
            || !crate::config::MEMORY_MIB.contains(&(self.memory / 1024))
        {
            return Err(format!("{} vCPUs and {} KiB of memory are not allowed", self.vcpus, self.memory));
        }
        if self.vlan.is_some_and(|v| !crate::config::VLANS.contains(&v)) {
            return Err("a VLAN's number is 1 to 4094".into());
        }
        self.grant.check()?;
        self.boot.as_ref().map_or(Ok(()), Boot::check)
    }
}

impl Boot {
    /// Values from the bus.
    pub fn check(&self) -> Result<(), String> {
        let told = host_like(&self.host) && self.port != 0;
        if !told || self.cmdline.contains(|c: char| c.is_control()) || self.cmdline.len() > 4096 {
            return Err("it does not say where its kernel is".into());
        }
        self.blobs().try_for_each(Blob::check)
    }
}

impl Grant {
    /// Values from the bus.
    pub fn check(&self) -> Result<(), String> {
        let target =
            |t: &str| t.len() == 3 && t.starts_with("vd") && t.ends_with(|c: char| c.is_ascii_lowercase());
        let all = self.disks.iter().all(|d| {
            target(&d.target)
                && d.export == export_name(&self.config, &self.server, self.epoch, &d.volume)
                && d.volume.bytes().all(|b| b.is_ascii_lowercase())
        });
        if !all || self.disks.is_empty() || self.disks.len() > 8 || !host_like(&self.host) || self.port == 0 {
            return Err("its exports are not named as those of its lease".into());
        }
        Ok(())
    }
}

/// A host name or an address, without anything that XML or a URI would take for something else.
fn host_like(host: &str) -> bool {
    (1..=255).contains(&host.len())
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '%'))
}
