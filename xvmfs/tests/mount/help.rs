//! How servers help each other, as users see it: rounds as directories and events, balance on and off, groups, servers' own jobs, and
//! where a domain came from.

use crate::events::Follower;
use crate::kit::{Cluster, Mount, can_mount, errno, wait_for};
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;
use xvm_model::policy::Need;
use xvm_model::round::{Accepted, Bid, Brought, End, Ending, Refused, Round, Verdict, Wished};
use xvm_model::{DomainName, HypervisorKind, ServerName, Wall};

/// What is written of the round `ASKER.7.N` after so many steps; five make it whole.
pub fn round(asker: &str, n: u64, step: usize) -> Round {
    let server = |name: &str| ServerName::parse(name).unwrap();
    let domain = || DomainName::parse("with space").unwrap();
    let bid = |helper, verdict| Bid {
        helper,
        platform: HypervisorKind::Sim.into(),
        domain: domain(),
        projected: 0.43,
        gain: 0.2,
        verdict,
    };
    let declined = Verdict::Declined { why: "gerby was first".into() };
    let offers = [bid(server("gerby"), Verdict::Accepted), bid(server("herby"), declined)];
    let refused = Refused { helper: server("full"), why: "it has too little memory".into() };
    let sentence = "with space runs on gerby: 312 ms, down 40 ms".into();
    // a minute ago: long before any mount of a test joins
    let begin = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64 - 60_000;
    let outcome = Ending { at: Wall(begin), end: End::Moved, sentence };
    Round {
        id: format!("{asker}.7.{n}").into(),
        asker: server(asker),
        need: Need::Overload,
        policy: "points".into(),
        dry: false,
        at: Wall(begin - 1),
        load: 1.25,
        why: "5 points of 5".into(),
        wishes: vec![Wished { domain: domain(), load: 1.0, memory: 1 << 18, relief: 1.0 }],
        offers: offers[..step.saturating_sub(1).min(2)].to_vec(),
        refusals: if step >= 3 { vec![refused] } else { vec![] },
        accepted: (step >= 2).then(|| Accepted {
            helper: server("gerby"),
            domain: domain(),
            at: Wall(begin),
        }),
        outcome: (step >= 4).then_some(outcome),
        effect: (step >= 5).then_some(Brought {
            before: 1.0,
            after: 0.75,
            points_before: 5,
            points_after: 0,
        }),
    }
}

const STORY: [&str; 8] = [
    "asks: 5 points of 5",
    "offer gerby \"with space\" projected 0.43",
    "accepts gerby for \"with space\"",
    "offer herby \"with space\" projected 0.43",
    "refused by full: it has too little memory",
    "declined herby: gerby was first",
    "ended: with space runs on gerby: 312 ms, down 40 ms",
    "brought: load 0.75 (was 1.00), points 0 (was 5)",
];

/// The words of a line after its time.
fn told(f: &mut Follower) -> String {
    f.line().split_once(' ').unwrap().1.trim_end().to_owned()
}

/// What the answer of a command is that is written and read in one dialogue.
fn answer(m: &Mount, file: &str, line: &str) -> String {
    m.shell(&format!("exec 3<>{file}; echo '{line}' >&3; head -n1 <&3"))
}

#[test]
fn a_round_is_a_directory_and_each_of_its_steps_an_event() {
    if !can_mount("a_round_is_a_directory_and_each_of_its_steps_an_event") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let mut followers =
        ["events", "servers/ferby/events"].map(|f| Follower::new(&m, &format!("exec cat {f}")));
    let mut elsewhere = Follower::new(&m, "exec cat servers/herby/events");
    assert!(followers.iter_mut().chain([&mut elsewhere]).all(|f| f.line().ends_with("listening\n")));
    for step in 1..=5 {
        // said twice each time, and again for each mount that comes
        c.world.rounds("ferby", &[round("ferby", 1, step)], 2);
        if step == 3 {
            drop(c.mount());
        }
    }
    for f in &mut followers {
        for want in STORY {
            assert_eq!(told(f), format!("server ferby help ferby.7.1 {want}"));
        }
    }
    let whole = round("ferby", 1, 5);
    assert_eq!(m.list("help"), ["ferby.7.1"]);
    assert_eq!(m.list("help/ferby.7.1"), ["accept", "json", "offers", "outcome", "request"]);
    assert!(m.read("help/ferby.7.1/request").contains("why 5 points of 5\n"));
    assert!(
        m.read("help/ferby.7.1/offers").contains("gerby sim - \"with space\" 0.43 "),
        "{}",
        whole.offers()
    );
    assert!(m.read("help/ferby.7.1/accept").starts_with("helper gerby\n"));
    let outcome = m.shell("cat help/*/outcome");
    for words in
        ["ferby asked for help", "gerby offered", "gerby was first", "moved: with space runs on gerby"]
    {
        assert!(outcome.contains(words), "{outcome}");
    }
    assert_eq!(m.shell("jq -r '.outcome.end, .asker' help/*/json"), "moved\nferby\n");
    let age = std::fs::metadata(m.at("help/ferby.7.1/outcome")).unwrap().mtime();
    let json: serde_json::Value = serde_json::from_str(&m.read("help/ferby.7.1/json")).unwrap();
    assert_eq!(age as u64, json["outcome"]["at"].as_u64().unwrap() / 1000, "the time of its last change");
    assert!(m.read("metrics").contains("xvm_help_rounds_total{end=\"moved\"} 1\n"));

    // what is over is no news for who joins later, and it is all there
    let late = c.mount();
    let mut news = Follower::new(&late, "exec cat events");
    assert!(news.line().ends_with("listening\n"));
    wait_for("the round", || late.list("help") == ["ferby.7.1"]);
    assert!(late.read("metrics").contains("xvm_help_rounds_total{end=\"moved\"} 0\n"));
    c.world.rounds("gerby", &[round("gerby", 1, 1)], 1);
    while !told(&mut news).starts_with("server gerby help gerby.7.1 asks: ") {}
    wait_for("both", || late.list("help") == ["ferby.7.1", "gerby.7.1"]);
    assert!(late.read("metrics").contains("xvm_help_rounds_running 1\n"));

    // nobody makes or removes rounds but agents
    assert!(!m.sh("rm -r help/ferby.7.1").status.success() && m.list("help/ferby.7.1").len() == 5);
    assert!(m.read("error").contains("EPERM cannot remove "), "{}", m.read("error"));
    c.world.rounds("ferby", &[], 1);
    wait_for("the end of the round", || errno(std::fs::metadata(m.at("help/ferby.7.1"))) == 2);
    // a server that heard nothing of this but its own
    c.world.rounds("herby", &[round("herby", 9, 1)], 1);
    assert_eq!(told(&mut elsewhere), "server herby help herby.7.9 asks: 5 points of 5");
}

#[test]
fn balance_is_told_to_all_who_are_heard_and_the_others_are_named() {
    if !can_mount("balance_is_told_to_all_who_are_heard_and_the_others_are_named") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let mut f = Follower::new(&m, "exec cat events");
    assert!(f.line().ends_with("listening\n"));
    assert!(m.read("status").contains("\nbalance on\n"));
    assert_eq!(answer(&m, "ctl", "balance off"), "balance is off on all 3 servers\n");
    for server in ["ferby", "gerby", "herby"] {
        assert!(m.read(&format!("servers/{server}/status")).contains("\nbalance off\n"));
    }
    assert!(m.read("status").contains("\nbalance off\n") && m.read("ctl").contains("# balance off; bus"));
    assert_eq!(told(&mut f), "cluster balance off (was on)");
    assert!(m.read("metrics").contains("xvm_balance_mode{mode=\"off\"} 1\n"));
    assert_eq!(errno(m.write("ctl", "balance maybe\n")), 22);
    assert!(m.read("error").contains("\"maybe\" is none of on, off, dry-run"));

    c.world.kill("gerby");
    wait_for("gerby is down", || m.read("servers/gerby/state") == "down\n");
    let text = answer(&m, "ctl", "balance dry-run");
    let want =
        "balance is dry-run on 2 of 3 servers; the others will learn it from them: gerby: it is down\n";
    assert_eq!(text, want);
    assert!(m.read("status").contains("\nbalance dry-run (not known yet to all: gerby off)\n"));
    for server in ["ferby", "herby"] {
        c.world.kill(server);
        wait_for("it is down", || m.read(&format!("servers/{server}/state")) == "down\n");
    }
    assert_eq!(errno(m.write("ctl", "balance on\n")), 112, "EHOSTDOWN");
    assert!(
        m.read("error").contains("EHOSTDOWN cannot set balance on: no server took it: ferby: it is down; ")
    );
    c.net.forwarder(false);
    wait_for("no forwarder", || errno(m.write("ctl", "balance on\n")) == 113);
}

#[test]
fn groups_bound_what_a_user_may_move() {
    if !can_mount("groups_bound_what_a_user_may_move") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    m.shell("for d in small-1 zwölf; do echo db > domains/$d/apart; done; for d in small-1 small-2; do echo web >> domains/$d/with; done");
    assert!(m.read("domains/small-1/status").contains("\nwith web\napart db\n"));
    assert_eq!(
        m.shell("jq -c '.settings.with, .settings.apart' domains/small-1/json"),
        "[\"web\"]\n[\"db\"]\n"
    );
    assert!(!m.sh("mv servers/ferby/domains/small-1 servers/herby/domains/").status.success());
    let error = m.read("domains/small-1/error");
    assert!(
        error.contains("EPERM cannot migrate small-1 to herby: zwölf is there, and small-1 stays apart"),
        "{error}"
    );
    assert_eq!(errno(m.write("domains/small-1/ctl", "migrate gerby\n")), 1);
    let error = m.read("domains/small-1/error");
    assert!(
        error.contains("EPERM cannot migrate small-1 to gerby: small-1 stays together with small-2"),
        "{error}"
    );
    assert_eq!(errno(m.write("domains/small-1/ctl", "migrate\n")), 28, "no server may take it");
    m.shell("echo none > domains/small-2/with; echo migrate > domains/small-1/ctl");
    assert_eq!(m.read("domains/small-1/wait"), "done migrate: small-1 runs on gerby\n", "the only one");
    assert_eq!(errno(m.write("domains/small-1/with", "a/b\n")), 22);
    assert_eq!(c.world.done(), 6, "what is refused is not sent");
}

#[test]
fn a_servers_own_job_is_shown_and_waited_for() {
    if !can_mount("a_servers_own_job_is_shown_and_waited_for") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    let mut f = Follower::new(&m, "exec cat servers/ferby/events");
    assert!(f.line().ends_with("listening\n"));
    assert_eq!(
        (m.read("servers/ferby/job"), m.read("servers/ferby/wait")),
        ("none\n".into(), "no job has run\n".into())
    );
    assert!(answer(&m, "servers/ferby/ctl", "evacuate").starts_with("accepted as job "));
    assert_eq!(told(&mut f), "server ferby job evacuate");
    let job = m.read("servers/ferby/job");
    assert!(
        job.starts_with("kind evacuate\nphase ask\npercent 40\nto -\n")
            && job.ends_with("note nobody offers\n")
    );
    assert!(m.read("servers/ferby/status").contains("\njob evacuate 40 %\n"));
    assert!(m.read("servers/ferby/ctl").contains("# state up, job evacuate 40 %, jobs of domains none\n"));
    assert_eq!(m.shell("jq -r .job.note servers/ferby/json"), "nobody offers\n");
    let mut waits = Follower::new(&m, "exec cat servers/ferby/wait");
    c.world.end_job("ferby", "ferby has no domains");
    assert_eq!(waits.line(), "done evacuate: ferby has no domains\n");
    assert_eq!(told(&mut f), "server ferby done evacuate: ferby has no domains");
    assert_eq!(m.read("servers/ferby/job"), "none\n");
}

#[test]
fn where_a_domain_came_from_is_kept_with_it_and_in_the_history() {
    if !can_mount("where_a_domain_came_from_is_kept_with_it_and_in_the_history") {
        return;
    }
    let c = Cluster::new();
    let m = c.mount();
    assert!(!m.read("domains/small-1/status").contains("came "));
    m.write("domains/small-1/ctl", "migrate herby\n").unwrap();
    m.read("domains/small-1/wait");
    wait_for("its arrival", || m.read("domains/small-1/status").contains("\ncame ferby 2"));
    let history = m.read("domains/small-1/history");
    assert!(
        history.starts_with("# 2") && history.ends_with(" moved ferby herby - ordered by somebody\n"),
        "{history}"
    );
    for server in ["ferby", "herby"] {
        let history = m.read(&format!("servers/{server}/history"));
        assert_eq!(
            history.matches(" moved small-1 ferby herby - ordered by somebody\n").count(),
            1,
            "{history}"
        );
    }
    assert_eq!(m.read("servers/gerby/history"), "");
    assert!(m.read("metrics").contains("xvm_moves_total{by=\"order\"} 1\n"));
    // a new mount hears it with the domain
    let late = c.mount();
    assert_eq!(late.read("domains/small-1/history"), m.read("domains/small-1/history"));
    assert!(late.read("metrics").contains("xvm_moves_total{by=\"order\"} 0\n"));
}
