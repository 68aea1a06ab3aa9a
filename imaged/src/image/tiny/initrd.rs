//! The initial RAM file system of `tiny`: busybox, the modules of disk, network and power button, and a script that mounts the root.

use super::super::{
    job::Job,
    tool::{Tool, Trouble},
};
use super::cpio::Archive;
use flate2::{Compression, write::GzEncoder};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// In the order of loading: each after those that it needs. What a kernel has built in has no file, and is left out.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_balloon",
    "xen-blkfront",
    "xen-netfront",
    "button",
    "evdev",
    "af_packet",
    "libcrc32c",
    "crc32c_generic",
    "crc16",
    "mbcache",
    "jbd2",
    "ext4",
];

/// Copies the modules that there are from a kernel's directory to `to`, unpacked, named by their order.
pub async fn collect(job: &Job<'_>, from: &Path, to: &Path) -> Result<(), Trouble> {
    fs::create_dir(to).map_err(|e| Trouble::of(to, &e))?;
    let all = find(from).map_err(|e| Trouble::of(from, &e))?;
    for (i, module) in MODULES.iter().enumerate() {
        let named = |p: &&PathBuf| {
            let name = p.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once(".ko")).map(|n| n.0);
            name.is_some_and(|n| n.replace('-', "_") == module.replace('-', "_"))
        };
        let Some(file) = all.iter().find(named) else { continue };
        let target = to.join(format!("{i:02}-{module}.ko"));
        let unpack = match file.extension().and_then(|e| e.to_str()) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            Some("gz") => "gzip",
            _ => {
                fs::copy(file, &target).map_err(|e| Trouble::of(&target, &e))?;
                continue;
            }
        };
        let script = r#""$1" -dc < "$2" > "$3""#;
        job.run(Tool::new("sh").args(["-c", script, "unpack", unpack]).args([file, &target])).await?;
    }
    Ok(())
}

/// All modules below a directory. Links are not followed: `build` leads far away.
fn find(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut todo) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains(".ko") {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Packs it.
pub fn make(busybox: &Path, modules: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["bin", "m"] {
        archive.dir(dir);
    }
    archive.file("init", 0o755, include_bytes!("init"));
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    let mut files: Vec<PathBuf> =
        fs::read_dir(modules)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
    files.sort();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.file(&format!("m/{name}"), 0o644, &fs::read(&file)?);
    }
    // no time in its head: the same parts make the same bytes, which are kept once
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&archive.finish())?;
    packed.finish()
}
