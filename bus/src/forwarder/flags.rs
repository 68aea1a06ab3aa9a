//! The command line of `xvm-forwarder`; `--help` and the manual page come from here.

use super::Config;
use crate::Endpoint;
use clap::{CommandFactory, Parser};
use xvm_model::ServerName;

const AFTER: &str = "\
Environment:
  XVM_LOG  which log lines go to standard error: error, warn, info (the default), debug, trace

Exit status:
  0  ended by SIGTERM or SIGINT
  1  could not start: the address is wrong, in use, or not of this machine; the sentence on standard error says which
  2  a wrong flag";

/// Passes the messages of xvm's bus on from all who speak to all who listen.
///
/// The agents of the servers and the mounts of the cluster find each other through this program: it is the one fixed address of a
/// cluster. It keeps nothing. When it is away, domains run on, files show what was heard last, and orders are refused with
/// EHOSTUNREACH; when it is back, all connect again by themselves. Several may run at once: name all of them to each daemon.
///
/// Each second it says under the topic forwarder.NAME how many messages and bytes it passed on and how many it dropped since they
/// were not of the bus's form (two frames, a topic of at most 300 bytes, a body of at most 8 MiB). A subscriber that does not read
/// loses messages and costs no one else anything.
#[derive(Debug, Parser)]
#[command(name = "xvm-forwarder", version, max_term_width = 100, after_long_help = AFTER)]
pub struct Flags {
    /// Where to listen: HOST:PORT, tcp://HOST:PORT (an IPv6 address in brackets) or ipc://PATH
    ///
    /// Two sockets belong to it: who speaks connects to PORT (or PATH.in), who listens to PORT + 1 (or PATH.out). Port 0 takes two
    /// free ports and says which. The daemons are given the same address.
    #[arg(value_name = "LISTEN", default_value = "tcp://127.0.0.1:5750")]
    pub listen: Endpoint,
    /// Where guests reach it, through two more sockets that pass nothing but what is a guest's
    ///
    /// guestd(8) is given this address. What guests say there passes only when it is theirs (heartbeats, results, processes, answers),
    /// and they hear only orders to guests: whoever has a guest can neither see nor command servers, configs and domains. A guest can
    /// speak as another one that has no key: machines that imaged made have one. Other machines may reach this address without --insecure.
    #[arg(long, value_name = "LISTEN")]
    pub guests: Option<Endpoint>,
    /// Its name on the bus [default: the host's name]
    ///
    /// 1 to 64 letters, digits, '-', '.' or '_'. Two forwarders of one cluster need two names.
    #[arg(long, value_name = "NAME")]
    pub name: Option<ServerName>,
    /// Listen also where other machines can reach it, though the bus is not protected
    ///
    /// Whoever reaches an unprotected bus can stop and move all domains. Without this flag only loopback addresses and ipc:// are
    /// accepted.
    #[arg(long)]
    pub insecure: bool,
}

impl Flags {
    /// What the forwarder is started with.
    pub fn config(self) -> Config {
        let host = || {
            let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            ServerName::parse(text.trim()).ok()
        };
        let name = self.name.or_else(host);
        let name = name.unwrap_or_else(|| ServerName::parse("main").expect("a valid name"));
        Config { listen: self.listen, guests: self.guests, name, insecure: self.insecure }
    }
}

/// The command line as a value, for manual pages and completions.
pub fn command() -> clap::Command {
    Flags::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_sound() {
        command().debug_assert();
        let flags = Flags::parse_from(["xvm-forwarder", "[::1]:7", "--name", "main"]);
        assert_eq!(flags.config().listen.to_string(), "tcp://[::1]:7");
        let e = Flags::try_parse_from(["xvm-forwarder", "udp://x:1"]).unwrap_err().to_string();
        assert!(e.contains("allowed are"), "{e}");
    }
}
