//! What is served: exactly what is wanted, as other programs see it.

use crate::rig::{Rig, listed, output, port, wanted};
use std::{net::TcpListener, os::unix::fs::PermissionsExt, path::Path};
use xvm_imaged::export::{ExportError, Volume, Wanted};

#[tokio::test]
async fn exactly_what_is_wanted_is_served_and_nothing_runs_without() {
    let rig = Rig::new();
    let (exports, port) = (rig.exports(), port());
    let (disk, swap) = (rig.file("disk", 8 << 20), rig.file("swap", 1 << 20));
    let mut want = wanted(port, &disk, &["small-6.ferby.1"]);
    want.volumes.push(Volume { node: "swap".into(), path: swap, writable: true });
    want.exports.push(("small-6.ferby.1.swap".into(), "swap".into()));
    exports.set("small-6", &want).await.expect("served");
    let first = ["small-6.ferby.1", "small-6.ferby.1.swap"];
    assert_eq!(listed(port), first);
    assert_eq!(exports.exported("small-6").await.expect("known"), first);
    assert_eq!(exports.running().await, ["small-6"]);

    let size = output("nbdinfo", &["--size", &format!("nbd://127.0.0.1:{port}/small-6.ferby.1.swap")]);
    assert_eq!(size.trim(), "1048576");
    let json = output("nbdinfo", &["--json", &format!("nbd://127.0.0.1:{port}/small-6.ferby.1")]);
    for can in ["\"can_flush\": true", "\"can_fua\": true", "\"can_trim\": true", "\"can_multi_conn\": true"]
    {
        assert!(json.contains(can), "{can} in {json}");
    }
    let uri = format!("nbd://127.0.0.1:{port}/small-6.ferby.1");
    output("qemu-io", &["-f", "raw", "-c", "write -P 0x5a 65536 4096", "-c", "flush", &uri]);
    assert_eq!(&std::fs::read(&disk).expect("the volume")[65536..69632], &[0x5a; 4096]);

    // the same again changes nothing, other names change all
    let pid = rig.pid("small-6");
    exports.set("small-6", &want).await.expect("served");
    exports.set("small-6", &wanted(port, &disk, &["small-6.gerby.2"])).await.expect("served");
    assert_eq!(listed(port), ["small-6.gerby.2"]);
    assert_eq!(rig.pid("small-6"), pid, "the same daemon");

    exports.set("small-6", &Wanted { exports: Vec::new(), ..want }).await.expect("ended");
    assert!(exports.running().await.is_empty());
    assert_eq!(exports.exported("small-6").await.expect("known"), [""; 0]);
    assert!(!std::process::Command::new("nbdinfo").arg(uri).output().expect("nbdinfo").status.success());
    assert_eq!(std::fs::read_dir(rig.run("")).expect("run").count(), 0, "no file is left");
    exports.end("small-6").await.expect("nothing to do");
}

#[tokio::test]
async fn the_run_directory_is_closed_to_others() {
    let rig = Rig::new();
    let exports = rig.exports();
    exports.set("small-6", &wanted(port(), &rig.file("disk", 1 << 20), &["a"])).await.expect("served");
    let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&rig.run("")), 0o700);
    for file in ["small-6.qmp", "small-6.pid", "small-6.lock", "small-6.log"] {
        assert_eq!(mode(&rig.run(file)) & 0o077, 0, "{file}");
    }
}

#[tokio::test]
async fn boot_files_of_any_size_are_read_and_not_written() {
    let rig = Rig::new();
    let (exports, port) = (rig.exports(), port());
    let (kernel, name) = (rig.dir.path().join("vmlinuz"), format!("boot.{}", "ab".repeat(32)));
    let content: Vec<u8> = (0..1_000_001u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&kernel, &content).expect("a kernel");
    let mut want = wanted(port, &kernel, &[]);
    want.volumes[0] = Volume { node: name.clone(), path: kernel.clone(), writable: false };
    want.exports.push((name.clone(), name.clone()));
    exports.set("boot", &want).await.expect("served");

    let uri = format!("nbd://127.0.0.1:{port}/{name}");
    let copy = rig.dir.path().join("copy");
    output("nbdcopy", &[&uri, copy.to_str().expect("a path")]);
    let copy = std::fs::read(copy).expect("copied");
    assert_eq!(copy.len(), content.len().next_multiple_of(512));
    assert!(copy[..content.len()] == content[..], "the content");
    assert!(output("nbdinfo", &["--json", &uri]).contains("\"is_read_only\": true"));
    let write = ["-f", "raw", "-c", "write 0 512", uri.as_str()];
    let status = std::process::Command::new("qemu-io").args(write).output().expect("qemu-io").status;
    assert!(!status.success());
    assert!(std::fs::read(&kernel).expect("the kernel") == content, "it was not touched");
}

#[tokio::test]
async fn a_volume_that_has_grown_is_served_with_its_new_size() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    let size = |name: &str| output("nbdinfo", &["--size", &format!("nbd://127.0.0.1:{port}/{name}")]);
    let mut want = wanted(port, &disk, &["a.ferby.1"]);
    let other = rig.file("other", 1 << 20);
    want.volumes.push(Volume { node: "other".into(), path: other, writable: true });
    want.exports.push(("other".into(), "other".into()));
    exports.set("a", &want).await.expect("served");
    // nobody has it for a while; the daemon goes on for the other's sake
    let without = Wanted { exports: vec![("other".into(), "other".into())], ..want.clone() };
    exports.set("a", &without).await.expect("served");
    std::fs::File::options().write(true).open(&disk).and_then(|f| f.set_len(3 << 20)).expect("grown");
    want.exports[0].0 = "a.ferby.2".into();
    exports.set("a", &want).await.expect("served");
    assert_eq!(size("a.ferby.2").trim(), (3 << 20).to_string());
    assert_eq!(size("other").trim(), (1 << 20).to_string());
}

#[tokio::test]
async fn a_volume_made_anew_in_the_same_place_is_another() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
    let new = rig.file("new", 2 << 20);
    std::fs::rename(new, &disk).expect("renamed");
    exports.set("a", &wanted(port, &disk, &["a.ferby.1"])).await.expect("served");
    let size = output("nbdinfo", &["--size", &format!("nbd://127.0.0.1:{port}/a.ferby.1")]);
    assert_eq!(size.trim(), (2 << 20).to_string());
}

#[tokio::test]
async fn an_error_names_what_is_not_served_and_the_rest_is() {
    let rig = Rig::new();
    let (exports, port, disk) = (rig.exports(), port(), rig.file("disk", 1 << 20));
    let mut want = wanted(port, &disk, &["old"]);
    exports.set("a", &want).await.expect("served");
    want.exports = vec![("new.swap".into(), "swap".into()), ("new".into(), "disk".into())];
    want.volumes.push(Volume { node: "swap".into(), path: rig.dir.path().join("gone"), writable: true });
    let e = exports.set("a", &want).await.expect_err("there is no such file").to_string();
    let path = rig.dir.path().join("gone");
    assert_eq!(
        e,
        format!("cannot export the volume swap ({}): No such file or directory (os error 2)", path.display())
    );
    assert_eq!(listed(port), ["new"], "the old one has gone, the other is there");
    want.volumes[1].path = rig.file("gone", 1 << 20);
    exports.set("a", &want).await.expect("it is there now");
    assert_eq!(listed(port), ["new", "new.swap"]);

    for bad in ["", "a/b", "../a"] {
        assert!(matches!(exports.set(bad, &want).await, Err(ExportError::Key { .. })), "{bad}");
    }
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_named() {
    let rig = Rig::new();
    let (exports, disk) = (rig.exports(), rig.file("disk", 1 << 20));
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = stranger.local_addr().expect("its address");
    let want = wanted(address.port(), &disk, &["a.ferby.1"]);
    let e = exports.set("a", &want).await.expect_err("it is taken");
    assert!(matches!(e, ExportError::PortTaken { .. }), "{e}");
    assert_eq!(
        e.to_string(),
        format!(
            "cannot serve a on {address}: the port is taken by another program; end that, or give a another port"
        )
    );
    assert!(exports.running().await.is_empty());
    drop(stranger);
    exports.set("a", &want).await.expect("it is free");
    assert_eq!(listed(address.port()), ["a.ferby.1"]);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let rig = Rig::new();
    let mut place = rig.place();
    place.program = "/no/such/daemon".into();
    let exports = xvm_imaged::export::Exports::new(place);
    let e = exports.set("a", &wanted(port(), &rig.file("disk", 1 << 20), &["x"])).await.expect_err("none");
    assert!(e.to_string().contains("/no/such/daemon"), "{e}");
}

#[tokio::test]
async fn another_port_is_another_daemon() {
    let rig = Rig::new();
    let (exports, disk, one, two) = (rig.exports(), rig.file("disk", 1 << 20), port(), port());
    exports.set("a", &wanted(one, &disk, &["a.ferby.1"])).await.expect("served");
    exports.set("a", &wanted(two, &disk, &["a.ferby.1"])).await.expect("served");
    assert_eq!(listed(two), ["a.ferby.1"]);
    assert_eq!(crate::rig::pids(&rig.run("")).len(), 1);
    let mut deaths = exports.deaths();
    assert!(deaths.try_recv().is_err(), "its end was our doing");
}
