//! Recorded loads: one file a domain, a line a sample. `24` is a percentage of one CPU; `2026-11-22T20:05:00.000Z 0.24`, a line of
//! a site's `history`, is a share. Lines that begin with `#` say something else.

use anyhow::{Context, Result, bail, ensure};
use std::{fs, io::Read, path::Path};

/// The most samples of one domain that are read: a year of minutes.
pub const SAMPLES_MAX: usize = 600_000;
/// The longest file of one domain in bytes.
const FILE_MAX: u64 = 64 << 20;

/// What many domains wanted, sample by sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Loads {
    /// What it is called in the table.
    pub name: String,
    /// The domains' names, sorted.
    pub names: Vec<String>,
    /// `domains[d][t]`: CPUs that domain `d` wants in sample `t`; all have the same length.
    pub domains: Vec<Vec<f64>>,
}

impl Loads {
    /// Reads a folder, or an archive `.tar.gz`. Errors name the file and line.
    pub fn read(path: &Path) -> Result<Loads> {
        let mut files = if path.is_dir() { folder(path)? } else { archive(path)? };
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let shortest = files.iter().map(|f| f.1.len()).min().unwrap_or(0);
        ensure!(shortest > 1, "cannot replay {}: it has no domains with two samples or more", path.display());
        let base = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let (names, mut domains): (Vec<String>, Vec<Vec<f64>>) = files.into_iter().unzip();
        domains.iter_mut().for_each(|d| d.truncate(shortest));
        Ok(Loads { name: base.trim_end_matches(".tar.gz").to_owned(), names, domains })
    }

    /// Samples of each domain.
    pub fn samples(&self) -> usize {
        self.domains.first().map_or(0, Vec::len)
    }

    /// The mean of what all domains together want, in CPUs.
    pub fn mean(&self) -> f64 {
        self.domains.iter().flatten().sum::<f64>() / self.samples().max(1) as f64
    }
}

fn folder(path: &Path) -> Result<Vec<(String, Vec<f64>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {name}"))?;
            files.push((name.clone(), parse(&name, &text)?));
        }
    }
    Ok(files)
}

fn archive(path: &Path) -> Result<Vec<(String, Vec<f64>)>> {
    let open = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).with_context(open)?;
    let mut files = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(file)).entries().with_context(open)? {
        let entry = entry.with_context(open)?;
        if entry.header().entry_type().is_file() {
            let name = entry.path().with_context(open)?.to_string_lossy().into_owned();
            let mut text = String::new();
            entry.take(FILE_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
            files.push((name.clone(), parse(&name, &text)?));
        }
    }
    Ok(files)
}

fn parse(name: &str, text: &str) -> Result<Vec<f64>> {
    let mut loads = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next());
        let number: f64 = second
            .unwrap_or(first)
            .parse()
            .with_context(|| format!("cannot read {name}: line {}: {line:?} is no load", n + 1))?;
        let load = if second.is_some() { number } else { number / 100.0 };
        if !(0.0..=1024.0).contains(&load) || loads.len() >= SAMPLES_MAX {
            bail!(
                "cannot read {name}: line {}: loads are 0 to 1024 CPUs, at most {SAMPLES_MAX} lines",
                n + 1
            );
        }
        loads.push(load);
    }
    Ok(loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_lines_are_read() {
        assert_eq!(parse("a", "24\n 0\n").expect("percent"), vec![0.24, 0.0]);
        assert_eq!(parse("a", "2026-11-22T20:05:00.000Z 0.24\n").expect("share"), vec![0.24]);
        let moved = "# 2026-11-22T20:05:00.000Z came from ferby: ferby.7.1\n2026-11-22T20:05:00.000Z 0.24\n";
        assert_eq!(parse("a", moved).expect("with a move"), vec![0.24]);
        assert!(parse("a", "x\n").unwrap_err().to_string().contains("line 1"));
        assert!(parse("a", "-1\n").is_err() && parse("a", "NaN\n").is_err());
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names_and_cut_to_the_shortest() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("b"), "1\n2\n3\n").expect("write");
        fs::write(dir.path().join("a"), "4\n5\n").expect("write");
        let loads = Loads::read(dir.path()).expect("loads");
        assert_eq!(loads.names, ["a", "b"]);
        assert_eq!(loads.domains, [[0.04, 0.05], [0.01, 0.02]]);
    }
}
