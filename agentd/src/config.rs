//! The flags of agentd; its manual page comes from here too.

use crate::{
    hypervisor::Hypervisor,
    libvirt::{CpuList, Libvirt, LibvirtConfig},
    sim::{DomainSpec, FaultSpec, Sim, SimConfig},
    state::State,
};
use anyhow::{bail, ensure};
use clap::{Args, CommandFactory, Parser};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use xvm_bus::Endpoint;
use xvm_model::ServerName;

const LONG_ABOUT: &str = "\
agentd runs on each server of a cluster. It tells the others on the bus what the server's hypervisor does (heartbeats, each change \
of a domain at once), and carries out the commands that come from the mounted tree (xvmfs(8)): pause, shutdown, live migration and \
the others.

Without --hypervisor it simulates a server with domains of its own, to try the cluster out on one machine. With a libvirt URI it \
shows and controls the domains that are there: nothing has to be converted, and virsh(1) can be used beside it. When agentd ends, \
domains run on.";

const AFTER_HELP: &str = "\
Examples:
  agentd --hypervisor qemu:///system
      join the cluster with this machine's QEMU domains
  agentd --name ferby --state /tmp/ferby --domain small-1 --domain small-2,vcpus=2,demand=0.9
      a simulated server with two domains

Files:
  STATE/settings.toml  what users set of this server (heartbeat, accepting, watchdog, policy)
  STATE/boot           the number of the agent's last life
  STATE/lock           held while the agent runs
  STATE/help.json      rounds of help, and who was given away
  STATE/kernels/       the kernels and initial RAM file systems that domains made from configs boot from, by their content
  STATE/kernels.json   what each domain boots from
  /run/xvm/imports/    where the hypervisor does not open network block exports itself (Xen): the disks of domains made from \
configs, as links to /dev/nbdN; who loses the connection to imaged's export waits, which its status says (reason), and goes on when \
it is back: what was under way is asked again after 30 s
  STATE/sim/           the simulated domains
  STATE/sim/faults     what the simulated hypervisor does wrong, one `WORD [COUNT]` a line

Environment:
  XVM_LOG  which log lines go to standard error: error, warn, info (the default), debug, trace, or a filter such as \
xvm_agentd=debug

Signals:
  SIGTERM, SIGINT  end the agent; domains run on, but simulated ones, which go on with its next start

Exit status:
  0  ended by a signal
  1  could not start, or could not go on; the sentence on standard error says why
  2  a wrong flag

A domain moves only to a server with the same hypervisor and processors of the same architecture, on Xen of the same model too: libvirt's \
QEMU driver compares what the domain has been given by itself. `cpu` in the status of a server tells what libvirt says of it.

On a Xen server (xen:///system) xl(1) must be there too. The load of its CPUs is that of all domains, the first one included. A migration \
there cannot be cancelled and tells no progress, and PV guests move by `migrate --paused` where Xen has no shadow paging (xl info tells: \
virt_caps). When the server that a domain comes from loses power, Xen's half of it is given up after a minute; libvirt goes on to list \
it as shut off, which the domain's status says, and is made to forget it soon.

When the destination of a migration vanishes at the moment in which the domain changes over, the hypervisor waits until TCP gives up, \
and the domain stands still meanwhile: some 15 minutes, as Linux is set up. Put `net.ipv4.tcp_retries2 = 5` into a file of sysctl.d(5) \
on each server, which makes that 13 s; agentd warns where it is more than 8.

The bus is not protected yet: whoever reaches the forwarder can command this server. Keep the forwarder on the loopback or in a \
network that you trust.";

/// So often TCP may try again before that is worth a warning: some 100 s in all.
const RETRIES: u32 = 8;

/// xvm's server agent
#[derive(Debug, Clone, Parser)]
#[command(name = "agentd", version, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub struct Config {
    /// The server's name in the cluster; without it this machine's host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<ServerName>,

    /// Where a forwarder is; several may be given, and all of them are used at once
    #[arg(long, value_name = "ENDPOINT", default_value = "127.0.0.1:5750", value_parser = Endpoint::parse)]
    pub forwarder: Vec<Endpoint>,

    /// `sim`, or a libvirt URI such as qemu:///system or xen:///system
    #[arg(long, value_name = "sim|URI", default_value = "sim")]
    pub hypervisor: String,

    /// The directory that keeps the agent's settings; each agent needs its own
    #[arg(long, value_name = "DIR", default_value = "/var/lib/xvm/agentd")]
    pub state: PathBuf,

    #[command(flatten)]
    libvirt: LibvirtArgs,

    #[command(flatten)]
    sim: SimArgs,
}

/// What only libvirt takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Options for libvirt")]
struct LibvirtArgs {
    /// How other servers' libvirt reaches this one for a migration; without it made of the host name
    #[arg(long, value_name = "URI")]
    migrate_uri: Option<String>,

    /// Read the load of the CPUs from this file (in the form of /proc/stat, or of a cgroup's cpuacct.usage_percpu)
    #[arg(long, value_name = "FILE")]
    cpu_stat: Option<PathBuf>,

    /// The bridge that the interfaces of domains join that are made from configs; a config with vlan 12 joins NAME.12. Without it such
    /// domains have QEMU's own user network, which reaches out and is not reached
    #[arg(long, value_name = "NAME", value_parser = bridge)]
    bridge: Option<String>,

    /// How QEMU runs domains that are made from configs; without it by KVM where the server has it
    #[arg(long, value_name = "TYPE", value_enum)]
    domain_type: Option<DomainType>,

    /// Domains run on these of the server's CPUs only (as 0-3,8): no others are shown or counted, and they are numbered from 0
    #[arg(long, value_name = "LIST", value_parser = CpuList::parse)]
    cpu_list: Option<CpuList>,
}

/// How QEMU runs a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DomainType {
    /// Everything in software
    Qemu,
    /// With the processor's help
    Kvm,
}

/// Reads the name of a bridge: with a VLAN's number behind it, it is still the name of an interface.
fn bridge(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=10).contains(&text.len()) && text.chars().all(good) && !text.starts_with(['-', '.']) {
        Ok(text.to_owned())
    } else {
        Err("allowed are 1 to 10 letters, digits, '-', '_' and '.'".into())
    }
}

/// What only the simulated hypervisor takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for the simulated hypervisor")]
struct SimArgs {
    /// How many physical CPUs
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=4096))]
    cpus: u16,

    /// Its memory in MiB
    #[arg(long, value_name = "MiB", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    memory: u64,

    /// A domain that is there when nothing is kept yet: NAME[,KEY=VALUE]... with the keys vcpus, memory (MiB), demand (0 to 1),
    /// trace (FILE), trace-step (seconds), dirty (MiB/s), state, boot (seconds), shutdown (seconds); may be given more than once
    #[arg(long, value_name = "SPEC", value_parser = DomainSpec::parse)]
    domain: Vec<DomainSpec>,

    /// Where it listens for migrations; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// The host name or address under which other servers reach it; without it that of --listen
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,

    /// How fast one migration moves memory
    #[arg(long, value_name = "MiB/s", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    bandwidth: u64,

    /// One byte on the wire stands for so many bytes of memory
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    scale: u32,

    /// Makes the wandering of the domains' load repeat
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// What goes wrong: WORD or WORD=COUNT; may be given more than once, for tests
    #[arg(long, value_name = "SPEC")]
    fault: Vec<FaultSpec>,

    /// Allow --listen at an address that other machines reach, though migrations are not protected
    #[arg(long)]
    insecure: bool,
}

/// The flags as clap knows them, for manual pages and completions.
pub fn command() -> clap::Command {
    Config::command()
}

impl Config {
    /// The server's name: the flag, or the host's.
    pub fn server(&self) -> anyhow::Result<ServerName> {
        xvm_daemon::server_name(self.name.as_ref()).map_err(anyhow::Error::msg)
    }

    /// What is to be said of this machine's TCP: a server that vanishes in a migration is waited for too long.
    pub fn slow_tcp(&self) -> Option<String> {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_retries2").ok()?;
        let retries: u32 = text.trim().parse().ok()?;
        (self.hypervisor != "sim" && retries > RETRIES).then(|| {
            format!(
                "net.ipv4.tcp_retries2 is {retries}: a domain that moves to a server that vanishes may stand still for many minutes; \
                 5 is better, see agentd(8)"
            )
        })
    }

    /// Whether a forwarder is on another machine.
    pub fn leaves_the_machine(&self) -> bool {
        !self.forwarder.iter().all(Endpoint::is_local)
    }

    /// Starts the hypervisor that the flags name.
    pub async fn open(&self, name: &ServerName, state: &State) -> anyhow::Result<Arc<dyn Hypervisor>> {
        if self.hypervisor == "sim" {
            return Ok(Sim::start(self.sim_config(name, state)?).await?);
        }
        ensure!(
            self.hypervisor.contains(':'),
            "cannot use the hypervisor {:?}: neither sim nor a libvirt URI such as qemu:///system",
            self.hypervisor
        );
        ensure!(
            self.sim.domain.is_empty() && self.sim.fault.is_empty(),
            "cannot use --domain and --fault with {}: they are for the simulated hypervisor",
            self.hypervisor
        );
        let LibvirtArgs { migrate_uri, cpu_stat, cpu_list, bridge, domain_type } = self.libvirt.clone();
        let kvm = domain_type.map(|t| t == DomainType::Kvm);
        let usual = LibvirtConfig::new(&self.hypervisor);
        Ok(Libvirt::open(LibvirtConfig { migrate_uri, cpu_stat, cpu_list, bridge, kvm, ..usual }))
    }

    fn sim_config(&self, name: &ServerName, state: &State) -> anyhow::Result<SimConfig> {
        let sim = &self.sim;
        if !sim.listen.ip().is_loopback() && !sim.insecure {
            bail!(
                "cannot listen at {} for migrations: other machines reach it, and nothing protects it; add --insecure to allow it",
                sim.listen
            );
        }
        ensure!(
            self.libvirt == LibvirtArgs::default(),
            "cannot use --migrate-uri, --cpu-stat, --cpu-list, --bridge and --domain-type with the simulated hypervisor: they are for \
             libvirt"
        );
        Ok(SimConfig {
            cpus: sim.cpus,
            memory: sim.memory << 10,
            listen: sim.listen,
            advertise: sim.advertise.clone(),
            state: Some(state.dir().join("sim")),
            domains: sim.domain.clone(),
            bandwidth: sim.bandwidth << 20,
            scale: sim.scale,
            seed: sim.seed,
            faults: sim.fault.clone(),
            die: true,
            ..SimConfig::new(name.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_hold_together() {
        command().debug_assert();
        let config =
            Config::try_parse_from(["agentd", "--name", "ferby", "--domain", "a,vcpus=2"]).expect("valid");
        assert_eq!(config.server().expect("given").as_str(), "ferby");
        assert!(!config.leaves_the_machine());
        for bad in [
            &["--name", "a b"][..],
            &["--cpus", "0"],
            &["--forwarder", ""],
            &["--domain", "a,x=1"],
            &["x"],
            &["--bridge", "a/b"],
            &["--bridge", "12345678901"],
            &["--domain-type", "xen"],
        ] {
            let args = ["agentd"].iter().chain(bad).copied();
            assert!(Config::try_parse_from(args).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn flags_that_do_not_fit_the_hypervisor_are_refused() {
        let dir = tempfile::tempdir().expect("scratch folder");
        let state = State::open(dir.path()).expect("free");
        let name = ServerName::parse("ferby").expect("valid");
        for (bad, why) in [
            (&["--listen", "0.0.0.0:0"][..], "--insecure"),
            (&["--cpu-stat", "/x"], "for libvirt"),
            (&["--cpu-list", "0-1"], "for libvirt"),
            (&["--bridge", "br0"], "for libvirt"),
            (&["--domain-type", "kvm"], "for libvirt"),
            (&["--hypervisor", "qemu"], "neither sim nor a libvirt URI"),
            (&["--hypervisor", "test:///default", "--domain", "a"], "for the simulated hypervisor"),
        ] {
            let config = Config::try_parse_from(["agentd"].iter().chain(bad).copied()).expect("valid");
            let error = config.open(&name, &state).await.err().expect("refused").to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
