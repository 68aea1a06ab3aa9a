//! If this fails, a tool that we did not write gets wrong answers from the tree, or cannot be used on it.

use std::{path::Path, process::Command, time::Duration};
use xvm_tests::{
    Cluster,
    program::program,
    requires,
    shell::{Done, bash, run},
    wait_for,
};

/// Runs bash with the mount as `$1` and a new folder as `$2`; it must succeed.
#[track_caller]
fn on(cluster: &Cluster, line: &str) -> String {
    let out = tempfile::tempdir_in(cluster.dir()).expect("a folder in the scratch folder");
    bash(
        &format!("set -o pipefail; cd \"$1\"; {line}"),
        &[&cluster.root().to_string_lossy(), &out.path().to_string_lossy()],
    )
    .ok()
}

/// A cluster that stands still, so that two readings of a file are the same: paused domains with nothing to do.
fn still() -> Cluster {
    let c = Cluster::sim(&[
        ("ferby", &["--domain", "small-1,demand=0,state=paused", "--domain", "small-2,state=shutoff"]),
        ("gerby", &["--domain", "small-3,demand=0,state=paused"]),
    ]);
    c.heartbeat("60");
    c
}

#[test]
fn coreutils_and_grep() {
    requires!("/dev/fuse");
    let c = Cluster::three();
    on(
        &c,
        "ls -la > /dev/null && ls -lR servers domains > /dev/null && stat README servers domains/small-1 && df . && du -s .",
    );
    assert_eq!(on(&c, "ls domains").split_whitespace().count(), 5);
    assert_eq!(on(&c, "readlink servers/ferby/domains/small-1"), "../../../domains/small-1\n");
    assert_eq!(on(&c, "cat servers/ferby/domains/small-1/server"), "ferby\n");
    on(&c, "echo pause > domains/small-3/ctl");
    assert_eq!(on(&c, "grep -l paused domains/*/state"), "domains/small-3/state\n");
    assert_eq!(on(&c, "echo 70 > domains/small-1/priority; cat domains/small-1/priority"), "70\n");
    assert_eq!(on(&c, "printf 'gerby ferby\\n' | tee domains/small-1/pin"), "gerby ferby\n");
    assert_eq!(
        on(&c, "cat domains/small-1/pin > domains/small-2/pin; cat domains/small-2/pin"),
        "gerby ferby\n"
    );
    assert_eq!(
        on(&c, "dd if=domains/small-1/pin of=domains/small-4/pin status=none; cat domains/small-4/pin"),
        "gerby ferby\n"
    );
    assert_eq!(on(&c, "wc -c < README"), on(&c, "cat README | wc -c"));
    assert_eq!(on(&c, "stat -c %s README"), on(&c, "cat README | wc -c"));
    assert_eq!(on(&c, "head -c 7 README; tail -c +8 README"), on(&c, "cat README"));
    assert_eq!(on(&c, "timeout 3 tail -n 1 servers/ferby/load | wc -l").trim(), "1");
    // a held read ends with its reader
    let done = bash("cd \"$1\"; timeout 0.5 cat events", &[&c.root().to_string_lossy()]);
    assert_eq!(done.status, 124, "{done:?}");
    // and goes on for one who follows
    let out = on(
        &c,
        "(timeout 10 head -n 2 events > \"$2/e\") & p=$!; until [ -s \"$2/e\" ] || ! kill -0 $p; do \
                      echo pause > domains/small-4/ctl; echo unpause > domains/small-4/ctl; done; wait $p; cat \"$2/e\"",
    );
    assert_eq!(out.lines().count(), 2, "{out}");
    let load = wait_for("a load that changes", || {
        let (a, b) = (on(&c, "cat servers/*/cpus"), on(&c, "sleep 0.3; cat servers/*/cpus"));
        (a != b).then_some(b)
    });
    assert!(!load.is_empty());
}

#[test]
fn true_copies() {
    requires!("/dev/fuse", "rsync", "tar", "find", "python3");
    let c = still();
    // what tells of time (ages, histories, counters) differs between two readings
    let same = "-x age -x status -x json -x metrics -x history -x events -x wait";
    on(&c, &format!("cp -r . \"$2/cp\" && diff -r {same} . \"$2/cp\""));
    on(
        &c,
        &format!("mkdir \"$2/tar\" && tar cf - . | tar xf - -C \"$2/tar\" && diff -r {same} . \"$2/tar\""),
    );
    on(&c, &format!("rsync -a ./ \"$2/rsync/\" && diff -r {same} . \"$2/rsync\""));
    on(
        &c,
        &format!(
            "/usr/bin/python3 -c 'import shutil, sys; shutil.copytree(\".\", sys.argv[1], symlinks=True)' \"$2/py\" && diff -r {same} . \"$2/py\""
        ),
    );
    // no file of a copy is empty that was not
    for how in ["cp -r . \"$2/c\"", "rsync -a ./ \"$2/c/\""] {
        let empty = on(&c, &format!("{how}; cd \"$2/c\"; find . -type f -empty | sort"));
        for file in empty.lines() {
            let name = Path::new(file).file_name().and_then(|n| n.to_str()).unwrap_or_default();
            assert!(
                ["error", "events", "hosts", "wait", "history", "disk", "net"].contains(&name),
                "{file} is empty in a copy"
            );
        }
    }
    let found = on(&c, "find . -name state | sort");
    assert_eq!(found.lines().count(), 5, "{found}");
    assert_eq!(on(&c, "find domains -name state -exec grep -l shutoff {} +"), "domains/small-2/state\n");
    on(
        &c,
        "find . -newer README > /dev/null; find . -size +0 -type f | xargs -d '\\n' -n 50 head -c 1 > /dev/null",
    );
}

#[test]
fn jq_and_promtool() {
    requires!("/dev/fuse", "jq", "promtool");
    let c = Cluster::three();
    assert_eq!(on(&c, "jq -r .state domains/small-1/json"), "running\n");
    assert_eq!(on(&c, "jq -r .name domains/*/json | wc -l").trim(), "5");
    assert_eq!(on(&c, "jq -r '.name' servers/ferby/json"), "ferby\n");
    let done = bash("promtool check metrics < \"$1/metrics\"", &[&c.root().to_string_lossy()]);
    assert!(done.status == 0 && done.err.is_empty(), "{done:?}");
    assert!(on(&c, "cat metrics").contains("xvm_"));
}

/// The messages are as xvm-messages(5) says, for programs in other languages.
#[test]
fn a_pyzmq_subscriber() {
    requires!("/dev/fuse", "/usr/bin/python3");
    if bash("/usr/bin/python3 -c 'import zmq'", &[]).status != 0 {
        requires!("python3-zmq");
    }
    let c = Cluster::three();
    let program = r#"
import json, sys, zmq
s = zmq.Context().socket(zmq.SUB)
s.connect(sys.argv[1] + ".out")
s.setsockopt(zmq.SUBSCRIBE, b"heartbeat.")
s.setsockopt(zmq.RCVTIMEO, 20000)
seen = {}
while len(seen) < 3:
    topic, body = s.recv_multipart()
    m = json.loads(body)
    name = topic.decode().split(".", 1)[1]
    assert m["v"] == 1 and m["from"] == "agent/" + name and m["body"]["type"] == "heartbeat", m
    assert isinstance(m["boot"], int) and isinstance(m["seq"], int) and m["at"] > 1.6e12, m
    seen[name] = m["body"]
for name, b in sorted(seen.items()):
    print(name, len(b["cpus"]), b["memory"]["total"], " ".join(sorted(d["name"] + "=" + d["state"] for d in b["domains"])))
"#;
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", program, &c.bus()]);
    let out = run(&mut python, Duration::from_secs(30)).ok();
    let gib = 16_u64 << 20;
    assert_eq!(
        out,
        format!(
            "ferby 4 {gib} small-1=running small-4=running\ngerby 4 {gib} small-2=running small-5=shutoff\nherby 4 {gib} small-3=running\n"
        )
    );
}

/// Runs bash in a mount namespace of its own, where our programs are in /usr/local/sbin, as after `make install`, and everyone may
/// use /dev/fuse, as on a Debian machine. `$1` is the bus, `$2` a folder to mount at.
#[track_caller]
fn installed(dir: &Path, bus: &str, line: &str) -> Done {
    let bin = dir.join("bin");
    let at = dir.join("other");
    for folder in [&bin, &at] {
        std::fs::create_dir(folder).expect("scratch");
    }
    // the workspace may lie where others cannot go
    std::fs::copy(program("xvmfs"), bin.join("xvmfs")).expect("room for a copy");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euc"]);
    command.arg(format!(
        "chmod 755 \"$3\" \"$3/..\" \"$3/xvmfs\"; mount --bind \"$3\" /usr/local/sbin; \
         mknod \"$3/fuse\" c 10 229; chmod 666 \"$3/fuse\"; mount --bind \"$3/fuse\" /dev/fuse; \
         fail() {{ echo \"$*\" >&2; exit 1; }}; mounted() {{ grep -q \" $1 fuse.xvmfs \" /proc/self/mounts; }}; \
         filled() {{ for t in $(seq 500); do [ \"$(ls \"$1/domains\" | wc -l)\" != \"$2\" ] || return 0; sleep 0.02; done; fail empty; }}; \
         user() {{ setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"; }}\n{line}"
    ));
    command.arg("bash").arg(bus).arg(&at).arg(&bin);
    run(&mut command, Duration::from_secs(60))
}

/// A second mount of the cluster by mount(8), as fstab has it; it goes to the background, and umount(8) ends it.
#[test]
fn mount_and_umount() {
    requires!("/dev/fuse", "root", "mount.fuse3", "unshare");
    let c = Cluster::three();
    let script = r#"
mount -t fuse.xvmfs -o ro,allow_other "$1" "$2"
mounted "$2" || fail "it is not mounted"
filled "$2" 5
answer=$(echo pause 2>&1 > "$2/domains/small-1/ctl") && fail "a read-only mount takes orders"
[ "$(cat "$2/domains/small-1/state")" = running ] || fail "an order came through"
( : > "$2/domains/small-1/ctl" ) 2>&1 | grep -q 'Read-only file system' || fail "not EROFS"
[ "$(user cat "$2/domains/small-1/state")" = running ] || fail "others do not see it"
umount "$2"
mounted "$2" && fail "it is mounted still"

mount -t fuse.xvmfs -o rw,_netdev,nofail,noatime "$1" "$2"
filled "$2" 5
echo pause > "$2/domains/small-1/ctl"
[ "$(cat "$2/domains/small-1/state")" = paused ] || fail "not paused"
user ls "$2" 2>/dev/null && fail "others see it without allow_other"
umount "$2"

mount -t fuse.xvmfs -o nonsense "$1" "$2" 2>"$3/err" && fail "nonsense was accepted"
grep -q nonsense "$3/err" || fail "it does not say what is wrong: $(cat "$3/err")"
mounted "$2" && fail "it is mounted after all"

echo "$1 $2 fuse.xvmfs ro,allow_other,_netdev,nofail,x-systemd.automount 0 0" > "$3/fstab"
mount --fstab "$3/fstab" "$2"
filled "$2" 5
grep " $2 fuse.xvmfs ro," /proc/self/mounts
umount "$2"
for t in $(seq 250); do pgrep -ax xvmfs | grep " $2" > "$3/left" || break; sleep 0.02; done
[ ! -s "$3/left" ] || fail "a process is left: $(cat "$3/left")"
"#;
    let out = installed(c.dir(), &c.bus(), script).ok();
    assert!(out.contains(&c.bus()), "{out}");
    assert_eq!(c.tree.text("domains/small-1/state"), "paused", "two mounts are one cluster");
}

/// Someone who is not root mounts by fusermount3, sees the cluster and gives orders.
#[test]
fn a_user_mounts() {
    requires!("/dev/fuse", "root", "fusermount3", "setpriv", "unshare");
    let c = Cluster::three();
    bash("chmod 777 \"$1\"/bus.*", &[&c.dir().to_string_lossy()]).ok();
    let script = r#"
chown 65534:65534 "$2"
at=$2; ours() { pgrep -u 65534 -ax xvmfs | grep " $at" | cut -d' ' -f1 | tail -n 1; }
three() { for t in $(seq 500); do [ "$(user ls "$1/servers" | wc -l)" != 3 ] || return 0; sleep 0.02; done; fail "no servers"; }
HOME=/ user xvmfs "$1" "$2"
mounted "$2" || fail "it is not mounted"
three "$2"
user bash -c 'echo pause > "$0/domains/small-1/ctl"' "$2"
[ "$(user cat "$2/domains/small-1/state")" = paused ] || fail "not paused"
[ "$(user stat -c %u "$2/domains/small-1/ctl")" = 65534 ] || fail "the files are not theirs"
user fusermount3 -u "$2"
mounted "$2" && fail "it is mounted still"
user xvmfs "$1" "$2"
pid=$(ours)
kill -9 "$pid"
while [ -d "/proc/$pid" ] && ! grep -q 'State:.Z' "/proc/$pid/status"; do sleep 0.02; done
user xvmfs "$1" "$2" || fail "the mount of a killed xvmfs stays in the way"
three "$2"
kill "$(ours)"
for t in $(seq 250); do mounted "$2" || break; sleep 0.02; done
mounted "$2" && fail "SIGTERM left the mount"
true
"#;
    installed(c.dir(), &c.bus(), script).ok();
    assert_eq!(c.tree.text("domains/small-1/state"), "paused");
}
