//! `xvm-sim`, see the library.

use anyhow::Result;
use clap::Parser;
use std::io::Write;
use xvm_sim::{Loads, Setup, flags::Flags, packing, plot, replay, table};

fn main() -> Result<()> {
    let flags = Flags::parse();
    let all = ["none", "points", "three-in-a-row", "three-of-five", "adaptive"].map(str::to_owned);
    let rules = if flags.policy.is_empty() { all.to_vec() } else { flags.policy };
    let mut out = std::io::stdout().lock();
    out.write_all(table::head().as_bytes())?;
    let mut last = None;
    for path in &flags.paths {
        let loads = Loads::read(path)?;
        for &load in &flags.load {
            let c = &flags.cluster;
            let setup = Setup {
                load: f64::from(load) / 100.0,
                servers: c.servers.map(|s| s as usize),
                cpus: f64::from(c.cpus),
                crowd: f64::from(c.crowd) / 100.0,
                unit_s: f64::from(c.unit),
                move_s: f64::from(c.move_seconds),
                seed: c.seed,
            };
            let servers = setup.servers(&loads);
            let mut figures = Vec::new();
            for rule in &rules {
                let f = replay(&loads, &setup, rule);
                out.write_all(
                    table::line(&loads.name, setup.load, servers, rule, &f, setup.unit_s).as_bytes(),
                )?;
                figures.push((rule.clone(), f));
            }
            let packed = packing::lost(&loads, &setup);
            out.write_all(table::packed(&loads.name, setup.load, servers, packed).as_bytes())?;
            if let Some(verdict) = table::verdict(&figures) {
                out.write_all(verdict.as_bytes())?;
            }
            last = Some((format!("{}, {load} % mean load", loads.name), figures, setup.unit_s));
        }
    }
    if let (Some(path), Some((title, figures, unit_s))) = (&flags.svg, last) {
        plot::draw(path, &title, &figures, unit_s)?;
    }
    Ok(())
}
