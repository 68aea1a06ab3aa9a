//! A storage daemon on the lab's storage host, with one disk of 64 MiB that may have several exports.

use crate::lab::Lab;
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
};

/// Where its exports are, on the host `store`.
pub const PORT: u16 = 10809;

/// It ends with its lab.
pub struct Storage {
    disk: PathBuf,
    socket: PathBuf,
}

impl Storage {
    pub fn start(lab: &Lab) -> Storage {
        let (disk, socket) = (lab.dir().join("disk.img"), lab.dir().join("qmp"));
        std::fs::File::create(&disk).and_then(|f| f.set_len(64 << 20)).expect("scratch file");
        let file = format!("driver=file,node-name=file,filename={}", disk.display());
        let server = format!("addr.type=inet,addr.host={},addr.port={PORT}", lab.address("store"));
        let chardev = format!("socket,id=qmp,path={},server=on,wait=off", socket.display());
        let pid = lab.dir().join("storage.pid");
        let words =
            ["exec", "store", "qemu-storage-daemon", "--daemonize", "--pidfile", &pid.to_string_lossy()];
        let rest = [
            "--blockdev",
            &file,
            "--blockdev",
            "driver=raw,node-name=disk,file=file",
            "--nbd-server",
            &server,
            "--chardev",
            &chardev,
            "--monitor",
            "chardev=qmp",
        ];
        lab.sh(&[&words[..], &rest[..]].concat());
        Storage { disk, socket }
    }

    /// Adds an export of that name.
    pub fn export(&self, name: &str) {
        self.order(&format!(
            r#"{{"execute":"block-export-add","arguments":{{"type":"nbd","id":"{name}","node-name":"disk","name":"{name}","writable":true}}}}"#
        ));
    }

    /// Removes it, with whoever uses it.
    pub fn revoke(&self, name: &str) {
        self.order(&format!(
            r#"{{"execute":"block-export-del","arguments":{{"id":"{name}","mode":"hard"}}}}"#
        ));
    }

    /// The number of the guest's last tick that is on the disk.
    pub fn tick(&self) -> Option<u64> {
        let bytes = std::fs::read(&self.disk).expect("scratch file");
        let line = String::from_utf8_lossy(&bytes[..64]).into_owned();
        line.strip_prefix("TICK ")?.split(' ').next()?.parse().ok()
    }

    fn order(&self, order: &str) {
        let stream = UnixStream::connect(&self.socket).expect("its socket");
        let mut lines = BufReader::new(stream.try_clone().expect("socket")).lines();
        let mut ask = |text: &str| {
            (&stream).write_all(format!("{text}\n").as_bytes()).expect("written");
            // events come between
            let answer =
                lines.find(|l| l.as_ref().is_ok_and(|l| l.contains("\"return\"") || l.contains("\"error\"")));
            let answer = answer.expect("an answer").expect("read");
            assert!(answer.contains("\"return\""), "{text}: {answer}");
        };
        ask(r#"{"execute":"qmp_capabilities"}"#);
        ask(order);
    }
}
