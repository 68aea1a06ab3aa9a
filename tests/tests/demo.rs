//! If this fails, `make demo` does not come up, or leaves a process or a mount.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
};
use xvm_tests::{
    Calls, PATIENCE, Tree, cluster::is_mounted, program::program, program::workspace, requires, wait_for,
};

struct Demo {
    child: Child,
    /// Scratch: its run folder and the mount lie in it.
    dir: PathBuf,
    /// What it said until it was ready.
    said: String,
}

impl Demo {
    /// Starts it in a process group of its own, and waits until it says how it is ended.
    #[track_caller]
    fn start(dir: &Path) -> Demo {
        // as in a terminal: a shell can not trap what was ignored when it began, and under nohup(1) SIGHUP is
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,HUP,TERM").arg(workspace().join("examples/demo.sh"));
        command.arg(program("xvmfs").parent().expect("in a folder")).arg(dir.join("xvm"));
        command.env("XDG_RUNTIME_DIR", dir).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("bash is there");
        let out = child.stdout.take().expect("it is piped");
        let mut demo = Demo { child, dir: dir.into(), said: String::new() };
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).all(|l| sender.send(l).is_ok())
        });
        while !demo.said.contains("Ctrl-C") {
            let line =
                lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{e}: it said only {:?}", demo.said));
            demo.said += &format!("{line}\n");
        }
        demo
    }

    fn tree(&self) -> Tree {
        Tree::new(&self.dir.join("xvm"), Calls::default())
    }

    /// Sends a signal to the whole group, as a terminal does, and waits for the end.
    #[track_caller]
    fn end(&mut self, signal: Signal, group: bool) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("Linux's numbers fit");
        kill(Pid::from_raw(if group { -pid } else { pid }), signal).expect("our own child");
        wait_for("its end", || self.child.try_wait().expect("our own child"))
    }

    /// Its processes, found by the scratch folder in their arguments.
    fn processes(dir: &Path) -> Vec<(i32, String)> {
        let dir = dir.to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&dir) {
                found.push((pid, line));
            }
        }
        found
    }
}

/// Ends what a failed test left; all of it has the scratch folder in its arguments.
impl Drop for Demo {
    fn drop(&mut self) {
        for (pid, _) in Demo::processes(&self.dir) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // errors: it has ended
        drop(self.child.wait());
        let mount = self.dir.join("xvm");
        if is_mounted(&mount) {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

#[track_caller]
fn nothing_is_left(dir: &Path) {
    assert!(!is_mounted(&dir.join("xvm")), "a mount is left");
    assert_eq!(Demo::processes(dir), [], "processes are left");
    assert!(!dir.join("xvm").exists(), "the folder that it made is left");
}

#[test]
fn it_shows_a_cluster_and_leaves_nothing() {
    requires!("/dev/fuse");
    let dir = tempfile::tempdir().expect("scratch");
    for (signal, group) in
        [(Signal::SIGINT, true), (Signal::SIGTERM, false), (Signal::SIGTERM, true), (Signal::SIGHUP, true)]
    {
        let mut demo = Demo::start(dir.path());
        assert!(demo.said.contains("3 servers (3 up), 5 domains"), "{}", demo.said);
        let tree = demo.tree();
        assert_eq!(tree.names("servers"), ["ferby", "gerby", "herby"]);
        assert_eq!(tree.names("domains").len(), 5);
        assert_eq!(tree.text("servers/ferby/cpus").lines().count(), 4);
        wait_for("its guests", || tree.get("domains/small-1/guest/load").ok());
        tree.order("domains/small-1/guest/run", "fibonacci 20");
        assert!(tree.text("domains/small-1/guest/result").ends_with("\n\n6765"));
        tree.order("domains/small-1/ctl", "pause");
        assert_eq!(tree.text("domains/small-1/state"), "paused");
        let status = demo.end(signal, group);
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        assert!([130, 143].contains(&code), "{status}");
        nothing_is_left(dir.path());
    }
}

#[test]
fn it_ends_with_a_shell_in_the_mount() {
    requires!("/dev/fuse");
    let dir = tempfile::tempdir().expect("scratch");
    let mut demo = Demo::start(dir.path());
    let mut shell =
        Command::new("sleep").arg("1000").current_dir(dir.path().join("xvm/domains")).spawn().expect("sleep");
    let mut reader = Command::new("cat")
        .arg("events")
        .current_dir(dir.path().join("xvm"))
        .stdout(Stdio::null())
        .spawn()
        .expect("cat");
    demo.end(Signal::SIGINT, true);
    let (mounted, left) = (is_mounted(&dir.path().join("xvm")), Demo::processes(dir.path()));
    for child in [&mut shell, &mut reader] {
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }
    assert!(!mounted && left.is_empty(), "{left:?}");
}

#[test]
fn a_second_one_works_after_a_kill_of_all() {
    requires!("/dev/fuse");
    let dir = tempfile::tempdir().expect("scratch");
    let first = Demo::start(dir.path());
    for (pid, _) in Demo::processes(dir.path()) {
        // one may have gone with another
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    assert!(is_mounted(&dir.path().join("xvm")), "a dead mount is left, which the next one must heal");
    std::mem::forget(first);
    let mut demo = Demo::start(dir.path());
    assert_eq!(demo.tree().names("domains").len(), 5);
    // a kill of the script alone leaves its daemons
    kill(Pid::from_raw(i32::try_from(demo.child.id()).expect("fits")), Signal::SIGKILL)
        .expect("our own child");
    demo.child.wait().expect("our own child");
    std::mem::forget(demo);
    let mut demo = Demo::start(dir.path());
    assert_eq!(demo.tree().names("domains").len(), 5);
    demo.end(Signal::SIGINT, true);
    assert!(!is_mounted(&dir.path().join("xvm")), "a mount is left");
    assert_eq!(Demo::processes(dir.path()), [], "processes are left");
}

#[test]
fn two_at_one_place_are_refused() {
    requires!("/dev/fuse");
    let dir = tempfile::tempdir().expect("scratch");
    let demo = Demo::start(dir.path());
    let mut second = Command::new(workspace().join("examples/demo.sh"));
    second.arg(program("xvmfs").parent().expect("in a folder")).arg(dir.path().join("xvm"));
    second.env("XDG_RUNTIME_DIR", dir.path());
    let done = xvm_tests::shell::run(&mut second, PATIENCE);
    assert!(done.status == 1 && done.out.contains("already"), "{done:?}");
    assert_eq!(demo.tree().names("domains").len(), 5, "the first one goes on");
}
