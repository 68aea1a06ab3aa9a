//! `accepting`, `pin`, `priority`, `with` and `apart` are obeyed by rounds and by `migrate`, and stay with the domain.

use crate::stage::{cluster, ended, grown, load, on, patiently, places, restart, rounds, smalls};
use xvm_tests::{Tree, requires};

/// Only small-5 may leave ferby: the others stay together. herby accepts nobody.
#[test]
fn pins_and_groups_are_obeyed() {
    requires!("/dev/fuse", "root");
    let idle = |name: &str| vec!["--domain".to_owned(), format!("{name},demand=0.02")];
    let mut c = cluster(&[("ferby", smalls(5)), ("gerby", idle("db-1")), ("herby", vec![])]);
    let tree = c.tree.clone();
    let t = &tree;
    t.order("ctl", "balance off");
    t.order("servers/herby/accepting", "off");
    for n in 1..=4 {
        set(t, &format!("small-{n}"), "with", "crew");
    }
    set(t, "small-5", "pin", "ferby herby");
    set(t, "small-5", "priority", "70");
    let no = t.refused("domains/small-5/ctl", "migrate gerby\n");
    assert!(no.sentence.contains("pin"), "{no:?}");
    let no = t.refused("domains/small-1/ctl", "migrate gerby\n");
    assert!(no.sentence.contains("stays together with small-2 (group crew)"), "{no:?}");
    let no = t.refused("domains/small-5/ctl", "migrate herby\n");
    assert!(no.errno == "EBUSY" && no.sentence.contains("does not accept domains"), "{no:?}");
    let settings = |t: &Tree| {
        let of = |file: &str| {
            t.names("domains").iter().map(|d| t.text(&format!("domains/{d}/{file}"))).collect::<Vec<_>>()
        };
        let herby = |file: &str| t.text(&format!("servers/herby/{file}"));
        (
            of("with"),
            of("apart"),
            of("pin"),
            of("priority"),
            ["accepting", "watchdog", "policy", "even"].map(herby),
        )
    };
    t.order("servers/herby/policy", "adaptive");
    t.order("servers/herby/even", "off");
    t.order("servers/herby/watchdog", "limit 9\nthreshold 0.70\nunit 2");
    let before = settings(t);
    restart(&mut c);
    assert_eq!(settings(t), before, "all were killed");
    grown(&c);

    (1..=5).for_each(|n| load(t, &format!("small-{n}"), 100));
    t.order("ctl", "balance on");
    let round = fails(t);
    assert!(round.contains("gerby refused: the domain is pinned to other servers"), "{round}");
    assert!(round.contains("herby refused: it does not accept domains"), "{round}");
    assert_eq!(on(t, "ferby").len(), 5);

    set(t, "db-1", "apart", "heavy backup");
    set(t, "small-5", "apart", "night heavy");
    set(t, "small-5", "pin", "none");
    let no = t.refused("domains/small-5/ctl", "migrate gerby\n");
    assert!(no.sentence.contains("apart") && no.sentence.contains("db-1"), "{no:?}");
    let count = ended(t, "no-offer").len();
    patiently(t, "a round after it", 60, || (ended(t, "no-offer").len() > count).then_some(()));
    let round = fails(t);
    assert!(round.contains("gerby refused: a domain of a group that stays apart is here"), "{round}");
    assert_eq!(on(t, "ferby").len(), 5);

    set(t, "db-1", "apart", "none");
    let moved = patiently(t, "a move", 90, || ended(t, "moved").pop());
    assert_eq!((&*moved.domain, &*moved.helper), ("small-5", "gerby"));
    assert_eq!(c.once("small-5", "running"), "gerby");
    // what was set came along, and stays when all are killed
    let of = |file: &str| t.text(&format!("domains/small-5/{file}"));
    let all = |of: &dyn Fn(&str) -> String| ["pin", "priority", "with", "apart"].map(of);
    let wanted = ["none", "70", "none", "night heavy"].map(str::to_owned);
    assert_eq!(all(&of), wanted);
    restart(&mut c);
    assert_eq!(all(&of), wanted);
    assert_eq!(places(t)["small-5"], "gerby");
    // together again only where nobody stands apart
    set(t, "small-1", "apart", "night");
    let no = t.refused("domains/small-5/ctl", "migrate ferby\n");
    assert!(no.sentence.contains("apart") && no.sentence.contains("small-1"), "{no:?}");
}

/// Two orders at the same moment: one of the two domains goes, and the other is told why it stays.
#[test]
fn domains_that_stay_apart_are_not_sent_to_one_server() {
    requires!("/dev/fuse");
    let idle = |name: &str| vec!["--domain".to_owned(), format!("{name},demand=0.02")];
    let homes = [("a-1", "ferby"), ("a-2", "gerby")];
    let c = cluster(&[("ferby", idle("a-1")), ("gerby", idle("a-2")), ("herby", vec![])]);
    let t = &c.tree;
    homes.iter().for_each(|(d, _)| set(t, d, "apart", "night"));
    for _ in 0..5 {
        let go = |domain: &str| {
            let (tree, ctl) = (t.clone(), format!("domains/{domain}/ctl"));
            std::thread::spawn(move || {
                tree.put(&ctl, "migrate herby\n").err().map(|e| tree.refusal(&ctl, &e))
            })
        };
        let both = homes.map(|(d, _)| go(d)).map(|order| order.join().expect("no call hangs"));
        let refused: Vec<_> = both.iter().flatten().collect();
        assert!(
            refused.len() == 1 && refused[0].sentence.contains("stays apart from it (group night)"),
            "{both:?}"
        );
        for (d, home) in homes {
            t.until_end(&format!("domains/{d}/wait"));
            if c.once(d, "running") != home {
                t.order(&format!("domains/{d}/ctl"), &format!("migrate {home}"));
                t.until_end(&format!("domains/{d}/wait"));
            }
            assert_eq!(c.once(d, "running"), home);
        }
    }
}

/// A domain of a high priority does not come to a server that is more loaded than the one that it leaves; one of a low priority does.
#[test]
fn priorities_are_obeyed() {
    requires!("/dev/fuse");
    let flags = |letter: &str, count: u32, demand: f64| {
        (1..=count)
            .flat_map(|n| ["--domain".to_owned(), format!("{letter}-{n},demand={demand}")])
            .collect::<Vec<_>>()
    };
    let c = cluster(&[("ferby", flags("p", 8, 0.02)), ("gerby", flags("q", 6, 0.45))]);
    let t = &c.tree;
    for n in 1..=8 {
        set(t, &format!("p-{n}"), "priority", "90");
    }
    // 84 % on ferby, which is an overload; 68 % on gerby, 78 % with one more, and then ferby would have 74 %
    for n in [1, 2, 4, 5, 6, 7, 8, 3] {
        load(t, &format!("p-{n}"), 42);
    }
    let round = fails(t);
    assert!(round.contains("gerby refused: the domain has a high priority"), "{round}");
    assert_eq!(on(t, "ferby").len(), 8);
    // no domain's load has risen more than that of the last one
    set(t, "p-3", "priority", "50");
    let moved = patiently(t, "a move", 90, || ended(t, "moved").pop());
    assert_eq!((&*moved.domain, &*moved.helper), ("p-3", "gerby"), "the lowest priority bears the move");
    assert_eq!(c.once("p-3", "running"), "gerby");
}

/// Sets it, and reads it back.
#[track_caller]
fn set(t: &Tree, domain: &str, file: &str, value: &str) {
    let path = format!("domains/{domain}/{file}");
    t.order(&path, value);
    assert_eq!(t.text(&path), value, "{path}");
}

/// The offers of the last round in which nobody offered.
#[track_caller]
fn fails(t: &Tree) -> String {
    let round = patiently(t, "a round in which nobody offers", 90, || ended(t, "no-offer").pop());
    assert!(ended(t, "moved").is_empty(), "{:?}", rounds(t));
    round.offers
}
