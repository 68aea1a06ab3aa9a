//! The certificates with which exports are served by TLS.

use anyhow::{Context, bail, ensure};
use std::{fs::File, path::Path};
use xvm_bus::keys::open_to_others;

/// What QEMU reads in a directory of credentials of a server.
const FILES: [&str; 3] = ["ca-cert.pem", "server-cert.pem", KEY];
/// The one that others must not read.
const KEY: &str = "server-key.pem";

/// Whether a daemon can serve with what is in `dir`. The error names the file and what is wanted of it.
pub fn check(dir: &Path) -> anyhow::Result<()> {
    ensure!(dir.is_absolute(), "cannot use --tls {}: the path is not absolute", dir.display());
    for name in FILES {
        let path = dir.join(name);
        let wrong = || format!("cannot use --tls {}: {} cannot be read", dir.display(), path.display());
        let file = File::open(&path).and_then(|f| f.metadata()).with_context(wrong)?;
        if let Some(why) = open_to_others(&file).filter(|_| name == KEY) {
            bail!("cannot use --tls {}: {}: {why}", dir.display(), path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn what_is_missing_or_open_is_named() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let said = |dir: &Path| check(dir).expect_err("refused").to_string();
        assert!(said(Path::new("tls")).contains("not absolute"));
        for name in FILES {
            let why = said(dir.path());
            assert!(why.contains(&format!("{name} cannot be read")), "{why}");
            fs::write(dir.path().join(name), "x").expect("written");
        }
        let key = dir.path().join(KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("ours");
        assert!(said(dir.path()).contains("(mode 0640); make it 0600"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
        check(dir.path()).expect("good");
    }
}
