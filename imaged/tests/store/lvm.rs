//! What only a volume group has: names of others, blocks that were in use, changes that a crash left half done.

use crate::{MIB, bench, name, read, write};
use std::{fs, path::Path, process::Command};
use xvm_imaged::store::{self, StoreError, Volume};

/// The variable that names the volume group, `GROUP` or `GROUP/POOL`, empty but for the pool; set in the machine only.
pub const GROUP: &str = "XVM_TEST_VG";

/// Its value, the group and the pool; none outside of the machine.
fn place() -> Option<(String, String, Option<String>)> {
    let place = std::env::var(GROUP).ok()?;
    let (group, pool) = place.split_once('/').map_or((&*place, None), |(g, p)| (g, Some(p.to_owned())));
    Some((format!("lvm:{place}"), group.to_owned(), pool))
}

/// Runs one of LVM's tools.
fn tool(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().expect(program);
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn logical_volumes(group: &str) -> Vec<String> {
    let out = Command::new("lvs").args(["--noheadings", "-o", "lv_name", group]).output().expect("lvs");
    String::from_utf8_lossy(&out.stdout).split_whitespace().map(str::to_owned).collect()
}

/// Volumes of others, removed also when a test panics.
struct Theirs(Vec<String>);

impl Theirs {
    fn make(group: &str, names: &[&str], more: &[&str]) -> Theirs {
        let made = Theirs(names.iter().map(|n| format!("{group}/{n}")).collect());
        for name in names {
            tool("lvcreate", &[&["-q", "-y", "-L", "8M", "-n", name, group][..], more].concat());
        }
        made
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        for name in &self.0 {
            Command::new("lvremove").args(["-q", "-y", name]).output().ok();
        }
    }
}

/// If this fails, xvm takes or destroys logical volumes that others made.
#[tokio::test]
async fn what_others_made_is_left_alone() {
    let Some((place, group, _)) = place() else { return };
    let s = store::open(&place).expect("opened");
    let names = ["xvm.theirs.disk", "xvm.theirs.swap.removed", "xvm.theirs.disk.new", "root"];
    let before = Theirs::make(&group, &names[..3], &[]);
    // one with our tag and a name of its own was renamed by somebody: it is theirs too
    let tagged = Theirs::make(&group, &names[3..], &["--addtag", "xvm"]);
    let list = s.list().await.expect("list");
    assert_eq!((list.volumes, list.building, list.removed), (vec![], vec![], vec![]));
    let theirs = name("theirs");
    let refused = s.create(&theirs, Volume::Disk, 8 * MIB).await.expect_err("in the way");
    let says = format!(
        "cannot make the disk of theirs: there is a logical volume {group}/xvm.theirs.disk that is not xvm's already"
    );
    assert!(matches!(refused, StoreError::Exists { .. }) && refused.to_string() == says, "{refused}");
    s.drop_volume(&theirs, Volume::Disk).await.expect("none of ours");
    s.discard(&theirs).await.expect("none of ours");
    s.purge(&theirs).await.expect("none of ours");
    assert!(matches!(s.remove(&theirs).await, Err(StoreError::Missing { .. })));
    assert!(matches!(s.grow(&theirs, Volume::Disk, 64 * MIB).await, Err(StoreError::Missing { .. })));
    let there = logical_volumes(&group);
    assert!(names.iter().all(|n| there.iter().any(|t| t == n)), "{there:?}");
    drop((before, tagged));
}

/// If this fails, a guest reads what another one wrote.
#[tokio::test]
async fn blocks_that_were_in_use_are_zero() {
    let Some((place, _, _)) = place() else { return };
    let s = store::open(&place).expect("opened");
    let (a, b) = (name("xvmtest-a"), name("xvmtest-b"));
    let disk = s.create(&a, Volume::Disk, 48 * MIB).await.expect("made");
    let secret = vec![0xAA; 1 << 20];
    (0..48).for_each(|i| write(&disk, i * MIB, &secret));
    s.discard(&a).await.expect("gone");
    let disk = s.create(&b, Volume::Disk, 16 * MIB).await.expect("made");
    let zero = |path: &Path, from: u64, to: u64| {
        (from..to).all(|i| read(path, i * MIB, 1 << 20) == vec![0; 1 << 20])
    };
    assert!(zero(&disk, 0, 16));
    write(&disk, 15 * MIB, b"mine");
    s.commit(&b).await.expect("whole");
    s.grow(&b, Volume::Disk, 48 * MIB).await.expect("grown");
    let disk = s.path(&b, Volume::Disk);
    assert_eq!(read(&disk, 15 * MIB, 4), b"mine");
    assert!(zero(&disk, 16, 48));
    s.remove(&b).await.expect("removed");
    s.purge(&b).await.expect("purged");
}

/// If this fails, a crash between two changes of LVM costs a volume, or a place in the group for ever.
#[tokio::test]
async fn what_a_crash_left_half_done_is_ended() {
    let Some((place, group, pool)) = place() else { return };
    let s = store::open(&place).expect("opened");
    let a = name("xvmtest-a");
    for volume in [Volume::Disk, Volume::Swap] {
        let path = s.create(&a, volume, 8 * MIB).await.expect("made");
        write(&path, 0, volume.word().as_bytes());
    }
    s.commit(&a).await.expect("whole");
    let rename = |from: &str, to: &str| {
        let full = |suffix: &str| format!("xvm.xvmtest-a.{suffix}");
        tool("lvrename", &["-q", &group, &full(from), &full(to)]);
    };
    let whole = async || {
        let list = s.list().await.expect("list");
        let sizes: Vec<_> = list.volumes.iter().map(|v| (v.1, v.2)).collect();
        (sizes, list.removed.len(), logical_volumes(&group).len() - usize::from(pool.is_some()))
    };
    let both = vec![(Volume::Disk, 8 * MIB), (Volume::Swap, 8 * MIB)];

    // of a commit: the old one was away, or not removed yet
    rename("disk", "disk.old");
    assert_eq!(whole().await, (both.clone(), 0, 2));
    rename("swap", "swap.old");
    s.create(&a, Volume::Swap, 8 * MIB).await.expect("made");
    rename("swap.new", "swap");
    assert_eq!(whole().await, (both.clone(), 0, 2));
    assert_eq!(read(&s.path(&a, Volume::Disk), 0, 4), b"disk");
    assert_eq!(read(&s.path(&a, Volume::Swap), 0, 4), [0; 4], "the new one");

    // of a removal, and of a restoration
    rename("disk", "disk.removed");
    assert_eq!(whole().await, (vec![], 1, 2));
    s.restore(&a).await.expect("restored");
    assert_eq!(whole().await, (both.clone(), 0, 2));

    // it is not active after a start of the machine
    tool("lvchange", &["-q", "-an", &format!("{group}/xvm.xvmtest-a.disk")]);
    assert_eq!(whole().await, (both, 0, 2));
    assert_eq!(read(&s.path(&a, Volume::Disk), 0, 4), b"disk");

    // it grew, and was not made zero
    if pool.is_none() {
        let disk = format!("{group}/xvm.xvmtest-a.disk");
        tool("lvchange", &["-q", "--addtag", "xvm.dirty=8388608", &disk]);
        tool("lvextend", &["-q", "-L", "16M", &disk]);
        write(&s.path(&a, Volume::Disk), 8 * MIB, b"secret");
        assert_eq!(whole().await.2, 2);
        assert_eq!(read(&s.path(&a, Volume::Disk), 8 * MIB, 6), [0; 6]);
        write(&s.path(&a, Volume::Disk), 8 * MIB, b"public");
        assert_eq!(whole().await.2, 2);
        assert_eq!(read(&s.path(&a, Volume::Disk), 8 * MIB, 6), *b"public", "once");
    }

    // of a purge
    s.remove(&a).await.expect("removed");
    tool("lvremove", &["-q", "-y", &format!("{group}/xvm.xvmtest-a.disk.removed")]);
    assert_eq!(whole().await, (vec![], 0, 0));
}

/// If this fails, whoever starts imaged does not learn what is wrong with the volume group.
#[tokio::test]
async fn what_is_wrong_is_said() {
    let Some((place, group, pool)) = place() else { return };
    let _linear = Theirs::make(&group, &["linear"], &[]);
    let _tiny = Theirs::make(&group, &["tiny"], &["--type", "thin-pool"]);
    for (place, says) in [
        ("lvm:nope".to_owned(), "there is no volume group nope; vgs shows those of this machine".to_owned()),
        (format!("lvm:{group}/nope"), format!("there is no thin pool nope in the volume group {group}")),
        (format!("lvm:{group}/linear"), format!("{group}/linear is no thin pool but linear")),
    ] {
        let s = store::open(&place).expect("looked at by the first use");
        for refused in [s.list().await.map(drop), s.room().await.map(drop)] {
            let Err(refused) = refused else {
                // all that a group's room needs is the group
                continue;
            };
            assert!(refused.to_string().ends_with(&says), "{refused}");
        }
        assert!(s.list().await.is_err());
    }
    let tiny = format!("{group}/tiny");
    tool("lvchange", &["-q", "-y", "--zero", "n", &tiny]);
    let refused = store::open(&format!("lvm:{tiny}")).expect("opened").list().await.expect_err("unsafe");
    assert!(refused.to_string().ends_with(&format!("`lvchange --zero y {tiny}` ends that")), "{refused}");

    // full: a group, and a pool
    let a = name("xvmtest-a");
    if pool.is_none() {
        let s = store::open(&place).expect("opened");
        let room = s.room().await.expect("room");
        assert!(room.total > 3000 && room.free + 100 > room.total && &*room.kind == "lvm", "{room:?}");
        let full = s.create(&a, Volume::Disk, 100 << 30).await.expect_err("too much");
        assert!(matches!(full, StoreError::NoSpace { .. }), "{full:?}");
        let says = format!("cannot make the disk of xvmtest-a: no room is left in the volume group {group}");
        assert_eq!(full.to_string(), says);
    } else {
        tool("lvchange", &["-q", "-y", "--zero", "y", &tiny]);
        let s = store::open(&format!("lvm:{tiny}")).expect("opened");
        assert_eq!(s.room().await.map(|r| (r.total, r.free)).expect("room"), (8, 8));
        let disk = s.create(&a, Volume::Disk, 16 * MIB).await.expect("thin");
        write(&disk, 0, &vec![7; 8 << 20]);
        assert_eq!(s.room().await.expect("room").free, 0);
        let full = s.create(&a, Volume::Swap, 8 * MIB).await.expect_err("full");
        assert!(matches!(full, StoreError::NoSpace { .. }), "{full:?}");
        s.discard(&a).await.expect("discarded");
    }
    assert!(store::open(&place).expect("opened").list().await.expect("list").building.is_empty());

    // a group whose name leaves no room for one of 40 characters
    let long = "g".repeat(90);
    tool("vgrename", &["-q", &group, &long]);
    let s = store::open(&format!("lvm:{long}")).expect("opened");
    let refused = s.create(&name(&"a".repeat(40)), Volume::Disk, 8 * MIB).await;
    tool("vgrename", &["-q", &long, &group]);
    let refused = refused.expect_err("too long").to_string();
    assert!(refused.contains("its name is too long for the volume group ggg"), "{refused}");
    assert!(refused.contains("at most 19 characters"), "{refused}");
}

/// If this fails, the works of imaged do not go together with block devices.
#[tokio::test]
async fn a_tiny_system_on_a_logical_volume() {
    let Some((place, _, _)) = place() else { return };
    let s = store::open(&place).expect("opened");
    let bench = bench::Bench::new();
    let (a, b) = (name("small-1"), name("small-2"));
    let config = bench::config(1, &[("os", "tiny"), ("disk", "64"), ("keys", bench::KEY)]);
    let disk = s.create(&a, Volume::Disk, 64 * MIB).await.expect("made");
    bench.build(&a, &config, &disk).await.unwrap_or_else(|e| panic!("{e}: {}", bench.told(&a)));
    bench.is_clean();
    s.commit(&a).await.expect("whole");
    let disk = s.path(&a, Volume::Disk);
    bench::sound(&disk);
    assert_eq!(bench::cat(&disk, "/etc/hostname"), "small-1\n");

    let copy = s.copy(&a, &b, Volume::Disk).await.expect("copied");
    let (twin, cancel) = (bench::config(2, &[("os", "tiny")]), tokio_util::sync::CancellationToken::new);
    let what = xvm_imaged::image::Personal::Clone;
    xvm_imaged::image::personalise(&bench.paths, &bench.site, &b, &twin, &copy, what, cancel())
        .await
        .expect("personal");
    s.commit(&b).await.expect("whole");
    s.grow(&b, Volume::Disk, 128 * MIB).await.expect("grown");
    let copy = s.path(&b, Volume::Disk);
    xvm_imaged::image::grow(&bench.paths, &copy, cancel()).await.expect("grown");
    bench::sound(&copy);
    assert!(bench::debugfs(&copy, "stats -h").contains("Block count:              32768"));
    assert_eq!(bench::cat(&copy, "/etc/hostname"), "small-2\n");
    assert_eq!(bench::cat(&disk, "/etc/hostname"), "small-1\n", "the model keeps its own");
    for config in [&a, &b] {
        s.remove(config).await.expect("removed");
        s.purge(config).await.expect("purged");
    }
    fs::read_dir("/dev/mapper").expect("mapper").flatten().for_each(|e| {
        assert!(!e.file_name().to_string_lossy().contains("small"), "{e:?} is left");
    });
}
