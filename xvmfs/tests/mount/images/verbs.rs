//! Acting: mkdir, rmdir, settings, ctl; and what must not act: whatever removes trees.

use super::rows::start;
use crate::kit::{can_mount, errno, wait_for};
use std::fs;
use std::time::Duration;
use xvm_bus::Faults;
use xvm_model::config::Rights;
use xvm_model::images::Resizable;
use xvm_model::{ConfigCommand, ConfigState, ServerName};

#[test]
fn mkdir_makes_and_rmdir_removes() {
    if !can_mount("mkdir_makes_and_rmdir_removes") {
        return;
    }
    let (_c, peer, m) = start(&[]);
    m.shell("umask 022; mkdir configs/small-6 && ls -d configs/small-6 && cat configs/small-6/state");
    assert_eq!(m.read("configs/small-6/state"), "creating\n");
    assert_eq!(m.read("configs/small-6/progress"), "percent 5\nstage volumes\nremaining 9\n");
    assert_eq!(peer.record("small-6").config.rights, Rights { uid: 0, gid: 0, mode: 0o755 });
    assert_eq!(errno(fs::create_dir(m.at("configs/small-6"))), 17, "EEXIST");
    m.shell("mkdir -p configs/small-6 && umask 0077 && mkdir configs/own && mkdir -m 750 configs/group");
    assert_eq!(
        (peer.record("own").config.rights.mode, peer.record("group").config.rights.mode),
        (0o700, 0o750)
    );
    for bad in ["defaults", "a.b", "-x", "a_b", &"x".repeat(41)] {
        assert_eq!(errno(fs::create_dir(m.at(&format!("configs/{bad}")))), 22, "{bad}");
        assert!(
            m.read("error").contains(&format!(" EINVAL cannot make configs/{bad}: ")),
            "{}",
            m.read("error")
        );
    }
    peer.free(100);
    assert_eq!(errno(fs::create_dir(m.at("configs/big"))), 28, "ENOSPC");
    assert!(m.read("error").contains(" ENOSPC cannot create big: its disk needs 2048 MiB, and 100 are free"));
    peer.free(1 << 20);
    m.shell("mkdir configs/lab-{1..20} && ls -d configs/lab-{1..20}");
    assert_eq!(m.list("configs").len(), 23);
    // only in configs itself
    for elsewhere in ["configs/small-6/x", "domains/x", "x"] {
        assert_eq!(errno(fs::create_dir(m.at(elsewhere))), 1, "{elsewhere}");
    }

    assert_eq!(errno(fs::remove_dir(m.at("configs/small-6"))), 16, "EBUSY: a job runs");
    peer.finish("small-6", ConfigState::Ready, Ok("small-6 is ready"));
    peer.lease("small-6", "gerby", 8);
    wait_for("running", || m.read("configs/small-6/state") == "running\n");
    assert_eq!(errno(fs::remove_dir(m.at("configs/small-6"))), 16, "EBUSY");
    for error in ["error", "configs/small-6/error"] {
        assert!(m.read(error).contains(" EBUSY cannot remove small-6: it runs"), "{}", m.read(error));
    }
    peer.change("small-6", |r| (r.leases, r.state) = (vec![], ConfigState::Ready));
    wait_for("ready", || m.read("configs/small-6/state") == "ready\n");
    m.shell("rmdir configs/small-6 && ! ls -d configs/small-6 && ! cat configs/small-6/state");
    m.shell("echo restore small-6 > ctl && cat configs/small-6/state");
    assert_eq!(errno(m.write("ctl", "restore small-6\n")), 2, "ENOENT");
    assert_eq!(errno(fs::remove_dir(m.at("configs/none"))), 2);
    assert_eq!(errno(fs::remove_dir(m.at("configs"))), 1);
    assert_eq!(errno(fs::rename(m.at("configs/small-6"), m.at("configs/small-9"))), 1);
}

/// If this fails, an answer that got lost makes a second machine, or a directory that was made cannot be entered.
#[test]
fn on_a_bad_net_each_mkdir_makes_once_and_is_there_at_once() {
    if !can_mount("on_a_bad_net_each_mkdir_makes_once_and_is_there_at_once") {
        return;
    }
    let (c, peer, m) = start(&[]);
    let delay = (Duration::from_millis(0), Duration::from_millis(30));
    c.net.set_faults(Faults { loss: 0.15, doubling: 0.3, reordering: 0.3, delay });
    m.shell("for i in {1..12}; do mkdir configs/lab-$i && ls -d configs/lab-$i > /dev/null && cat configs/lab-$i/state > /dev/null || exit 1; done");
    c.net.set_faults(Faults::default());
    let creates = peer.orders().into_iter().filter(|(_, o)| matches!(o, ConfigCommand::Create { .. }));
    assert_eq!(creates.count(), 12);
    wait_for("all", || m.list("configs").len() == 12);
}

/// If this fails, a slip of the hand deletes machines: only rmdir removes.
#[test]
fn whatever_removes_trees_removes_nothing() {
    if !can_mount("whatever_removes_trees_removes_nothing") {
        return;
    }
    let (c, peer, m) = start(&["small-6", "small-7"]);
    for remove in [
        "rm -rf configs/small-6",
        "rm -rf ./*",
        "rm -r --interactive=never configs",
        "find . -delete",
        "find configs -depth -delete",
        "/usr/bin/env python3 -c 'import shutil; shutil.rmtree(\"configs\", ignore_errors=True); raise SystemExit(1)'",
        "perl -MFile::Path=remove_tree -e 'remove_tree(\"configs/small-6\"); exit 1'",
        "rm -f configs/small-6/*",
    ] {
        assert!(!m.sh(remove).status.success(), "{remove}");
        assert_eq!(m.list("configs"), ["small-6", "small-7"], "{remove}");
    }
    assert_eq!((peer.orders(), c.world.done()), (vec![], 0), "nothing was even asked");
    let error = m.read("configs/small-6/error");
    assert!(error.contains(" EPERM cannot remove "), "{error}");
    m.shell("rmdir configs/small-6");
    assert_eq!(m.list("configs"), ["small-7"]);
}

#[test]
fn settings_are_checked_here_and_decided_by_imaged() {
    if !can_mount("settings_are_checked_here_and_decided_by_imaged") {
        return;
    }
    let (_c, peer, m) = start(&["small-6"]);
    for (file, text) in [
        ("memory", "512\n"),
        ("vcpus", "2\n"),
        ("swap", "0\n"),
        ("disk", "4096\n"),
        ("os", "debian/trixie\n"),
        ("address", "10.0.0.5/24 via 10.0.0.1\n"),
        ("vlan", "12\n"),
        ("vlan", "none\n"),
        ("mac", "52:54:00:12:34:56\n"),
        ("packages", "vim curl\n"),
        ("priority", "70\n"),
        ("pin", "ferby gerby\n"),
        ("restart", "always\n"),
        ("type", "pvh\n"),
    ] {
        m.write(&format!("configs/small-6/{file}"), text).unwrap();
        assert_eq!(m.read(&format!("configs/small-6/{file}")), text, "{file}");
    }
    let asked = peer.orders().len();
    for (file, text, why) in [
        (
            "memory",
            "8\n",
            "cannot set configs/small-6/memory to \"8\": \"8\" is not a whole number from 16 to 4194304 MiB",
        ),
        ("vlan", "4095\n", "from 1 to 4094 VLANs, or none"),
        ("address", "here\n", "is none of `none`, `dhcp`"),
        ("restart", "often\n", "is none of never, always"),
        ("keys", "hello\n", "is no public SSH key"),
        ("packages", "a;b\n", "is no package name"),
    ] {
        assert_eq!(errno(m.write(&format!("configs/small-6/{file}"), text)), 22, "{file}");
        let error = m.read("configs/small-6/error");
        assert!(error.contains(" EINVAL ") && error.contains(why), "{error}");
    }
    assert_eq!(peer.orders().len(), asked, "nothing of it reached imaged");
    peer.lease("small-6", "gerby", 8);
    wait_for("running", || m.read("configs/small-6/state") == "running\n");
    assert_eq!(errno(m.write("configs/small-6/memory", "600\n")), 16, "EBUSY");
    assert!(
        m.read("configs/small-6/error")
            .contains("EBUSY cannot set small-6: memory is set while it does not run")
    );
    m.write("configs/small-6/priority", "7").unwrap();
    assert_eq!(m.read("configs/small-6/priority"), "7\n");
}

#[test]
fn keys_are_one_value_however_they_are_written() {
    if !can_mount("keys_are_one_value_however_they_are_written") {
        return;
    }
    let (_c, peer, m) = start(&["small-6"]);
    let key = |n: usize| format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{n:020} user-{n}@desk\n");
    let three: String = (0..3).map(key).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &three).unwrap();
    let from = file.path().display();
    let keys = || m.read("configs/small-6/keys");
    let idle = || assert!(m.read("configs/small-6/wait").starts_with("done set: "));
    for write in [
        format!("cat {from} > configs/small-6/keys"),
        format!("cp {from} configs/small-6/keys"),
        format!(
            "printf '%s\\n' \"$(sed -n 1p {from})\" \"$(sed -n 2p {from})\" \"$(sed -n 3p {from})\" > configs/small-6/keys"
        ),
        format!("dd if={from} of=configs/small-6/keys bs=50 status=none"),
        format!("printf %s \"$(cat {from})\" > configs/small-6/keys; cat configs/small-6/wait > /dev/null"),
    ] {
        m.shell(&write);
        idle();
        assert_eq!(keys(), three, "{write}");
        m.shell("echo none > configs/small-6/keys");
        idle();
        assert_eq!(keys(), "none\n");
    }
    // as many and as long as are allowed
    let padded = |n: usize| key(n).replace(" user", &format!(" {}-user", "x".repeat(900)));
    let many: String = (0..64).map(padded).collect();
    assert!(many.len() > 60_000);
    m.write("configs/small-6/keys", &many).unwrap();
    idle();
    assert_eq!(keys(), many);
    assert_eq!(peer.record("small-6").config.keys.len(), 64);
    assert_eq!(errno(m.write("configs/small-6/keys", &(0..65).map(key).collect::<String>())), 22);
    assert!(m.read("configs/small-6/error").contains("65 keys; at most 64 are allowed"));
    assert_eq!(errno(m.write("configs/small-6/keys", &"x".repeat(70_000))), 22);
    let error = m.read("configs/small-6/error");
    assert!(error.contains("EINVAL cannot set configs/small-6/keys to more than 65536 bytes"), "{error}");
    assert_eq!(keys(), many);
}

#[test]
fn ctl_takes_its_verbs_and_the_root_makes_with_settings() {
    if !can_mount("ctl_takes_its_verbs_and_the_root_makes_with_settings") {
        return;
    }
    let (_c, peer, m) = start(&["small-6"]);
    let last = || peer.orders().last().unwrap().1.clone();
    m.write("configs/small-6/ctl", "resize disk 4096\n").unwrap();
    assert_eq!(last(), ConfigCommand::Resize { what: Resizable::Disk, to: 4096 });
    assert_eq!(m.read("configs/small-6/disk"), "4096\n");
    assert_eq!(errno(m.write("configs/small-6/ctl", "start gerby\n")), 95, "what the peer does not know");
    assert_eq!(last(), ConfigCommand::Start { on: Some(ServerName::parse("gerby").unwrap()) });
    m.write("configs/small-6/ctl", "clone small-8\n").unwrap();
    wait_for("the clone", || m.list("configs") == ["small-6", "small-8"]);
    m.write("configs/small-6/ctl", "rebuild\n").unwrap();
    assert_eq!(m.read("configs/small-6/state"), "creating\n");
    assert_eq!(errno(m.write("configs/small-6/ctl", "clone small-9\n")), 16, "a job runs");
    assert!(m.read("configs/small-6/ctl").ends_with("lease none; allowed now: cancel\n"));
    m.write("configs/small-6/ctl", "cancel\n").unwrap();
    assert_eq!(m.read("configs/small-6/wait"), "failed rebuild: EBUSY cancelled\n");
    assert_eq!(m.read("configs/small-6/state"), "failed\n");
    for (line, why) in [
        ("fly\n", "cannot run \"fly\": unknown command; commands are start, clone, resize, cancel, rebuild"),
        ("clone a.b\n", "config name \"a.b\" is not valid"),
        ("resize disk 1\n", "is not a whole number from 16"),
        ("cancel now\n", "too many words; usage: cancel"),
    ] {
        assert_eq!(errno(m.write("configs/small-6/ctl", line)), 22, "{line}");
        assert!(m.read("configs/small-6/error").contains(why), "{}", m.read("configs/small-6/error"));
    }
    m.shell("echo create web memory=512 packages=vim,curl address=10.0.0.5/24,via,10.0.0.1 vlan=12 > ctl && cat configs/web/state");
    assert_eq!(m.read("configs/web/memory"), "512\n");
    assert_eq!(m.read("configs/web/packages"), "vim curl\n");
    assert_eq!(errno(m.write("ctl", "create web\n")), 17, "EEXIST");
    assert_eq!(errno(m.write("ctl", "create web2 memory=1\n")), 22);
    // the same open file answers
    let answer =
        m.shell("exec 3<>ctl; echo create web3 >&3; head -n1 <&3; echo create web3 >&3; head -n1 <&3");
    let lines: Vec<&str> = answer.lines().collect();
    assert!(
        lines[0].starts_with("accepted as job ")
            && lines[1] == "EEXIST cannot create web3: there is one already",
        "{answer}"
    );
    peer.kill();
    wait_for("down", || m.read("configs/web/status").contains("imaged kerby down"));
    assert_eq!(errno(m.write("configs/web/ctl", "rebuild\n")), 112, "EHOSTDOWN");
    assert_eq!(m.read("configs/web/memory"), "512\n", "what was heard last stays");
}
