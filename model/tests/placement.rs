//! If these fail, a migration is sent where it cannot go, or the refusal does not say why.

use uuid::Uuid;
use xvm_model::placement::{best_destination, check_destination};
use xvm_model::*;

fn server(view: &mut View, name: &str, change: impl FnOnce(&mut Heartbeat)) {
    let mut beat = Heartbeat {
        settings: ServerSettings::default(),
        points: 0,
        hypervisor: HypervisorKind::Sim,
        cpu: None,
        address: format!("{name}:1").into(),
        stale: None,
        cpus: vec![Ratio::new(0.5); 4],
        memory: ServerMemory { total: 1 << 24, free: 1 << 23 },
        domains: vec![],
        job: None,
        last: None,
        departed: vec![],
    };
    change(&mut beat);
    let from = Sender::Agent(ServerName::parse(name).expect("a name"));
    let body = Body::Heartbeat(Box::new(beat));
    view.apply(Envelope { v: 1, from, boot: Boot(1), seq: 1, at: Wall(0), body }, Now::default());
}

/// A cluster in which each server but `herby` has a reason not to take `small-1` from `ferby`.
fn cluster() -> View {
    let mut view = View::default();
    view.link(true, "", Now::default());
    server(&mut view, "ferby", |b| {
        let name = DomainName::parse("small-1").expect("a name");
        let memory = DomainMemory { max: 1 << 20, current: 1 << 20, resident: None };
        b.domains = vec![Domain { state: DomainState::Running, memory, ..Domain::new(name, Uuid::nil()) }];
    });
    server(&mut view, "full", |b| b.memory.free = 1000);
    server(&mut view, "closed", |b| b.settings.accepting = false);
    server(&mut view, "silent", |b| b.stale = Some("libvirt does not answer".into()));
    server(&mut view, "other", |b| b.hypervisor = HypervisorKind::Qemu);
    server(&mut view, "busy", |b| b.cpus = vec![Ratio::ONE; 4]);
    server(&mut view, "herby", |b| b.cpus = vec![Ratio::new(0.2); 4]);
    view
}

#[test]
fn the_least_loaded_server_that_can_take_it_is_the_best() {
    let view = cluster();
    let domain = view.domain("small-1", Mono(0)).expect("there");
    assert_eq!(best_destination(&view, &domain, Mono(0)).expect("herby can").name.as_str(), "herby");
}

#[test]
fn each_refusal_names_its_reason() {
    let view = cluster();
    let mut domain = view.domain("small-1", Mono(0)).expect("there");
    let refused = |domain: &DomainView, to: &str| {
        let to = ServerName::parse(to).expect("a name");
        check_destination(&view, domain, &to, Mono(0)).map(drop).expect_err(to.as_str())
    };
    for (to, code, word) in [
        ("nobody", Code::NoEntry, "no such server"),
        ("ferby", Code::Exists, "there already"),
        ("full", Code::NoSpace, "0 MiB of memory free"),
        ("closed", Code::Busy, "does not accept"),
        ("silent", Code::HostDown, "libvirt does not answer"),
        ("other", Code::NotSupported, "its hypervisor is qemu"),
    ] {
        let f = refused(&domain, to);
        assert!(f.code == code && f.text.contains(word), "{to}: {f:?}");
    }
    let pinned = std::sync::Arc::make_mut(&mut domain.domain);
    pinned.settings.pin = Pin(vec![ServerName::parse("ferby").expect("a name")]);
    assert_eq!(refused(&domain, "herby").code, Code::Permission);
    let none = best_destination(&view, &domain, Mono(0)).expect_err("pinned");
    assert!(
        none.code == Code::NoSpace && none.text.contains("herby: the domain is pinned to ferby"),
        "{none:?}"
    );
}

#[test]
fn a_domain_stays_on_processors_of_one_kind() {
    let mut view = View::default();
    view.link(true, "", Now::default());
    for (name, cpu) in
        [("xen1", "x86_64/EPYC"), ("xen2", "x86_64/Opteron_G3"), ("xen3", "x86_64/EPYC"), ("xen4", "")]
    {
        server(&mut view, name, |b| {
            (b.hypervisor, b.cpu) = (HypervisorKind::Xen, Cpu::parse(cpu).ok());
            if name == "xen1" {
                let small = DomainName::parse("small-1").expect("a name");
                b.domains = vec![Domain { state: DomainState::Running, ..Domain::new(small, Uuid::nil()) }];
            }
        });
    }
    let domain = view.domain("small-1", Mono(0)).expect("there");
    let check = |to: &str| {
        check_destination(&view, &domain, &ServerName::parse(to).expect("a name"), Mono(0)).map(drop)
    };
    let f = check("xen2").expect_err("it has other processors");
    let why =
        "cannot migrate small-1 to xen2: its processors are x86_64/Opteron_G3, the domain's are x86_64/EPYC";
    assert_eq!((f.code, &*f.text), (Code::NotSupported, why));
    check("xen3").expect("the same processors");
    check("xen4").expect("nobody knows better");
}

/// A domain of the groups `with` and `apart`, words with spaces between.
fn member(name: &str, with: &str, apart: &str) -> Domain {
    let groups = |text| command::parse_groups(text).expect("groups");
    let settings = DomainSettings { with: groups(with), apart: groups(apart), ..DomainSettings::default() };
    let name = DomainName::parse(name).expect("a name");
    Domain { state: DomainState::Running, settings, ..Domain::new(name, Uuid::nil()) }
}

#[test]
fn groups_forbid_what_would_join_or_part_them() {
    let mut view = View::default();
    view.link(true, "", Now::default());
    server(&mut view, "ferby", |b| {
        let leaving = Job {
            id: "j".into(),
            kind: JobKind::Migrate,
            phase: "copy".into(),
            percent: 1,
            to: ServerName::parse("herby").ok(),
            since: Wall(0),
            note: None,
        };
        let leaving = Some(Box::new(leaving));
        b.domains = vec![
            member("web-1", "web", "front"),
            Domain { job: leaving, ..member("web-2", "web", "none") },
            member("db-1", "none", "db other"),
            Domain { state: DomainState::Shutoff, ..member("web-3", "web", "none") },
        ];
    });
    server(&mut view, "gerby", |b| {
        b.domains = vec![
            Domain { state: DomainState::Incoming, ..member("db-2", "none", "db") },
            Domain { state: DomainState::Shutoff, ..member("front", "none", "front") },
        ];
    });
    server(&mut view, "herby", |_| {});
    let check = |domain: &str, to: &str| {
        let domain = view.domain(domain, Mono(0)).expect("there");
        check_destination(&view, &domain, &ServerName::parse(to).expect("a name"), Mono(0)).map(drop)
    };
    let refused = check("db-1", "gerby").expect_err("db-2 comes there");
    assert_eq!(refused.code, Code::Permission);
    let want = "cannot migrate db-1 to gerby: db-2 is there, and db-1 stays apart from it (group db)";
    assert_eq!(refused.text, want);
    check("db-1", "herby").expect("nobody is there");
    let refused = check("web-1", "gerby").expect_err("web-2 goes elsewhere");
    assert_eq!(refused.code, Code::Permission);
    assert!(refused.text.contains("web-1 stays together with web-2 (group web), which"), "{refused:?}");
    check("web-1", "herby").expect("its mate goes there too, and what is shut off counts nowhere");
    let best = |domain: &str| {
        let domain = view.domain(domain, Mono(0)).expect("there");
        best_destination(&view, &domain, Mono(0)).map(|s| s.name.to_string())
    };
    assert_eq!((best("web-1"), best("db-1")), (Ok("herby".into()), Ok("herby".into())));
    // it is shut off itself, and would come beside one that runs
    let refused = check("front", "ferby").map_err(|f| f.text);
    assert!(refused.expect_err("web-1 is there").contains("group front"));
}
