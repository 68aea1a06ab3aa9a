//! The results of a schedule and their summary, as text for people and for awk.

use super::play::{Play, Task, TaskState};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A line a test, in the order in which their time came, under a header. The test is the last column, for it may hold spaces; after ` # `
/// is why it has no exit status.
pub fn results(play: &Play) -> String {
    let cells = |t: &Task| {
        let server = match (&t.from, &t.to) {
            (Some(from), Some(to)) if from != to => format!("{from}>{to}"),
            (Some(server), _) | (None, Some(server)) => server.to_string(),
            (None, None) => "-".into(),
        };
        let begun = t.begun.map_or("-".into(), |at| at.rfc3339());
        let status = t.status.map_or("-".into(), |s| s.to_string());
        let why = t.why.as_ref().map_or(String::new(), |why| format!(" # {}", plain(why)));
        let (at, wall, cpu, total) =
            (tenths(t.at_ms), seconds(t.wall_ms), seconds(t.cpu_ms), seconds(t.total_ms));
        let test = plain(&t.test) + &why;
        [at, begun, plain(&t.domain), server, t.state.to_string(), status, wall, cpu, total, test]
    };
    let header = ["AT", "BEGUN", "DOMAIN", "SERVER", "STATE", "EXIT", "WALL", "CPU", "TOTAL", "TEST"]
        .map(String::from);
    aligned(&[vec![header], play.tasks.iter().map(cells).collect()].concat(), &[0, 5, 6, 7, 8])
}

/// `key value` lines of the whole, an empty line, then a line for each test with its arguments, and one for all. WALL in seconds of those
/// that are done; CPU and TOTAL are medians, too.
pub fn summary(play: &Play) -> String {
    let mut out = String::new();
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(out, "{key} {value}").expect("a String takes all");
    };
    put("state", &play.state);
    put("started", &play.started.rfc3339());
    put("took", &seconds(play.took_ms));
    put("balance", &play.balance);
    put("moves", &play.moves);
    put("tests", &play.tasks.len());
    for state in TaskState::ALL.iter().filter(|s| s.is_over()) {
        put(state.word(), &play.tasks.iter().filter(|t| t.state == *state).count());
    }
    let mut tests: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in &play.tasks {
        tests.entry(&task.test).or_default().push(task);
    }
    let all: Vec<&Task> = play.tasks.iter().collect();
    let rows = tests.iter().map(|(test, tasks)| (plain(test), tasks)).chain([("all".to_owned(), &all)]);
    let cells = |(test, tasks): (String, &Vec<&Task>)| {
        let done: Vec<&Task> = tasks.iter().copied().filter(|t| t.state == TaskState::Done).collect();
        let of = |f: fn(&Task) -> u64| {
            let mut values: Vec<u64> = done.iter().copied().map(f).collect();
            values.sort_unstable();
            values
        };
        let (wall, cpu, total) = (of(|t| t.wall_ms), of(|t| t.cpu_ms), of(|t| t.total_ms));
        let text = |value: Option<u64>| value.map_or("-".into(), seconds);
        let (first, last) = (wall.first().copied(), wall.last().copied());
        let (n, done) = (tasks.len().to_string(), done.len().to_string());
        [
            n,
            done,
            text(first),
            text(median(&wall)),
            text(last),
            text(median(&cpu)),
            text(median(&total)),
            test,
        ]
    };
    let header = ["TESTS", "DONE", "MIN", "MEDIAN", "MAX", "CPU", "TOTAL", "TEST"].map(String::from);
    let rows: Vec<_> = std::iter::once(header).chain(rows.map(cells)).collect();
    format!("{out}\n{}", aligned(&rows, &[0, 1, 2, 3, 4, 5, 6]))
}

/// The middle of sorted values; the mean of both when there are two.
fn median(sorted: &[u64]) -> Option<u64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(sorted[middle - 1].midpoint(sorted[middle])),
    }
}

/// Columns of one width each but the last; numbers to the right.
fn aligned<const N: usize>(rows: &[[String; N]], numbers: &[usize]) -> String {
    let mut out = String::new();
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let w = if i + 1 == N { 0 } else { widths[i] };
            let end = if i + 1 == N { '\n' } else { ' ' };
            let written = if numbers.contains(&i) {
                write!(out, "{cell:>w$}{end}")
            } else {
                write!(out, "{cell:<w$}{end}")
            };
            written.expect("a String takes all");
        }
    }
    out
}

/// Milliseconds as seconds with three decimals.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Milliseconds as seconds with one decimal.
fn tenths(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

/// Somebody else's words within a line.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}
