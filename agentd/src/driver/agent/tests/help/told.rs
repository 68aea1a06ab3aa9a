//! What an agent is told, by orders and by other agents: balance, jobs of the server, and anything at all.

use super::*;

#[test]
fn an_older_word_about_balance_never_wins_and_of_two_the_careful_one() {
    let told = |mode, at| Say::Balance { balance: Balance { mode, at: Wall(at) }, score: 0.0 };
    let mut rig = Rig::hot();
    rig.says();
    rig.hears("gerby", told(BalanceMode::DryRun, 9));
    assert_eq!(rig.saves().map(|s| s.balance.mode), Some(BalanceMode::DryRun));
    // not yet on disk, and an older one comes
    rig.hears("hedy", told(BalanceMode::On, 8));
    assert_eq!(rig.saves(), None);
    rig.input(Input::Saved(Ok(())));
    rig.hears("hedy", told(BalanceMode::On, 9));
    assert_eq!(rig.saves(), None);
    rig.says();
    rig.pass(300);
    let ours = |say: &Say| matches!(say, Say::Balance { balance, .. } if balance.mode == BalanceMode::DryRun);
    assert!(rig.says().iter().any(ours), "who knows better says so");
    rig.hears("hedy", told(BalanceMode::Off, 9));
    assert_eq!(rig.saves().map(|s| s.balance.mode), Some(BalanceMode::Off));
    rig.input(Input::Saved(Ok(())));
    // an order of somebody who knows an older one changes nothing
    rig.server(ServerCommand::Balance { balance: Balance { mode: BalanceMode::On, at: Wall(7) } });
    assert_eq!(rig.saves().map(|s| s.balance.mode), Some(BalanceMode::Off));
    rig.input(Input::Saved(Ok(())));
    assert_eq!(rig.done(), "balance off");
    // what cannot be kept is not in force
    rig.hears("gerby", told(BalanceMode::On, 20));
    rig.saves();
    rig.input(Input::Saved(Err("full".into())));
    assert_eq!(rig.agent.settings.balance.mode, BalanceMode::Off);
}

#[test]
fn whoever_hears_that_nothing_is_to_move_ends_the_round_that_runs() {
    for mode in [BalanceMode::Off, BalanceMode::DryRun] {
        let mut rig = Rig::hot();
        let (round, _) = rig.request().expect("it asks");
        rig.offered(&round, None);
        rig.hears("gerby", Say::Balance { balance: Balance { mode, at: Wall(9) }, score: 0.0 });
        rig.input(Input::Saved(Ok(())));
        rig.offered(&round, Some(0));
        assert!(rig.take(|e| matches!(e, Effect::Begin { .. }).then_some(())).is_none());
        assert_eq!(rig.kept_end(), Some(End::Cancelled));
    }
}

#[test]
fn one_job_of_a_server_at_a_time() {
    let mut rig = Rig::new(DomainState::Running);
    rig.server(ServerCommand::Cancel);
    assert_eq!(rig.failure().text, "cannot cancel ferby: neither evacuate nor restore runs");
    rig.server(ServerCommand::Evacuate);
    assert_eq!(rig.saves().map(|s| s.accepting), Some(false));
    rig.server(ServerCommand::Restore);
    let failure = rig.failure();
    assert_eq!(failure.code, Code::Busy);
    assert_eq!(failure.text, "cannot restore ferby: another job begins just now");
    rig.input(Input::Saved(Ok(())));
    assert_eq!(rig.replies().pop().map(|r| r.answer), Some(Answer::Accepted));
    for (command, word) in [(ServerCommand::Evacuate, "evacuate"), (ServerCommand::Restore, "restore")] {
        rig.server(command);
        let failure = rig.failure();
        let want =
            format!("cannot {word} ferby: its evacuate runs; wait for it (cat wait) or `echo cancel > ctl`");
        assert_eq!((failure.code, failure.text), (Code::Busy, want));
    }
    // a setting is no job
    rig.server(ServerCommand::Heartbeat { ms: 500 });
    rig.input(Input::Saved(Ok(())));
    assert_eq!(rig.done(), "heartbeat 0.5");
    rig.server(ServerCommand::Cancel);
    let text = "evacuate of ferby cancelled; 1 domains are still on it, and it accepts none";
    assert_eq!(rig.done(), text);
    // when it cannot be kept, it does not begin
    rig.server(ServerCommand::Restore);
    rig.input(Input::Saved(Err("full".into())));
    assert_eq!(rig.failure().code, Code::Io);
    assert!(rig.agent.heartbeat().job.is_none() && !rig.agent.settings.accepting);
}

#[test]
fn no_word_of_others_breaks_anything() {
    let mut dice = 7_u64;
    let mut roll = |n: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % n
    };
    let mut rig = Rig::hot();
    let mut own: Box<str> = "ferby.5.1".into();
    for n in 0..5_000_u64 {
        let from = format!("s{}", roll(40));
        let round: Box<str> = match roll(4) {
            0 => own.clone(),
            1 => format!("ferby.5.{}", roll(9)).into(),
            _ => format!("{from}.{}.{}", roll(3), roll(30)).into(),
        };
        let number = [0, 1, 7, u32::MAX][roll(4) as usize];
        let big = [0.0, 0.3, 1.0, 1e6][roll(4) as usize];
        let say = match roll(9) {
            0 | 1 => {
                let wishes: Vec<Wish> = (0..=roll(64))
                    .map(|i| {
                        let mut guest = Guest::new(name(&format!("d{}", roll(99))), 1 << (roll(41)));
                        (guest.load, guest.busy, guest.priority) = (big, number as u16, (i % 101) as u8);
                        Wish { guest, relief: -1e15, mates: None }
                    })
                    .take(64)
                    .collect();
                let request = Request {
                    asker: server(&from),
                    platform: HypervisorKind::Sim.into(),
                    need: [Need::Overload, Need::Evacuate, Need::Restore][roll(3) as usize],
                    only: (roll(3) == 0).then(|| server("ferby")),
                    dry: roll(4) == 0,
                    why: "".into(),
                    policy: "none".into(),
                    load: big,
                    level: 0.0,
                    cpus: 0.01,
                    pain: 1e15,
                    wishes,
                };
                let round = format!("{from}.1.{n}").into();
                Say::RequestHelp { round, request: request.into() }
            }
            2 => {
                let worth = Worth { gain: 1e15, delay_ms: -1e15 };
                let (helper, wish) = (server(&from), roll(64) as usize);
                let offer = Offer {
                    helper,
                    address: "".into(),
                    platform: HypervisorKind::Sim.into(),
                    wish,
                    projected: big,
                    worth,
                };
                Say::OfferHelp { round, offer, held: (roll(2) == 0).then_some(number) }
            }
            3 => Say::AcceptHelp { round, helper: server("ferby"), number },
            4 => Say::Decline { round, helper: server(&from), why: None },
            5 => Say::Decline { round, helper: server("ferby"), why: Some("x".into()) },
            6 => Say::Done { round, moved: roll(2) == 0 },
            7 => {
                let domains = (0..RECALL_MAX).map(|i| name(&format!("small-{i}")));
                Say::Recall { domains: domains.collect() }
            }
            _ => Say::Balance { balance: Balance { mode: BalanceMode::On, at: Wall(roll(3)) }, score: 0.0 },
        };
        rig.hears(&from, say);
        if roll(5) == 0 {
            rig.second(vec![half("small-1"), half("small-2")]);
        }
        if let Some((round, _)) = rig.request() {
            own = round;
        }
        while let Some(op) = rig.take(|e| if let Effect::Begin { op, .. } = e { Some(*op) } else { None }) {
            rig.ended(op, Err(HvError::Refused("no".into())));
        }
        rig.out.retain(|e| matches!(e, Effect::Sample { .. }));
        if rig.agent.saving.front().is_some() {
            rig.input(Input::Saved(Ok(())));
        }
    }
    assert!(rig.agent.heartbeat().domains.len() <= 2);
}
