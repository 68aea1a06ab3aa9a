//! The table, printed line by line as its figures are known. No line is longer than 100 columns.

use std::fmt::Display;

/// The widths of the columns.
const WIDTHS: [usize; 5] = [42, 12, 12, 8, 14];

/// The table; its head is printed when it is made.
pub struct Table(());

/// One line. Empty texts where a column does not apply.
pub struct Line<'a> {
    /// What was measured.
    pub what: &'a str,
    /// Our figure.
    pub ours: String,
    /// The figure of what it is compared with.
    pub beside: String,
    /// Ours by theirs, or the other way round where more is better.
    pub ratio: String,
    /// What the ratio or our figure should be.
    pub goal: &'a str,
}

impl Table {
    /// Prints the machine and the head.
    pub fn new() -> Self {
        println!("{}", machine());
        line(&["what", "ours", "beside", "ratio", "goal"]);
        println!("{}", WIDTHS.map(|w| "-".repeat(w)).join(" | "));
        Table(())
    }

    /// Prints one line.
    pub fn row(&mut self, l: Line) {
        line(&[l.what, &l.ours, &l.beside, &l.ratio, l.goal]);
    }
}

fn line(cells: &[&str; 5]) {
    let mut out = String::new();
    for (i, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let bar = if i == 0 { "" } else { " | " };
        out +=
            &if i == 0 || i == 4 { format!("{bar}{cell:<width$}") } else { format!("{bar}{cell:>width$}") };
    }
    println!("{}", out.trim_end());
}

/// One line about the machine: CPUs, kernel, and how busy it was before.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown CPU");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cpus = info.lines().filter(|l| l.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let busy = read("/proc/loadavg");
    let busy = busy.split(' ').next().unwrap_or("?");
    let text = format!("{cpus} x {model}, Linux {}, load before the run {busy}", kernel.trim());
    text.chars().take(100).collect()
}

/// Microseconds as text.
pub fn micros(seconds: f64) -> String {
    format!("{:.1} us", seconds * 1e6)
}

/// Milliseconds as text.
pub fn millis(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

/// A ratio as text.
pub fn times(ratio: f64) -> String {
    match ratio {
        r if r >= 100.0 => format!("{r:.0}"),
        r if r >= 10.0 => format!("{r:.1}"),
        r => format!("{r:.2}"),
    }
}

/// A share of one core as text.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// No figure.
pub fn none() -> String {
    String::new()
}

/// A number with its unit.
pub fn unit(n: impl Display, unit: &str) -> String {
    format!("{n} {unit}")
}
