//! guestd in the systems that are built: this machine's program with the libraries that it needs, in a directory of its own. So it runs in
//! each system of this architecture, whatever that has or lacks; busybox alone is enough.
//!
//! Its name and where it finds a forwarder are on the kernel's command line ([`Guestd::words`]), so that they follow the config; a system
//! that boots by itself has them in a file.

use super::{
    edit::Edit,
    job::Job,
    secret::GuestSecret,
    tool::{Tool, Trouble},
};
use anyhow::{bail, ensure};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use uuid::Uuid;
use xvm_bus::{Endpoint, SecretKey};
use xvm_model::{Config, ConfigName};

/// What makes a program and its libraries one directory; packages libc-bin, binutils, patchelf.
const TOOLS: [&str; 3] = ["ldd", "strip", "patchelf"];
/// Where it is in a system.
const HOME: &str = "usr/lib/xvm/guestd";
/// Its unit, with the place where `make install` puts it.
const UNIT: &str = include_str!("../../../systemd/xvm-guestd.service");
const INSTALLED: &str = "/usr/local/sbin/guestd";

/// Which guestd systems get, and what they tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guestd {
    program: PathBuf,
    forwarders: Vec<Endpoint>,
    secret: GuestSecret,
}

impl Guestd {
    /// The program, where guests reach forwarders, and of what their keys are made. The error says what cannot be used, or which tool is
    /// missing.
    pub fn new(program: PathBuf, forwarders: Vec<Endpoint>, secret: GuestSecret) -> anyhow::Result<Guestd> {
        if let Some(own) = forwarders.iter().find(|f| matches!(f, Endpoint::Ipc { .. })) {
            bail!(
                "cannot use --guest-forwarder {own}: guests do not reach a socket of this machine; allowed are HOST and HOST:PORT"
            );
        }
        ensure!(
            program.is_file(),
            "cannot use {} for guests: there is no such file; --guestd names the program",
            program.display()
        );
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
        if let Some(tool) = TOOLS.into_iter().find(|t| !there(t)) {
            bail!(
                "cannot give guests {}: there is no {tool} (packages binutils, patchelf)",
                program.display()
            );
        }
        Ok(Guestd { program, forwarders, secret })
    }

    /// The key with which a config's guest signs what it says.
    pub fn key(&self, uuid: Uuid) -> SecretKey {
        self.secret.key(uuid)
    }

    /// That key in its system.
    pub fn key_file(&self, config: &Config) -> [Edit; 2] {
        let text = self.key(config.uuid).to_pem();
        [Edit::Dir("etc/xvm", 0o755), Edit::File("etc/xvm/guestd.key", 0o600, text)]
    }

    /// What the kernel's command line says to it: the domain's name, and forwarders.
    pub fn words(&self, name: &ConfigName) -> String {
        self.forwarders.iter().fold(format!("xvm.name={name}"), |mut words, forwarder| {
            let _ = write!(words, " xvm.bus={forwarder}");
            words
        })
    }

    /// The same for a system that boots by itself, as its unit reads it.
    pub fn options(&self, name: &ConfigName) -> [Edit; 2] {
        let mut flags = format!("--name {name}");
        for forwarder in &self.forwarders {
            let _ = write!(flags, " --forwarder {forwarder}");
        }
        let text = format!("XVM_GUESTD_OPTIONS={flags}\n");
        [Edit::Dir("etc/default", 0o755), Edit::File("etc/default/xvm-guestd", 0o644, text)]
    }
}

/// The site's guestd for a system, if it wants one there: its directory.
pub async fn program(job: &Job<'_>) -> Result<Vec<Edit>, Trouble> {
    let Some(guestd) = &job.site.guestd else { return Ok(Vec::new()) };
    if *job.site.arch != *super::debs::suites::arch() {
        job.say(&format!("it gets no guestd: {} is not for {}", guestd.program.display(), job.site.arch));
        return Ok(Vec::new());
    }
    let dir = job.dir().join("guestd");
    fs::create_dir_all(&dir).map_err(|e| Trouble::of(&dir, &e))?;
    let own = copy(&guestd.program, &dir, "guestd")?;
    // a program without libraries is told by 1
    let needs = job.run(Tool::new("ldd").arg(&guestd.program).good(&[0, 1])).await?;
    let libraries = libraries(&needs).map_err(Trouble::Failed)?;
    job.run(Tool::new("strip").arg(&own)).await?;
    let mut files = vec![(own.clone(), 0o755)];
    for library in &libraries {
        let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((copy(library, &dir, &name)?, 0o755));
        // the one without which no other is loaded
        if name.starts_with("ld-") || name.starts_with("ld64") {
            let tool = Tool::new("patchelf").args(["--set-interpreter", &format!("/{HOME}/{name}")]);
            job.run(tool.args(["--force-rpath", "--set-rpath", &format!("/{HOME}")]).arg(&own)).await?;
        }
    }
    let dirs = ["usr", "usr/lib", "usr/lib/xvm", HOME].map(|d| Edit::Dir(d, 0o755));
    let copies = files.into_iter().map(|(from, mode)| {
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Edit::Copy { path: format!("{HOME}/{name}"), mode, from }
    });
    Ok(dirs.into_iter().chain(copies).collect())
}

/// The same with its unit, enabled, for a system that systemd runs.
pub async fn unit(job: &Job<'_>) -> Result<Vec<Edit>, Trouble> {
    let mut edits = program(job).await?;
    if !edits.is_empty() {
        let text = UNIT.replace(INSTALLED, &format!("/{HOME}/guestd"));
        edits.extend(["etc/systemd", "etc/systemd/system"].map(|d| Edit::Dir(d, 0o755)));
        edits.extend([
            Edit::File("etc/systemd/system/xvm-guestd.service", 0o644, text),
            Edit::Dir("etc/systemd/system/multi-user.target.wants", 0o755),
            Edit::Link(
                "etc/systemd/system/multi-user.target.wants/xvm-guestd.service",
                "../xvm-guestd.service",
            ),
        ]);
    }
    Ok(edits)
}

fn copy(from: &Path, dir: &Path, name: &str) -> Result<PathBuf, Trouble> {
    let to = dir.join(name);
    fs::copy(from, &to).map(|_| to).map_err(|e| Trouble::of(from, &e))
}

/// The files that ldd(1) names; the error names one that is missing. What the kernel brings (the vDSO) has no path.
fn libraries(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut all = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, place) = line.split_once("=>").unwrap_or((line, line));
        let (name, place) = (name.trim(), place.trim());
        if place.starts_with("not found") {
            return Err(format!("the library {name} of guestd is not on this machine"));
        }
        let Some((path, _)) = place.split_once(" (0x").filter(|(path, _)| path.starts_with('/')) else {
            continue;
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        let path = PathBuf::from(path);
        if !path.file_name().is_some_and(|n| n.to_string_lossy().chars().all(plain)) {
            return Err(format!("cannot copy the library {} of guestd: its name is odd", path.display()));
        }
        all.push(path);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibzmq.so.5 => /lib/x/libzmq.so.5 (0x00007f08)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f0f)\n";
        let paths: Vec<PathBuf> =
            ["/lib/x/libzmq.so.5", "/lib64/ld-linux-x86-64.so.2"].map(Into::into).into();
        assert_eq!(libraries(said), Ok(paths));
        assert_eq!(libraries("\tstatically linked\n\tnot a dynamic executable\n"), Ok(Vec::new()));
        let missing = libraries("\tlibzmq.so.5 => not found\n").expect_err("one is missing");
        assert!(missing.contains("libzmq.so.5"), "{missing}");
        assert!(libraries("\ta => /x/a b;c (0x1)\n").is_err());
    }

    #[test]
    fn the_unit_runs_what_is_installed() {
        assert!(UNIT.contains(&format!("ExecStart={INSTALLED} ")), "{UNIT}");
    }

    #[test]
    fn a_system_is_told_where_a_forwarder_is() {
        let forwarders = ["10.0.0.1", "[::1]:7"].map(|f| Endpoint::parse(f).expect("an address")).into();
        let secret = GuestSecret::from([1; 32]);
        let guestd = Guestd { program: "/x".into(), forwarders, secret };
        let name = ConfigName::parse("small-6").expect("a name");
        assert_eq!(guestd.words(&name), "xvm.name=small-6 xvm.bus=tcp://10.0.0.1:5750 xvm.bus=tcp://[::1]:7");
        let refused = |program: &str, forwarder: &str| {
            let forwarders = vec![Endpoint::parse(forwarder).expect("an address")];
            Guestd::new(program.into(), forwarders, [1; 32].into()).expect_err("refused").to_string()
        };
        assert!(refused("/bin/true", "ipc:///run/x").contains("--guest-forwarder ipc:///run/x"));
        assert!(refused("/nonexistent", "a").contains("/nonexistent"));
    }
}
