//! The files that domains boot from, exported under a port of their own. An order that makes an agent fetch some is held until they
//! are there: an image is told as ready before its kernel is exported.

use super::exporter::Exporter;
use crate::export::{Volume, Wanted};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use xvm_model::spec::Blob;

/// The key of their exports; no config's name holds a `_`.
pub(super) const BOOT_KEY: &str = "boot_files";
/// After so long exports that failed are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What became of the last wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is being made true.
    Wished,
    /// It is true.
    There,
    /// It is to be wished again.
    Failed,
}

/// What is exported of the directory of boot files.
pub(super) struct BootFiles {
    dir: PathBuf,
    port: u16,
    wanted: Vec<Blob>,
    state: watch::Sender<State>,
}

impl BootFiles {
    /// Nothing is exported yet of the files in `dir`.
    pub(super) fn new(dir: PathBuf, port: u16) -> Self {
        BootFiles { dir, port, wanted: Vec::new(), state: watch::Sender::new(State::There) }
    }

    /// From now on exactly `blobs` are exported.
    pub(super) fn export(&mut self, blobs: Vec<Blob>, exporter: &mut Exporter, tasks: &mut JoinSet<()>) {
        if blobs == self.wanted && *self.state.borrow() != State::Failed {
            return;
        }
        let volume = |b: &Blob| Volume { node: b.name(), path: self.dir.join(b.name()), writable: false };
        let volumes = blobs.iter().map(volume).collect();
        let exports = blobs.iter().map(|b| (b.name(), b.name())).collect();
        let set = exporter.set(BOOT_KEY, Wanted { port: self.port, volumes, exports, servers: None });
        self.wanted = blobs;
        self.state = watch::Sender::new(State::Wished);
        let state = self.state.clone();
        tasks.spawn(async move {
            if let Err(error) = set.await {
                tracing::error!(%error, "files to boot from are not exported");
                tokio::time::sleep(AGAIN).await;
                state.send_replace(State::Failed);
            } else {
                state.send_replace(State::There);
            }
        });
    }

    /// Its daemon has ended by itself.
    pub(super) fn died(&mut self) {
        self.state.send_replace(State::Failed);
    }

    /// Ends when what is wanted now is exported, or after `bound`: then the agent says what it lacks.
    pub(super) fn there(&self, bound: Duration) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.subscribe();
        async move {
            drop(timeout(bound, state.wait_for(|s| *s == State::There)).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{Exports, Place};
    use std::os::unix::fs::PermissionsExt;

    /// If this fails, a machine that is started as soon as it is made has no kernel.
    #[tokio::test]
    async fn who_waits_finds_them_exported() {
        let program = ["/usr/bin", "/usr/sbin"].map(|d| format!("{d}/qemu-storage-daemon"));
        let Some(program) = program.iter().find(|p| std::path::Path::new(p).exists()) else {
            return eprintln!("SKIP who_waits_finds_them_exported: needs qemu-storage-daemon");
        };
        let dir = tempfile::tempdir().expect("a scratch folder");
        // one that takes its time
        let slow = dir.path().join("slow");
        std::fs::write(&slow, format!("#!/bin/sh\nsleep 0.3\nexec {program} \"$@\"\n")).expect("written");
        std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).expect("ours");
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            free.local_addr().expect("its address").port()
        };
        let place =
            Place { run: dir.path().join("run"), listen: [127, 0, 0, 1].into(), program: slow, tls: None };
        let (mut exporter, mut tasks) = (Exporter::new(Exports::new(place.clone())), JoinSet::new());
        let mut files = BootFiles::new(dir.path().into(), port);
        files.there(Duration::from_secs(30)).await; // nothing is wanted
        let blob = Blob { sha256: "ab".into(), size: 512 };
        std::fs::write(dir.path().join(blob.name()), [0; 512]).expect("written");
        files.export(vec![blob.clone()], &mut exporter, &mut tasks);
        files.there(Duration::from_secs(30)).await;
        let exported = Exports::new(place.clone()).exported(BOOT_KEY).await.expect("known");
        assert_eq!(exported, [blob.name()]);
        files.export(Vec::new(), &mut exporter, &mut tasks);
        while tasks.join_next().await.is_some() {}
        assert_eq!(Exports::new(place).exported(BOOT_KEY).await.expect("known"), [""; 0]);
    }
}
