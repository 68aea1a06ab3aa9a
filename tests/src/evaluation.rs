//! What balancing brings: the same tests on the same servers, without it and with it.

use crate::{Cluster, Daemon, say, wait_eq, wait_for};

/// The servers, of four CPUs each.
pub const SERVERS: [&str; 4] = ["ferby", "gerby", "herby", "ierby"];
/// The domains of one vCPU, all on the first server at the beginning.
pub const DOMAINS: usize = 16;

/// What came of one evening.
pub struct Evening {
    /// The file `summary`.
    pub summary: String,
    /// The file `results`.
    pub results: String,
}

impl Evening {
    /// A value of the summary's upper part.
    #[track_caller]
    pub fn value(&self, key: &str) -> &str {
        let line = self.summary.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("there is no {key} in\n{}", self.summary))
    }

    /// The least wall time of all tests, in seconds.
    #[track_caller]
    pub fn least(&self) -> f64 {
        let line = self.summary.lines().last().expect("a line for all");
        line.split_whitespace().nth(2).and_then(|m| m.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    }
}

/// Runs `test` in each of the domains, with balancing `on` or `off`, where a server asks for help after `limit` seconds of overload.
#[track_caller]
pub fn evening(balance: &str, test: &str, limit: u32) -> Evening {
    let domains: Vec<String> =
        (1..=DOMAINS).flat_map(|n| ["--domain".to_owned(), format!("task-{n},demand=0.02")]).collect();
    let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
    let cluster = Cluster::sim(&SERVERS.map(|s| (s, if s == SERVERS[0] { &domains[..] } else { &[] })));
    cluster.heartbeat("0.5");
    let t = &cluster.tree;
    let bus = cluster.bus();
    let flags = ["--simulated", "--forwarder", &bus, "--heartbeat", "1"];
    let _guests = Daemon::start("guests", "guestd", &flags, cluster.dir());
    for n in 1..=DOMAINS {
        wait_for("its guest", || t.get(&format!("domains/task-{n}/guest/load")).ok());
    }
    t.order("ctl", &format!("balance {balance}"));
    for server in SERVERS {
        t.order(&format!("servers/{server}/watchdog"), &format!("limit {limit}"));
        wait_eq("balance is known", Some(balance.to_owned()), || {
            t.json(&format!("servers/{server}/json"))["settings"]["balance"]["mode"]
                .as_str()
                .map(str::to_owned)
        });
    }
    std::fs::create_dir(t.path("tests/evening")).expect("made");
    t.order("tests/evening/schedule", &format!("0 task-* {test}"));
    t.order("tests/evening/ctl", "start");
    // it takes as long as the tests do
    let end = std::fs::read_to_string(t.path("tests/evening/wait")).expect("it ends");
    say(&format!("balance {balance}: {}", end.trim_end()));
    Evening { summary: t.text("tests/evening/summary"), results: t.text("tests/evening/results") }
}

/// Two summaries side by side.
pub fn side_by_side(left: &str, right: &str) -> String {
    let width = left.lines().map(str::len).max().unwrap_or(0);
    let lines = left.lines().zip(right.lines());
    lines.map(|(l, r)| format!("{l:<width$}   {r}").trim_end().to_owned() + "\n").collect()
}
