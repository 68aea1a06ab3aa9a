//! Files to write and to remove, in a directory or inside an unmounted ext4 image.
//!
//! A system that ran is not trusted: whatever its links say, nothing outside of it is touched.

use super::{
    cage::Cage,
    ext4::Fs,
    tool::{Tool, Trouble},
};
use std::{
    fmt::Write,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// One change; paths begin without `/`, owners are root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A directory, with its mode, if it is missing.
    Dir(&'static str, u16),
    /// A file in place of what is there, with its mode.
    File(&'static str, u16, String),
    /// A symbolic link in place of what is there.
    Link(&'static str, &'static str),
    /// No such file.
    Gone(&'static str),
    /// A copy of a file of this machine in place of what is there. Its name holds letters, digits and `._+-` alone.
    Copy {
        /// Where.
        path: String,
        /// Its mode.
        mode: u16,
        /// Of which file.
        from: PathBuf,
    },
}

impl Edit {
    fn path(&self) -> &str {
        match self {
            Edit::Dir(path, _) | Edit::File(path, ..) | Edit::Link(path, _) | Edit::Gone(path) => path,
            Edit::Copy { path, .. } => path,
        }
    }
}

/// Changes a directory that holds a system.
pub fn in_dir(root: &Path, edits: &[Edit]) -> Result<(), Trouble> {
    edits.iter().try_for_each(|edit| {
        let path = root.join(edit.path());
        one_in_dir(root, &path, edit).map_err(|e| Trouble::of(&path, &e))
    })
}

fn one_in_dir(root: &Path, path: &Path, edit: &Edit) -> io::Result<()> {
    let parent = path.parent().unwrap_or(root);
    match fs::canonicalize(parent) {
        // a parent that is a link may lead out
        Ok(real) if !real.starts_with(fs::canonicalize(root)?) => {
            return Err(io::Error::other("its directory is a link that leads out of the system"));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && matches!(edit, Edit::Gone(_)) => return Ok(()),
        other => other?,
    };
    if let Edit::Dir(_, mode) = edit {
        return match fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode((*mode).into()))),
        };
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match edit {
        Edit::File(_, mode, text) => {
            fs::write(path, text)?;
            fs::set_permissions(path, fs::Permissions::from_mode((*mode).into()))
        }
        Edit::Copy { mode, from, .. } => {
            fs::copy(from, path)?;
            fs::set_permissions(path, fs::Permissions::from_mode((*mode).into()))
        }
        Edit::Link(_, to) => symlink(to, path),
        Edit::Dir(..) | Edit::Gone(_) => Ok(()),
    }
}

/// Changes a file system that nobody has mounted, and reads back what it wrote.
pub async fn in_image(cage: &Cage, image: &Fs, edits: &[Edit]) -> Result<(), Trouble> {
    let mut wanted: Vec<&str> = edits.iter().flat_map(|e| [parent(e.path()), e.path()]).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let dirs = directories(cage, image, &wanted).await?;
    for (i, edit) in edits.iter().enumerate() {
        let own = cage.dir.join(format!("edit.{i}"));
        let made = match edit {
            Edit::File(_, _, text) => fs::write(&own, text),
            Edit::Copy { from, .. } => fs::copy(from, &own).map(drop),
            _ => Ok(()),
        };
        made.map_err(|e| Trouble::of(&own, &e))?;
    }
    debugfs(cage, image, true, &commands(edits, &dirs)?).await?;
    // debugfs goes on after errors and ends with 0: what counts is what is there afterwards
    let paths: Vec<&str> = edits.iter().map(Edit::path).collect();
    let there = read(cage, image, &paths).await?;
    let bad = edits.iter().zip(there).find(|(edit, there)| match edit {
        Edit::File(_, _, text) => there.as_deref() != Some(text.as_bytes()),
        Edit::Copy { from, .. } => fs::read(from).ok() != *there,
        Edit::Gone(_) => there.is_some(),
        Edit::Dir(..) | Edit::Link(..) => false,
    });
    match bad {
        Some((edit, _)) => {
            Err(Trouble::Failed(format!("/{} of the image could not be changed", edit.path())))
        }
        None => Ok(()),
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Runs a script in the image; the answer is what was printed.
async fn debugfs(cage: &Cage, image: &Fs, write: bool, commands: &str) -> Result<String, Trouble> {
    let script = cage.dir.join("commands");
    fs::write(&script, commands).map_err(|e| Trouble::of(&script, &e))?;
    let write = write.then_some("-w");
    cage.run(Tool::new("debugfs").args(write).arg("-f").arg(&script).arg(image.address())).await
}

/// Which of the paths are directories. Links are none: `cd` of debugfs does not follow them.
async fn directories<'a>(cage: &Cage, image: &Fs, paths: &[&'a str]) -> Result<Vec<&'a str>, Trouble> {
    let script: String = paths.iter().map(|p| format!("stat /{p}\n")).collect();
    let text = debugfs(cage, image, false, &script).await?;
    let is_dir = |path: &str| {
        let answer = text.split("debugfs: stat /").find_map(|a| a.strip_prefix(path)?.strip_prefix('\n'));
        answer.is_some_and(|a| a.lines().next().is_some_and(|l| l.contains("Type: directory")))
    };
    Ok(paths.iter().copied().filter(|p| is_dir(p)).collect())
}

/// The script of debugfs. All paths are constants of this crate, or have plain names. A command whose directory is missing would work in another one, so none
/// such is given.
fn commands(edits: &[Edit], dirs: &[&str]) -> Result<String, Trouble> {
    let mut text = String::new();
    let mut dirs = dirs.to_vec();
    for (i, edit) in edits.iter().enumerate() {
        let path = edit.path();
        let name = path.rsplit('/').next().unwrap_or(path);
        match edit {
            Edit::Dir(..) if dirs.contains(&path) => continue,
            Edit::Gone(_) if !dirs.contains(&parent(path)) => continue,
            _ if !dirs.contains(&parent(path)) => {
                return Err(Trouble::Failed(format!("/{} of the image is no directory", parent(path))));
            }
            _ => {}
        }
        let owned = |kind: u32, mode: u16| {
            let mode = kind | u32::from(mode);
            format!("sif {name} mode 0{mode:o}\nsif {name} uid 0\nsif {name} gid 0\n")
        };
        let _ = write!(text, "cd /{}\nrm {name}\n", parent(path));
        let _ = match edit {
            Edit::Dir(_, mode) => {
                dirs.push(path);
                write!(text, "mkdir {name}\n{}", owned(0o040_000, *mode))
            }
            Edit::File(_, mode, _) | Edit::Copy { mode, .. } => {
                write!(text, "write edit.{i} {name}\n{}", owned(0o100_000, *mode))
            }
            Edit::Link(_, to) => writeln!(text, "symlink {name} {to}"),
            Edit::Gone(_) => Ok(()),
        };
    }
    Ok(text)
}

/// What files in an unmounted image hold; none where there is none.
pub async fn read(cage: &Cage, image: &Fs, paths: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Trouble> {
    let script: String = paths.iter().enumerate().map(|(i, p)| format!("dump /{p} read.{i}\n")).collect();
    debugfs(cage, image, false, &script).await?;
    (0..paths.len())
        .map(|i| {
            let out = cage.dir.join(format!("read.{i}"));
            match fs::read(&out) {
                Ok(bytes) => fs::remove_file(&out).map(|()| Some(bytes)).map_err(|e| Trouble::of(&out, &e)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Trouble::of(&out, &e)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_a_system_lead_nowhere_else() {
        let dir = tempfile::tempdir().expect("dir");
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("etc")).expect("etc");
        fs::create_dir(&outside).expect("outside");
        fs::write(outside.join("hosts"), "mine").expect("file");
        symlink(outside.join("hosts"), root.join("etc/hosts")).expect("link");
        symlink(&outside, root.join("var")).expect("link");
        let file = |path| Edit::File(path, 0o600, "theirs".into());
        in_dir(&root, &[file("etc/hosts")]).expect("the link is replaced");
        assert!(in_dir(&root, &[file("var/hosts")]).is_err(), "the directory leads out");
        assert_eq!(fs::read_to_string(outside.join("hosts")).expect("there"), "mine");
        assert_eq!(fs::metadata(root.join("etc/hosts")).expect("there").permissions().mode() & 0o777, 0o600);
        in_dir(&root, &[Edit::Gone("etc/hosts"), Edit::Gone("no/such/place"), Edit::Dir("etc", 0o755)])
            .expect("ok");
        assert!(!root.join("etc/hosts").exists());
    }
}
