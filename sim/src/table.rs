//! The figures as text.

use crate::Figures;
use std::fmt::Write as _;

/// The line above a table.
pub fn head() -> String {
    format!(
        "{:<10} {:>4} {:>7} {:<15} {:>9} {:>9} {:>7} {:>7} {:>6} {:>9} {:>7} {:>9} {:>7}\n",
        "day",
        "load",
        "servers",
        "policy",
        "overload%",
        "lost h",
        "moving h",
        "moves",
        "undone",
        "msgs/move",
        "in vain",
        "msgs/vain",
        "relief"
    )
}

/// One replay.
pub fn line(day: &str, load: f64, servers: usize, rule: &str, f: &Figures, unit_s: f64) -> String {
    format!(
        "{day:<10} {:>4.0} {servers:>7} {rule:<15} {:>9.2} {:>9.2} {:>7.2} {:>7} {:>6} {:>9.1} {:>7} {:>9.1} {:>6.0}m\n",
        load * 100.0,
        f.overload * 100.0,
        f.lost(),
        f.moving,
        f.moves,
        f.undone,
        f.messages_a_move(),
        f.vain(),
        f.messages_in_vain(),
        f.relief() * unit_s / 60.0
    )
}

/// What free repacking would lose.
pub fn packed(day: &str, load: f64, servers: usize, lost: f64) -> String {
    format!("{day:<10} {:>4.0} {servers:>7} {:<15} {:>9} {lost:>9.2}\n", load * 100.0, "(repacking)", "")
}

/// How `adaptive` stands against the best other rule of one day and load.
pub fn verdict(rules: &[(String, Figures)]) -> Option<String> {
    let own = &rules.iter().find(|r| r.0 == "adaptive")?.1;
    let (name, best) = rules
        .iter()
        .filter(|r| r.0 != "adaptive" && r.0 != "none")
        .min_by(|a, b| a.1.lost().total_cmp(&b.1.lost()))
        .map(|r| (&r.0, &r.1))?;
    let mut out = String::new();
    writeln!(
        out,
        "{:>23} adaptive loses {:.2} of what {name} loses, with {} of its {} moves, {} undone",
        "",
        own.lost() / best.lost().max(1e-9),
        own.moves,
        best.moves,
        own.undone
    )
    .expect("a String takes all");
    Some(out)
}
