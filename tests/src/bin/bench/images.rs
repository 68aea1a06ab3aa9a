//! Machines from configs on QEMU hosts of a lab: start and migration against bare virsh, clone against `cp`, builds against bare
//! mmdebstrap.

use crate::{
    Effort,
    stats::{compare, median},
    table::{Line, Table, millis, none, times, unit},
};
use anyhow::{Context, anyhow, ensure};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use xvm_tests::{Cluster, Lab, lab, wait_for};

/// Pairs of clones: each of them takes seconds.
const PAIRS: usize = 5;
/// Pairs of starts, and of migrations: half a second each, of which the flushes of the disks and the guests' CPUs are a third in some and
/// a tenth in others. An even number, for half of the migrations go back.
const BOOTS: usize = 20;
/// How long a Debian system may take to be made.
const BUILD: Duration = Duration::from_secs(900);
/// Ours, and the one that virsh alone looks after.
const OURS: &str = "small-6";
const BARE: &str = "bare-1";

/// Measures. What is shared with the tests panics when something goes wrong.
pub fn rows(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    for need in lab::NEEDS {
        ensure!(need == "root" || xvm_tests::have("bench images", need), "needs {need}");
    }
    catch_unwind(AssertUnwindSafe(|| measure(effort, table))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(anyhow!(text.unwrap_or_else(|| "something that it needs went wrong".into())))
    })
}

fn measure(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let mut cluster = Cluster::qemu(2, 0, |_| {});
    let kernel = Lab::kernel();
    let at = |file: &str| kernel.join(file).to_string_lossy().into_owned();
    cluster.imaged(&["--tiny-kernel", &at("vmlinuz"), "--tiny-initrd", &at("modules")]);
    let pairs = PAIRS.min(effort.pairs);
    build_tiny(&cluster, table)?;
    let boots = BOOTS.min(effort.pairs);
    start(&cluster, boots, table)?;
    migrate(&cluster, boots, table)?;
    clone(&cluster, pairs, table)?;
    build_debian(&cluster, table)
}

/// Seconds that `f` takes.
fn seconds<T>(f: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Orders through the tree, and waits for the end of the job.
fn job(cluster: &Cluster, directory: &str, line: &str) -> anyhow::Result<()> {
    cluster.tree.order(&format!("{directory}/ctl"), line);
    let end = cluster.tree.until_end(&format!("{directory}/wait"));
    ensure!(end.starts_with("done "), "{line}: {end}");
    Ok(())
}

/// What virsh alone does on a host.
fn virsh(cluster: &Cluster, host: &str, args: &[&str]) -> anyhow::Result<String> {
    let done = cluster.hosts().virsh(host, args);
    ensure!(done.status == 0, "virsh {}: {}", args.join(" "), done.err.trim());
    Ok(done.out)
}

/// Runs a program.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// `create`, and waits until it is made.
fn create(cluster: &Cluster, name: &str, settings: &str) -> anyhow::Result<f64> {
    seconds(|| {
        cluster.tree.order("ctl", &format!("create {name} {settings}"));
        let begin = Instant::now();
        while cluster.tree.text(&format!("configs/{name}/state")) == "creating" {
            ensure!(begin.elapsed() < BUILD, "{name} is not made within {} s", BUILD.as_secs());
            std::thread::sleep(Duration::from_millis(10));
        }
        let state = cluster.tree.text(&format!("configs/{name}/state"));
        ensure!(
            state == "ready",
            "{name} is {state}: {}",
            cluster.tree.text(&format!("configs/{name}/wait"))
        );
        Ok(())
    })
}

fn build_tiny(cluster: &Cluster, table: &mut Table) -> anyhow::Result<()> {
    let took: Vec<f64> = [OURS, "small-7", "small-8"]
        .iter()
        .map(|name| create(cluster, name, "os=tiny swap=0"))
        .collect::<anyhow::Result<_>>()?;
    table.row(Line {
        what: "create a tiny machine, to ready",
        ours: millis(median(&took)),
        beside: none(),
        ratio: none(),
        goal: "",
    });
    Ok(())
}

/// The same domain with a disk of its own, which the lab's storage host serves: what virsh starts.
fn bare(cluster: &Cluster) -> anyhow::Result<String> {
    let port = "10821";
    let (from, to) = (cluster.images_dir().join("store/volumes").join(OURS).join("disk"), cluster.dir());
    let image = to.join(format!("{BARE}.img"));
    std::fs::copy(&from, &image).with_context(|| from.display().to_string())?;
    cluster.hosts().hosts_sh(&["nbd-start", BARE, &image.to_string_lossy(), port]).ok();
    let address = cluster.hosts().address();
    let store = format!("{}.20", address.rsplit_once('.').context("an address")?.0);
    let xml = virsh(cluster, "ferby", &["dumpxml", "--migratable", OURS])?;
    let mut out = String::new();
    for line in xml.lines() {
        let text = line.trim();
        if text.starts_with("<uuid>") || text.starts_with("<xvm:") {
            continue;
        }
        if text.starts_with("<source protocol='nbd'") {
            out += &format!("<source protocol='nbd' name='{BARE}'>");
        } else if text.starts_with("<host name=") {
            out += &format!("<host name='{store}' port='{port}'/>");
        } else {
            out += &line.replace(OURS, BARE);
        }
        out.push('\n');
    }
    let file = to.join(format!("{BARE}.xml"));
    std::fs::write(&file, out)?;
    Ok(file.to_string_lossy().into_owned())
}

fn start(cluster: &Cluster, pairs: usize, table: &mut Table) -> anyhow::Result<()> {
    let (config, domain) = (format!("configs/{OURS}"), format!("domains/{OURS}/ctl"));
    job(cluster, &config, "start ferby")?;
    let xml = bare(cluster)?;
    let off = || {
        cluster.tree.order(&domain, "destroy");
        cluster.tree.settles(&format!("{config}/state"), "ready");
    };
    off();
    let c = compare(
        pairs,
        || {
            let before = kernels(cluster, OURS);
            let took = seconds(|| {
                cluster.tree.order(&format!("{config}/ctl"), "start ferby");
                kernel_speaks(cluster, OURS, before)
            })?;
            let end = cluster.tree.until_end(&format!("{config}/wait"));
            ensure!(end.starts_with("done "), "start: {end}");
            off();
            Ok(took)
        },
        || {
            let before = kernels(cluster, BARE);
            let took = seconds(|| {
                virsh(cluster, "ferby", &["create", &xml])?;
                kernel_speaks(cluster, BARE, before)
            })?;
            virsh(cluster, "ferby", &["destroy", BARE])?;
            Ok(took)
        },
    )?;
    table.row(Line {
        what: "start to a running kernel : virsh create",
        ours: millis(c.ours),
        beside: millis(c.theirs),
        ratio: times(c.ratio),
        goal: "at most 1.1",
    });
    Ok(())
}

/// How many kernels a domain's console on ferby has seen.
fn kernels(cluster: &Cluster, name: &str) -> usize {
    cluster.hosts().console("ferby", name).matches("Linux version").count()
}

/// Waits until one more speaks there.
fn kernel_speaks(cluster: &Cluster, name: &str, before: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    while kernels(cluster, name) == before {
        ensure!(begin.elapsed() < Duration::from_secs(60), "no kernel of {name} speaks within 60 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn migrate(cluster: &Cluster, pairs: usize, table: &mut Table) -> anyhow::Result<()> {
    let xml = cluster.dir().join(format!("{BARE}.xml")).to_string_lossy().into_owned();
    job(cluster, &format!("configs/{OURS}"), "start ferby")?;
    virsh(cluster, "ferby", &["create", &xml])?;
    for name in [OURS, BARE] {
        wait_for(&format!("{name} is up"), || {
            cluster.hosts().console("ferby", name).contains(&format!("{OURS} is up")).then_some(())
        });
    }
    // without the boot's load
    std::thread::sleep(Duration::from_secs(3));
    let other = |host: &str| if host == "ferby" { "gerby" } else { "ferby" };
    let (mut ours, mut theirs) = ("ferby", "ferby");
    let mut through_xvm = || {
        ours = other(ours);
        seconds(|| job(cluster, &format!("domains/{OURS}"), &format!("migrate {ours}")))
    };
    let mut by_virsh = || {
        let from = theirs;
        theirs = other(from);
        let to = cluster.hosts().ask("reach", theirs);
        seconds(|| virsh(cluster, from, &["migrate", "--live", "--p2p", BARE, &to]))
    };
    // there and back: a host's first QEMU is asked what it can do
    for _ in 0..2 {
        through_xvm()?;
        by_virsh()?;
    }
    let c = compare(pairs, through_xvm, by_virsh)?;
    table.row(Line {
        what: "migrate through xvm : virsh migrate --p2p",
        ours: millis(c.ours),
        beside: millis(c.theirs),
        ratio: times(c.ratio),
        goal: "at most 1.05",
    });
    virsh(cluster, theirs, &["destroy", BARE])?;
    cluster.tree.order(&format!("domains/{OURS}/ctl"), "destroy");
    cluster.tree.settles(&format!("configs/{OURS}/state"), "ready");
    Ok(())
}

fn clone(cluster: &Cluster, pairs: usize, table: &mut Table) -> anyhow::Result<()> {
    create(cluster, "large", "os=tiny disk=2048 swap=0")?;
    let disk = cluster.images_dir().join("store/volumes/large/disk");
    // half a GiB that no file system makes smaller
    let (data, copy) = (cluster.dir().join("data"), cluster.dir().join("copy"));
    let to = |path: &Path| path.to_string_lossy().into_owned();
    run(Command::new("dd").args(["if=/dev/urandom", "bs=1M", "count=512", &format!("of={}", to(&data))]))?;
    run(Command::new("debugfs").args(["-w", "-R", &format!("write {} data", to(&data))]).arg(&disk))?;
    let mut count = 0;
    let c = compare(
        pairs,
        || {
            count += 1;
            let name = format!("large-{count}");
            let took = seconds(|| {
                cluster.tree.order("configs/large/ctl", &format!("clone {name}"));
                let end = cluster.tree.until_end(&format!("configs/{name}/wait"));
                ensure!(end == format!("done clone: {name} is ready"), "{end}");
                Ok(())
            })?;
            std::fs::remove_dir(cluster.tree.path(&format!("configs/{name}")))?;
            Ok(took)
        },
        || {
            let took = seconds(|| run(Command::new("cp").arg(&disk).arg(&copy)))?;
            std::fs::remove_file(&copy)?;
            Ok(took)
        },
    )?;
    table.row(Line {
        what: "clone 2 GiB, 0.5 of them used : cp",
        ours: millis(c.ours),
        beside: millis(c.theirs),
        ratio: times(c.ratio),
        goal: "",
    });
    Ok(())
}

/// The words of the mmdebstrap that makes the base, once it runs.
fn bootstrap() -> Option<Vec<String>> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<String> =
            line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let at = words.iter().position(|w| w.ends_with("/mmdebstrap") || w == "mmdebstrap")?;
        let words: Vec<String> = words[at..].iter().filter(|w| !w.is_empty()).cloned().collect();
        words.iter().any(|w| w.starts_with("--include=")).then_some(words)
    })
}

fn build_debian(cluster: &Cluster, table: &mut Table) -> anyhow::Result<()> {
    const SYSTEM: &str = "os=debian/bookworm disk=1024 swap=0";
    let (words, first) = std::thread::scope(|s| {
        let watcher = s.spawn(|| {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(60) {
                if let Some(words) = bootstrap() {
                    return Some(words);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            None
        });
        let took = create(cluster, "deb-1", SYSTEM);
        (watcher.join().ok().flatten(), took)
    });
    let (first, mut words) = (first?, words.context("mmdebstrap was not seen")?);
    let inside = cluster.images_dir().to_string_lossy().into_owned();
    let root = cluster.dir().join("bare").to_string_lossy().into_owned();
    let place = words.iter_mut().find(|w| w.starts_with(&inside)).context("mmdebstrap has no directory")?;
    *place = root;
    let bare = seconds(|| run(Command::new(&words[0]).args(&words[1..])))?;
    let second = create(cluster, "deb-2", SYSTEM)?;
    for (what, ours, beside) in [
        ("first Debian image : mmdebstrap to a folder", first, bare),
        ("second one, from the cache : mmdebstrap", second, bare),
    ] {
        let ratio = times(ours / beside);
        let text = |seconds: f64| unit(format!("{seconds:.1}"), "s");
        table.row(Line { what, ours: text(ours), beside: text(beside), ratio, goal: "" });
    }
    Ok(())
}
