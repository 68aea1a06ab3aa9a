//! The flags of guestd; its manual page comes from here too. Name and forwarder may also come from elsewhere:
//!
//! ```text
//!   flags ▶ the kernel's command line ▶ the file ▶ the host's name (the name alone)
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | flags, and [`Config::plan`] that puts all together |
//! | [`cmdline`] | `xvm.name=` and `xvm.bus=` of the kernel's command line |
//! | [`mod@file`] | the file |
//! | [`settle`] | which of them counts |

pub mod cmdline;
pub mod file;
pub mod settle;

use crate::agent::Settings;
use crate::allowed::Allowed;
use crate::builtin;
use crate::driver::Plan;
use crate::simulated;
use clap::{CommandFactory, FromArgMatches, Parser};
use file::File;
use settle::Sources;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xvm_bus::{Endpoint, SecretKey};
use xvm_model::DomainName;

/// Where the file is when no flag says so; it need not be there.
const FILE: &str = "/etc/xvm/guestd.toml";
/// Where its key is when no flag says so; it need not be there.
const KEY: &str = "/etc/xvm/guestd.key";
/// guestd's own program, also when its file was replaced by a newer one.
const OWN: &str = "/proc/self/exe";

const LONG_ABOUT: &str = "\
guestd runs in a domain and tells the cluster how it is from within: load, time that the host gave to others (steal), pressure, memory, \
its processes while somebody reads them. It runs tests that are ordered in the mounted tree (xvmfs(8), domains/NAME/guest/) one after \
the other, measures them, and tells what they printed; and it loads the CPUs when it is told to.

It runs nothing but the tests below and those that the file lists, unless it is started with --allow-any. A test is a process group of \
its own, with an empty standard input and no environment but PATH and LANG; it runs as guestd's user. Of its output the last 4096 bytes are \
told. What leaves the group (setsid(1)) is not ended with it.

The domain's name and the forwarder are taken from the flags, else from the kernel's command line (xvm.name=NAME, xvm.bus=ENDPOINT, \
which may come more than once), else from the file; the name at last from the host.";

const EXAMPLES: &str = "\
Examples:
  guestd --forwarder 10.0.0.1
      the domain is called as its host
  guestd --name small-1 --forwarder 10.0.0.1:5750 --heartbeat 1 --allow-any
      every program of the guest may be ordered
  guestd test fibonacci 38
      run a test by hand

The file:
  name = \"small-1\"
  forwarder = \"10.0.0.1:5750\"        # or a list
  heartbeat = 5
  allow_any = false
  [tests]
  stress = \"/usr/bin/stress-ng --cpu 1 --timeout 10\"
  sysbench = \"/usr/bin/sysbench ...\"   # `...`: an order may add arguments

";

const AFTER_HELP: &str = "
Files:
  /etc/xvm/guestd.toml  the file, when --config names no other
  /etc/xvm/guestd.key   the key, when --key names no other; imaged(8) puts one into each machine that it makes
  STATE/boot            the number of guestd's last life
  STATE/lock            held while guestd runs

Environment:
  XVM_LOG  which log lines go to standard error: error, warn, info (the default), debug, trace, or a filter

Signals:
  SIGTERM, SIGINT  end guestd, and the test that runs

Exit status:
  0  ended by a signal
  1  could not start, or could not go on; the sentence on standard error says why
  2  a wrong flag

The bus is not protected yet: whoever reaches a forwarder commands the cluster. Give guests the address that xvm-forwarder(8) has for them \
(--guests), through which nothing passes but what is theirs. Mounts believe under the name of a machine that imaged(8) made with a key \
what is signed with that key, and nothing else. The orders for one guest can be heard by others.";

/// xvm's guest agent
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "guestd", version, long_about = LONG_ABOUT)]
pub struct Config {
    /// The domain's name, as its hypervisor calls it
    #[arg(long, value_name = "NAME")]
    name: Option<DomainName>,

    /// Where a forwarder is; several may be given, and all of them are used at once
    #[arg(long, value_name = "ENDPOINT", value_parser = Endpoint::parse)]
    forwarder: Vec<Endpoint>,

    /// How often it says how it is, in seconds (0.1 to 60); without it what the file says, else 5
    #[arg(long, value_name = "SECONDS")]
    heartbeat: Option<f64>,

    /// The longest that a test may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    limit: u64,

    /// Run every program that an order names by its absolute path
    #[arg(long)]
    allow_any: bool,

    /// The file; without it /etc/xvm/guestd.toml, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Sign what is said with this key, PEM; without it /etc/xvm/guestd.key, if there is one
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Be the guests of all simulated domains of the cluster, which only reckon; for trying and testing
    #[arg(long, conflicts_with_all = ["name", "allow_any", "config", "key"])]
    simulated: bool,

    /// The directory that counts its lives; where it cannot be written the clock does
    #[arg(long, value_name = "DIR", default_value = "/var/lib/xvm/guestd")]
    state: PathBuf,
}

/// The flags as clap knows them, for manual pages and completions.
pub fn command() -> clap::Command {
    Config::command().after_long_help(format!("{EXAMPLES}Tests:\n{}{AFTER_HELP}", builtin::list()))
}

impl Config {
    /// The flags that this process was given; help and wrong flags end it.
    pub fn read() -> Config {
        // clap has made them of its own declaration
        Config::from_arg_matches(&command().get_matches()).unwrap_or_else(|e| e.exit())
    }

    /// How the guests of all simulated domains are run, when that is asked for.
    pub fn simulated(&self) -> Option<anyhow::Result<simulated::Plan>> {
        self.simulated.then(|| {
            let (file, place) = (File::default(), Path::new(FILE));
            let (name, forwarders) = (DomainName::parse("simulated")?, &self.forwarder);
            let (name, heartbeat) = (Some(&name), self.heartbeat);
            let sources = Sources { name, forwarders, heartbeat, cmdline: "", file: &file, place, host: "" };
            let settled = settle::settle(&sources).map_err(anyhow::Error::msg)?;
            Ok(simulated::Plan { forwarders: settled.forwarders, interval_ms: settled.interval_ms })
        })
    }

    /// What follows from flags, the kernel's command line, the file and the host's name; the error names what is wrong or missing.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let file = match &self.config {
            Some(path) => File::read(path)?,
            None => Some(Path::new(FILE)).filter(|p| p.exists()).map_or(Ok(File::default()), File::read)?,
        };
        self.plan_from(file, &text("/proc/cmdline"), &text("/proc/sys/kernel/hostname"))
    }

    /// Its key: that of the flag, else the usual one where there is one.
    fn secret(&self, usual: &Path) -> anyhow::Result<Option<SecretKey>> {
        let path = self.key.as_deref().or_else(|| Some(usual).filter(|p| p.exists()));
        Ok(path.map(SecretKey::read).transpose()?)
    }

    fn plan_from(&self, file: File, cmdline: &str, host: &str) -> anyhow::Result<Plan> {
        let place = self.config.as_deref().unwrap_or(Path::new(FILE));
        let sources = Sources {
            name: self.name.as_ref(),
            forwarders: &self.forwarder,
            heartbeat: self.heartbeat,
            cmdline,
            file: &file,
            place,
            host,
        };
        let settled = settle::settle(&sources).map_err(anyhow::Error::msg)?;
        let mut allowed = Allowed::new(OWN.into(), self.allow_any || file.allow_any);
        for (name, line) in &file.tests {
            // checked when the file was read
            allowed.add(name, line).map_err(anyhow::Error::msg)?;
        }
        Ok(Plan {
            settings: Settings { name: settled.name, interval_ms: settled.interval_ms, allowed },
            forwarders: settled.forwarders,
            state: self.state.clone(),
            secret: self.secret(Path::new(KEY))?,
            limit: Duration::from_secs(self.limit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn flags(args: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from(["guestd"].iter().chain(args).copied())
    }

    #[test]
    fn the_flags_hold_together() {
        command().debug_assert();
        let config = flags(&["--name", "small-1", "--forwarder", "a", "--forwarder", "b", "--allow-any"])
            .expect("valid");
        let plan = config.plan_from(File::default(), "", "").expect("a plan");
        assert_eq!((plan.forwarders.len(), plan.settings.interval_ms, plan.limit.as_secs()), (2, 5000, 3600));
        assert!(plan.settings.allowed.resolve("/bin/true").is_ok());
        for bad in [
            &["--name", "a/b"][..],
            &["--forwarder", "a b"],
            &["--limit", "0"],
            &["--heartbeat", "x"],
            &["x"],
        ] {
            assert!(flags(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_used_where_there_is_one() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let (path, key) = (dir.path().join("key"), SecretKey::from_seed(&[3; 32]));
        let plain = flags(&[]).expect("valid");
        assert!(plain.secret(&path).expect("none is there").is_none());
        let write = |mode| {
            std::fs::write(&path, key.to_pem()).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        };
        write(0o600);
        let used = plain.secret(&path).expect("it reads").expect("it is there");
        assert_eq!(used.public(), key.public());
        write(0o644);
        assert!(plain.secret(&path).is_err(), "others may read it");
        let named = flags(&["--key", "/nowhere/key"]).expect("valid");
        assert!(named.secret(&path).expect_err("not there").to_string().contains("/nowhere/key"));
    }

    #[test]
    fn the_file_may_allow_more() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let path = dir.path().join("guestd.toml");
        std::fs::write(&path, "allow_any = true\n[tests]\nquick = \"/bin/true\"\n").expect("written");
        let path = path.to_str().expect("text");
        let config = flags(&["--name", "x", "--forwarder", "a", "--config", path]).expect("valid");
        let allowed = config.plan().expect("a plan").settings.allowed;
        assert!(allowed.resolve("quick").is_ok() && allowed.resolve("/bin/false").is_ok());
        let missing = flags(&["--config", "/nowhere/x.toml"]).expect("valid").plan().expect_err("not there");
        assert!(missing.to_string().starts_with("cannot read /nowhere/x.toml: "), "{missing}");
    }
}
