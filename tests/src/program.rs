//! The programs of this workspace, as cargo builds them beside the test that runs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The path of one of the programs: `agentd`, `xvmfs`, `xvm-forwarder`. The first call of a process lets cargo build what is missing
/// or older than its source. `XVM_BIN` names a folder with programs that are taken as they are.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(folder).join(name)
}

/// The top of the sources.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}

fn folder() -> PathBuf {
    if let Some(given) = std::env::var_os("XVM_BIN") {
        return given.into();
    }
    // target/PROFILE/deps/TEST-HASH
    let test = std::env::current_exe().expect("Linux tells the path of a running program");
    let deps = test.parent().expect("a file is in a folder");
    let folder = if deps.ends_with("deps") { deps.parent().expect("deps is in a folder") } else { deps };
    let target = folder.parent().expect("a profile's folder is in the target folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--quiet",
        "--bins",
        "-p",
        "xvmfs",
        "-p",
        "xvm-agentd",
        "-p",
        "xvm-imaged",
        "-p",
        "xvm-guestd",
        "-p",
        "xvm-bus",
        "--target-dir",
    ]);
    build.arg(target).current_dir(workspace());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().expect("cargo runs, since it runs this test");
    assert!(status.success(), "cannot build the programs that the test runs: {build:?}");
    folder.to_path_buf()
}
