//! Two servers, ferby and gerby, with a small domain and one that takes long to move.

use xvm_tests::{Cluster, Tree, wait_eq};

/// One part of the suite.
pub type Act = fn(&mut Stage);

/// What the suite runs on.
pub struct Stage {
    /// Two servers.
    pub cluster: Cluster,
}

/// The domain that moves fast.
pub const SMALL: &str = "small-1";

impl Stage {
    /// Simulated servers.
    pub fn sim() -> Stage {
        let big = "big-1,memory=8192,dirty=1";
        let cluster = Cluster::sim(&[
            ("ferby", &["--scale", "512", "--domain", "small-1,vcpus=2,memory=256", "--domain", big]),
            ("gerby", &["--scale", "512"]),
        ]);
        cluster.heartbeat("0.5");
        Stage { cluster }
    }

    /// QEMU hosts.
    pub fn qemu() -> Stage {
        let cluster = Cluster::qemu(2, 1, |lab| lab.guest("ferby", SMALL, &["vcpus=2", "tick=0.2"], true));
        Stage { cluster }
    }

    /// For messages.
    pub fn kind(&self) -> &'static str {
        if self.is_sim() { "sim" } else { "qemu" }
    }

    /// Whether the servers are simulated.
    pub fn is_sim(&self) -> bool {
        self.cluster.lab.is_none()
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.cluster.tree
    }

    /// All domains run on ferby.
    pub fn rewind(&self) {
        for domain in self.tree().names("domains") {
            self.home(&domain);
        }
    }

    /// Brings a domain back to ferby, running.
    pub fn home(&self, domain: &str) {
        let (tree, ctl) = (self.tree(), format!("domains/{domain}/ctl"));
        tree.until_end(&format!("domains/{domain}/wait"));
        match &*tree.text(&format!("domains/{domain}/state")) {
            "shutoff" | "crashed" => tree.order(&ctl, "start"),
            "paused" => tree.order(&ctl, "unpause"),
            _ => {}
        }
        tree.until_end(&format!("domains/{domain}/wait"));
        if tree.text(&format!("domains/{domain}/server")) != "ferby" {
            tree.order(&ctl, "migrate ferby");
            tree.until_end(&format!("domains/{domain}/wait"));
        }
        wait_eq(domain, "ferby".to_owned(), || self.cluster.once(domain, "running"));
    }

    /// A domain whose migration takes many seconds from now on.
    pub fn slow(&self) -> &'static str {
        match &self.cluster.lab {
            None => "big-1",
            Some(lab) => {
                lab.virsh("ferby", &["migrate-setspeed", SMALL, "1"]).ok();
                SMALL
            }
        }
    }

    /// Ends what [`Stage::slow`] began.
    pub fn fast(&self) {
        if let Some(lab) = &self.cluster.lab {
            for host in lab.hosts() {
                // it is on one of them
                lab.virsh(host, &["migrate-setspeed", SMALL, "8796093022207"]);
            }
        }
    }
}
