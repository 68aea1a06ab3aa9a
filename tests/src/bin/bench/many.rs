//! One mount and one forwarder with 1,000 servers of 100 domains each at a heartbeat of 2 s, see [`crate::crowd`].

use crate::{
    Effort,
    cluster::Cluster,
    crowd::{Crowd, DOMAINS, SERVERS, domain, server},
    empty::FILE,
    open::read_once,
    stats::{percentile, wait_for},
    table::{Line, Table, millis, none, percent, times, unit},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// All domains.
const ALL: usize = SERVERS * DOMAINS;
/// Between two reads while the CPUs' use is watched.
const PAUSE: Duration = Duration::from_millis(4);

/// Measures.
pub fn rows(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let (mount, empty) = (cluster.mount()?, cluster.empty()?);
    let before = mount.process.memory()?;
    let crowd = Crowd::start(&cluster.endpoint)?;
    let domains = mount.path.join("domains");
    wait_for("100,000 domains", Duration::from_secs(60), || {
        sleep(Duration::from_millis(500));
        let there = std::fs::read_dir(&domains).ok()?.count();
        (there == ALL).then_some(())
    })?;
    sleep(effort.watch / 4);

    let (start, cpus) = (Instant::now(), [mount.process.cpu()?, cluster.forwarder.cpu()?]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut i = 0;
    while start.elapsed() < effort.watch {
        ours.push(timed(&some_file(&mount.path, i))?);
        theirs.push(timed(&empty.path.join(FILE))?);
        i += 1;
        sleep(PAUSE);
    }
    let seconds = start.elapsed().as_secs_f64();
    let shares = [(mount.process.cpu()? - cpus[0]) / seconds, (cluster.forwarder.cpu()? - cpus[1]) / seconds];
    for (what, share) in
        ["xvmfs, 100,000 domains: CPU of one core", "xvm-forwarder, the same: CPU of one core"]
            .into_iter()
            .zip(shares)
    {
        table.row(Line { what, ours: percent(share), beside: none(), ratio: none(), goal: "under 100 %" });
    }
    let memory = (mount.process.memory()? - before) / ALL as f64;
    table.row(Line {
        what: "xvmfs: memory a domain",
        ours: unit(memory.round(), "B"),
        beside: unit(crowd.bytes / DOMAINS, "B of JSON"),
        ratio: none(),
        goal: "under 1024 B",
    });
    for (p, what, goal) in [
        (0.5, "  read meanwhile : empty FUSE file, median", ""),
        (0.99, "  read meanwhile : empty FUSE file, p99", "under 1 ms"),
        (1.0, "  read meanwhile : empty FUSE file, worst", ""),
    ] {
        let (a, b) = (percentile(&ours, p), percentile(&theirs, p));
        table.row(Line { what, ours: millis(a), beside: millis(b), ratio: times(a / b), goal });
    }
    list(effort, &domains, table)
}

/// `ls | wc -l` of the domains against as many files of a tmpfs.
fn list(effort: Effort, domains: &Path, table: &mut Table) -> anyhow::Result<()> {
    let plain = TempDir::with_prefix_in("xvm-bench-", "/dev/shm")?;
    for i in 0..ALL {
        std::fs::File::create(plain.path().join(domain(i / DOMAINS, i % DOMAINS)))?;
    }
    let c = crate::stats::compare(effort.pairs / 4, || ls(domains), || ls(plain.path()))?;
    table.row(Line {
        what: "  ls domains|wc -l : 100,000 tmpfs files",
        ours: millis(c.ours),
        beside: millis(c.theirs),
        ratio: times(c.ratio),
        goal: "under 1000 ms",
    });
    Ok(())
}

/// Seconds that `ls DIR | wc -l` takes.
fn ls(dir: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    let out = Command::new("sh").args(["-c", "ls \"$1\" | wc -l", "sh"]).arg(dir).output()?;
    let took = start.elapsed().as_secs_f64();
    let count = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    anyhow::ensure!(count == ALL.to_string(), "ls of {} gave {count} names", dir.display());
    Ok(took)
}

fn timed(file: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    read_once(file)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The load of some domain, or of some server.
fn some_file(mount: &Path, i: usize) -> PathBuf {
    let n = i.wrapping_mul(7919);
    let (s, d) = (n % SERVERS, n / SERVERS % DOMAINS);
    if i.is_multiple_of(2) {
        mount.join("domains").join(domain(s, d)).join("load")
    } else {
        mount.join("servers").join(server(s)).join("load")
    }
}
