//! One domain, one server: who may use the volumes of a config.
//!
//! ```text
//!            start                  seen running there
//!   (none) ────────▶ starting ───────────────────────▶ held ──── seen off ──▶ (none)
//!      ▲                │ the start failed               │ ▲
//!      └────────────────┘                        lend to │ │ it stayed: the second is dropped
//!                                                another ▼ │
//!                                           held + arriving ── it is there: the first is dropped, the second is held
//! ```
//!
//! With two leases, by what the source and the destination say:
//!
//! | source | destination | |
//! |---|---|---|
//! | anything | runs it | the first is dropped: a hypervisor lets a domain go on there only when it has given it up here, and one that takes it up again, since it did not hear how it ended, must not have the disk |
//! | runs it, the migration has ended | off, or down | the second is dropped: it stayed |
//! | off | off | both are dropped |
//! | anything else | | both stay; when nobody who is heard has it, `restart always` revokes them |
//!
//! Each lease has a number of its own, and exports with names of their own. Dropping a lease removes its exports first, which cuts
//! its server off for good: whatever is believed wrongly here costs a domain its disk, never a disk its domain's order. So a rule that
//! drops must be careful, and one that adds must be strict.

use crate::domain::words;
use crate::spec::Grant;
use crate::{Boot, Failure, Mono, ServerName};
use serde::{Deserialize, Serialize};

words! {
    /// How far a lease is.
    Phase {
        /// Its server was told to start the domain, or is about to be.
        Starting = "starting",
        /// Its server runs the domain.
        Held = "held",
        /// A migration brings the domain to its server.
        Arriving = "arriving",
    }
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its exports.
    pub grant: Grant,
    /// How far it is.
    pub phase: Phase,
    /// The migration that it was lent for: the id of its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<str>>,
    /// The life of the server's agent (of the source's, when it is lent) that the lease was given to.
    pub boot: Boot,
}

/// What a server's agent said last of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing that is newer than the lease, or its hypervisor is not heard.
    Unknown,
    /// Its server is down.
    Away,
    /// It does not have it, or has it shut off.
    Off,
    /// It has it; `moving` while a migration goes on there (also one that brings it), `ended` is the id of the last job that ended.
    On {
        /// The agent's life.
        boot: Boot,
        /// A migration goes on.
        moving: bool,
        /// The job that ended last.
        ended: Option<Box<str>>,
    },
}

/// Which leases a config has. Kept on disk before anything follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leases {
    /// The number of the last lease.
    pub epoch: u64,
    /// None, one, or two during a migration: the source's first.
    pub held: Vec<Lease>,
    /// When the first of two was lent, by the keeper's clock; not kept.
    #[serde(skip)]
    pub since: Option<Mono>,
}

impl Leases {
    /// The lease of a server.
    pub fn of(&self, server: &ServerName) -> Option<&Lease> {
        self.held.iter().find(|l| l.grant.server == *server)
    }

    /// The server that runs it, or is about to.
    pub fn holder(&self) -> Option<&ServerName> {
        self.held.first().map(|l| &l.grant.server)
    }

    /// A lease for a start on `server` by its agent's life `boot`; `make` gets the new number. Refused while any is held.
    pub fn start(
        &mut self,
        server: &ServerName,
        boot: Boot,
        make: impl FnOnce(u64) -> Grant,
    ) -> Result<&Lease, Failure> {
        if let Some(lease) = self.held.first() {
            let (config, holder) = (&lease.grant.config, &lease.grant.server);
            return Err(Failure::busy(format!(
                "cannot start {config} on {server}: {holder} holds its disk (lease {}, {})",
                lease.grant.epoch, lease.phase
            )));
        }
        self.epoch += 1;
        let lease = Lease { grant: make(self.epoch), phase: Phase::Starting, job: None, boot };
        self.held.push(lease);
        Ok(&self.held[0])
    }

    /// A second lease for a migration `job` from `from`, whose agent's life is `boot`, to `to`. The same job asked again gets the same.
    pub fn lend(
        &mut self,
        (from, boot): (&ServerName, Boot),
        to: &ServerName,
        job: &str,
        now: Mono,
        make: impl FnOnce(u64) -> Grant,
    ) -> Result<&Lease, Failure> {
        let wrong = |why: String| Err(Failure::busy(format!("cannot lend a disk to {to}: {why}")));
        match &self.held[..] {
            [] => return wrong(format!("{from} holds no lease of it")),
            [first, ..] if first.grant.server != *from => {
                return wrong(format!("{} holds it, not {from}", first.grant.server));
            }
            [_, second] if second.job.as_deref() == Some(job) && second.grant.server == *to => {}
            [_, second] => return wrong(format!("it is lent to {} already", second.grant.server)),
            _ if from == to => return wrong("it is there already".into()),
            [_] => {
                self.epoch += 1;
                let grant = make(self.epoch);
                self.held.push(Lease { grant, phase: Phase::Arriving, job: Some(job.into()), boot });
                self.since = Some(now);
            }
            _ => return wrong("it has more leases than two".into()),
        }
        Ok(&self.held[1])
    }

    /// Draws the conclusions from what the servers of the leases say, by `seen`; gives the leases that are to be dropped, whose
    /// exports must be removed before anything else is done with the volumes.
    pub fn observe(&mut self, seen: impl Fn(&ServerName) -> Seen) -> Vec<Lease> {
        let said: Vec<Seen> = self.held.iter().map(|l| seen(&l.grant.server)).collect();
        match (&mut self.held[..], &said[..]) {
            ([one], [Seen::On { moving: false, .. }]) if one.phase != Phase::Held => {
                one.phase = Phase::Held;
                Vec::new()
            }
            ([one], [Seen::Off]) if one.phase == Phase::Held => std::mem::take(&mut self.held),
            ([_, second], [here, there]) => {
                let job = second.job.clone();
                match (here, there) {
                    // it arrived, whatever its source believes
                    (_, Seen::On { moving: false, .. }) => self.keep(1),
                    // both say that nobody runs it
                    (Seen::Off, Seen::Off) => std::mem::take(&mut self.held),
                    // the migration has ended and it stayed: told by its outcome, or by an agent that was started anew
                    (Seen::On { boot, moving: false, ended }, Seen::Off | Seen::Away)
                        if *ended == job || *boot != second.boot =>
                    {
                        self.keep(0)
                    }
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    /// The start of the lease that `server` holds failed, and its agent does not run the domain.
    pub fn failed(&mut self, server: &ServerName) -> Vec<Lease> {
        match &self.held[..] {
            [one] if one.grant.server == *server && one.phase == Phase::Starting => {
                std::mem::take(&mut self.held)
            }
            _ => Vec::new(),
        }
    }

    /// Takes all leases back, whoever holds them: their servers are cut off.
    pub fn revoke(&mut self) -> Vec<Lease> {
        self.since = None;
        std::mem::take(&mut self.held)
    }

    fn keep(&mut self, index: usize) -> Vec<Lease> {
        let mut kept = self.held.swap_remove(index);
        (kept.phase, kept.job) = (Phase::Held, None);
        self.since = None;
        std::mem::replace(&mut self.held, vec![kept])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConfigName;
    use crate::spec::{GrantDisk, export_name};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn name(i: usize) -> ServerName {
        ServerName::parse(["ferby", "gerby", "herby"][i]).expect("a name")
    }

    fn grant(server: &ServerName) -> impl FnOnce(u64) -> Grant {
        let (server, config) = (server.clone(), ConfigName::parse("small-6").expect("a name"));
        move |epoch| {
            let export = export_name(&config, &server, epoch, "disk");
            let disks =
                vec![GrantDisk { target: "vda".into(), volume: "disk".into(), export, size: 1 << 20 }];
            Grant { config, server, epoch, host: "kerby".into(), port: 10810, tls: false, disks }
        }
    }

    fn on(ended: Option<&str>) -> Seen {
        Seen::On { boot: Boot(1), moving: false, ended: ended.map(Into::into) }
    }

    fn running(on_: &ServerName) -> Leases {
        let mut l = Leases::default();
        l.start(on_, Boot(1), grant(on_)).expect("free");
        assert!(l.observe(|_| on(None)).is_empty());
        l
    }

    #[test]
    fn a_start_takes_it_and_a_second_one_is_refused() {
        let (a, b) = (name(0), name(1));
        let mut l = Leases::default();
        assert_eq!(&*l.start(&a, Boot(1), grant(&a)).expect("free").grant.stem(), "small-6.ferby.1");
        let e = l.start(&b, Boot(1), grant(&b)).expect_err("held");
        assert_eq!(e.text, "cannot start small-6 on gerby: ferby holds its disk (lease 1, starting)");
        assert!(l.observe(|_| Seen::Off).is_empty(), "it may be about to start");
        assert!(l.failed(&b).is_empty());
        assert_eq!(l.failed(&a).len(), 1);
        assert_eq!(l.start(&b, Boot(1), grant(&b)).expect("free again").grant.epoch, 2);
    }

    #[test]
    fn it_is_given_back_when_its_server_says_that_it_is_off() {
        let a = name(0);
        let mut l = running(&a);
        assert!(l.observe(|_| Seen::Unknown).is_empty());
        assert_eq!(l.observe(|_| Seen::Off).len(), 1);
        assert!(l.held.is_empty());
    }

    #[test]
    fn a_migration_has_two_until_both_servers_have_spoken() {
        let (a, b) = (name(0), name(1));
        let mut l = running(&a);
        l.lend((&a, Boot(1)), &b, "j1", Mono(5), grant(&b)).expect("lent");
        assert_eq!(l.lend((&a, Boot(1)), &b, "j1", Mono(6), grant(&b)).expect("the same").grant.epoch, 2);
        assert!(l.lend((&a, Boot(1)), &name(2), "j2", Mono(6), grant(&b)).is_err());
        let at = |x: Seen, y: Seen| {
            move |s: &ServerName| if s.as_str() == "ferby" { x.clone() } else { y.clone() }
        };
        let moving = || Seen::On { boot: Boot(1), moving: true, ended: None };
        for (x, y) in [
            (on(None), Seen::Off),
            (moving(), Seen::Off),
            (moving(), moving()),
            (Seen::Unknown, moving()),
            (Seen::Away, moving()),
            (Seen::Away, Seen::Off),
            (Seen::Off, Seen::Unknown),
            (Seen::Off, Seen::Away),
            (on(None), Seen::Away),
        ] {
            assert!(l.observe(at(x.clone(), y.clone())).is_empty(), "{x:?} {y:?} says too little");
        }
        let dropped = l.observe(at(Seen::Off, on(None)));
        assert_eq!(dropped[0].grant.server, a);
        assert_eq!((l.holder(), l.held[0].phase), (Some(&b), Phase::Held));

        l.lend((&b, Boot(1)), &a, "j3", Mono(9), grant(&a)).expect("lent back");
        let dropped = l.observe(at(Seen::Off, on(Some("j3"))));
        assert_eq!(dropped[0].grant.server, a, "it stayed on gerby, whose job has ended");
        assert_eq!(l.holder(), Some(&b));
        l.lend((&b, Boot(1)), &a, "j4", Mono(9), grant(&a)).expect("lent back");
        let dropped = l.observe(at(Seen::Away, on(Some("j4"))));
        assert_eq!(dropped[0].grant.server, a, "it stayed, and its destination is down");
    }

    /// If this fails, a source that was cut off when a migration ended writes to the disk again when it is back.
    #[test]
    fn what_runs_at_the_destination_has_left_its_source() {
        let (a, b) = (name(0), name(1));
        for source in [Seen::Unknown, Seen::Away, on(None), on(Some("j1"))] {
            let mut l = running(&a);
            l.lend((&a, Boot(1)), &b, "j1", Mono(5), grant(&b)).expect("lent");
            let dropped = l.observe(|s| if *s == a { source.clone() } else { on(None) });
            assert_eq!(dropped[0].grant.server, a, "{source:?}");
            assert_eq!((l.holder(), l.held[0].phase), (Some(&b), Phase::Held));
        }
    }

    #[derive(Debug, Clone)]
    enum Act {
        Start(usize),
        Lend(usize, usize),
        Observe(usize, usize),
        Failed(usize),
        Revoke,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0usize..3).prop_map(Act::Start),
            (0usize..3, 0usize..3).prop_map(|(a, b)| Act::Lend(a, b)),
            (0usize..5, 0usize..5).prop_map(|(a, b)| Act::Observe(a, b)),
            (0usize..3).prop_map(Act::Failed),
            Just(Act::Revoke),
        ]
    }

    proptest! {
        /// If this fails, a disk may have two writers that are not the two ends of one migration, or an export's name comes back.
        #[test]
        fn at_most_one_lease_but_in_a_migration_and_no_name_twice(acts in prop::collection::vec(act(), 1..60)) {
            let mut l = Leases::default();
            let mut names = BTreeSet::new();
            for (i, act) in acts.into_iter().enumerate() {
                let before: BTreeSet<_> = l.held.iter().map(|l| l.grant.stem()).collect();
                let dropped = match act {
                    Act::Start(s) => { drop(l.start(&name(s), Boot(1), grant(&name(s)))); vec![] }
                    Act::Lend(a, b) => { drop(l.lend((&name(a), Boot(1)), &name(b), &format!("j{i}"), Mono(0), grant(&name(b)))); vec![] }
                    Act::Observe(x, y) => {
                        let seen = |k: usize| [Seen::Unknown, Seen::Off, on(None), on(Some("j1")), Seen::Away][k].clone();
                        l.observe(|s| if *s == name(0) { seen(x) } else { seen(y) })
                    }
                    Act::Failed(s) => l.failed(&name(s)),
                    Act::Revoke => l.revoke(),
                };
                let now: BTreeSet<_> = l.held.iter().map(|l| l.grant.stem()).collect();
                let gone: BTreeSet<_> = dropped.iter().map(|l| l.grant.stem()).collect();
                for stem in now.difference(&before) {
                    prop_assert!(names.insert(stem.clone()), "{stem} is used twice");
                }
                prop_assert_eq!(gone, before.difference(&now).cloned().collect::<BTreeSet<_>>(), "what is dropped is told");
                prop_assert!(l.held.len() <= 2);
                if let [one, two] = &l.held[..] {
                    prop_assert!(two.phase == Phase::Arriving && one.grant.server != two.grant.server);
                }
            }
        }
    }
}
