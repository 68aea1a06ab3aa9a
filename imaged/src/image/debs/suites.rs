//! The suites of Debian and Ubuntu that can be built, and what they need.

use super::super::{Mirror, Site};

/// Whose suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `debian/SUITE`.
    Debian,
    /// `ubuntu/SUITE`.
    Ubuntu,
}

/// One row.
#[derive(Debug)]
pub struct Suite {
    /// Whose.
    pub family: Family,
    /// Its name on the mirror.
    pub name: &'static str,
    /// Whether updates and security updates come in suites of their own.
    pub updated: bool,
    /// Whether the resolver is a package of its own.
    pub resolved: bool,
}

/// All suites, newest last.
pub const SUITES: &[Suite] = &[
    Suite { family: Family::Debian, name: "bullseye", updated: true, resolved: false },
    Suite { family: Family::Debian, name: "bookworm", updated: true, resolved: true },
    Suite { family: Family::Debian, name: "trixie", updated: true, resolved: true },
    Suite { family: Family::Debian, name: "sid", updated: false, resolved: true },
    Suite { family: Family::Ubuntu, name: "jammy", updated: true, resolved: false },
    Suite { family: Family::Ubuntu, name: "noble", updated: true, resolved: true },
];

/// What every system has beside its kernel: what boots it, gives it an address, lets in by key and shuts it down on the power button
/// (logind, which needs dbus).
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "procps",
    "systemd-sysv",
    "udev",
];

/// This machine's architecture as dpkg calls it.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64el",
        other => other,
    }
}

impl Suite {
    /// Its mirror.
    pub fn mirror<'a>(&self, site: &'a Site) -> &'a Mirror {
        match self.family {
            Family::Debian => &site.debian,
            Family::Ubuntu => &site.ubuntu,
        }
    }

    /// The packages that every system of it has, sorted.
    pub fn packages(&self, arch: &str) -> Vec<String> {
        let kernel = match self.family {
            Family::Debian if matches!(arch, "amd64" | "arm64") => format!("linux-image-cloud-{arch}"),
            Family::Debian => format!("linux-image-{arch}"),
            Family::Ubuntu => "linux-image-virtual".into(),
        };
        let resolved = self.resolved.then_some("systemd-resolved");
        let mut all: Vec<String> = PACKAGES.iter().copied().chain(resolved).map(Into::into).collect();
        all.push(kernel);
        all.sort_unstable();
        all
    }

    /// The lines of `sources.list`.
    pub fn sources(&self, site: &Site) -> Vec<String> {
        let mirror = self.mirror(site);
        let (name, url) = (self.name, &mirror.url);
        let parts = match self.family {
            Family::Debian => "main",
            Family::Ubuntu => "main universe",
        };
        let mut lines = vec![format!("deb {url} {name} {parts}")];
        if self.updated {
            lines.push(format!("deb {url} {name}-updates {parts}"));
            lines.extend(mirror.security.iter().map(|s| format!("deb {s} {name}-security {parts}")));
        }
        lines
    }
}
