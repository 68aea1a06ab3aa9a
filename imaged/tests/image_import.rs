//! Images that somebody made: imported, seeded, refused.

#[path = "image/bench.rs"]
mod bench;

use bench::{Bench, KEY, cat, config, name, requires, sound};
use std::{fs, os::unix::fs::FileExt, path::Path, process::Command};
use tokio_util::sync::CancellationToken;
use xvm_imaged::image::{self, BuildError, Personal};

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().expect(program);
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An image with a file system, on the whole of it or in a partition, as qcow2.
fn image(bench: &Bench, file: &str, partitioned: bool) {
    let dir = bench.dir.path();
    let path = |name: &str| dir.join(name).to_str().expect("text").to_owned();
    fs::create_dir_all(dir.join("model/etc")).expect("model");
    fs::create_dir_all(dir.join("model/var/lib")).expect("model");
    fs::write(dir.join("model/etc/machine-id"), "0123456789abcdef0123456789abcdef\n").expect("id");
    fs::write(dir.join("model/etc/os-release"), "ID=theirs\n").expect("release");
    bench.volume("raw", 32);
    let (raw, model) = (path("raw"), path("model"));
    let offset = if partitioned {
        // one partition of Linux from sector 2048 on, of 40960 sectors
        let mut table = [0; 66];
        table[4] = 0x83;
        table[8..12].copy_from_slice(&2048u32.to_le_bytes());
        table[12..16].copy_from_slice(&40960u32.to_le_bytes());
        table[64..].copy_from_slice(&[0x55, 0xaa]);
        let disk = fs::File::options().write(true).open(&raw).expect("raw");
        disk.write_all_at(&table, 446).expect("a table");
        "offset=1048576"
    } else {
        "offset=0"
    };
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-E", offset, "-d", &model, &raw, "20M"]);
    let target = bench.paths.images.join(file);
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &raw, target.to_str().expect("text")]);
}

/// If this fails, an imported image is damaged, or does not know who it is.
#[tokio::test]
async fn an_image_is_imported_with_its_seed() {
    requires!("an_image_is_imported_with_its_seed": root, "qemu-img", "mke2fs", "debugfs");
    for partitioned in [false, true] {
        let mut bench = Bench::new();
        bench.site.guestd = bench::guestd();
        image(&bench, "cloud-1.qcow2", partitioned);
        assert!(image::systems(&bench.paths, &bench.site).contains(&"image/cloud-1".into()));
        let (small, config) =
            (name("small-1"), config(1, &[("os", "image/cloud-1"), ("disk", "64"), ("keys", KEY)]));
        let disk = bench.volume("disk", 64);
        assert_eq!(bench.build(&small, &config, &disk).await.expect("imported"), None, "it boots by itself");
        assert_eq!(fs::metadata(&disk).expect("disk").len(), 64 << 20);
        let root = if partitioned {
            format!("{}?offset=1048576", disk.display())
        } else {
            disk.display().to_string()
        };
        let root = Path::new(&root);
        sound(root);
        assert_eq!(cat(root, "/etc/os-release"), "ID=theirs\n");
        assert_eq!(cat(root, "/etc/machine-id"), "");
        let seed = |file: &str| cat(root, &format!("/var/lib/cloud/seed/nocloud/{file}"));
        assert!(seed("meta-data").contains("local-hostname: small-1"));
        assert!(seed("user-data").starts_with("#cloud-config") && seed("user-data").contains(KEY));
        assert!(seed("network-config").contains(&config.mac.to_string()));
        let options = |who| format!("XVM_GUESTD_OPTIONS=--name {who} --forwarder tcp://10.0.2.2:5750\n");
        assert_eq!(cat(root, "/etc/default/xvm-guestd"), options("small-1"));
        let wants = "/etc/systemd/system/multi-user.target.wants/xvm-guestd.service";
        assert!(bench::debugfs(root, &format!("stat {wants}")).contains("symlink"));
        let mode = bench::debugfs(root, "stat /usr/lib/xvm/guestd/guestd");
        assert!(mode.contains("Mode:  0755") && mode.contains("User:     0"), "{mode}");
        let blocks = bench::debugfs(root, "stats -h");
        assert!(partitioned || blocks.contains("Block count:              65536"), "grown: {blocks}");
        // a copy gets its own
        let twin = bench::config(2, &[("os", "image/cloud-1")]);
        let cancel = CancellationToken::new();
        image::personalise(
            &bench.paths,
            &bench.site,
            &name("small-2"),
            &twin,
            &disk,
            Personal::Clone,
            cancel,
        )
        .await
        .expect("personal");
        assert_eq!(cat(root, "/etc/default/xvm-guestd"), options("small-2"));
        assert!(seed("meta-data").contains("small-2") && seed("meta-data").contains(&twin.uuid.to_string()));
        sound(root);
        bench.is_clean();
    }
}

/// If this fails, a file of this machine ends up in somebody's domain, or a part of an image is taken for the whole.
#[tokio::test]
async fn what_is_no_whole_image_is_refused() {
    requires!("what_is_no_whole_image_is_refused": root, "qemu-img");
    let bench = Bench::new();
    let at = |name: &str| bench.paths.images.join(name).to_str().expect("text").to_owned();
    bench.volume("secret", 8);
    let secret = bench.dir.path().join("secret");
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            secret.to_str().expect("text"),
            &at("thief.qcow2"),
        ],
    );
    run("qemu-img", &["create", "-q", "-f", "qcow2", &at("large.qcow2"), "1G"]);
    fs::write(at("broken.qcow2"), b"QFI\xfb and nothing more").expect("file");
    fs::write(at("..img"), b"").expect("file");
    let disk = bench.volume("disk", 64);
    for (system, says) in [
        ("image/thief", "is not whole: it needs"),
        ("image/large", "a disk of 64 MiB is too small for the image large of 1024 MiB"),
        ("image/broken", "qemu-img"),
    ] {
        let failed = bench.build(&name("x"), &config(1, &[("os", system), ("disk", "64")]), &disk).await;
        let good = matches!(&failed, Err(BuildError::Failed { stage: "base", why }) if why.contains(says));
        assert!(good, "{system}: {failed:?}");
        bench.is_clean();
    }
    let unknown = bench.build(&name("x"), &config(1, &[("os", "image/none"), ("disk", "64")]), &disk).await;
    assert!(matches!(unknown, Err(BuildError::UnknownOs { .. })), "{unknown:?}");
}
