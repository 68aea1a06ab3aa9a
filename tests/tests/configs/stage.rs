//! What tests of configs share.

use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;
use xvm_tests::{Cluster, Tree, shell, tree::errno, wait_for};

/// Three simulated servers without domains, and imaged with tiny systems.
#[track_caller]
pub fn cluster() -> Cluster {
    let mut cluster = Cluster::sim(&[("ferby", &[]), ("gerby", &[]), ("herby", &[])]);
    cluster.heartbeat("0.2");
    cluster.imaged(&[]);
    cluster
}

/// `mkdir configs/NAME`, and waits until it is made.
#[track_caller]
pub fn make(tree: &Tree, name: &str) {
    std::fs::create_dir(tree.path(&format!("configs/{name}"))).unwrap_or_else(|e| {
        panic!("mkdir configs/{name}: {e}: {:?}", tree.get("configs/error").or_else(|_| tree.get("error")))
    });
    assert_eq!(tree.until_end(&format!("configs/{name}/wait")), format!("done create: {name} is ready"));
    assert_eq!(tree.text(&format!("configs/{name}/state")), "ready");
}

/// Writes a line that imaged takes, though its new life may not be known yet to who sends it.
#[track_caller]
pub fn order_anew(tree: &Tree, path: &str, line: &str) {
    wait_for(&format!("{line} > {path}"), || match tree.put(path, format!("{line}\n")) {
        Ok(()) => Some(()),
        Err(e) if e.raw_os_error() == Some(nix::libc::ETIMEDOUT) => None,
        // it has not heard all servers yet
        Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => {
            let why = tree.refusal(path, &e).sentence;
            assert!(why.contains("no such server"), "{line} > {path}: {why}");
            None
        }
        Err(e) => panic!("{line} > {path}: {e}"),
    });
}

/// Starts it, waits until it runs; gives the server.
#[track_caller]
pub fn start(tree: &Tree, name: &str, on: &str) -> String {
    order_anew(tree, &format!("configs/{name}/ctl"), format!("start {on}").trim_end());
    let end = tree.until_end(&format!("configs/{name}/wait"));
    let server = end.strip_prefix(&format!("done start: {name} runs on ")).unwrap_or_else(|| panic!("{end}"));
    assert_eq!(tree.text(&format!("configs/{name}/state")), "running");
    server.to_owned()
}

/// Asks for a start on both servers at the same moment: one is taken, the other refused as busy. Gives which was taken.
#[track_caller]
pub fn two_starts(tree: &Tree, name: &str, servers: [&str; 2], round: usize) -> usize {
    let barrier = Barrier::new(2);
    let results: Vec<Result<(), String>> = std::thread::scope(|s| {
        let tries = servers.map(|server| {
            let (barrier, tree) = (&barrier, tree.clone());
            s.spawn(move || {
                barrier.wait();
                tree.put(&format!("configs/{name}/ctl"), format!("start {server}\n")).map_err(|e| errno(&e))
            })
        });
        tries.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    let won: Vec<usize> = (0..2).filter(|i| results[*i].is_ok()).collect();
    assert_eq!(won.len(), 1, "round {round}: {results:?}");
    assert_eq!(results[1 - won[0]], Err("EBUSY".into()));
    won[0]
}

/// Powers it off, waits until its lease is back.
#[track_caller]
pub fn stop(tree: &Tree, name: &str) {
    tree.order(&format!("domains/{name}/ctl"), "destroy");
    tree.settles(&format!("configs/{name}/state"), "ready");
}

/// The names that are exported at the address of a config's lease, by somebody else's program; none where nobody listens.
pub fn exported(uri: &str) -> Vec<String> {
    let mut command = Command::new("nbdinfo");
    command.args(["--list", "--json", uri]);
    let done = shell::run(&mut command, Duration::from_secs(20));
    if done.status != 0 {
        return Vec::new();
    }
    let all: serde_json::Value = serde_json::from_str(&done.out).expect("nbdinfo writes JSON");
    let names = all["exports"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> =
        names.iter().filter_map(|e| Some(e["export-name"].as_str()?.to_owned())).collect();
    names.sort();
    names
}

/// `nbd://HOST:PORT/` of a config's leases, and the stems of the leases' names.
pub fn leases(tree: &Tree, name: &str) -> (Option<String>, Vec<String>) {
    let all = tree.json(&format!("configs/{name}/json"));
    let leases = all["leases"].as_array().cloned().unwrap_or_default();
    let grant = |l: &serde_json::Value| l["grant"].clone();
    let uri = leases.first().map(|l| {
        let grant = grant(l);
        format!("nbd://{}:{}/", grant["host"].as_str().expect("a host"), grant["port"])
    });
    let mut exports: Vec<String> = leases
        .iter()
        .flat_map(|l| grant(l)["disks"].as_array().cloned().unwrap_or_default())
        .map(|d| d["export"].as_str().expect("a name").to_owned())
        .collect();
    exports.sort();
    (uri, exports)
}

/// Waits until exactly what the leases allow is exported.
#[track_caller]
pub fn exports_agree(tree: &Tree, name: &str) -> Vec<String> {
    wait_for(&format!("exports of {name} as its leases say"), || {
        let (uri, exports) = leases(tree, name);
        (exported(&uri?) == exports).then_some(exports)
    })
}
