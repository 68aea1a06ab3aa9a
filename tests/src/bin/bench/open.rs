//! Reading one figure of one server: open, read and close of `servers/ferby/load` against an empty FUSE file at the same depth, and
//! against virsh.

use crate::{
    Effort,
    cluster::{Cluster, readable},
    empty::FILE,
    stats::{compare, each},
    table::{Line, Table, micros, times},
};
use anyhow::{Context, ensure};
use std::{
    fs::File,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

/// Reads of one batch.
const BATCH: usize = 250;
/// Where virsh asks: its own test driver, which answers without a daemon, so this is the least that virsh can take.
const VIRSH: [&str; 5] = ["-c", "test:///default", "dominfo", "test", "--title"];

/// Opens, reads once, closes.
pub fn read_once(file: &Path) -> anyhow::Result<()> {
    let mut text = [0; 4096];
    File::open(file).and_then(|mut f| f.read(&mut text)).with_context(|| file.display().to_string())?;
    Ok(())
}

/// Measures.
pub fn rows(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let _ferby = cluster.agent("ferby", &["small-1".into()])?;
    let (mount, empty) = (cluster.mount()?, cluster.empty()?);
    let (ours, theirs) = (mount.path.join(FILE), empty.path.join(FILE));
    readable(&ours)?;

    let c =
        compare(effort.pairs, || each(BATCH, || read_once(&ours)), || each(BATCH, || read_once(&theirs)))?;
    table.row(Line {
        what: "read servers/ferby/load : empty FUSE file",
        ours: micros(c.ours),
        beside: micros(c.theirs),
        ratio: times(c.ratio),
        goal: "at most 1.3",
    });

    run("virsh", &VIRSH[..4])?;
    let c =
        compare(effort.pairs, || each(10, || read_once(&ours)), || each(1, || run("virsh", &VIRSH[..4])))?;
    table.row(Line {
        what: "virsh dominfo : read servers/ferby/load",
        ours: micros(c.ours),
        beside: micros(c.theirs),
        ratio: times(1.0 / c.ratio),
        goal: "at least 100",
    });

    let text = ours.to_string_lossy();
    let c =
        compare(effort.pairs, || each(1, || run("cat", &[&text])), || each(1, || run("virsh", &VIRSH[..4])))?;
    table.row(Line {
        what: "virsh dominfo : cat servers/ferby/load",
        ours: micros(c.ours),
        beside: micros(c.theirs),
        ratio: times(1.0 / c.ratio),
        goal: "",
    });
    Ok(())
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} {} failed: {status}", args.join(" "));
    Ok(())
}
