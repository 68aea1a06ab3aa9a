//! What is on a disk: a table of builders, what they all share, and what a crash leaves.
//!
//! | file | what |
//! |---|---|
//! | `tiny` | builder: a system of busybox, made in a second without any network |
//! | `debs` | builders: Debian and Ubuntu by mmdebstrap or debootstrap, bases kept in a cache |
//! | `import` | builder: a cloud image that somebody made, qcow2 or raw |
//! | `guestd` | the guest agent, in what builders make |
//! | `secret` | the keys with which guests sign |
//! | `edit` | files to write and remove, in a directory or inside an unmounted image |
//! | `personal` | the identity of a clone, changed addresses and keys; a grown disk |
//! | `job` | one build: its directory, log, stages |
//! | `tool`, `cage`, `nursery` | how tools are run: in a private mount and pid namespace, and never longer than imaged lives |
//! | `estimate` | percent and remaining seconds, from earlier builds |
//! | `ext4`, `partition` | file systems and where they begin |
//! | `blob` | files to boot from, by content |
//! | `sweep` | what a crash left |
//!
//! No build mounts anything or uses a loop device where others see it: a system is unpacked and changed in a directory, `mke2fs -d` makes
//! the file system of it, and `debugfs` changes an unmounted one. So a kill at any moment leaves a directory at most, and
//! [`sweep`](sweep::sweep) removes that.

mod blob;
mod cage;
mod debs;
mod edit;
mod estimate;
mod ext4;
mod guestd;
mod import;
mod job;
mod nursery;
mod partition;
mod personal;
mod secret;
mod sweep;
mod tiny;
mod tool;

pub use blob::keep_only;
pub use estimate::PHASES;
pub use ext4::make_swap;
pub use guestd::Guestd;
pub use personal::{Personal, grow, personalise};
pub use secret::GuestSecret;
pub use sweep::{Swept, sweep};

use async_trait::async_trait;
use edit::Edit;
use job::Job;
use serde::{Deserialize, Serialize};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xvm_model::{ConfigName, config::Config, spec::Blob};

/// The directories of imaged that builds use. All are made when they are missing.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Unpacked bases, how long builds took. May be removed at any time when no build runs.
    pub cache: PathBuf,
    /// One directory a build, while it goes on. Nobody else's files may be here: [`sweep`] removes them.
    pub work: PathBuf,
    /// Images to import: `NAME.qcow2`, `NAME.raw` or `NAME.img`.
    pub images: PathBuf,
    /// Files to boot from, each named `boot.SHA256`.
    pub boot: PathBuf,
}

/// What a site decides of its images.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where Debian's packages come from.
    pub debian: Mirror,
    /// Where Ubuntu's packages come from.
    pub ubuntu: Mirror,
    /// The architecture of images, as dpkg calls it.
    pub arch: Box<str>,
    /// Use debootstrap although mmdebstrap is there.
    pub debootstrap: bool,
    /// How `tiny` boots: a kernel, and either an initial RAM file system that mounts `root=`, or the directory of the kernel's modules
    /// (`/lib/modules/VERSION`), of which one is made. None: the newest kernel of this machine's `/boot`, if any.
    pub tiny_kernel: Option<(PathBuf, PathBuf)>,
    /// A directory that is copied over each system that is built.
    pub overlay: Option<PathBuf>,
    /// The guest agent that systems get; none: they get none.
    pub guestd: Option<Guestd>,
    /// Name servers of guests with a static address.
    pub dns: Vec<IpAddr>,
    /// How long a mirror may be silent.
    pub patience: Duration,
    /// How old a cached base may become.
    pub base_age: Duration,
}

impl Default for Site {
    fn default() -> Site {
        Site {
            debian: Mirror {
                url: "http://deb.debian.org/debian".into(),
                security: Some("http://deb.debian.org/debian-security".into()),
                keyring: "/usr/share/keyrings/debian-archive-keyring.gpg".into(),
            },
            ubuntu: Mirror {
                url: "http://archive.ubuntu.com/ubuntu".into(),
                security: Some("http://security.ubuntu.com/ubuntu".into()),
                keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg".into(),
            },
            arch: debs::suites::arch().into(),
            debootstrap: false,
            tiny_kernel: None,
            overlay: None,
            guestd: None,
            dns: Vec::new(),
            patience: Duration::from_secs(30),
            base_age: Duration::from_secs(7 * 86400),
        }
    }
}

/// Where packages come from.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// The archive.
    pub url: Box<str>,
    /// The archive of security updates; none: images have none.
    pub security: Option<Box<str>>,
    /// The keys that sign both.
    pub keyring: PathBuf,
}

/// One build.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Its id: the name of its work directory. Letters, digits and `-`; no other build has it.
    pub build: &'a str,
    /// Whose.
    pub name: &'a ConfigName,
    /// The definition.
    pub config: &'a Config,
    /// An empty file, or a block device, of the right size: the builder fills it.
    pub disk: &'a Path,
    /// The same for the swap.
    pub swap: Option<&'a Path>,
    /// Where the output of all tools goes, at its end.
    pub log: &'a Path,
}

/// What a system boots with, when it does not boot by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFiles {
    /// The kernel; its file is in [`Paths::boot`].
    pub kernel: Blob,
    /// The initial RAM file system; its file is there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Blob>,
    /// The kernel's command line.
    pub cmdline: Box<str>,
}

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stage {
    /// One of [`PHASES`]; empty before the first.
    pub phase: &'static str,
    /// 0 to 100 of the whole build; never falls.
    pub percent: u8,
    /// Seconds until it is likely to end; none when no build of the kind ended before.
    pub remaining: Option<u32>,
}

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Somebody wanted it to end.
    #[error("cancelled")]
    Cancelled,
    /// A file system or store is full.
    #[error("no room is left: {0}")]
    NoSpace(String),
    /// No builder makes it.
    #[error("unknown os {os}: it may be {}", allowed.join(", "))]
    UnknownOs {
        /// What was asked for.
        os: Box<str>,
        /// What [`systems`] says.
        allowed: Vec<Box<str>>,
    },
    /// A tool, or what it needs.
    #[error("{stage}: {why}")]
    Failed {
        /// The stage.
        stage: &'static str,
        /// The last meaningful line.
        why: String,
    },
}

/// A kind of system. A new one is one file and one row of [`BUILDERS`].
#[async_trait]
trait Builder: Send + Sync {
    /// The word before the slash of `os`.
    fn word(&self) -> &'static str;

    /// All that it can make here and now, as `os` names it.
    fn systems(&self, paths: &Paths, site: &Site) -> Vec<Box<str>>;

    /// Makes `what`, which is one of its systems.
    async fn build(&self, job: &Job<'_>, what: &str) -> Result<Option<BootFiles>, BuildError>;

    /// The files that make a system this domain's and no other's; also when its address or keys change.
    fn identity(&self, site: &Site, name: &ConfigName, config: &Config) -> Vec<Edit>;

    /// What a copy of a system must not have from its model.
    fn forget(&self) -> Vec<Edit>;
}

/// All kinds, in the order of listings.
const BUILDERS: &[&dyn Builder] = &[&tiny::Tiny, &debs::Debs::DEBIAN, &debs::Debs::UBUNTU, &import::Import];

/// The builder of a system, whether it can make it or not.
fn builder(config: &Config) -> Option<&'static dyn Builder> {
    BUILDERS.iter().copied().find(|b| b.word() == config.os.parts().0)
}

/// What `os` may be.
pub fn systems(paths: &Paths, site: &Site) -> Vec<Box<str>> {
    BUILDERS.iter().flat_map(|b| b.systems(paths, site)).collect()
}

/// Fills a disk. Whatever ends it, also that the future is dropped, ends its processes and removes its directory; the disk then holds
/// nothing of use. The result says how it boots; none: by itself.
pub async fn build(
    paths: &Paths,
    site: &Site,
    order: Order<'_>,
    progress: watch::Sender<Stage>,
    cancel: CancellationToken,
) -> Result<Option<BootFiles>, BuildError> {
    let os = order.config.os.as_str();
    let known = builder(order.config).filter(|b| b.systems(paths, site).iter().any(|s| **s == *os));
    let Some(builder) = known else {
        return Err(BuildError::UnknownOs { os: os.into(), allowed: systems(paths, site) });
    };
    let job = Job::begin(paths, site, order, progress, cancel)?;
    let what = order.config.os.parts().1.unwrap_or_default();
    let done = builder.build(&job, what).await;
    job.end(done).await
}
