//! `cargo xtask man` writes `man/` and `completions/` from the flags and the tables; a test fails when they lag.
#![allow(missing_docs)] // a program, not an interface

mod commands;
mod config;
mod messages;
mod roff;
mod tree;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// All generated files: path below the project's root, and text.
fn files() -> Result<Vec<(PathBuf, String)>> {
    let mut files = vec![
        (PathBuf::from("man/xvm.4"), tree::page()),
        (PathBuf::from("man/xvm-config.5"), config::page()),
        (PathBuf::from("man/xvm-messages.5"), messages::page()?),
    ];
    files.extend(commands::pages()?);
    Ok(files)
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn main() -> Result<()> {
    let word = std::env::args().nth(1);
    if word.as_deref() != Some("man") {
        bail!("usage: cargo xtask man");
    }
    for (path, text) in files()? {
        let path = root().join(path);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, a flag, a file or a message was changed and its manual page was not: run `cargo xtask man`.
    #[test]
    fn committed_pages_are_current() {
        for (path, text) in files().expect("pages") {
            let committed = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
            assert!(committed == text, "{} lags: run `cargo xtask man`", path.display());
        }
    }

    /// If this fails, a page does not format cleanly.
    #[test]
    fn pages_pass_mandoc() {
        for (path, _) in files().expect("pages").into_iter().filter(|(p, _)| p.starts_with("man")) {
            let out = std::process::Command::new("mandoc")
                .args(["-Tlint", "-W", "warning"])
                .arg(root().join(&path))
                .output()
                .expect("mandoc is installed by `make deps`");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        }
    }
}
