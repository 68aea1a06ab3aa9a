//! A qemu-storage-daemon that exports files, and removes exports at once and for good, as imaged has it do.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// It ends with this value.
pub struct Server {
    dir: tempfile::TempDir,
    pub port: u16,
    exports: BTreeSet<String>,
    child: Child,
}

impl Server {
    /// With exports of 8 MiB, each of a file of its own.
    pub fn start(exports: &[&str]) -> Server {
        let dir = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        for export in exports {
            let file = File::create(dir.path().join(format!("{export}.img"))).expect("a file");
            file.set_len(8 << 20).expect("its length");
        }
        let exports: BTreeSet<String> = exports.iter().map(|e| (*e).to_owned()).collect();
        let child = spawn(dir.path(), port, &exports);
        Server { dir, port, exports, child }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What is in an export's file.
    pub fn content(&self, export: &str) -> Vec<u8> {
        fs::read(self.dir().join(format!("{export}.img"))).expect("a file")
    }

    /// Removes an export, whoever uses it.
    pub fn cut(&mut self, export: &str) {
        let id = self.id(export);
        self.qmp("block-export-del", &format!(r#"{{"id":"{id}","mode":"hard"}}"#));
    }

    /// Brings it back.
    pub fn export(&mut self, export: &str) {
        let id = self.id(export);
        self.qmp(
            "block-export-add",
            &format!(r#"{{"type":"nbd","id":"{id}","node-name":"f{id}","name":"{export}","writable":true}}"#),
        );
    }

    /// It is killed, and started anew.
    pub fn restart(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("killed");
        self.child = spawn(self.dir.path(), self.port, &self.exports);
    }

    fn id(&self, export: &str) -> String {
        format!("e{}", self.exports.iter().position(|e| e == export).expect("an export"))
    }

    fn qmp(&self, what: &str, arguments: &str) {
        let mut socket = UnixStream::connect(self.dir().join("qmp")).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a bound");
        let mut lines = BufReader::new(socket.try_clone().expect("a copy")).lines();
        lines.next().expect("a greeting").expect("read");
        for order in [
            r#"{"execute":"qmp_capabilities"}"#.to_owned(),
            format!(r#"{{"execute":"{what}","arguments":{arguments}}}"#),
        ] {
            writeln!(socket, "{order}").expect("said");
            let answer = lines.by_ref().map(|l| l.expect("read")).find(|l| !l.contains("\"event\""));
            assert!(answer.as_ref().is_some_and(|a| a.contains("\"return\"")), "{order}: {answer:?}");
        }
        if what == "block-export-del" {
            lines.map(|l| l.expect("read")).find(|l| l.contains("BLOCK_EXPORT_DELETED")).expect("deleted");
        }
    }
}

fn spawn(dir: &Path, port: u16, exports: &BTreeSet<String>) -> Child {
    let mut command = Command::new("qemu-storage-daemon");
    command.arg("--nbd-server").arg(format!("addr.type=inet,addr.host=127.0.0.1,addr.port={port}"));
    command
        .arg("--chardev")
        .arg(format!("socket,id=qmp,path={},server=on,wait=off", dir.join("qmp").display()));
    command.args(["--monitor", "chardev=qmp"]);
    for (i, export) in exports.iter().enumerate() {
        let file = dir.join(format!("{export}.img"));
        command.arg("--blockdev").arg(format!("driver=file,node-name=fe{i},filename={}", file.display()));
        command.arg("--export").arg(format!("type=nbd,id=e{i},node-name=fe{i},name={export},writable=on"));
    }
    let mut child = command.spawn().expect("qemu-storage-daemon");
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() || !dir.join("qmp").exists() {
        assert!(child.try_wait().expect("a child").is_none(), "it ended");
        assert!(Instant::now() < end, "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
