//! What was missing over time under each policy, as an SVG.

use crate::Figures;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// Draws the CPUs that were missing in the whole cluster, the mean of each hour, one line a policy.
pub fn draw(path: &Path, title: &str, rules: &[(String, Figures)], unit_s: f64) -> Result<()> {
    let hour = ((3600.0 / unit_s).round() as usize).max(1);
    let lines: Vec<(&str, Vec<f64>)> = rules
        .iter()
        .map(|(name, f)| {
            (name.as_str(), f.missing.chunks(hour).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect())
        })
        .collect();
    let hours = lines.iter().map(|l| l.1.len()).max().unwrap_or(1);
    let most = lines.iter().flat_map(|l| l.1.iter().copied()).fold(0.1, f64::max);
    let cannot = |e: &dyn std::fmt::Display| anyhow!("cannot write {}: {e}", path.display());
    let area = SVGBackend::new(path, (900, 420)).into_drawing_area();
    area.fill(&WHITE).map_err(|e| cannot(&e))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .build_cartesian_2d(0usize..hours, 0.0..most * 1.05)
        .map_err(|e| cannot(&e))?;
    chart.configure_mesh().x_desc("hours").y_desc("CPUs missing").draw().map_err(|e| cannot(&e))?;
    for (i, (name, line)) in lines.iter().enumerate() {
        let colour = Palette99::pick(i).mix(1.0);
        chart
            .draw_series(LineSeries::new(line.iter().copied().enumerate(), colour.stroke_width(2)))
            .map_err(|e| cannot(&e))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()
        .map_err(|e| cannot(&e))?;
    area.present().map_err(|e| cannot(&e))?;
    Ok(())
}
