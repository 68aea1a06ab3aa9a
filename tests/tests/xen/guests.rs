//! Guests that nobody made from a config: they need no disk.

use crate::scene::{Scene, wait};

/// A guest as libvirt takes it.
pub struct Guest<'a> {
    pub name: &'a str,
    /// `xenpvh` or `xenpv`.
    pub machine: &'a str,
    /// Its address is 10.7.0.N, and N makes its MAC too.
    pub number: u8,
    /// How much of its CPU it uses, in percent.
    pub busy: u8,
}

impl Guest<'_> {
    pub fn address(&self) -> String {
        format!("10.7.0.{}", self.number)
    }

    fn xml(&self, uuid: &str) -> String {
        let Guest { name, machine, number, busy } = self;
        let kind = if *machine == "xenpv" { "linux" } else { machine };
        format!(
            "<domain type=\"xen\"><name>{name}</name>{uuid}<memory unit=\"MiB\">96</memory><vcpu>1</vcpu>\
             <os><type arch=\"x86_64\" machine=\"{machine}\">{kind}</type><kernel>/lab/vmlinux</kernel><initrd>/lab/guest.gz</initrd>\
             <cmdline>console=hvc0 quiet ip=10.7.0.{number}/24 busy={busy}</cmdline></os>\
             <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>\
             <devices><interface type=\"bridge\"><mac address=\"00:16:3e:07:00:{number:02x}\"/><source bridge=\"xenbr0\"/></interface>\
             <console type=\"pty\"><target type=\"xen\" port=\"0\"/></console></devices></domain>"
        )
    }

    /// Runs virsh on a host with the guest's definition.
    #[track_caller]
    pub fn virsh(&self, scene: &Scene, n: usize, act: &str) {
        let xml = self.xml("");
        scene.hosts.ssh(
            n,
            &format!("echo '{xml}' > /tmp/{0}.xml && virsh -c xen:///system {act} /tmp/{0}.xml", self.name),
        );
    }

    /// Starts it on a host; waits until the tree shows it and it says that it is up.
    #[track_caller]
    pub fn start(&self, scene: &Scene, n: usize) {
        self.virsh(scene, n, "create");
        scene.settles(&format!("domains/{}/state", self.name), "running");
        scene.hosts.says(n, self.name, "guest up");
    }

    /// Pulls its plug through the tree; waits until it is gone.
    #[track_caller]
    pub fn end(&self, scene: &Scene) {
        scene.order(self.name, "destroy");
        let dir = scene.tree().path(&format!("domains/{}", self.name));
        wait("its end", || (!dir.exists()).then_some(()));
    }
}
