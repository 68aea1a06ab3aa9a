//! What an agent costs: agentd with 100 simulated domains at the default heartbeat.

use crate::{
    Effort,
    cluster::{Cluster, SOON},
    stats::wait_for,
    table::{Line, Table, none, percent, unit},
};
use std::{thread::sleep, time::Duration};

/// Its domains.
const DOMAINS: usize = 100;

/// Measures.
pub fn rows(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let domains: Vec<String> = (1..=DOMAINS).map(|i| format!("small-{i},memory=64")).collect();
    let mut ferby = cluster.agent("ferby", &domains)?;
    let mount = cluster.mount()?;
    let list = mount.path.join("servers/ferby/domains");
    wait_for("ferby's domains", SOON, || {
        if let Err(e) = ferby.check() {
            return Some(Err(e));
        }
        let there = std::fs::read_dir(&list).ok()?.count();
        (there == DOMAINS).then_some(Ok(()))
    })??;
    // what it does once at its start is not what it costs
    sleep(Duration::from_secs(2));
    let before = ferby.cpu()?;
    sleep(effort.watch);
    let share = (ferby.cpu()? - before) / effort.watch.as_secs_f64();
    table.row(Line {
        what: "agentd, 100 sim domains: CPU of one core",
        ours: percent(share),
        beside: none(),
        ratio: none(),
        goal: "under 1 %",
    });
    table.row(Line {
        what: "agentd, 100 sim domains: memory",
        ours: unit(format!("{:.1}", ferby.memory()? / 1048576.0), "MiB"),
        beside: none(),
        ratio: none(),
        goal: "",
    });
    Ok(())
}
