//! If this fails, agents and the simulated hypervisor do not fit: domains are moved by the agents of two servers over real TCP, on a bus
//! that loses, doubles and delays; afterwards each runs on exactly one server and everybody is told which.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use xvm_agentd::{
    driver,
    hypervisor::Hypervisor,
    sim::{DomainSpec, Sim, SimConfig},
    state::State,
};
use xvm_bus::{Client, Clock, Faults, Incoming, Net};
use xvm_model::{
    Body, Boot, ClientName, DomainCommand, DomainName, Order, Sender, ServerName, Shown, Topic, View,
};

struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).expect("valid")
}

/// A server on `sim` with its agent.
async fn agent(
    net: &Net,
    clock: &Clock,
    name: &str,
    domains: &[&str],
) -> (Arc<Sim>, Task, tempfile::TempDir) {
    let domains = domains.iter().map(|d| DomainSpec::parse(d).expect("valid")).collect();
    let config = SimConfig { domains, ..SimConfig::new(server(name)) };
    let sim = Sim::start(config).await.expect("starts");
    let dir = tempfile::tempdir().expect("scratch folder");
    let state = State::open(dir.path()).expect("free");
    let topics = driver::subscriptions(&server(name)).iter().map(ToString::to_string).collect();
    let (publisher, receiver) = net.connect(Sender::Agent(server(name)), Boot(1), topics, clock.clone());
    let hypervisor: Arc<dyn Hypervisor> = sim.clone();
    let run = async move {
        let never = std::future::pending();
        driver::run(state, hypervisor, publisher, receiver, never).await.expect("goes on");
    };
    (sim, Task(tokio::spawn(run)), dir)
}

async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within a minute");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn domains_move_there_and_back_and_are_on_one_server_each() {
    let (net, clock) = (Net::new(7), Clock::system());
    let ferby =
        agent(&net, &clock, "ferby", &["a,memory=16", "b,memory=16", "c,memory=16,state=paused"]).await;
    let gerby = agent(&net, &clock, "gerby", &[]).await;
    let sims = [("ferby", &ferby.0), ("gerby", &gerby.0)];

    let name = ClientName::parse("test").expect("valid");
    let topics = ["heartbeat.", "domain.", "reply.test"].map(str::to_owned).to_vec();
    let (publisher, mut receiver) = net.connect(Sender::Client(name.clone()), Boot(1), topics, clock.clone());
    publisher.publish(Topic::RollCall, Body::RollCall);
    let client = Client::new(publisher, name);
    let view = Arc::new(Mutex::new(View::default()));
    let (heard, deliver, ticks) = (view.clone(), client.clone(), clock.clone());
    let listener = Task(tokio::spawn(async move {
        while let Some(incoming) = receiver.recv().await {
            let mut view = heard.lock().expect("whole");
            match incoming {
                Incoming::Flood(_) | Incoming::Forged(_) => {}
                Incoming::Link(link) => drop(view.link(link.is_up(), "", ticks.now())),
                Incoming::Message { envelope, .. } => {
                    let body = envelope.body.clone();
                    drop(view.apply(envelope, ticks.now()));
                    if let Body::Reply(reply) = body {
                        deliver.deliver(*reply);
                    }
                }
            }
        }
    }));
    let lookup = |n: &DomainName| view.lock().expect("whole").domain(n.as_str(), clock.mono());
    let names = ["a", "b", "c"].map(|n| DomainName::parse(n).expect("valid"));
    wait_for("all shown", || names.iter().all(|n| lookup(n).is_some())).await;

    let delay = (Duration::ZERO, Duration::from_millis(50));
    net.set_faults(Faults { loss: 0.1, doubling: 0.2, reordering: 0.2, delay });
    for (from, to) in [("ferby", "gerby"), ("gerby", "ferby")] {
        let address = sims.iter().find(|s| s.0 == to).expect("there").1.address();
        for name in &names {
            let at = || lookup(name).map(|d| d.server.to_string());
            wait_for("where it was", || at().as_deref() == Some(from)).await;
            let (boot, known) = {
                let view = view.lock().expect("whole");
                let s = view.server(from).expect("heard");
                (s.stamp.boot, (s.at, s.heard.mono))
            };
            let command = DomainCommand::Migrate {
                to: Some(server(to)),
                address: address.clone().into(),
                paused: false,
            };
            let order = Order::Domain { name: name.clone(), command };
            // an answer that got lost too often is no failure here: what counts is where the domain ends
            drop(client.order(&server(from), boot, known, order).await);
            wait_for("moved", || {
                lookup(name).is_some_and(|d| d.server.as_str() == to && d.domain.job.is_none())
            })
            .await;
            let outcome = lookup(name).and_then(|d| d.last).expect("the outcome is known");
            let text = outcome.result.as_ref().expect("moved");
            let verb = if name.as_str() == "c" { "is paused" } else { "runs" };
            assert!(text.starts_with(&format!("{name} {verb} on {to}")), "{text}");
        }
    }
    net.set_faults(Faults::default());
    for name in &names {
        let mut active = Vec::new();
        for (server, sim) in sims {
            if sim.domain(name).await.expect("answers").is_some_and(|d| d.state.is_active()) {
                active.push(server);
            }
        }
        assert_eq!(active, ["ferby"], "{name}");
        wait_for("shown", || {
            lookup(name).is_some_and(|d| {
                d.server.as_str() == "ferby" && matches!(d.shown, Shown::Known(s) if s.is_active())
            })
        })
        .await;
    }
    drop(listener);
}
