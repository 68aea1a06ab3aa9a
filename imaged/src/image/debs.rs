//! Builders: Debian and Ubuntu by mmdebstrap where it is present, else by debootstrap.
//!
//! | file | what |
//! |---|---|
//! | `suites` | the table of suites, and the packages of every system |
//! | `base` | bases: unpacked suites with their packages, kept as archives |
//! | `system` | the files that make a system of a base |

mod base;
pub mod suites;
mod system;

use super::{
    BootFiles, BuildError, Builder, Paths, Site, blob,
    cage::Cage,
    edit::{self, Edit},
    ext4, guestd,
    job::Job,
    tool::{Tool, Trouble},
};
use async_trait::async_trait;
use std::{
    fs,
    path::{Path, PathBuf},
};
use suites::{Family, SUITES, Suite};
pub use system::{FORGET, hosts, keys};
use xvm_model::{ConfigName, config::Config};

/// The kernel's command line. Consoles of Xen and of real serial ports: the last that exists is used by the system itself, and each has a
/// login prompt.
pub const CMDLINE: &str = "root=LABEL=root ro console=hvc0 console=ttyS0";

/// The builder of one family of suites.
#[derive(Debug)]
pub struct Debs {
    family: Family,
}

impl Debs {
    /// `debian/SUITE`.
    pub const DEBIAN: Debs = Debs { family: Family::Debian };
    /// `ubuntu/SUITE`.
    pub const UBUNTU: Debs = Debs { family: Family::Ubuntu };

    fn suites(&self) -> impl Iterator<Item = &'static Suite> {
        SUITES.iter().filter(|s| s.family == self.family)
    }
}

#[async_trait]
impl Builder for Debs {
    fn word(&self) -> &'static str {
        match self.family {
            Family::Debian => "debian",
            Family::Ubuntu => "ubuntu",
        }
    }

    /// All suites of the family, if there is a tool and the keys are there.
    fn systems(&self, _: &Paths, site: &Site) -> Vec<Box<str>> {
        if base::tool(site).is_none() {
            return Vec::new();
        }
        let signed = self.suites().filter(|s| s.mirror(site).keyring.exists());
        signed.map(|s| format!("{}/{}", self.word(), s.name).into()).collect()
    }

    async fn build(&self, job: &Job<'_>, what: &str) -> Result<Option<BootFiles>, BuildError> {
        let Some(suite) = self.suites().find(|s| s.name == what) else {
            let os = job.order.config.os.as_str().into();
            return Err(BuildError::UnknownOs { os, allowed: super::systems(job.paths, job.site) });
        };
        let order = job.order;
        job.volumes().await?;
        let base = base::Base::of(job, suite);
        let whole = job.stage("base", base.unpack()).await?;
        job.stage("packages", base.complete(whole)).await?;
        job.stage("customise", async {
            edit::in_dir(&job.root(), &system::files(&suite.sources(job.site)))?;
            edit::in_dir(&job.root(), &self.forget())?;
            edit::in_dir(&job.root(), &self.identity(job.site, order.name, order.config))?;
            edit::in_dir(&job.root(), &guestd::unit(job).await?)?;
            let units = ["systemd-networkd.service", "systemd-resolved.service", system::FIRST_BOOT];
            let enable =
                Tool::new("chroot").arg(job.root()).args(["systemctl", "--quiet", "enable"]).args(units);
            job.run(enable).await?;
            overlay(job).await?;
            locked(&job.root())
        })
        .await?;
        let files = job
            .stage("pack", async {
                let files = boot_files(job)?;
                ext4::make(job.cage(), &job.root(), order.disk).await?;
                Ok(files)
            })
            .await?;
        job.stage("check", whole_and_own(job.cage(), order.disk, order.name)).await?;
        Ok(Some(files))
    }

    fn identity(&self, site: &Site, name: &ConfigName, config: &Config) -> Vec<Edit> {
        system::identity(site, name, config)
    }

    fn forget(&self) -> Vec<Edit> {
        system::FORGET.iter().map(|p| Edit::Gone(p)).chain([system::no_machine_id()]).collect()
    }
}

/// Copies the site's own files over the system. Inside of it: links of the system lead nowhere else.
pub async fn overlay(job: &Job<'_>) -> Result<(), Trouble> {
    let Some(overlay) = &job.site.overlay else { return Ok(()) };
    let script = r#"tar -C "$1" -cf - . | tar -C "$2" --keep-directory-symlink --no-same-owner -xpf -"#;
    let tool =
        Tool::new("bash").args(["-o", "pipefail", "-c", script, "overlay"]).args([overlay, &job.root()]);
    job.run(tool).await.map(drop).map_err(|e| e.because(&format!("cannot copy {}", overlay.display())))
}

/// No account may be entered with an empty password; root's with none at all.
pub fn locked(root: &Path) -> Result<(), Trouble> {
    let path = root.join("etc/shadow");
    let shadow = fs::read_to_string(&path).map_err(|e| Trouble::of(&path, &e))?;
    for line in shadow.lines() {
        let mut fields = line.split(':');
        let (user, password) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if password.is_empty() {
            return Err(Trouble::Failed(format!("the account {user} of the image has an empty password")));
        }
        if user == "root" && !password.starts_with(['*', '!']) {
            return Err(Trouble::Failed("the account root of the image has a password".into()));
        }
    }
    Ok(())
}

/// Copies the newest kernel and its initial RAM file system out of the system.
fn boot_files(job: &Job<'_>) -> Result<BootFiles, Trouble> {
    let boot = job.root().join("boot");
    let newest = |prefix: &str| -> Result<PathBuf, Trouble> {
        let entries = fs::read_dir(&boot).map_err(|e| Trouble::of(&boot, &e))?.flatten();
        let named = entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
        let files = named.filter(|e| e.file_type().is_ok_and(|t| t.is_file())).map(|e| e.path());
        files.max().ok_or_else(|| Trouble::Failed(format!("its packages hold no /boot/{prefix}*")))
    };
    let kernel = blob::keep(&job.paths.boot, &newest("vmlinuz-")?)?;
    let initrd = blob::keep(&job.paths.boot, &newest("initrd.img-")?)?;
    Ok(BootFiles { kernel, initrd: Some(initrd), cmdline: CMDLINE.into() })
}

/// The disk holds a sound file system with a system of that name.
pub async fn whole_and_own(cage: &Cage, disk: &Path, name: &ConfigName) -> Result<(), Trouble> {
    let image = ext4::Fs { disk: disk.to_owned(), offset: 0 };
    ext4::check(cage, &image).await?;
    let host = edit::read(cage, &image, &["etc/hostname"]).await?.pop().flatten().unwrap_or_default();
    if host.trim_ascii() != name.as_str().as_bytes() {
        return Err(Trouble::Failed("its /etc/hostname is not its name".into()));
    }
    Ok(())
}
