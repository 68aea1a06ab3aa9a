//! The life of a config, by `mkdir`, `cat`, `echo`, `rmdir`.

use crate::stage::{cluster, exported, exports_agree, leases, make, start, stop};
use xvm_tests::{requires, wait_eq, wait_for};

#[test]
fn a_machine_is_made_started_moved_cloned_grown_removed_and_brought_back() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let cluster = cluster();
    let t = &cluster.tree;
    let events = t.events("events");
    make(t, "small-6");
    events.expect("config small-6 job create");
    assert_eq!(t.value("configs/small-6/progress", "percent").as_deref(), Some("100"));
    assert!(!t.text("configs/small-6/log").is_empty(), "its log tells what was done");
    assert_eq!(t.text("configs/small-6/memory"), "96");

    // the lease is the export, and no more
    let server = start(t, "small-6", "gerby");
    assert_eq!(server, "gerby");
    let (uri, _) = leases(t, "small-6");
    assert_eq!(exports_agree(t, "small-6"), ["small-6.gerby.1", "small-6.gerby.1.swap"]);
    t.settles("domains/small-6/state", "running");
    assert_eq!(t.text("domains/small-6/server"), "gerby");
    let refused = t.refused("configs/small-6/ctl", "start ferby\n");
    assert_eq!((&*refused.errno, &*refused.sentence), ("EBUSY", "cannot start small-6: gerby runs it"));
    let refused = t.refused("configs/small-6/memory", "128\n");
    assert_eq!(refused.errno, "EBUSY");
    assert!(refused.sentence.contains("gerby runs it; shut it down first"), "{}", refused.sentence);

    // it moves with its lease
    t.order("domains/small-6/ctl", "migrate herby");
    let end = t.until_end("domains/small-6/wait");
    assert!(end.starts_with("done migrate: small-6 runs on herby"), "{end}");
    wait_eq("the lease of herby", vec!["small-6.herby.2".to_owned(), "small-6.herby.2.swap".into()], || {
        leases(t, "small-6").1
    });
    exports_agree(t, "small-6");
    assert_eq!(cluster.once("small-6", "running"), "herby");

    // shutdown gives it back
    t.order("domains/small-6/ctl", "shutdown");
    t.settles("configs/small-6/state", "ready");
    wait_for("no export without a lease", || exported(&uri.clone()?).is_empty().then_some(()));
    wait_for("nobody exports", || {
        cluster.exporters().iter().all(|pid| !cmdline(*pid).contains("/small-6.")).then_some(())
    });
    wait_for("no domain", || (!t.names("domains").contains(&"small-6".to_owned())).then_some(()));

    // a clone in an instant, with an identity of its own
    t.order("configs/small-6/ctl", "clone small-8");
    assert_eq!(t.until_end("configs/small-8/wait"), "done clone: small-8 is ready");
    let of = |name: &str, key: &str| t.json(&format!("configs/{name}/json"))["config"][key].clone();
    for key in ["uuid", "mac"] {
        assert_ne!(of("small-6", key), of("small-8", key), "{key}");
    }
    start(t, "small-8", "");
    start(t, "small-6", "");
    stop(t, "small-6");
    stop(t, "small-8");

    // larger, never smaller
    t.order("configs/small-6/ctl", "resize disk 96");
    assert_eq!(t.text("configs/small-6/disk"), "96");
    let refused = t.refused("configs/small-6/ctl", "resize disk 64\n");
    assert!(refused.sentence.contains("a disk only gets larger, and it has 96 MiB"), "{}", refused.sentence);
    let image = cluster.images_dir().join("store/volumes/small-6/disk");
    assert_eq!(std::fs::metadata(&image).expect("its disk").len(), 96 << 20);

    // away and back
    start(t, "small-6", "");
    let busy = std::fs::remove_dir(t.path("configs/small-6")).expect_err("it runs");
    assert_eq!(busy.raw_os_error(), Some(nix::libc::EBUSY));
    stop(t, "small-6");
    std::fs::remove_dir(t.path("configs/small-6")).expect("it is off");
    assert_eq!(t.names("configs"), ["small-8"]);
    t.order("ctl", "restore small-6");
    assert_eq!(t.text("configs/small-6/state"), "ready");
    assert_eq!(t.text("configs/small-6/disk"), "96");
    start(t, "small-6", "");
}

fn cmdline(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

#[test]
fn values_are_set_by_create_by_files_and_by_editors() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let cluster = cluster();
    let t = &cluster.tree;
    t.order(
        "ctl",
        "create small-7 memory=128 swap=0 disk=80 address=10.1.2.3/24,via,10.1.2.1 vlan=12 packages=none",
    );
    assert_eq!(t.until_end("configs/small-7/wait"), "done create: small-7 is ready");
    for (file, value) in [
        ("memory", "128"),
        ("swap", "0"),
        ("address", "10.1.2.3/24 via 10.1.2.1"),
        ("vlan", "12"),
        ("os", "tiny"),
    ] {
        assert_eq!(t.text(&format!("configs/small-7/{file}")), value);
    }
    assert!(t.text("hosts").lines().any(|l| l == "10.1.2.3 small-7"), "{}", t.text("hosts"));
    assert!(t.text("configs/small-7/libvirt.xml").contains("<name>small-7</name>"));
    assert!(t.text("configs/small-7/xl.cfg").contains("name"));
    // what can be read can be written
    for row in [
        "memory", "vcpus", "swap", "address", "vlan", "mac", "keys", "packages", "priority", "pin",
        "restart", "type", "os",
    ] {
        let path = format!("configs/small-7/{row}");
        let text = t.get(&path).expect("readable");
        t.put(&path, &text).unwrap_or_else(|e| panic!("{row}: {e}: {}", t.text("configs/small-7/error")));
    }
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0x1x2x3x4x5x6x7x8x9x0 me@desk";
    t.order("configs/small-7/keys", key);
    assert_eq!(t.text("configs/small-7/keys"), key);
    for (line, errno) in [
        ("create small-7", "EEXIST"),
        ("create ../x", "EINVAL"),
        ("create small-9 os=plan9", "EINVAL"),
        ("create small-9 memory=0", "EINVAL"),
        ("create small-9 disk=99999999", "EINVAL"),
        ("restore nobody", "ENOENT"),
    ] {
        assert_eq!(t.refused("ctl", format!("{line}\n")).errno, errno, "{line}");
    }
    assert_eq!(t.names("configs"), ["small-7"], "nothing half-made");

    // an editor
    let file = cluster.images_dir().join("configs/small-7.toml");
    let text = std::fs::read_to_string(&file).expect("its file");
    let events = t.events("configs/small-7/events");
    std::fs::write(&file, text.replace("memory = 128", "memory = 160")).expect("written");
    t.settles("configs/small-7/memory", "160");
    std::fs::write(&file, text.replace("memory = 128", "memory = 1")).expect("written");
    events.expect("wrong");
    wait_for("what is wrong, in the tree", || {
        let status = t.value("configs/small-7/status", "wrong")?;
        (status.starts_with("line ") && status.contains("memory: \"1\" is not a whole number")).then_some(())
    });
    assert_eq!((&*t.text("configs/small-7/memory"), &*t.text("configs/small-7/state")), ("160", "ready"));
    let error = t.text("configs/small-7/error");
    assert!(error.contains(" EINVAL the file of small-7 is not used as it is: line "), "{error}");
    std::fs::write(&file, &text).expect("written");
    t.settles("configs/small-7/memory", "128");
    wait_for("nothing is wrong", || {
        t.value("configs/small-7/status", "wrong").is_none_or(|w| w == "none").then_some(())
    });

    // a file that is dropped there
    std::fs::write(file.with_file_name("small-9.toml"), "memory = 100\n").expect("written");
    t.settles("configs/small-9/state", "ready");
    assert_eq!(t.text("configs/small-9/memory"), "100");
    let written = std::fs::read_to_string(file.with_file_name("small-9.toml")).expect("its file");
    assert!(written.contains("uuid = "), "its identity is kept: {written}");
}

#[test]
fn twenty_are_made_by_one_line_and_nobody_can_take_them_away_by_accident() {
    requires!("root", "/dev/fuse", "qemu-storage-daemon", "nbdinfo", "mke2fs", "busybox");
    let cluster = cluster();
    let t = &cluster.tree;
    let root = cluster.root();
    let sh = |line: &str| {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", line]).current_dir(&root);
        xvm_tests::shell::run(&mut command, std::time::Duration::from_secs(60))
    };
    sh("mkdir configs/lab-{1..20}").ok();
    assert_eq!(t.names("configs").len(), 20);
    for n in 1..=20 {
        assert_eq!(t.until_end(&format!("configs/lab-{n}/wait")), format!("done create: lab-{n} is ready"));
    }
    assert_ne!(sh("rm -rf configs/lab-1 .").status, 0);
    assert_ne!(sh("find . -delete").status, 0);
    assert_eq!(t.names("configs").len(), 20, "rm removes nothing");
    sh("rmdir configs/lab-{2..20}").ok();
    assert_eq!(t.names("configs"), ["lab-1"]);
}
