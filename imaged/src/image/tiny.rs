//! Builder `tiny`: a system of busybox alone, made in a second without any network, for tests and first tries.
//!
//! It has an ext4 root, its name, its address, a login prompt on each console that refuses everybody (root is locked, and no service for
//! SSH is there), the power button, its swap, and runs `/etc/rc.local` if an overlay brings it. Its kernel is one that the site names,
//! or the newest of this machine's `/boot`; without any it runs on `sim` only.

mod cpio;
mod initrd;

use super::{
    BootFiles, BuildError, Builder, Paths, Site, blob, debs,
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
use xvm_model::{
    ConfigName,
    config::{Address, Config},
};

/// The statically linked busybox of this machine (package busybox-static).
const BUSYBOX: &str = "/bin/busybox";

/// See the file's head.
#[derive(Debug)]
pub struct Tiny;

#[async_trait]
impl Builder for Tiny {
    fn word(&self) -> &'static str {
        "tiny"
    }

    fn systems(&self, _: &Paths, _: &Site) -> Vec<Box<str>> {
        Path::new(BUSYBOX).exists().then(|| "tiny".into()).into_iter().collect()
    }

    async fn build(&self, job: &Job<'_>, _: &str) -> Result<Option<BootFiles>, BuildError> {
        let (order, root) = (job.order, job.root());
        job.volumes().await?;
        job.stage("base", base(job, &root)).await?;
        job.stage("customise", async {
            edit::in_dir(&root, &self.identity(job.site, order.name, order.config))?;
            edit::in_dir(&root, &guestd::program(job).await?)?;
            debs::overlay(job).await?;
            debs::locked(&root)
        })
        .await?;
        let files = job
            .stage("pack", async {
                let files = boot_files(job).await?;
                ext4::make(job.cage(), &root, order.disk).await?;
                Ok(files)
            })
            .await?;
        job.stage("check", debs::whole_and_own(job.cage(), order.disk, order.name)).await?;
        Ok(files)
    }

    fn identity(&self, site: &Site, name: &ConfigName, config: &Config) -> Vec<Edit> {
        let dns: String = site.dns.iter().map(|d| format!("nameserver {d}\n")).collect();
        let address = match &config.address {
            Address::None => "none".into(),
            Address::Dhcp => "dhcp".into(),
            Address::Static { ip, prefix, via } => {
                format!("{ip}/{prefix} {}", via.map_or(String::new(), |v| v.to_string()))
            }
        };
        let mut edits = vec![
            Edit::File("etc/hostname", 0o644, format!("{name}\n")),
            Edit::File("etc/hosts", 0o644, debs::hosts(name)),
            Edit::File("etc/address", 0o644, format!("{address}\n")),
            Edit::File("etc/resolv.conf", 0o644, dns),
            Edit::File("etc/machine-id", 0o444, format!("{}\n", config.uuid.simple())),
            Edit::Dir("root/.ssh", 0o700),
            Edit::File("root/.ssh/authorized_keys", 0o600, debs::keys(config)),
        ];
        edits.extend(site.guestd.iter().flat_map(|g| g.key_file(config)));
        edits
    }

    fn forget(&self) -> Vec<Edit> {
        Vec::new()
    }
}

/// Directories, busybox with its names, and the files of every tiny system.
async fn base(job: &Job<'_>, root: &Path) -> Result<(), Trouble> {
    let trouble = |e| Trouble::of(root, &e);
    for dir in [
        "bin",
        "sbin",
        "usr/bin",
        "usr/sbin",
        "etc/acpi/PWRF",
        "root",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "var/tmp",
        "mnt",
    ] {
        fs::create_dir_all(root.join(dir)).map_err(trouble)?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).map_err(trouble)?;
    // it makes links to itself: inside of the system, where it is the only program
    job.run(Tool::new("chroot").arg(root).args(["/bin/busybox", "--install", "-s"])).await?;
    let text = |path, mode, text: &str| Edit::File(path, mode, text.into());
    let files = [
        text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
        text("etc/group", 0o644, "root:x:0:\n"),
        text("etc/shadow", 0o600, "root:*:19000:0:99999:7:::\n"),
        text("etc/issue", 0o644, "\\n \\l\n"),
        text("etc/inittab", 0o644, include_str!("tiny/inittab")),
        text("etc/rc", 0o755, include_str!("tiny/rc")),
        text("etc/getty", 0o755, include_str!("tiny/getty")),
        text("etc/guestd", 0o755, include_str!("tiny/guestd")),
        text("etc/udhcpc", 0o755, include_str!("tiny/udhcpc")),
        text("etc/acpi/PWRF/00000080", 0o755, "#!/bin/sh\npoweroff\n"),
    ];
    edit::in_dir(root, &files)
}

/// Its kernel, with an initial RAM file system that is given or made of modules.
async fn boot_files(job: &Job<'_>) -> Result<Option<BootFiles>, Trouble> {
    let Some((kernel, second)) = job.site.tiny_kernel.clone().or_else(|| newest("/boot", "/lib/modules"))
    else {
        job.say("no kernel is known (--tiny-kernel, or one in /boot): it runs on sim only");
        return Ok(None);
    };
    let boot = &job.paths.boot;
    let initrd = if second.is_dir() {
        let modules = job.dir().join("modules");
        initrd::collect(job, &second, &modules).await?;
        let archive = initrd::make(Path::new(BUSYBOX), &modules).map_err(|e| Trouble::of(&modules, &e))?;
        blob::keep_bytes(boot, &archive)?
    } else {
        blob::keep(boot, &second)?
    };
    Ok(Some(BootFiles {
        kernel: blob::keep(boot, &kernel)?,
        initrd: Some(initrd),
        cmdline: debs::CMDLINE.into(),
    }))
}

/// The newest installed kernel that has its modules.
fn newest(boot: &str, modules: &str) -> Option<(PathBuf, PathBuf)> {
    let number = |version: &str| -> Vec<u32> {
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    let kernels = fs::read_dir(boot).ok()?.flatten().filter_map(|e| {
        let name = e.file_name().into_string().ok()?;
        let version = name.strip_prefix("vmlinuz-")?;
        let modules = Path::new(modules).join(version);
        modules.is_dir().then(|| (number(version), e.path(), modules))
    });
    kernels.max().map(|(_, kernel, modules)| (kernel, modules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_that_has_modules() {
        let dir = tempfile::tempdir().expect("dir");
        let (boot, modules) = (dir.path().join("boot"), dir.path().join("modules"));
        fs::create_dir(&boot).expect("boot");
        for version in ["6.1.0-9-amd64", "6.1.0-50-amd64", "6.12.0-1-amd64"] {
            fs::write(boot.join(format!("vmlinuz-{version}")), "k").expect("kernel");
            if !version.starts_with("6.12") {
                fs::create_dir_all(modules.join(version)).expect("modules");
            }
        }
        let found = newest(boot.to_str().expect("text"), modules.to_str().expect("text")).expect("found");
        assert_eq!(found.0.file_name().expect("name"), "vmlinuz-6.1.0-50-amd64");
        assert!(newest("/nonexistent", "/nonexistent").is_none());
    }
}
