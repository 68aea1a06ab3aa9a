//! Help between servers, step by step: what the cluster of `tests/help.rs` meets too seldom.

mod told;

use super::*;
use xvm_model::negotiation::{RECALL_MAX, RESERVE_MS, Say};
use xvm_model::policy::{Guest, Need, Offer, Request, Wish, Worth};
use xvm_model::round::End;
use xvm_model::server::{Balance, BalanceMode};
use xvm_model::{Came, DomainSettings, Ratio, Vcpu};

const SECOND: u64 = 1_000;

/// A domain that uses half of the one CPU.
fn half(text: &str) -> Domain {
    let mut d = domain(text, DomainState::Running);
    d.vcpus = vec![Vcpu { load: Ratio::new(0.5), cpu: None }];
    d
}

fn came(from: &str, ago: u64, helped: Option<u64>) -> Option<Box<Came>> {
    let at = |ago| Wall(1_000_000 - ago);
    let (round, why) = (Some("x.1.1".into()), "overload".into());
    Some(Box::new(Came { from: server(from), at: at(ago), round, why, helped: helped.map(at) }))
}

impl Rig {
    /// On a bus, with one CPU that small-1 and small-2 share.
    fn hot() -> Rig {
        Rig::hot_with(vec![half("small-1"), half("small-2")])
    }

    fn hot_with(domains: Vec<Domain>) -> Rig {
        let mut rig = Rig::silent();
        rig.input(Input::Link(true));
        let asks = |e: &Effect| match e {
            Effect::Publish(_, body) => {
                matches!(&**body, Body::Watchdog(say) if matches!(**say, Say::RequestHelp { .. }))
            }
            _ => false,
        };
        for _ in 0..12 {
            if !rig.out.iter().any(asks) {
                rig.second(domains.clone());
            }
        }
        rig
    }

    /// A second with a sample.
    fn second(&mut self, domains: Vec<Domain>) {
        if let Some(query) = self.sample() {
            let host = Ok(Host { cpus: vec![Ratio::ONE], ..Host::default() });
            self.input(Input::Sampled { query, host, domains: Ok(domains) });
        }
        let end = self.now.mono.plus(SECOND);
        self.now = Now { mono: end, wall: Wall(self.now.wall.0 + SECOND) };
        self.input(Input::Tick);
    }

    fn says(&mut self) -> Vec<Say> {
        let mut says = Vec::new();
        let pick = |e: &Effect| match e {
            Effect::Publish(_, body) => match &**body {
                Body::Watchdog(say) => Some((**say).clone()),
                _ => None,
            },
            _ => None,
        };
        while let Some(say) = self.take(pick) {
            says.push(say);
        }
        says
    }

    fn hears(&mut self, from: &str, say: Say) {
        assert_eq!(say.check(), Ok(()), "the bus lets it pass");
        self.input(Input::Watchdog { from: server(from), say: Box::new(say) });
    }

    /// The round that it asks for help in.
    fn request(&mut self) -> Option<(Box<str>, Request)> {
        self.says().into_iter().find_map(|say| match say {
            Say::RequestHelp { round, request } => Some((round, (*request).clone())),
            _ => None,
        })
    }

    /// Gerby offers, or holds the room.
    fn offered(&mut self, round: &str, held: Option<u32>) {
        let worth = Worth { gain: 0.5, delay_ms: 0.0 };
        let offer = Offer {
            helper: server("gerby"),
            address: "there:1".into(),
            platform: HypervisorKind::Sim.into(),
            wish: 0,
            projected: 0.5,
            worth,
        };
        self.hears("gerby", Say::OfferHelp { round: round.into(), offer, held });
    }

    /// A round up to the mark of its domain.
    fn marking(&mut self) -> (Box<str>, Id, DomainSettings) {
        let (round, _) = self.request().expect("it asks");
        self.offered(&round, None);
        self.offered(&round, Some(0));
        match self.begun() {
            (op, Op::Set(settings)) => (round, op, settings),
            other => panic!("{other:?}"),
        }
    }

    fn saves(&mut self) -> Option<ServerSettings> {
        self.take(|e| if let Effect::Save(settings) = e { Some(*settings) } else { None })
    }

    fn moves(&mut self) -> bool {
        let pick = |e: &Effect| matches!(e, Effect::Begin { what: Op::Migrate { .. }, .. }).then_some(());
        self.take(pick).is_some()
    }

    /// How the last round ended, as it is kept.
    fn kept_end(&mut self) -> Option<End> {
        let pick = |e: &Effect| if let Effect::Keep(kept) = e { Some(kept.clone()) } else { None };
        let mut last = None;
        while let Some(kept) = self.take(pick) {
            last = Some(kept);
        }
        last?.rounds.last()?.outcome.as_ref().map(|o| o.end)
    }

    fn server(&mut self, command: ServerCommand) {
        self.order(Order::Server { command });
    }
}

#[test]
fn a_migration_is_cancelled_before_it_begins_but_not_before_its_mark_has_landed() {
    let mut rig = Rig::new(DomainState::Running);
    rig.tell(DomainCommand::Migrate { to: Some(server("gerby")), address: "there:1".into(), paused: false });
    let (op, what) = rig.begun();
    assert!(matches!(what, Op::Set(_)));
    rig.tell(DomainCommand::Cancel);
    assert_eq!(rig.done(), "small-1 does not migrate");
    // a mark that lands later would undo this
    rig.tell(DomainCommand::Priority { value: 70 });
    assert_eq!(rig.failure().code, Code::Busy);
    rig.ended(op, Ok(None));
    assert!(!rig.moves());
    assert_eq!(
        rig.outcome().expect_err("cancelled").text,
        "cannot migrate small-1: cancelled before it began; it is on ferby"
    );
    rig.tell(DomainCommand::Priority { value: 70 });
    assert!(matches!(rig.begun().1, Op::Set(s) if s.priority == 70));
}

#[test]
fn what_is_ordered_moves_without_a_mark_and_what_helps_only_where_none_can_be_kept() {
    let (no, broke) = (HvError::NotSupported("no".into()), HvError::Unreachable("broke".into()));
    for error in [no.clone(), broke.clone()] {
        let mut rig = Rig::new(DomainState::Running);
        rig.tell(DomainCommand::Migrate {
            to: Some(server("gerby")),
            address: "there:1".into(),
            paused: false,
        });
        let (op, _) = rig.begun();
        rig.ended(op, Err(error));
        assert!(rig.moves());
    }
    for (error, goes) in [(no, true), (broke, false)] {
        let mut rig = Rig::hot();
        let (_, op, _) = rig.marking();
        rig.ended(op, Err(error));
        assert_eq!(rig.moves(), goes);
        assert_eq!(rig.job().is_some(), goes);
        assert_eq!(rig.kept_end(), (!goes).then_some(End::Failed));
        let done = rig.says().iter().any(|s| matches!(s, Say::Done { moved: false, .. }));
        assert_eq!(done, !goes);
    }
}

#[test]
fn a_round_is_the_job_of_its_domain_and_is_written_down_with_it() {
    let mut rig = Rig::hot();
    let (round, op, settings) = rig.marking();
    let mark = settings.came.expect("a mark");
    assert_eq!((mark.round.as_deref(), &*mark.why, mark.helped), (Some(&*round), "overload", None));
    let job = rig.agent.shown(&name("small-1")).and_then(|d| d.job).expect("a job");
    assert_eq!((&*job.id, job.kind, job.to), (&*round, JobKind::Migrate, Some(server("gerby"))));
    // another round's words change nothing
    rig.hears("gerby", Say::Done { round: round.clone(), moved: true });
    rig.offered("ferby.5.77", Some(0));
    rig.ended(op, Ok(None));
    let (op, _) = rig.begun();
    rig.ended(op, Ok(Some(Moved::default())));
    rig.there(Ok(Some(DomainState::Running)));
    rig.is(None);
    assert_eq!(rig.kept_end(), Some(End::Moved));
    assert!(rig.says().contains(&Say::Done { round, moved: true }));
}

/// Small-1 and small-2 were made from configs: whichever moves needs a second lease.
fn leased(text: &str) -> Domain {
    let mut d = half(text);
    let mut grant = super::create::grant("ferby", 1);
    grant.config = xvm_model::ConfigName::parse(text).expect("valid");
    grant.disks[0].export = grant.stem();
    d.settings.grant = Some(Box::new(grant));
    d
}

#[test]
fn a_round_takes_a_lease_like_an_order_and_fails_without_one() {
    for lends in [true, false] {
        let mut rig = Rig::hot_with(vec![leased("small-1"), leased("small-2")]);
        let (round, _) = rig.request().expect("it asks");
        rig.offered(&round, None);
        rig.offered(&round, Some(0));
        let pick = |e: &Effect| match e {
            Effect::Lend { op, name, job, .. } => Some((*op, name.clone(), job.clone())),
            _ => None,
        };
        let (op, which, job) = rig.take(pick).expect("imaged is asked");
        assert_eq!(job, round, "imaged knows it by the round's name");
        let mut lent = super::create::grant("gerby", 2);
        lent.config = xvm_model::ConfigName::parse(which.as_str()).expect("valid");
        lent.disks[0].export = lent.stem();
        let why = || Failure::new(Code::HostDown, "imaged is down");
        let result = if lends { Ok(Box::new(lent)) } else { Err(why()) };
        rig.input(Input::Lent { op, name: which, result });
        let marks = rig.take(|e| matches!(e, Effect::Begin { what: Op::Set(_), .. }).then_some(()));
        assert_eq!(marks.is_some(), lends);
        assert_eq!(rig.kept_end(), (!lends).then_some(End::Failed));
        let done = rig.says().iter().any(|s| matches!(s, Say::Done { moved: false, .. }));
        assert_eq!(done, !lends, "whoever keeps room for it is told");
    }
}

#[test]
fn a_move_that_is_refused_at_the_last_moment_ends_its_round() {
    let mut rig = Rig::hot();
    let (round, _) = rig.request().expect("it asks");
    rig.offered(&round, None);
    rig.input(Input::News(HvEvent::Down("gone".into())));
    rig.offered(&round, Some(0));
    assert!(!rig.moves() && rig.job().is_none());
    assert_eq!(rig.kept_end(), Some(End::Failed), "what is kept last is how it ended");
    assert!(!rig.agent.help.runs());
}

#[test]
fn who_never_left_has_no_cooldown_but_the_one_from_before() {
    let both = |came: Option<Box<Came>>| {
        let mut all = vec![half("small-1"), half("small-2")];
        all.iter_mut().for_each(|d| d.settings.came = came.clone());
        Rig::hot_with(all)
    };
    let minute = 60 * SECOND;
    assert!(both(None).request().is_some());
    assert!(both(came("gerby", minute, None)).request().is_none(), "it came a minute ago");
    assert!(both(came("ferby", minute, None)).request().is_some(), "the agent was killed before it left");
    assert!(both(came("ferby", minute, Some(2 * minute))).request().is_none(), "it had come before");
    // and the next mark still knows
    let mut rig = Rig::new(DomainState::Running);
    let mut here = domain("small-1", DomainState::Running);
    here.settings.came = came("gerby", minute, None);
    rig.input(Input::News(HvEvent::Changed(name("small-1"))));
    let query = rig.asked().expect("asked");
    rig.input(Input::Asked { query, name: name("small-1"), result: Ok(Some(here)) });
    rig.tell(DomainCommand::Migrate { to: Some(server("gerby")), address: "there:1".into(), paused: false });
    let (_, Op::Set(settings)) = rig.begun() else { panic!("not marked") };
    let mark = settings.came.expect("a mark");
    assert_eq!((mark.round, mark.helped), (None, Some(Wall(1_000_000 - minute))));
}

/// Gerby wishes small-9 away.
fn wish(round: &str) -> Say {
    let mut guest = Guest::new(name("small-9"), 0);
    (guest.load, guest.busy) = (0.5, 1);
    let request = Request {
        asker: server("gerby"),
        platform: HypervisorKind::Sim.into(),
        need: Need::Overload,
        only: None,
        dry: false,
        why: "".into(),
        policy: "points".into(),
        load: 1.0,
        level: 0.0,
        cpus: 1.0,
        pain: 1.0,
        wishes: vec![Wish { guest, relief: 0.5, mates: None }],
    };
    Say::RequestHelp { round: round.into(), request: request.into() }
}

#[test]
fn room_is_kept_from_the_offer_until_the_domain_is_seen_and_not_given_in_a_young_life() {
    let mut rig = Rig::silent();
    rig.input(Input::Link(true));
    let offers = |rig: &mut Rig| rig.says().iter().any(|s| matches!(s, Say::OfferHelp { held: None, .. }));
    rig.second(vec![]);
    rig.hears("gerby", wish("gerby.1.1"));
    (0..3).for_each(|_| rig.second(vec![]));
    assert!(!offers(&mut rig), "the life before may have promised the room");
    (0..30).for_each(|_| rig.second(vec![]));
    rig.hears("gerby", wish("gerby.1.2"));
    rig.second(vec![]);
    assert!(offers(&mut rig));
    let reserved = |rig: &Rig| rig.agent.help.reserved();
    let round: Box<str> = "gerby.1.2".into();
    rig.hears("gerby", Say::AcceptHelp { round: round.clone(), helper: server("ferby"), number: 0 });
    assert_eq!(reserved(&rig), 1);
    // its hypervisor has not shown the domain yet: nobody else gets the room
    rig.hears("gerby", Say::Done { round, moved: true });
    assert_eq!(reserved(&rig), 1);
    rig.second(vec![half("small-9")]);
    rig.second(vec![half("small-9")]);
    rig.pass(RESERVE_MS);
    assert_eq!(reserved(&rig), 0);
}

#[test]
fn a_group_waits_for_its_first_that_leaves_since_a_life_before_and_follows_it() {
    use crate::driver::kept::{KeptErrand, Leaving};
    let since = Wall(1_000_000);
    let (kind, follow) = (JobKind::Evacuate, Vec::new());
    let errand = Some(KeptErrand { id: "c.1.1".into(), kind, since, total: 2, follow });
    let (to, mates) = (server("gerby"), vec![name("small-2")]);
    let leaving = vec![Leaving { domain: name("small-1"), to: to.clone(), mates, since, before: true }];
    let mut rig = Rig::silent();
    let kept = Kept { errand, leaving, ..Kept::default() };
    let settings = ServerSettings { accepting: false, ..ServerSettings::default() };
    let me = rig.agent.me.clone();
    rig.agent = Agent::new(me, settings, Some(kept), Receipts::new(Boot(5)), rig.now);
    rig.out.clear();
    rig.input(Input::Tick);
    rig.input(Input::Link(true));
    (0..20).for_each(|_| rig.second(vec![half("small-1"), half("small-2")]));
    assert_eq!(rig.request(), None, "its migration may go on unseen");
    (0..3).for_each(|_| rig.second(vec![half("small-2")]));
    let (_, request) = rig.request().expect("the next is asked for");
    assert_eq!((&request.only, &request.wishes[0].guest.name), (&Some(to), &name("small-2")));
    assert_eq!(rig.agent.help.away(), [name("small-1")]);
    assert_eq!(rig.agent.errand_job().map(|j| j.percent), Some(50));
}

#[test]
fn what_cannot_move_while_it_runs_is_not_wished_away() {
    let pv = || Domain { fixed: Some("it is a PV guest".into()), ..half("small-1") };
    let mut rig = Rig::hot_with(vec![pv(), half("small-2")]);
    let (_, request) = rig.request().expect("it asks");
    let wished: Vec<&str> = request.wishes.iter().map(|w| w.guest.name.as_str()).collect();
    assert_eq!(wished, ["small-2"]);
    let mut rig = Rig::hot_with(vec![pv(), Domain { fixed: Some("so is it".into()), ..half("small-2") }]);
    assert!(rig.request().is_none(), "nothing could leave");
}
