//! The files that make a system of a base: those of every system, and those that are one system's own.

use super::super::{Site, edit::Edit, ext4};
use xvm_model::{
    ConfigName,
    config::{Address, Config},
};

/// The unit that makes the host keys at the first boot: two systems never have the same.
pub const FIRST_BOOT: &str = "xvm-host-keys.service";

const FIRST_BOOT_UNIT: &str = "[Unit]
Description=SSH host keys of this machine
Before=ssh.service ssh.socket
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
";

/// What no two systems may share: it is removed of new images and of clones, and made anew at the first boot.
pub const FORGET: &[&str] = &[
    "etc/ssh/ssh_host_dsa_key",
    "etc/ssh/ssh_host_dsa_key.pub",
    "etc/ssh/ssh_host_ecdsa_key",
    "etc/ssh/ssh_host_ecdsa_key.pub",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/ssh_host_rsa_key.pub",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
];

/// An empty file: the first boot makes an id, and does not take itself for the set-up of an appliance (machine-id(5)).
pub fn no_machine_id() -> Edit {
    Edit::File("etc/machine-id", 0o444, String::new())
}

/// The files of every system, and none of those that a bootstrap tool takes from its host.
pub fn files(sources: &[String]) -> Vec<Edit> {
    let (root, swap) = (ext4::ROOT_LABEL, ext4::SWAP_LABEL);
    let fstab = format!(
        "LABEL={root} / ext4 errors=remount-ro 0 1\nLABEL={swap} none swap nofail,x-systemd.device-timeout=5s 0 0\n"
    );
    vec![
        Edit::File("etc/fstab", 0o644, fstab),
        Edit::File("etc/systemd/system/xvm-host-keys.service", 0o644, FIRST_BOOT_UNIT.into()),
        Edit::Link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        Edit::File("etc/apt/sources.list", 0o644, sources.join("\n") + "\n"),
        Edit::Gone("etc/apt/apt.conf.d/99mmdebstrap"),
        Edit::Gone("usr/sbin/policy-rc.d"),
    ]
}

/// The files of one system.
pub fn identity(site: &Site, name: &ConfigName, config: &Config) -> Vec<Edit> {
    let mut edits = vec![
        Edit::File("etc/hostname", 0o644, format!("{name}\n")),
        Edit::File("etc/hosts", 0o644, hosts(name)),
        Edit::File("etc/systemd/network/10-xvm.network", 0o644, network(site, config)),
        Edit::Dir("root/.ssh", 0o700),
        Edit::File("root/.ssh/authorized_keys", 0o600, keys(config)),
    ];
    edits.extend(site.guestd.iter().flat_map(|g| g.key_file(config)));
    edits
}

/// Its own names, and none of the host's.
pub fn hosts(name: &ConfigName) -> String {
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
}

/// `authorized_keys`.
pub fn keys(config: &Config) -> String {
    config.keys.iter().map(|key| format!("{key}\n")).collect()
}

/// The network of its only interface. The client id of DHCP is the Ethernet address, so that a rebuilt system keeps its address.
fn network(site: &Site, config: &Config) -> String {
    let matching = "[Match]\nName=en* eth*\n\n";
    match &config.address {
        Address::None => "# no network\n[Match]\nName=none\n".into(),
        Address::Dhcp => format!("{matching}[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n"),
        Address::Static { ip, prefix, via } => {
            let router = via.map_or(String::new(), |v| format!("Gateway={v}\n"));
            let dns: String = site.dns.iter().map(|d| format!("DNS={d}\n")).collect();
            format!("{matching}[Network]\nAddress={ip}/{prefix}\n{router}{dns}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn addresses_become_networks() {
        let site = Site { dns: vec!["10.0.0.2".parse().expect("address")], ..Site::default() };
        let mut config = Config::new(Uuid::from_u128(1));
        assert!(network(&site, &config).contains("DHCP=yes"));
        config.address = Address::parse("10.0.0.5/24 via 10.0.0.1").expect("address");
        let text = network(&site, &config);
        assert!(text.ends_with("Address=10.0.0.5/24\nGateway=10.0.0.1\nDNS=10.0.0.2\n"), "{text}");
        config.address = Address::None;
        assert!(!network(&site, &config).contains("en*"));
    }
}
