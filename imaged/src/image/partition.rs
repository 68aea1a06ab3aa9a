//! Where the file systems of a disk begin: on the whole disk, or in its partitions (GPT, or the old table of four).

use super::ext4::Fs;
use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

const SECTOR: u64 = 512;

/// The ext4 file system on the disk that is largest: its root, on the images that people make. None: there is none.
pub fn root(disk: &Path) -> io::Result<Option<Fs>> {
    let whole = Fs { disk: disk.to_owned(), offset: 0 };
    if whole.is_ext4()? {
        return Ok(Some(whole));
    }
    let mut parts = partitions(&File::open(disk)?)?;
    parts.sort_by_key(|&(_, sectors)| std::cmp::Reverse(sectors));
    for (first, _) in parts {
        let Some(offset) = first.checked_mul(SECTOR) else { continue };
        let part = Fs { disk: disk.to_owned(), offset };
        if part.is_ext4()? {
            return Ok(Some(part));
        }
    }
    Ok(None)
}

/// First sector and number of sectors of each partition.
fn partitions(disk: &File) -> io::Result<Vec<(u64, u64)>> {
    let mut head = [0; 1024];
    match disk.read_exact_at(&mut head, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Vec::new()),
        done => done?,
    }
    if &head[512..520] == b"EFI PART" {
        return gpt(disk, &head[512..]);
    }
    if head[510..512] != [0x55, 0xaa] {
        return Ok(Vec::new());
    }
    let entries = head[446..510].chunks_exact(16).filter(|e| e[4] != 0);
    Ok(entries.map(|e| (u64::from(u32_at(e, 8)), u64::from(u32_at(e, 12)))).collect())
}

fn gpt(disk: &File, head: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let (table, count, size) = (u64_at(head, 72), u32_at(head, 80), u32_at(head, 84));
    // what the standard has is 128 entries of 128 bytes
    if !(128..=4096).contains(&size) || count > 1024 {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut entry = vec![0; size as usize];
    for i in 0..u64::from(count) {
        let at = table.saturating_mul(SECTOR).saturating_add(i * u64::from(size));
        match disk.read_exact_at(&mut entry, at) {
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => break,
            done => done?,
        }
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        if entry[..16] != [0; 16] && last >= first {
            found.push((first, (last - first).saturating_add(1)));
        }
    }
    Ok(found)
}

/// The caller's slices hold these bytes: all offsets are below their fixed lengths.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A disk with these bytes at these places.
    fn disk(parts: &[(u64, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("file");
        file.as_file().set_len(8 << 20).expect("length");
        for (at, bytes) in parts {
            file.as_file().write_all_at(bytes, *at).expect("write");
        }
        file
    }

    const MAGIC: &[u8] = &[0x53, 0xef];

    #[test]
    fn the_largest_ext4_of_a_gpt() {
        let entry = |first: u64, last: u64| {
            let mut e = [0; 128];
            e[0] = 1;
            e[32..40].copy_from_slice(&first.to_le_bytes());
            e[40..48].copy_from_slice(&last.to_le_bytes());
            e
        };
        let mut head = [0; 512];
        head[..8].copy_from_slice(b"EFI PART");
        head[72] = 2;
        head[80] = 128;
        head[84] = 128;
        let (a, b, c) = (entry(2048, 4095), entry(4096, 8191), entry(8192, 16383));
        let d = disk(&[
            (512, &head),
            (1024, &a),
            (1024 + 128, &b),
            (1024 + 256, &c),
            (2048 * 512 + 1080, MAGIC),
            (4096 * 512 + 1080, MAGIC),
        ]);
        assert_eq!(root(d.path()).expect("read").expect("found").offset, 4096 * 512);
    }

    #[test]
    fn the_old_table_and_none_at_all() {
        let mut entry = [0; 66];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&2048u32.to_le_bytes());
        entry[12..16].copy_from_slice(&1000u32.to_le_bytes());
        entry[64..].copy_from_slice(&[0x55, 0xaa]);
        let d = disk(&[(446, &entry), (2048 * 512 + 1080, MAGIC)]);
        assert_eq!(root(d.path()).expect("read").expect("found").offset, 1 << 20);
        assert_eq!(root(disk(&[(1080, MAGIC)]).path()).expect("read").expect("found").offset, 0);
        assert_eq!(root(disk(&[]).path()).expect("read"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(mut bytes in prop::collection::vec(any::<u8>(), 2048), gpt: bool) {
            if gpt {
                bytes[512..520].copy_from_slice(b"EFI PART");
                bytes[596..600].copy_from_slice(&[128, 0, 0, 0]);
            }
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            let file = disk(&[(0, &bytes)]);
            prop_assert!(root(file.path()).is_ok());
        }
    }
}
