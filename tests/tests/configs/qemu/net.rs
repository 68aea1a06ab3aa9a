//! Machines on a bridge where somebody gives addresses: each answers under its name, also after it has moved.

use crate::scene::{cluster, wait_long};
use crate::stage::start;
use xvm_tests::{Cluster, requires};

/// Runs a line on ferby; what it prints.
fn on_host(cluster: &Cluster, line: &str) -> (i32, String) {
    let done = cluster.hosts().hosts_sh(&["exec", "ferby", "sh", "-c", line]);
    (done.status, format!("{}{}", done.out, done.err))
}

/// The address that a name server knows under a name.
fn address_of(cluster: &Cluster, name: &str, server: &str) -> Option<String> {
    let (_, out) = on_host(cluster, &format!("busybox nslookup {name} {server}"));
    let answer = out.split_once("Name:")?.1;
    let front = server.rsplit_once('.').expect("an address").0;
    answer.split_whitespace().find(|w| w.starts_with(front)).map(str::to_owned)
}

#[test]
fn a_machine_is_pingable_under_its_name() {
    crate::requires_lab!();
    requires!("dnsmasq", "ping", "busybox");
    let cluster = cluster(2);
    let t = &cluster.tree;
    let machine = cluster.hosts().address();
    let net = machine.rsplit_once('.').expect("an address").0.to_owned();
    let server = format!("{net}.11");
    let range = format!("{net}.50,{net}.99,1h");
    let (status, out) = on_host(
        &cluster,
        &format!(
            "dnsmasq --conf-file=/dev/null --interface=br0 --bind-interfaces --no-resolv --no-hosts --dhcp-range={range} \
             --dhcp-leasefile=/run/leases --pid-file=/run/dnsmasq.pid"
        ),
    );
    assert_eq!(status, 0, "{out}");
    t.order("ctl", "create small-6 address=dhcp");
    assert_eq!(t.until_end("configs/small-6/wait"), "done create: small-6 is ready");
    t.order("configs/small-6/ctl", "clone small-7");
    assert_eq!(t.until_end("configs/small-7/wait"), "done clone: small-7 is ready");
    let fixed = format!("{net}.108");
    t.order("ctl", &format!("create small-8 address={fixed}/24,via,{machine}"));
    assert_eq!(t.until_end("configs/small-8/wait"), "done create: small-8 is ready");
    for name in ["small-6", "small-7", "small-8"] {
        start(t, name, "ferby");
    }
    let mut addresses = Vec::new();
    for name in ["small-6", "small-7"] {
        addresses.push(wait_long(&format!("an address of {name}"), || address_of(&cluster, name, &server)));
    }
    assert_ne!(addresses[0], addresses[1], "a clone is another machine");
    assert!(t.text("hosts").lines().any(|l| l == format!("{fixed} small-8")), "{}", t.text("hosts"));
    addresses.push(fixed);
    let answers = || {
        for address in &addresses {
            wait_long(&format!("an answer of {address}"), || {
                (on_host(&cluster, &format!("ping -c 1 -W 1 {address}")).0 == 0).then_some(())
            });
        }
    };
    answers();
    t.order("domains/small-6/ctl", "migrate gerby");
    let end = t.until_end("domains/small-6/wait");
    assert!(end.starts_with("done migrate: small-6 runs on gerby"), "{end}");
    answers();
    assert_eq!(address_of(&cluster, "small-6", &server).as_deref(), Some(&*addresses[0]));
}
