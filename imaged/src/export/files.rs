//! Names: the key of a daemon, its files in the run directory, its command line; what is wanted of it.
//!
//! | file | what |
//! |---|---|
//! | `KEY.lock` | locked by the daemon as long as it lives |
//! | `KEY.qmp` | the socket on which it takes orders, from one caller at a time: who stays connected there makes it look hung |
//! | `KEY.pid` | its process number, written by itself: a hint |
//! | `KEY.log` | what it said |

use super::ExportError;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where daemons are, and what they are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The directory of their sockets, locks and logs; made when it is not there. For this user alone, and for one imaged.
    pub run: PathBuf,
    /// Where they listen.
    pub listen: IpAddr,
    /// `qemu-storage-daemon`.
    pub program: PathBuf,
    /// Certificates and keys as QEMU names them: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`; none: nothing is served by TLS.
    pub tls: Option<PathBuf>,
}

/// A raw file or block device that is exported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Its name within this daemon: `disk`, `swap`.
    pub node: String,
    /// Where it is; absolute. A file whose size is no multiple of 512 is exported with zeros up to the next.
    pub path: PathBuf,
    /// Whether its exports may be written.
    pub writable: bool,
}

/// What one daemon is to serve.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Its TCP port.
    pub port: u16,
    /// The volumes; one that no export names is not opened.
    pub volumes: Vec<Volume>,
    /// Each export's name, and the volume's that it shows. Several exports may show one volume.
    pub exports: Vec<(String, String)>,
    /// The servers that are let in, by TLS alone; none: whoever comes, without TLS.
    pub servers: Option<Vec<String>>,
}

/// Whose daemon: a config's name, or `boot`. It can be a part of a file's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(String);

/// The id of the credentials in a daemon.
const CREDENTIALS: &str = "tls";
/// The id of the list of who is let in; without it nobody is.
pub(super) const SERVERS: &str = "servers";

/// The descriptor under which a daemon gets the socket on which it listens.
pub(super) const SOCKET: u32 = 3;

/// The bytes that the path of a Unix socket may have, without the NUL at its end.
const SOCKET_PATH: usize = 107;

impl Key {
    pub(super) fn parse(text: &str, place: &Place) -> Result<Key, ExportError> {
        let wrong = |why: &str| Err(ExportError::Key { key: text.into(), why: why.into() });
        if !word(text) || text.len() > 64 {
            return wrong(
                "1 to 64 letters, digits, `-`, `.` and `_` are allowed, the first a letter or digit",
            );
        }
        let Some(run) = place.run.to_str().filter(|r| r.starts_with('/') && !r.contains('\n')) else {
            return wrong("its run directory is not absolute, or not UTF-8");
        };
        if run.len() + text.len() + "/.qmp".len() > SOCKET_PATH {
            return wrong("the path of its socket is too long; take a shorter run directory");
        }
        Ok(Key(text.into()))
    }

    /// From an argument that [`Place::socket_options`] made.
    pub(super) fn of_option(option: &str, place: &Place) -> Option<Key> {
        let (_, rest) = option.rsplit_once('/')?;
        let (name, _) = rest.rsplit_once(".qmp,server=on,")?;
        let key = Key::parse(name, place).ok()?;
        place.socket_options(&key).iter().any(|o| o == option).then_some(key)
    }
}

/// Letters, digits, `-`, `.` and `_`, the first a letter or digit: harmless in a file's name and on a command line.
fn word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Place {
    pub(super) fn file(&self, key: &Key, kind: &str) -> PathBuf {
        self.run.join(format!("{key}.{kind}"))
    }

    pub(super) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.listen, port)
    }

    /// The arguments that make a process the daemon of `key`, of which it has one: they hold the path of its socket. The first is given
    /// now, the other was by an older imaged.
    ///
    /// With the first it waits for its first caller. Without, QEMU's main thread and the thread of its monitor for a moment both look for
    /// callers, and one of them hangs for good when one calls then (QEMU before 11; seen with one CPU in 8 of 150 starts).
    pub(super) fn socket_options(&self, key: &Key) -> [String; 2] {
        let path = escaped(&self.file(key, "qmp"));
        ["on", "off"].map(|wait| format!("socket,id=qmp,path={path},server=on,wait={wait}"))
    }

    /// The argument that says where it listens, for who looks at it later: an id, in which no `:` is allowed. The socket itself is handed
    /// to it as [`SOCKET`].
    pub(super) fn listen_option(&self, port: u16, tls: bool) -> String {
        let tls = if tls { "-tls" } else { "" };
        format!("chardev=qmp,id=at-{}-{port}{tls}", self.listen).replace(':', "_")
    }

    /// The whole command line, without the program. The error says that nobody can be let in by TLS here.
    pub(super) fn arguments(&self, key: &Key, port: u16, tls: bool) -> Result<Vec<String>, ExportError> {
        let [socket, _older] = self.socket_options(key);
        let (pid, mut server) = (self.file(key, "pid"), format!("addr.type=fd,addr.str={SOCKET}"));
        let mut all = Vec::new();
        if tls {
            let dir = self.tls.as_ref().ok_or_else(|| ExportError::Start {
                key: key.to_string(),
                why: "its lease wants TLS, and there are no certificates (--tls)".into(),
            })?;
            let dir = escaped(dir);
            let object = format!("tls-creds-x509,id={CREDENTIALS},endpoint=server,verify-peer=on,dir={dir}");
            all.extend(["--object".into(), object]);
            server += &format!(",tls-creds={CREDENTIALS},tls-authz={SERVERS}");
        }
        // carried out in this order, the pid file last of all: a server that fails does so before the socket waits for its caller
        let usual = [
            "--nbd-server",
            &server,
            "--chardev",
            &socket,
            "--monitor",
            &self.listen_option(port, tls),
            "--pidfile",
            &pid.to_string_lossy(),
        ];
        all.extend(usual.map(String::from));
        Ok(all)
    }
}

/// In QEMU's options a comma within a value is written twice.
fn escaped(path: &std::path::Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

impl Wanted {
    /// The volume that an export shows.
    pub(super) fn volume(&self, node: &str) -> Option<&Volume> {
        self.volumes.iter().find(|v| v.node == node)
    }

    /// What no daemon could serve, by its name.
    pub(super) fn check(&self, key: &Key) -> Result<(), ExportError> {
        if self.port == 0 {
            return Err(ExportError::Refused { what: key.to_string(), why: "it has no port".into() });
        }
        for (i, (name, node)) in self.exports.iter().enumerate() {
            let refused = |why: String| Err(ExportError::Refused { what: name.clone(), why });
            if !word(name) || name.len() > 200 {
                return refused("1 to 200 letters, digits, `-`, `.` and `_` are allowed as its name".into());
            }
            if self.volume(node).is_none() {
                return refused(format!("there is no volume {node:?}"));
            }
            if self.exports[..i].iter().any(|(other, _)| other == name) {
                return refused("it is wanted twice".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(run: &str) -> Place {
        Place {
            run: run.into(),
            listen: [127, 0, 0, 1].into(),
            program: "qemu-storage-daemon".into(),
            tls: None,
        }
    }

    #[test]
    fn keys_and_their_edges() {
        let p = place("/run/xvm");
        for good in ["a", "small-6", "9", "boot", &"a".repeat(64)] {
            assert!(Key::parse(good, &p).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a,b", "ä", "a\n", &"a".repeat(65)] {
            assert!(Key::parse(bad, &p).is_err(), "{bad}");
        }
        assert!(Key::parse("a", &place("run")).is_err());
        assert!(Key::parse("a", &place(&format!("/{}", "r".repeat(100)))).is_ok());
        assert!(Key::parse("ab", &place(&format!("/{}", "r".repeat(100)))).is_err());
    }

    #[test]
    fn a_command_line_tells_its_key() {
        for run in ["/run/xvm", "/run/a,b"] {
            let p = place(run);
            let key = Key::parse("small-6", &p).expect("a key");
            let [now, older] = p.socket_options(&key);
            assert_eq!(Key::of_option(&now, &p), Some(key.clone()));
            assert_eq!(Key::of_option(&now, &place("/run/other")), None);
            assert_eq!(Key::of_option(&older, &p), Some(key.clone()), "one of before an upgrade");
        }
        assert_eq!(Key::of_option("/run/xvm/small-6.qmp", &place("/run/xvm")), None);
    }

    #[test]
    fn what_is_wanted_is_checked() {
        let disk = Volume { node: "disk".into(), path: "/x".into(), writable: true };
        let wanted = |exports: &[(&str, &str)]| Wanted {
            port: 1,
            volumes: vec![disk.clone()],
            exports: exports.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            servers: None,
        };
        let key = Key::parse("a", &place("/run")).expect("a key");
        assert!(wanted(&[("a.b.1", "disk"), ("a.c.2", "disk")]).check(&key).is_ok());
        assert!(Wanted { port: 0, ..wanted(&[]) }.check(&key).is_err());
        for bad in
            [&[("a", "swap")][..], &[("", "disk")], &[("a,b", "disk")], &[("a", "disk"), ("a", "disk")]]
        {
            assert!(wanted(bad).check(&key).is_err(), "{bad:?}");
        }
    }
}
