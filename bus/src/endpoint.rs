//! Where a forwarder is.

/// The port of the publishers' side when none is named; the subscribers' side is the next one.
pub const DEFAULT_PORT: u16 = 5750;

/// A forwarder's address: `host`, `host:port`, `[v6]:port`, `tcp://host:port` or `ipc://path`.
///
/// One address is two sockets: publishers connect to `port` (or `path.in`), subscribers to `port + 1` (or `path.out`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Over the network.
    Tcp {
        /// A name or an address; a v6 address without its brackets.
        host: String,
        /// The publishers' side, 1 to 65534; 0 lets a forwarder choose.
        port: u16,
    },
    /// On this machine.
    Ipc {
        /// Without `.in` and `.out`.
        path: String,
    },
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot use the forwarder's address {text:?}: {why}; allowed are HOST, HOST:PORT, [V6]:PORT, tcp://HOST:PORT and ipc://PATH"
)]
pub struct EndpointError {
    text: String,
    why: String,
}

/// sockaddr_un holds 108 bytes, its end included.
const IPC_MAX: usize = 107 - ".out".len();

impl Endpoint {
    /// Reads an address; the error names it and says what is allowed.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let bad = |why: String| EndpointError { text: text.chars().take(200).collect(), why };
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(bad("it holds a space or a control character".into()));
        }
        if let Some(path) = text.strip_prefix("ipc://") {
            return match path.len() {
                _ if !path.starts_with('/') => Err(bad("the path does not begin with '/'".into())),
                _ if path.ends_with('/') => Err(bad("the path names a directory".into())),
                n if n > IPC_MAX => {
                    Err(bad(format!("the path has {n} bytes, at most {IPC_MAX} fit a socket")))
                }
                _ => Ok(Endpoint::Ipc { path: path.to_owned() }),
            };
        }
        let rest = text.strip_prefix("tcp://").unwrap_or(text);
        let port_of = |port: &str| match port.parse::<u16>() {
            Ok(port) if port < u16::MAX => Ok(port),
            _ => Err(bad(format!("port {port:?} is not a number from 0 to 65534"))),
        };
        let (host, port) = if let Some(v6) = rest.strip_prefix('[') {
            let (host, after) = v6.split_once(']').ok_or_else(|| bad("']' is missing".into()))?;
            if host.split('%').next().is_none_or(|a| a.parse::<std::net::Ipv6Addr>().is_err()) {
                return Err(bad(format!("{host:?} is not an IPv6 address")));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, port_of(port)?),
                None if after.is_empty() => (host, DEFAULT_PORT),
                None => return Err(bad(format!("{after:?} follows the ']'"))),
            }
        } else if rest.parse::<std::net::Ipv6Addr>().is_ok() {
            (rest, DEFAULT_PORT)
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, port_of(port)?),
                None => (rest, DEFAULT_PORT),
            }
        };
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            return Err(bad(format!("{host:?} is not a host's name or address")));
        }
        Ok(Endpoint::Tcp { host: host.to_owned(), port })
    }

    /// What publishers connect to, in libzmq's words.
    pub fn publish(&self) -> String {
        self.side(0, "in")
    }

    /// What subscribers connect to, in libzmq's words.
    pub fn subscribe(&self) -> String {
        self.side(1, "out")
    }

    fn side(&self, more: u16, suffix: &str) -> String {
        match self {
            Endpoint::Tcp { host, port } => {
                // libzmq takes the first address of a name, and this one has two
                let host = if host == "localhost" { "127.0.0.1" } else { host };
                format!("tcp://{}:{}", bracket(host), port.saturating_add(more))
            }
            Endpoint::Ipc { path } => format!("ipc://{path}.{suffix}"),
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Endpoint::Ipc { .. } => true,
            Endpoint::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
            }
        }
    }
}

/// A v6 address gets its brackets.
fn bracket(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp { host, port } => write!(f, "tcp://{}:{port}", bracket(host)),
            Endpoint::Ipc { path } => write!(f, "ipc://{path}"),
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_says_both_sides() {
        for (text, publish, subscribe) in [
            ("ferby", "tcp://ferby:5750", "tcp://ferby:5751"),
            ("ferby:6000", "tcp://ferby:6000", "tcp://ferby:6001"),
            ("tcp://10.0.0.1:7", "tcp://10.0.0.1:7", "tcp://10.0.0.1:8"),
            ("[::1]:7", "tcp://[::1]:7", "tcp://[::1]:8"),
            ("::1", "tcp://[::1]:5750", "tcp://[::1]:5751"),
            ("ipc:///run/xvm/bus", "ipc:///run/xvm/bus.in", "ipc:///run/xvm/bus.out"),
        ] {
            let e = Endpoint::parse(text).unwrap();
            assert_eq!((e.publish().as_str(), e.subscribe().as_str()), (publish, subscribe), "{text}");
            assert_eq!(Endpoint::parse(&e.to_string()), Ok(e), "{text} reads back");
        }
    }

    #[test]
    fn a_wrong_one_is_named() {
        let long = format!("ipc:///{}", "a".repeat(103));
        for bad in [
            "",
            ":5750",
            "a:b",
            "a:70000",
            "a:65535",
            "udp://a:1",
            "[::1",
            "[x]:1",
            "[::1]x",
            "a b",
            "a/b",
            "a:1:2",
            "ipc://",
            "ipc://x",
            "ipc:///a/",
            "tcp://",
            "a\0b",
            &long,
        ] {
            let e = Endpoint::parse(bad).expect_err(bad).to_string();
            assert!(e.contains("allowed are"), "{e}");
        }
        assert!(Endpoint::parse(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn only_loopback_is_local() {
        for (text, local) in [
            ("127.0.0.1", true),
            ("127.3.2.1:9", true),
            ("[::1]:1", true),
            ("localhost", true),
            ("ipc:///x", true),
        ]
        .into_iter()
        .chain([("0.0.0.0", false), ("ferby", false), ("[::]:1", false), ("10.0.0.1", false)])
        {
            assert_eq!(Endpoint::parse(text).unwrap().is_local(), local, "{text}");
        }
    }
}
