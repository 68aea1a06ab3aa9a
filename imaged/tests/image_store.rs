//! Stores: each test runs over a directory of files, and over a volume group in a virtual machine that has device mapper (see
//! `store/vm.rs`). There the tests of LVM alone run too, and a system is built on a logical volume.

#[path = "image/bench.rs"]
mod bench;
#[path = "store/lvm.rs"]
mod lvm;
#[path = "store/vm.rs"]
mod vm;

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::Command,
    sync::Arc,
    time::Instant,
};
use xvm_imaged::store::{self, Listing, Store, StoreError, Volume};
use xvm_model::ConfigName;

fn name(text: &str) -> ConfigName {
    ConfigName::parse(text).expect("a name")
}

/// The stores to test: the volume group that `XVM_TEST_VG` names, else a directory, which goes with the first.
fn stores() -> (tempfile::TempDir, Vec<Arc<dyn Store>>) {
    let dir = tempfile::tempdir().expect("a directory");
    let place = match std::env::var(lvm::GROUP) {
        Ok(group) => format!("lvm:{group}"),
        Err(_) => format!("dir:{}", dir.path().display()),
    };
    (dir, vec![store::open(&place).expect("opened")])
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("a volume");
    file.write_all_at(bytes, at).expect("written");
    file.sync_all().expect("synced");
}

fn read(path: &Path, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    File::open(path).expect("a volume").read_exact_at(&mut bytes, at).expect("read");
    bytes
}

const MIB: u64 = 1 << 20;

/// If this fails, half-made volumes are found, or somebody's data is lost on the way through remove and restore.
#[tokio::test]
async fn the_life_of_volumes() {
    let (_dir, stores) = stores();
    for s in stores {
        let (a, b) = (name("xvmtest-a"), name("xvmtest-b"));
        let disk = s.create(&a, Volume::Disk, 64 * MIB).await.expect("made");
        let swap = s.create(&a, Volume::Swap, 16 * MIB).await.expect("made");
        assert_eq!(read(&disk, 32 * MIB, 4096), [0; 4096], "it reads as zeros");
        write(&disk, 5 * MIB, b"mine");
        write(&swap, 0, b"swap");
        let only = |l: &Listing| (l.volumes.len(), l.building.clone(), l.removed.clone());
        assert_eq!(only(&s.list().await.expect("list")), (0, vec![a.clone()], vec![]), "not whole yet");
        assert_eq!(s.size(&a, Volume::Disk).await.expect("size"), None);
        s.commit(&a).await.expect("whole");
        let list = s.list().await.expect("list");
        assert_eq!(list.volumes, [(a.clone(), Volume::Disk, 64 * MIB), (a.clone(), Volume::Swap, 16 * MIB)]);
        assert!(list.building.is_empty());
        assert_eq!(read(&s.path(&a, Volume::Disk), 5 * MIB, 4), b"mine");

        // a copy
        let copy = s.copy(&a, &b, Volume::Disk).await.expect("copied");
        assert_eq!(read(&copy, 5 * MIB, 4), b"mine");
        write(&copy, 5 * MIB, b"ours");
        s.commit(&b).await.expect("whole");
        assert_eq!(read(&s.path(&a, Volume::Disk), 5 * MIB, 4), b"mine", "the model keeps its own");
        assert_eq!(s.size(&b, Volume::Swap).await.expect("size"), None);

        // another swap takes the place of one; a build that fails changes nothing
        s.create(&a, Volume::Swap, 32 * MIB).await.expect("made");
        s.commit(&a).await.expect("replaced");
        assert_eq!(s.size(&a, Volume::Swap).await.expect("size"), Some(32 * MIB));
        assert_eq!(read(&s.path(&a, Volume::Disk), 5 * MIB, 4), b"mine");
        s.create(&a, Volume::Disk, 16 * MIB).await.expect("made");
        s.discard(&a).await.expect("discarded");
        s.discard(&a).await.expect("none is as good");
        assert_eq!(s.size(&a, Volume::Disk).await.expect("size"), Some(64 * MIB));

        // larger, never smaller
        s.grow(&a, Volume::Disk, 96 * MIB).await.expect("grown");
        s.grow(&a, Volume::Disk, 16 * MIB).await.expect("as it is");
        assert_eq!(s.size(&a, Volume::Disk).await.expect("size"), Some(96 * MIB));
        s.drop_volume(&a, Volume::Swap).await.expect("dropped");

        // away and back
        s.remove(&a).await.expect("removed");
        assert!(matches!(s.remove(&a).await, Err(StoreError::Missing { .. })));
        assert_eq!(s.list().await.expect("list").removed, std::slice::from_ref(&a));
        s.restore(&a).await.expect("restored");
        assert_eq!(read(&s.path(&a, Volume::Disk), 5 * MIB, 4), b"mine");
        s.remove(&a).await.expect("removed");
        s.create(&a, Volume::Disk, 16 * MIB).await.expect("another of that name");
        s.commit(&a).await.expect("whole");
        let refused = s.restore(&a).await.expect_err("the name is in use");
        assert!(matches!(refused, StoreError::Exists { .. }), "{refused}");
        s.remove(&a).await.expect("in place of the earlier one");
        for config in [&a, &b] {
            s.remove(config).await.ok();
            s.purge(config).await.expect("purged");
        }
        assert_eq!(s.list().await.expect("list"), Listing::default());
        let missing = s.copy(&a, &b, Volume::Disk).await.expect_err("nothing there");
        assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
        s.discard(&b).await.expect("discarded");
    }
}

/// If this fails, a clone takes minutes or fills the disk. The time is printed; what decides is how much was written.
#[tokio::test]
async fn a_clone_of_two_gib() {
    let (dir, stores) = stores();
    for s in stores {
        let (a, b) = (name("xvmtest-big"), name("xvmtest-copy"));
        let disk = s.create(&a, Volume::Disk, 2048 * MIB).await.expect("made");
        let mut noise = vec![0; 1 << 20];
        File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut noise)).expect("noise");
        for i in 0..400 {
            let file = File::options().write(true).open(&disk).expect("disk");
            file.write_all_at(&noise, i * 5 * MIB).expect("written");
        }
        s.commit(&a).await.expect("whole");
        let begin = Instant::now();
        let copy = s.copy(&a, &b, Volume::Disk).await.expect("copied");
        let copied = begin.elapsed().as_secs_f64();
        s.commit(&b).await.expect("whole");
        println!(
            "{}: 2 GiB with 400 MiB of data: {copied:.2} s, on the disk for good after {:.2} s",
            s.kind(),
            begin.elapsed().as_secs_f64()
        );
        assert!(!copy.exists());
        let copy = s.path(&b, Volume::Disk);
        assert_eq!(read(&copy, 5 * 399 * MIB, 1 << 20), noise);
        if s.kind() == "dir" {
            let written = fs::metadata(&copy).expect("there").blocks() * 512;
            assert!((400 * MIB..420 * MIB).contains(&written), "{written} bytes");
        }
        for config in [&a, &b] {
            s.remove(config).await.expect("removed");
            s.purge(config).await.expect("purged");
        }
    }
    drop(dir);
}

/// If this fails, a full store is not told as such, or keeps half a volume.
#[tokio::test]
async fn a_full_store() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP a_full_store: needs root");
        return;
    }
    struct Mount<'a>(&'a Path);
    impl Drop for Mount<'_> {
        fn drop(&mut self) {
            Command::new("umount").arg("-l").arg(self.0).status().ok();
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let done =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(dir.path()).status();
    assert!(done.expect("mount").success());
    let _mount = Mount(dir.path());
    let s = store::open(&format!("dir:{}", dir.path().display())).expect("opened");
    let room = s.room().await.expect("room");
    assert_eq!((&*room.kind, room.total, room.free), ("dir", 24, 24));
    let (a, b) = (name("a"), name("b"));
    let disk = s.create(&a, Volume::Disk, 64 * MIB).await.expect("made");
    File::options().write(true).open(disk).and_then(|mut f| f.write_all(&vec![7; 16 << 20])).expect("fits");
    s.commit(&a).await.expect("whole");
    let full = s.copy(&a, &b, Volume::Disk).await.expect_err("too much");
    assert!(matches!(full, StoreError::NoSpace { .. }), "{full}");
    let says = format!("cannot copy the disk of a for b: no room is left in {}", dir.path().display());
    assert_eq!(full.to_string(), says);
    assert!(s.list().await.expect("list").building.is_empty(), "nothing is left");
    assert_eq!(s.room().await.expect("room").free, 8);
}

/// If this fails, a store that does not exist is told in other words than what is wrong.
#[test]
fn stores_are_known_or_refused() {
    for (text, says) in [
        ("dir", "not in the form KIND:WHERE"),
        ("zfs:tank", "kinds of stores are dir, lvm"),
        ("lvm:-x", "GROUP or GROUP/POOL"),
        ("dir:/proc/nothing", "cannot open the store in /proc/nothing"),
    ] {
        let Err(refused) = store::open(text) else { panic!("{text} was opened") };
        assert!(refused.to_string().contains(says), "{refused}");
    }
}
