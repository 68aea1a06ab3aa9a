//! The flags of imaged; its manual page comes from here too.

mod guests;

use crate::export::{Place, tls};
use crate::image::{Guestd, Paths, Site};
use crate::keeper;
use anyhow::{bail, ensure};
use clap::{Args, CommandFactory, Parser};
use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf};
use xvm_bus::Endpoint;
use xvm_daemon::Dir;
use xvm_model::{Boot, HEARTBEAT_RANGE_MS, ServerName};

const LONG_ABOUT: &str = "\
imaged keeps the configs of a cluster: definitions of domains, their volumes, and what is on them. There is one in a cluster. It makes \
images (mkdir configs/NAME), exports volumes over the network to the server that may use them and to no other, and decides who that is: \
a start takes a lease, a migration borrows a second one, a shutdown gives it back. Removing a lease removes its export, which cuts its \
server off at once, whatever that server believes.

Each config is a file NAME.toml in the directory --configs, which people may edit and share; see xvm-config(5). Exports are served by \
qemu-storage-daemon processes, one for each config that is used; they go on while imaged is restarted.";

const AFTER_HELP: &str = "\
Examples:
  imaged --forwarder 10.0.0.1 --host 10.0.0.9 --listen 10.0.0.9 --insecure
      keep configs below /var/lib/xvm/imaged, exported to the servers of that network
  imaged --forwarder 10.0.0.1 --host 10.0.0.9 --listen 10.0.0.9 --tls /etc/xvm/tls
      the same, and disks are served by TLS to the servers that hold their lease, see TLS below
  imaged --store lvm:vg0 --configs /srv/xvm/configs
      volumes are logical volumes of the group vg0
  imaged --guest-forwarder 10.1.0.1:5760
      new machines run guestd, which tells the forwarder of `xvm-forwarder --guests 10.1.0.1:5760` how they are

Files:
  CONFIGS/NAME.toml      a config, see xvm-config(5)
  CONFIGS/defaults.toml  what a new config has
  STATE/imaged.json      images, leases, what was removed
  STATE/guests.secret    of what the keys of guests are made; who has it can speak as any of them
  STATE/removed/         configs that were removed within a day
  STATE/log/NAME.log     what the last build of a config said
  STATE/kernels/         kernels of images, by their content
  STATE/images/          images to import: os = \"image/FILE\"
  STATE/cache/           unpacked base systems; may be emptied while nothing is built
  STATE/run/             sockets of the processes that export
  STATE/store/           the volumes of the store dir

Environment:
  XVM_LOG  which log lines go to standard error: error, warn, info (the default), debug, trace, or a filter

Signals:
  SIGTERM, SIGINT  end imaged; what is being made is cancelled, exports go on

Exit status:
  0  ended by a signal
  1  could not start, or could not go on; the sentence on standard error says why
  2  a wrong flag

With a store of LVM, and on servers that import disks as block devices (Xen), set `global_filter` in lvm.conf(5) so that the machine's \
own LVM does not look into guests' disks.

TLS:
  /usr/local/share/xvm/certificates.sh /root/ca kerby 10.0.0.9 ferby gerby
      makes an authority, a certificate for imaged on kerby at 10.0.0.9, and one for each server, where there is none yet
  /root/ca/kerby  copy it to imaged's machine, and name it by --tls
  /root/ca/ferby  copy it to /etc/pki/libvirt-nbd on ferby (nbd_tls_x509_cert_dir of /etc/libvirt/qemu.conf); so for each server
  /root/ca/ca-key.pem  stays where no server is

With --tls disks are served by TLS alone, to servers whose certificate is of this authority, names them (CN=SERVER and nothing else), and \
that hold a lease of that disk now; a migration lets in the destination and then the source no longer. What is on the way cannot be read \
or changed. Leases that are held when the flag comes or goes stay as they are until the domain is off. Files to boot from are served \
plainly to whoever asks: they hold no secret, and agents compare their content with what imaged says of it. Servers that import disks \
as block devices (Xen) cannot use --tls, and say so at a start.

Without --tls whoever reaches an export and knows its name can use the disk; and the bus has no keys yet: whoever reaches \
the forwarder can order what he likes. Keep both on the \
loopback or in a network that you trust and that guests cannot reach. Let --guest-forwarder name the \
address that xvm-forwarder(8) has for guests (--guests): at its other one they could command the cluster.";

/// xvm's image agent
#[derive(Debug, Clone, Parser)]
#[command(name = "imaged", version, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub struct Config {
    /// The name of the server that it runs on; without it this machine's host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<ServerName>,

    /// Where a forwarder is; several may be given, and all of them are used at once
    #[arg(long, value_name = "ENDPOINT", default_value = "127.0.0.1:5750", value_parser = Endpoint::parse)]
    pub forwarder: Vec<Endpoint>,

    /// The directory that keeps its state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/xvm/imaged")]
    pub state: PathBuf,

    /// The directory of the configs' files; without it STATE/configs
    #[arg(long, value_name = "DIR")]
    configs: Option<PathBuf>,

    /// Where volumes are: dir:DIRECTORY, lvm:GROUP or lvm:GROUP/POOL; without it dir:STATE/store
    #[arg(long, value_name = "KIND:WHERE")]
    store: Option<String>,

    /// How often it says what it knows, in seconds (0.1 to 60)
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    heartbeat: f64,

    #[command(flatten)]
    exports: ExportArgs,

    #[command(flatten)]
    images: ImageArgs,

    #[command(flatten)]
    guests: guests::GuestArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for exports")]
struct ExportArgs {
    /// The address at which exports are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen: IpAddr,

    /// The name or address by which servers reach them; without it that of --listen
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// TCP ports of exports, one for each config that is used
    #[arg(long, value_name = "FIRST-LAST", default_value = "10810-11833", value_parser = ports)]
    ports: RangeInclusive<u16>,

    /// The TCP port of the files that domains boot from
    #[arg(long, value_name = "PORT", default_value_t = 10809)]
    boot_port: u16,

    /// Serve disks by TLS alone, each to the servers that hold its lease; the directory of ca-cert.pem, server-cert.pem and server-key.pem
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,

    /// Allow --listen at an address that other machines reach, though exports are not protected (by --tls)
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for images")]
struct ImageArgs {
    /// Where Debian's packages come from
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// The archive of its security updates; `none` for none
    #[arg(long, value_name = "URL")]
    security: Option<String>,

    /// Where Ubuntu's packages come from
    #[arg(long, value_name = "URL")]
    ubuntu_mirror: Option<String>,

    /// Use debootstrap although mmdebstrap is there
    #[arg(long)]
    debootstrap: bool,

    /// The kernel of tiny systems, with --tiny-initrd; without it the newest of this machine's /boot
    #[arg(long, value_name = "FILE", requires = "tiny_initrd")]
    tiny_kernel: Option<PathBuf>,

    /// Their initial RAM file system, or the directory of the kernel's modules
    #[arg(long, value_name = "PATH", requires = "tiny_kernel")]
    tiny_initrd: Option<PathBuf>,

    /// A directory that is copied over each system that is built
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,

    /// A name server of guests with a static address; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || "allowed is FIRST-LAST, two ports from 1 to 65535".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first == 0 || first > last { Err(wrong()) } else { Ok(first..=last) }
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

    /// The directory of the configs' files.
    pub fn configs(&self) -> PathBuf {
        self.configs.clone().unwrap_or_else(|| self.state.join("configs"))
    }

    /// The store, as [`crate::store::open`] takes it.
    pub fn store(&self) -> String {
        self.store.clone().unwrap_or_else(|| format!("dir:{}", self.state.join("store").display()))
    }

    /// Where builds work.
    pub fn paths(&self) -> Paths {
        let at = |dir: &str| self.state.join(dir);
        Paths { cache: at("cache"), work: at("work"), images: at("images"), boot: at("kernels") }
    }

    /// Where exports are made. Addresses that other machines reach need `--tls` or `--insecure`.
    pub fn place(&self) -> anyhow::Result<Place> {
        let e = &self.exports;
        if !e.listen.is_loopback() && e.tls.is_none() && !e.insecure {
            bail!(
                "cannot export at {}: other machines reach it, and nothing protects the disks; give certificates (--tls), or add --insecure to allow it",
                e.listen
            );
        }
        ensure!(
            !e.ports.contains(&e.boot_port),
            "cannot use --boot-port {}: it is one of --ports {}-{}",
            e.boot_port,
            e.ports.start(),
            e.ports.end()
        );
        if let Some(dir) = &e.tls {
            tls::check(dir)?;
        }
        let (program, tls) = ("qemu-storage-daemon".into(), e.tls.clone());
        Ok(Place { run: self.state.join("run"), listen: e.listen, program, tls })
    }

    /// Whether disks are served by TLS alone.
    pub fn has_tls(&self) -> bool {
        self.exports.tls.is_some()
    }

    /// What images are made of. The error says what guests cannot be given.
    pub fn site(&self, state: &Dir) -> anyhow::Result<Site> {
        let mut site = Site::default();
        let i = &self.images;
        if let Some(url) = &i.mirror {
            site.debian.url = url.as_str().into();
        }
        match i.security.as_deref() {
            Some("none") => site.debian.security = None,
            Some(url) => site.debian.security = Some(url.into()),
            None => {}
        }
        if let Some(url) = &i.ubuntu_mirror {
            site.ubuntu.url = url.as_str().into();
        }
        site.debootstrap = i.debootstrap;
        site.tiny_kernel = i.tiny_kernel.clone().zip(i.tiny_initrd.clone());
        site.overlay.clone_from(&i.overlay);
        site.dns.clone_from(&i.dns);
        site.guestd = self.guests.guestd(state)?;
        Ok(site)
    }

    /// What the keeper needs to know of it.
    pub fn keeper(
        &self,
        name: ServerName,
        boot: Boot,
        systems: Vec<Box<str>>,
        guestd: Option<Guestd>,
    ) -> anyhow::Result<keeper::Site> {
        let ms = (self.heartbeat * 1e3).round();
        ensure!(
            ms.is_finite() && ms >= 0.0 && HEARTBEAT_RANGE_MS.contains(&(ms as u32)),
            "cannot use --heartbeat {}: it is 0.1 to 60 seconds",
            self.heartbeat
        );
        let e = &self.exports;
        let host = e.host.clone().unwrap_or_else(|| e.listen.to_string());
        Ok(keeper::Site {
            name,
            boot,
            host: host.into(),
            ports: e.ports.clone(),
            boot_port: e.boot_port,
            tls: e.tls.is_some(),
            interval_ms: ms as u32,
            systems,
            guestd,
            keep_ms: keeper::KEEP_MS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_hold_together() {
        command().debug_assert();
        let good = |args: &[&str]| Config::try_parse_from(["imaged"].iter().chain(args).copied());
        let config = good(&["--name", "kerby", "--ports", "20000-20010"]).expect("valid");
        assert_eq!(config.server().expect("given").as_str(), "kerby");
        assert!(config.place().is_ok());
        assert_eq!(config.store(), "dir:/var/lib/xvm/imaged/store");
        for bad in [
            &["--ports", "5-1"][..],
            &["--ports", "0-9"],
            &["--tiny-kernel", "x"],
            &["--listen", "x"],
            &["x"],
        ] {
            assert!(good(bad).is_err(), "{bad:?}");
        }
        let open = good(&["--listen", "0.0.0.0"]).expect("read").place().expect_err("refused").to_string();
        assert!(open.contains("--insecure"), "{open}");
        let none =
            good(&["--listen", "0.0.0.0", "--tls", "/none"]).expect("read").place().expect_err("refused");
        assert!(none.to_string().contains("ca-cert.pem cannot be read"), "{none}");
        let port = good(&["--boot-port", "10811"]).expect("read").place().expect_err("refused").to_string();
        assert!(port.contains("it is one of --ports 10810-11833"), "{port}");
    }
}
