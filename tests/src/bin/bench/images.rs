//! What imaged costs: a Debian image against bare mmdebstrap of the same packages, the second build, a clone; on real QEMU hosts a start
//! against `virsh create`, a migration against `virsh migrate`, both of the same definition.

use crate::{
    Effort,
    stats::{compare, median},
    table::{Line, Table, none, times, unit},
};
use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xvm_tests::{Cluster, Lab, Tree};

/// How long a build may take.
const BUILD: Duration = Duration::from_secs(900);

/// Measures.
pub fn rows(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    builds(table)?;
    machines(effort, table)
}

fn seconds(seconds: f64) -> String {
    unit(format!("{seconds:.2}"), "s")
}

/// Waits for the end of a config's job; gives its sentence.
fn end(tree: &Tree, name: &str, bound: Duration) -> anyhow::Result<String> {
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(tree.path(&format!("configs/{name}/wait")))?;
        if !text.is_empty() {
            ensure!(text.starts_with("done "), "{text}");
            return Ok(text);
        }
        ensure!(begin.elapsed() < bound, "{name}: no end within {} s", bound.as_secs());
    }
}

fn build(tree: &Tree, name: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    tree.order("ctl", &format!("create {name} os=debian/bookworm disk=2048 swap=0 memory=256"));
    end(tree, name, BUILD)?;
    Ok(begin.elapsed().as_secs_f64())
}

fn builds(table: &mut Table) -> anyhow::Result<()> {
    let mut cluster = Cluster::sim(&[("ferby", &[])]);
    cluster.imaged(&[]);
    let tree = cluster.tree.clone();
    let first = build(&tree, "deb-1")?;
    let log = std::fs::read_to_string(cluster.images_dir().join("log/deb-1.log"))?;
    let bare = bare_bootstrap(&log, cluster.dir())?;
    table.row(Line {
        what: "a first Debian image : bare mmdebstrap",
        ours: seconds(first),
        beside: seconds(bare),
        ratio: times(first / bare),
        goal: "at most 1.1",
    });
    let second = build(&tree, "deb-2")?;
    table.row(Line {
        what: "the second, from the cache",
        ours: seconds(second),
        beside: none(),
        ratio: none(),
        goal: "",
    });
    let mut clones = Vec::new();
    for n in 3..8 {
        let begin = Instant::now();
        tree.order("configs/deb-1/ctl", &format!("clone deb-{n}"));
        end(&tree, &format!("deb-{n}"), BUILD)?;
        clones.push(begin.elapsed().as_secs_f64());
    }
    table.row(Line {
        what: "a clone of its disk of 2 GiB",
        ours: seconds(median(&clones)),
        beside: none(),
        ratio: none(),
        goal: "under 2 s",
    });
    Ok(())
}

/// The same command that the build's log tells, into a tar archive.
fn bare_bootstrap(log: &str, dir: &Path) -> anyhow::Result<f64> {
    let include = log
        .split_whitespace()
        .find_map(|w| w.trim_matches(['"', '\'']).strip_prefix("--include="))
        .context("the log of the build does not tell its packages")?;
    let archive = dir.join("bare.tar");
    let begin = Instant::now();
    let status = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=apt", &format!("--include={include}"), "bookworm"])
        .arg(&archive)
        .args(["http://deb.debian.org/debian"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "mmdebstrap: {status}");
    let took = begin.elapsed().as_secs_f64();
    std::fs::remove_file(&archive)?;
    Ok(took)
}

/// Runs a program of a lab's host.
fn virsh(lab: &Lab, host: &str, args: &[&str]) -> anyhow::Result<String> {
    let done = lab.virsh(host, args);
    ensure!(done.status == 0, "virsh {args:?} on {host}: {}{}", done.out, done.err);
    Ok(done.out)
}

/// Waits until a guest's kernel speaks on a host.
fn speaks(lab: &Lab, host: &str, name: &str, before: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    while lab.console(host, name).matches("Linux version").count() <= before {
        if begin.elapsed() > Duration::from_secs(60) {
            bail!("{name} on {host}: no kernel speaks");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn machines(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let mut cluster = Cluster::qemu(2, 0, |_| {});
    let kernel = Lab::kernel();
    let at = |file: &str| kernel.join(file).to_string_lossy().into_owned();
    cluster.imaged(&["--tiny-kernel", &at("vmlinuz"), "--tiny-initrd", &at("modules")]);
    let tree = cluster.tree.clone();
    std::fs::create_dir(tree.path("configs/small-6"))?;
    end(&tree, "small-6", BUILD)?;
    tree.order("configs/small-6/ctl", "start ferby");
    end(&tree, "small-6", BUILD)?;
    let twin = twin(&cluster)?;
    off(&tree)?;
    let lab = cluster.hosts();
    let count = |name: &str| lab.console("ferby", name).matches("Linux version").count();
    let pairs = effort.pairs.min(10);
    let compared = compare(
        pairs,
        || {
            let (before, begin) = (count("small-6"), Instant::now());
            tree.order("configs/small-6/ctl", "start ferby");
            speaks(lab, "ferby", "small-6", before)?;
            let took = begin.elapsed().as_secs_f64();
            end(&tree, "small-6", BUILD)?;
            off(&tree)?;
            Ok(took)
        },
        || {
            let (before, begin) = (count("twin"), Instant::now());
            virsh(lab, "ferby", &["create", &twin.to_string_lossy()])?;
            speaks(lab, "ferby", "twin", before)?;
            let took = begin.elapsed().as_secs_f64();
            virsh(lab, "ferby", &["destroy", "twin"])?;
            Ok(took)
        },
    )?;
    table.row(Line {
        what: "start to a running kernel : virsh create",
        ours: seconds(compared.ours),
        beside: seconds(compared.theirs),
        ratio: times(compared.ratio),
        goal: "at most 1.1",
    });

    tree.order("configs/small-6/ctl", "start ferby");
    end(&tree, "small-6", BUILD)?;
    virsh(lab, "ferby", &["create", &twin.to_string_lossy()])?;
    for name in ["small-6", "twin"] {
        speaks(lab, "ferby", name, 0)?;
    }
    let (mut ours, mut theirs) = (["gerby", "ferby"].iter().cycle(), ["gerby", "ferby"].iter().cycle());
    let mut from = "ferby";
    let compared = compare(
        pairs,
        || {
            let to = ours.next().expect("a cycle has no end");
            let begin = Instant::now();
            tree.order("domains/small-6/ctl", &format!("migrate {to}"));
            let text = std::fs::read_to_string(tree.path("domains/small-6/wait"))?;
            ensure!(text.starts_with("done migrate"), "{text}");
            Ok(begin.elapsed().as_secs_f64())
        },
        || {
            let to = theirs.next().expect("a cycle has no end");
            let reach = lab.ask("reach", to);
            let begin = Instant::now();
            virsh(lab, from, &["migrate", "--live", "--p2p", "twin", &reach])?;
            from = to;
            Ok(begin.elapsed().as_secs_f64())
        },
    )?;
    table.row(Line {
        what: "a migration : virsh migrate --live --p2p",
        ours: seconds(compared.ours),
        beside: seconds(compared.theirs),
        ratio: times(compared.ratio),
        goal: "at most 1.05",
    });
    Ok(())
}

fn off(tree: &Tree) -> anyhow::Result<()> {
    tree.order("domains/small-6/ctl", "destroy");
    let begin = Instant::now();
    while tree.text("configs/small-6/state") != "ready" {
        ensure!(begin.elapsed() < Duration::from_secs(30), "the lease of small-6 does not come back");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The definition of the running small-6 for a domain of its own, `twin`, whose disks are copies that another server exports.
fn twin(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let lab = cluster.hosts();
    let xml = virsh(lab, "ferby", &["dumpxml", "--inactive", "small-6"])?;
    let volumes = cluster.images_dir().join("store/volumes/small-6");
    let json = cluster.tree.json("configs/small-6/json");
    let grant = json["leases"][0]["grant"].clone();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = xml.replace(">small-6<", ">twin<").replace("small-6.console", "twin.console");
    out = out.replace(&word(&json["config"]["uuid"]), &uuid::Uuid::new_v4().to_string());
    let port = grant["port"].to_string();
    for (i, disk) in grant["disks"].as_array().context("disks")?.iter().enumerate() {
        let (volume, export) = (word(&disk["volume"]), word(&disk["export"]));
        let (copy, own) = (cluster.dir().join(format!("twin-{volume}")), (10_901 + i).to_string());
        std::fs::copy(volumes.join(&volume), &copy)?;
        lab.hosts_sh(&["nbd-start", &volume, &copy.to_string_lossy(), &own]).ok();
        let (front, back) = (format!("name='{export}'"), format!("name='{volume}'"));
        let at = out.find(&front).with_context(|| format!("{export} is not in\n{xml}"))?;
        let (head, rest) = out.split_at(at);
        let rest = rest.replacen(&front, &back, 1);
        let rest = rest.replacen(&format!("port='{port}'"), &format!("port='{own}'"), 1);
        let rest = rest.replacen(
            &format!("<host name='{}'", lab.address()),
            &format!("<host name='{}'", lab.store()),
            1,
        );
        out = format!("{head}{rest}");
    }
    let file = cluster.dir().join("twin.xml");
    std::fs::write(&file, out)?;
    Ok(file)
}
