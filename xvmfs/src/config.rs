//! Flags of `xvmfs`, and the options of `-o`: those of mount(8) and fstab(5), and our own.

use crate::fuse::{Access, FLAGS, Options};
use clap::{CommandFactory, Parser};
use std::path::PathBuf;
use xvm_bus::Endpoint;
use xvm_model::ClientName;

/// Mount a cluster of virtual machines as a file system
///
/// Mounts the servers and domains of the cluster whose bus FORWARDER joins at the directory MOUNTPOINT. Files are read to see (`cat
/// MOUNTPOINT/status`), and commands are lines that are written to `ctl` files (`echo pause > MOUNTPOINT/domains/small-1/ctl`); the
/// file README in the mount names them all.
///
/// xvmfs returns when the mount is made, and goes on in the background until the directory is unmounted (`umount MOUNTPOINT`,
/// `fusermount3 -u MOUNTPOINT`) or it gets SIGTERM or SIGINT; no mount is left then. A mount that a killed xvmfs left is removed at
/// the next start. It also serves as `mount -t fuse.xvmfs FORWARDER MOUNTPOINT -o OPTIONS`, and in fstab(5).
///
/// No forwarder is needed for mounting: without one the tree shows what was heard last, with its age, and refuses commands with
/// EHOSTUNREACH.
#[derive(Debug, Clone, Parser)]
#[command(name = "xvmfs", version, after_long_help = AFTER)]
struct Flags {
    /// Where the bus is: HOST, HOST:PORT, [V6]:PORT, tcp://HOST:PORT or ipc://PATH; several with commas between
    ///
    /// Each is a running xvm-forwarder. With several, messages come through all of them and are taken once.
    #[arg(value_name = "FORWARDER", value_delimiter = ',', required = true)]
    forwarders: Vec<Endpoint>,
    /// An existing directory
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
    /// Options of the mount, with commas between
    ///
    /// ro, rw: whether commands can be given.
    /// allow_other: all users see the mount, as the modes allow; else only who mounts.
    /// allow_root: root sees it too.
    /// uid=N, gid=N: whose the files are; else who mounts.
    /// configs=MODE: the mode of the directory configs, in octal; 755 when it is not given. With 1777 everybody makes configs and
    /// removes their own, with 1770 and gid= those of a group.
    /// tests=DIR: where schedules of tests and their results are kept; without it they go with the mount.
    /// client=NAME: our name on the bus; else one is made of the host's name and a number.
    /// dev, nodev, suid, nosuid, exec, noexec, atime, noatime, sync, async, dirsync: as in mount(8).
    /// What only fstab(5) and systemd use (auto, noauto, user, nofail, _netdev, x-...) is accepted; default_permissions and
    /// auto_unmount also, since both are always so.
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',', verbatim_doc_comment)]
    options: Vec<String>,
    /// Stay in the foreground, and log to stderr
    #[arg(short, long)]
    foreground: bool,
    /// Say on stdout when the mount is made (used by xvmfs itself to go to the background)
    #[arg(long, hide = true)]
    ready: bool,
    /// Accepted for mount(8): do not write /etc/mtab
    #[arg(short = 'n', hide = true)]
    _no_mtab: bool,
    /// Accepted for mount(8): tolerate unknown options
    #[arg(short = 's')]
    sloppy: bool,
    /// Accepted for mount(8): say more
    #[arg(short = 'v', hide = true)]
    _verbose: bool,
    /// Accepted for mount(8): the type
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    _kind: Option<String>,
}

const AFTER: &str = "\
Environment:
  XVM_LOG  what is logged in the foreground: error, warn, info (the default), debug, trace, or a filter such as xvmfs=debug

Exit status:
  0  the mount was made; in the foreground: it was unmounted
  1  it was not made; stderr says why
  2  the flags were wrong

Examples:
  xvmfs localhost /xvm
  xvmfs hub1,hub2:6000 /xvm -o allow_other,ro
  in fstab: hub1 /xvm fuse.xvmfs allow_other,_netdev,nofail 0 0

The bus has no keys yet: whoever reaches the forwarder can command every domain. Let it listen on trusted networks only.";

/// What `xvmfs` was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the bus is.
    pub forwarders: Vec<Endpoint>,
    /// Where to mount.
    pub mountpoint: PathBuf,
    /// How to mount.
    pub mount: Options,
    /// Whose the files are: user and group.
    pub owner: (u32, u32),
    /// The mode of the directory `configs`.
    pub configs_mode: u16,
    /// Where schedules of tests are kept.
    pub tests: Option<PathBuf>,
    /// Our name on the bus.
    pub client: ClientName,
    /// Whether to stay in the foreground.
    pub foreground: bool,
    /// Whether to say on stdout when the mount is made.
    pub ready: bool,
}

/// The flags, for the manual page and completions.
pub fn command() -> clap::Command {
    Flags::command()
}

impl Config {
    /// Reads the arguments of a program, its name first. The error is for people, and knows its exit status.
    pub fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        let flags = Flags::try_parse_from(args)?;
        let wrong = |why: String| Flags::command().error(clap::error::ErrorKind::InvalidValue, why);
        let mut config = Config {
            mount: Options {
                source: flags.forwarders.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(","),
                ..Options::default()
            },
            forwarders: flags.forwarders,
            mountpoint: flags.mountpoint,
            owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            configs_mode: crate::tree::CONFIGS_MODE,
            tests: None,
            client: default_client(),
            foreground: flags.foreground,
            ready: flags.ready,
        };
        for option in flags.options.iter().filter(|o| !o.is_empty()) {
            match config.option(option) {
                Err(_) if flags.sloppy && !option.contains('=') => {}
                result => result.map_err(wrong)?,
            }
        }
        Ok(config)
    }

    fn option(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = option.split_once('=').map_or((option, None), |(k, v)| (k, Some(v)));
        let number = || {
            let text = value.unwrap_or_default();
            text.parse::<u32>()
                .map_err(|_| format!("cannot use the option {option}: {text:?} is not a number"))
        };
        match (key, value) {
            ("allow_other", None) => self.mount.access = Access::Everyone,
            ("allow_root", None) if self.mount.access == Access::Owner => self.mount.access = Access::Root,
            ("uid", Some(_)) => self.owner.0 = number()?,
            ("gid", Some(_)) => self.owner.1 = number()?,
            ("configs", Some(mode)) => {
                let mode = u16::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o1777);
                self.configs_mode = mode.ok_or_else(|| {
                    format!("cannot use the option {option}: it is no mode from 0 to 1777, in octal")
                })?;
            }
            ("tests", Some(dir)) => {
                // in the background the working directory is another
                let dir = std::path::absolute(dir);
                let dir = dir.map_err(|e| format!("cannot use the option {option}: {e}"))?;
                self.tests = Some(dir);
            }
            ("client", Some(name)) => {
                self.client =
                    ClientName::parse(name).map_err(|e| format!("cannot use the option {option}: {e}"))?;
            }
            ("fsname", Some(source)) => self.mount.source = source.to_owned(),
            (key, None) if FLAGS.contains(&key) => self.flag(key),
            (key, _) if is_ignored(key) => {}
            _ => {
                return Err(format!(
                    "cannot use the option {option}: it is unknown; allowed are {}, allow_other, allow_root, uid=N, gid=N, configs=MODE, tests=DIR, client=NAME, and those of fstab",
                    FLAGS.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// A later flag undoes its opposite.
    fn flag(&mut self, name: &str) {
        let opposite = match name {
            "ro" => "rw".to_owned(),
            "rw" => "ro".to_owned(),
            "sync" => "async".to_owned(),
            "async" => "sync".to_owned(),
            name => name.strip_prefix("no").map_or_else(|| format!("no{name}"), str::to_owned),
        };
        self.mount.flags.retain(|f| *f != opposite && *f != name);
        self.mount.flags.extend(FLAGS.iter().find(|f| **f == name));
    }
}

/// Options that mean nothing here: mount(8), fstab(5), systemd and libfuse read them, or they are always so.
fn is_ignored(key: &str) -> bool {
    const WORDS: &[&str] = &[
        "defaults",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "nofail",
        "_netdev",
        "comment",
        "default_permissions",
        "auto_unmount",
        "allow_root",
        "nonempty",
        "subtype",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "silent",
        "loud",
        "nosymfollow",
        "symfollow",
        "direct_io",
    ];
    WORDS.contains(&key) || key.starts_with("x-") || key.starts_with("X-")
}

/// `HOST-PID-RANDOM`, so that no two mounts of a cluster get each other's answers.
fn default_client() -> ClientName {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish() as u32;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    let name = format!("x{host}-{}-{random:08x}", std::process::id());
    let plain = name.strip_prefix('x').filter(|n| n.starts_with(|c: char| c.is_ascii_alphanumeric()));
    ClientName::parse(plain.unwrap_or(&name)).expect("letters, digits and '-', 62 at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        Config::parse(line.split(' ').map(Into::into)).map_err(|e| e.to_string())
    }

    #[test]
    fn mount_8_calls_it_as_it_calls_all() {
        let c = parse("xvmfs hub,ipc:///run/x /xvm -n -s -v -t fuse.xvmfs -o rw,nosuid,nodev,dev,allow_other,_netdev,x-systemd.automount,uid=7,configs=1777,client=me").unwrap();
        assert_eq!(c.forwarders.len(), 2);
        assert_eq!(c.mount.source, "tcp://hub:5750,ipc:///run/x");
        assert_eq!(c.mount.flags, ["rw", "nosuid", "dev"]);
        assert_eq!((c.mount.access, c.owner.0, c.client.as_str()), (Access::Everyone, 7, "me"));
        assert_eq!(c.configs_mode, 0o1777);
        let c = parse("xvmfs -o ro hub /xvm -o rw").unwrap();
        assert_eq!(c.mount.flags, ["rw"]);
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (line, why) in [
            ("xvmfs hub /xvm -o colour=red", "colour=red: it is unknown; allowed are ro"),
            ("xvmfs hub /xvm -o uid=me", "\"me\" is not a number"),
            ("xvmfs hub /xvm -o configs=9", "configs=9: it is no mode"),
            ("xvmfs hub /xvm -o configs=2777", "it is no mode from 0 to 1777"),
            ("xvmfs hub /xvm -o client=a/b", "client name"),
            ("xvmfs a:b /xvm", "allowed are HOST"),
            ("xvmfs hub", "MOUNTPOINT"),
        ] {
            let e = parse(line).expect_err(line);
            assert!(e.contains(why), "{line}: {e}");
        }
    }

    #[test]
    fn the_flags_are_sound_and_names_differ() {
        command().debug_assert();
        assert_ne!(default_client(), default_client());
    }
}
