//! A config's `type` on Xen: PV and HVM guests start from the same image as PVH ones, and move with their disks as each of them can.

use crate::pv;
use crate::scene::Scene;
use std::time::Instant;
use xvm_tests::say;

/// A config of one type.
struct Kind {
    name: &'static str,
    word: &'static str,
    /// Where it starts; it moves to the other.
    host: usize,
    migrate: &'static str,
    begin: Instant,
}

/// The emulated devices of an HVM guest take long here: it boots on one host while PV guests live on the other.
pub fn each_boots_from_its_disk_and_moves(s: &Scene) {
    let hvm = Kind::start(s, "small-4", "hvm", 2, "migrate");
    pv::moves_while_it_stands(s);
    let pv = Kind::start(s, "small-3", "pv", 1, "migrate --paused");
    for kind in [pv, hvm] {
        kind.moves(s);
        kind.ends(s);
    }
}

impl Kind {
    fn start(s: &Scene, name: &'static str, word: &'static str, host: usize, migrate: &'static str) -> Kind {
        s.tree().order("ctl", &format!("create {name} type={word}"));
        assert_eq!(s.end(&format!("configs/{name}")), format!("done create: {name} is ready"));
        let begin = Instant::now();
        let end = s.job(&format!("configs/{name}"), &format!("start xen{host}"));
        assert_eq!(end, format!("done start: {name} runs on xen{host}"));
        let kind = Kind { name, word, host, migrate, begin };
        kind.is_on(s, host);
        kind
    }

    /// Waits until it writes, and moves it.
    fn moves(&self, s: &Scene) {
        let Kind { name, word, host, migrate, begin } = self;
        s.hosts.says(*host, name, &format!("{name} is up"));
        s.hosts.says(*host, name, "boot 1 wrote");
        say(&format!("{word}: start to its word that it writes: {:.0} s", begin.elapsed().as_secs_f64()));
        let (begin, to) = (Instant::now(), 3 - host);
        let end = s.job(&format!("domains/{name}"), &format!("{migrate} xen{to}"));
        assert!(end.starts_with(&format!("done migrate: {name} runs on xen{to}")), "{end}");
        say(&end);
        self.is_on(s, to);
        s.hosts.says(to, name, "boot 1 wrote");
        say(&format!("{word}: {migrate} to its word that it writes: {:.0} s", begin.elapsed().as_secs_f64()));
    }

    /// On this host alone, and for Xen what its config says.
    fn is_on(&self, s: &Scene, host: usize) {
        let (name, word) = (self.name, self.word);
        assert_eq!(s.hosts.copies(name, &[1, 2]), [host]);
        let own = s.hosts.ssh(host, &format!("xl list -l {name} | grep '\"type\"' | head -n 1"));
        assert!(own.contains(&format!("\"{word}\"")), "Xen says {own}");
        if word == "hvm" {
            s.hosts.keep_serial(host, name);
        }
    }

    /// By its power button.
    fn ends(&self, s: &Scene) {
        let end = s.job(&format!("domains/{}", self.name), "shutdown");
        assert_eq!(end, format!("done shutdown: {} is shut off", self.name));
        s.settles(&format!("configs/{}/state", self.name), "ready");
        s.removes(self.name);
    }
}
