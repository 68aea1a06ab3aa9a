//! Bases: suites unpacked with a set of packages, before anything is one system's own, kept as archives in the cache.
//!
//! ```text
//! all packages in the cache ────────────────────────────────→ whole
//! the suite's own in the cache ──→ own ──┬── nothing else wanted ─→ whole
//! neither ── bootstrap ── archive ─→ own ┴── apt-get install ── archive ─→ whole
//! ```
//!
//! An archive is written under a temporary name and renamed when it is whole and on the disk. Builds that need the same one wait for the
//! first of them, which makes it.

use super::{
    super::{
        Site,
        job::Job,
        sweep::TEMPORARY,
        tool::{Tool, Trouble},
    },
    suites::Suite,
    system,
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

/// Archives that are kept; the least recently used ones go.
const KEPT: usize = 8;

/// How long a bootstrap or an installation may take.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// The tool that unpacks a suite: mmdebstrap if it is there and wanted.
pub fn tool(site: &Site) -> Option<&'static str> {
    let there = |name: &str| {
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .any(|d| Path::new(d).join(name).exists())
    };
    let wanted = if site.debootstrap { &["debootstrap"][..] } else { &["mmdebstrap", "debootstrap"] };
    wanted.iter().copied().find(|t| there(t))
}

/// One lock for each archive that somebody makes.
static MAKERS: Mutex<Option<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>> = Mutex::new(None);

fn maker(path: &Path) -> Arc<tokio::sync::Mutex<()>> {
    let mut makers = MAKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let makers = makers.get_or_insert_default();
    makers.retain(|_, lock| lock.strong_count() > 0);
    if let Some(lock) = makers.get(path).and_then(Weak::upgrade) {
        return lock;
    }
    let lock = Arc::new(tokio::sync::Mutex::new(()));
    makers.insert(path.to_owned(), Arc::downgrade(&lock));
    lock
}

/// The base of one build.
pub struct Base<'a> {
    job: &'a Job<'a>,
    suite: &'static Suite,
    /// Packages beyond the suite's own.
    more: Vec<String>,
    own_archive: PathBuf,
    all_archive: PathBuf,
}

impl<'a> Base<'a> {
    /// Of a suite with the packages of the build's config.
    pub fn of(job: &'a Job<'a>, suite: &'static Suite) -> Base<'a> {
        let own = suite.packages(&job.site.arch);
        let mut more: Vec<String> = job.order.config.packages.iter().map(|p| p.to_string()).collect();
        more.retain(|p| !own.contains(p));
        more.sort_unstable();
        more.dedup();
        let archive = |packages: &[String]| {
            let key =
                [&[suite.name.into(), job.site.arch.to_string()], &suite.sources(job.site)[..], packages]
                    .concat();
            let sum = Sha256::digest(key.join("\n"));
            let short: String = sum.iter().take(8).map(|b| format!("{b:02x}")).collect();
            let name =
                format!("{}-{}-{short}.tar", job.order.config.os.as_str().replace('/', "-"), job.site.arch);
            job.paths.cache.join(name)
        };
        let own_archive = archive(&own);
        let all_archive = archive(&[own, more.clone()].concat());
        Base { job, suite, more, own_archive, all_archive }
    }

    /// Puts the base into the build's root: the stage `base`. Whether it has all packages.
    pub async fn unpack(&self) -> Result<bool, Trouble> {
        let kind = |what: &str| self.job.kind(&format!("{} {what}", self.job.order.config.os));
        fs::create_dir(self.job.root()).map_err(|e| Trouble::of(&self.job.root(), &e))?;
        if self.fresh(&self.all_archive) {
            kind("cached");
            self.extract(&self.all_archive).await?;
            return Ok(true);
        }
        kind(if self.fresh(&self.own_archive) { "installed" } else { "new" });
        let maker = maker(&self.own_archive);
        let _only = tokio::select! {
            one = maker.lock() => one,
            () = self.job.cage().cancel.cancelled() => return Err(Trouble::Cancelled),
        };
        if self.fresh(&self.own_archive) {
            self.extract(&self.own_archive).await?;
        } else {
            self.bootstrap().await?;
            self.archive(&self.own_archive).await?;
        }
        Ok(self.more.is_empty())
    }

    /// Installs what is missing: the stage `packages`.
    pub async fn complete(&self, whole: bool) -> Result<(), Trouble> {
        if whole {
            return Ok(());
        }
        self.install(&self.more).await?;
        self.archive(&self.all_archive).await
    }

    /// Whether an archive may still be used.
    fn fresh(&self, archive: &Path) -> bool {
        let made = fs::metadata(archive).and_then(|m| m.modified());
        let age = made.ok().and_then(|t| SystemTime::now().duration_since(t).ok());
        age.is_some_and(|age| age <= self.job.site.base_age)
    }

    async fn extract(&self, archive: &Path) -> Result<(), Trouble> {
        self.job.say(&format!("from the cache: {}", archive.display()));
        // the time of last use decides which archives stay; a failure costs nothing but that
        let now = fs::FileTimes::new().set_accessed(SystemTime::now());
        File::open(archive).and_then(|f| f.set_times(now)).ok();
        let tool =
            Tool::new("tar").arg("-C").arg(self.job.root()).args(["--numeric-owner", "--xattrs", "-xpf"]);
        self.job.run(tool.arg(archive)).await.map(drop)
    }

    async fn archive(&self, archive: &Path) -> Result<(), Trouble> {
        let cache = &self.job.paths.cache;
        let trouble = |e: io::Error| Trouble::of(cache, &e);
        let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(cache).map_err(trouble)?;
        let path = fs::canonicalize(file.path()).map_err(trouble)?;
        let tool =
            Tool::new("tar").arg("-C").arg(self.job.root()).args(["--numeric-owner", "--xattrs", "-cpf"]);
        self.job.run(tool.arg(path).arg(".")).await?;
        let (cache, archive) = (cache.clone(), archive.to_owned());
        let kept = tokio::task::spawn_blocking(move || {
            file.as_file().sync_all()?;
            file.persist(&archive).map_err(|e| e.error)?;
            prune(&cache)
        });
        kept.await.map_err(|e| Trouble::Failed(e.to_string()))?.map_err(trouble)
    }

    async fn bootstrap(&self) -> Result<(), Trouble> {
        let (job, site, suite) = (self.job, self.job.site, self.suite);
        let mirror = suite.mirror(site);
        let packages = suite.packages(&site.arch).join(",");
        let keyring = format!("--keyring={}", mirror.keyring.display());
        if tool(site) == Some("mmdebstrap") {
            let tool = Tool::new("mmdebstrap")
                .args(["--mode=root", "--format=directory", "--variant=apt"])
                .args([format!("--architectures={}", site.arch), format!("--include={packages}"), keyring])
                .args(apt_options(site).map(|(key, value)| format!("--aptopt={key} \"{value}\"")))
                .arg(suite.name)
                .arg(job.root())
                .args(suite.sources(site));
            job.run(tool.limit(LIMIT)).await?;
        } else {
            // debootstrap waits 15 minutes for a silent mirror, ten times, if wget is not told otherwise
            let wgetrc = job.dir().join("wgetrc");
            let seconds = site.patience.as_secs().max(1);
            fs::write(&wgetrc, format!("timeout = {seconds}\ntries = 1\n"))
                .map_err(|e| Trouble::of(&wgetrc, &e))?;
            let tool = Tool::new("debootstrap")
                .args([format!("--arch={}", site.arch), "--variant=minbase".into(), keyring])
                .arg("--include=ca-certificates")
                .arg(suite.name)
                .arg(job.root())
                .arg(&*mirror.url)
                .env("WGETRC", &wgetrc);
            job.run(tool.limit(LIMIT)).await?;
            self.install(&suite.packages(&site.arch)).await?;
        }
        for path in system::FORGET {
            super::super::edit::in_dir(&job.root(), &[super::Edit::Gone(path)])?;
        }
        Ok(())
    }

    /// `apt-get install` inside of the system. What it mounts is gone with its namespace.
    async fn install(&self, packages: &[String]) -> Result<(), Trouble> {
        let sources = self.suite.sources(self.job.site).join("\n") + "\n";
        let list = super::Edit::File("etc/apt/sources.list", 0o644, sources);
        super::super::edit::in_dir(&self.job.root(), &[list])?;
        let tool = Tool::new("sh").args(["-c", INSTALL, "install"]).arg(self.job.root());
        let options = apt_options(self.job.site).map(|(key, value)| format!("-o{key}={value}"));
        self.job.run(tool.args(options).arg("--").args(packages).limit(LIMIT)).await.map(drop)
    }
}

/// Arguments: the system's root, options of apt, `--`, packages. The host lends its resolver while apt runs, and no service is started.
const INSTALL: &str = r#"set -eu
root=$1; shift
options=; while [ "$1" != -- ]; do options="$options $1"; shift; done; shift
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"
rm -f "$root/etc/resolv.conf"; : > "$root/etc/resolv.conf"
mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
apt() { TMPDIR=/tmp HOME=/root chroot "$root" apt-get -q $options "$@"; }
apt update
apt install -y --no-install-recommends "$@"
apt clean
umount "$root/etc/resolv.conf"
rm -rf "$root/etc/resolv.conf" "$root/usr/sbin/policy-rc.d" "$root"/var/lib/apt/lists/*
"#;

/// What keeps a silent mirror from holding a build for ever.
fn apt_options(site: &Site) -> impl Iterator<Item = (&'static str, u64)> {
    let seconds = site.patience.as_secs().max(1);
    [("Acquire::http::Timeout", seconds), ("Acquire::https::Timeout", seconds), ("Acquire::Retries", 1)]
        .into_iter()
}

/// Removes the archives that were not used for longest.
fn prune(cache: &Path) -> io::Result<()> {
    let mut archives: Vec<(SystemTime, PathBuf)> = fs::read_dir(cache)?
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "tar"))
        .filter_map(|e| Some((e.metadata().ok()?.accessed().ok()?, e.path())))
        .collect();
    archives.sort_unstable_by(|a, b| b.cmp(a));
    archives.iter().skip(KEPT).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_archives_go() {
        let dir = tempfile::tempdir().expect("dir");
        for i in 0..KEPT + 2 {
            let file = File::create(dir.path().join(format!("{i}.tar"))).expect("file");
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - i as u64);
            file.set_times(fs::FileTimes::new().set_accessed(used)).expect("time");
        }
        File::create(dir.path().join("durations.json")).expect("file");
        prune(dir.path()).expect("pruned");
        let left = |name: &str| dir.path().join(name).exists();
        assert!(left("0.tar") && left("7.tar") && !left("8.tar") && !left("9.tar") && left("durations.json"));
    }
}
