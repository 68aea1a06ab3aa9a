//! A keeper with a small world around it: servers that say what they run, works and exports that end when the test says so.

use crate::keeper::kept::Kept;
use crate::keeper::step::{Effect, Input, Made, Tag, Task, Undone};
use crate::keeper::{KEEP_MS, Keeper, Site};
use std::collections::BTreeMap;
use uuid::Uuid;
use xvm_model::message::VERSION;
use xvm_model::{
    Answer, Body, Boot, ClientName, Code, Command, Config, ConfigCommand, ConfigName, ConfigRecord,
    ConfigState, Domain, DomainChange, DomainCommand, DomainState, Envelope, Failure, Heartbeat,
    HypervisorKind, Mono, News, Now, Order, Outcome, Ratio, Receipts, Reply, Sender, ServerMemory,
    ServerName, ServerSettings, Wall,
};

pub(super) fn server(text: &str) -> ServerName {
    ServerName::parse(text).expect("a name")
}

pub(super) fn config(text: &str) -> ConfigName {
    ConfigName::parse(text).expect("a name")
}

/// A server as it would tell itself.
pub(super) struct Host {
    pub(super) boot: u64,
    seq: u64,
    pub(super) domains: BTreeMap<String, Domain>,
}

pub(super) struct Rig {
    pub(super) keeper: Keeper,
    pub(super) now: Now,
    pub(super) hosts: BTreeMap<String, Host>,
    /// What was kept last.
    pub(super) kept: Kept,
    /// Effects that the test has not looked at: works, exports, orders.
    pub(super) open: Vec<Effect>,
    /// When each of them was wished for.
    pub(super) given: Vec<Mono>,
    /// How old the last order was that was taken, in milliseconds.
    taken: u64,
    /// Answers, the newest last.
    pub(super) replies: Vec<Reply>,
    /// The states of configs in all that it told of all of them.
    pub(super) told: Vec<ConfigState>,
    /// Whether exports, works and writings succeed at once.
    pub(super) easy: bool,
    number: u64,
    life: u64,
    /// Whether its next life serves by TLS.
    pub(super) tls: bool,
    /// Who the last export lets in, by TLS; none: without it.
    pub(super) let_in: Option<Vec<String>>,
}

impl Rig {
    pub(super) fn new() -> Rig {
        let now = Now { mono: Mono(0), wall: Wall(1_000_000) };
        let mut rig = Rig {
            keeper: keeper(1, Kept::default(), now, false),
            now,
            hosts: BTreeMap::new(),
            kept: Kept::default(),
            open: Vec::new(),
            given: Vec::new(),
            taken: 0,
            replies: Vec::new(),
            told: Vec::new(),
            easy: true,
            number: 0,
            life: 1,
            tls: false,
            let_in: None,
        };
        rig.input(Input::Link(true));
        for name in ["ferby", "gerby", "herby"] {
            rig.hosts.insert(name.into(), Host { boot: 1, seq: 0, domains: BTreeMap::new() });
            rig.beat(name);
        }
        rig
    }

    /// imaged dies and is started anew with what was kept; files are read again.
    pub(super) fn restart(&mut self) {
        let files: Vec<_> = self
            .kept
            .configs
            .keys()
            .filter_map(|n| Some((n.clone(), self.keeper.config(n)?.clone())))
            .collect();
        self.open.clear();
        self.given.clear();
        self.life += 1;
        self.keeper = keeper(self.life, self.kept.clone(), self.now, self.tls);
        let files = files.into_iter().map(|(name, c)| (name, Some(Ok(Box::new(c))))).collect();
        self.input(Input::Files(files));
        self.input(Input::Link(true));
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.keeper.step(input, self.now) {
                match effect {
                    Effect::Publish(_, body) => match *body {
                        Body::Reply(reply) => self.replies.push(*reply),
                        Body::Configs(all) => self.told.extend(all.configs.into_iter().map(|c| c.state)),
                        _ => {}
                    },
                    Effect::Keep(kept) => self.kept = *kept,
                    Effect::Write { name, before, answer, .. } if self.easy => {
                        inputs.push_back(Input::Written { name, before, answer, result: Ok(()) });
                    }
                    Effect::Export { name, wish, servers, .. } if self.easy => {
                        self.let_in = servers.map(|all| all.iter().map(ServerName::to_string).collect());
                        inputs.push_back(Input::Exported { name, wish, result: Ok(()) });
                    }
                    Effect::Work { build, task, .. } if self.easy => {
                        let config = match task {
                            Task::Restore => Some(Box::new(Config::new(Uuid::from_u128(77)))),
                            _ => None,
                        };
                        let result = Ok(Made { boot: None, config });
                        inputs.push_back(Input::Worked { build, result, log: 10 });
                    }
                    other => {
                        self.given.push(self.now.mono);
                        self.open.push(other);
                    }
                }
            }
        }
    }

    /// Lets time pass, with heartbeats of all hosts each second when `heard`.
    pub(super) fn pass(&mut self, ms: u64, heard: &[&str]) {
        let end = self.now.mono.plus(ms);
        while self.now.mono < end {
            self.now.mono = self.now.mono.plus(500);
            self.now.wall = Wall(self.now.wall.0 + 500);
            for name in heard {
                self.beat(name);
            }
            self.input(Input::Tick);
        }
    }

    pub(super) fn beat(&mut self, name: &str) {
        let host = self.hosts.get(name).expect("a host");
        let beat = Heartbeat {
            settings: ServerSettings::default(),
            points: 0,
            hypervisor: HypervisorKind::Sim,
            cpu: None,
            address: "x:1".into(),
            stale: None,
            cpus: vec![Ratio::ZERO; 4],
            memory: ServerMemory { total: 8 << 20, free: 8 << 20 },
            domains: host.domains.values().cloned().collect(),
            job: None,
            last: None,
            departed: Vec::new(),
        };
        self.say(name, Body::Heartbeat(Box::new(beat)));
    }

    pub(super) fn say(&mut self, name: &str, body: Body) {
        let host = self.hosts.get_mut(name).expect("a host");
        host.seq += 1;
        let (from, at) = (Sender::Agent(server(name)), self.now.wall);
        let envelope = Envelope { v: VERSION, from, boot: Boot(host.boot), seq: host.seq, at, body };
        self.input(Input::Heard(Box::new(envelope)));
    }

    /// A domain's record on a host, told at once.
    pub(super) fn domain(&mut self, host: &str, name: &str, edit: impl FnOnce(&mut Domain)) {
        let c = config(name);
        let uuid = self.keeper.config(&c).expect("a config").uuid;
        let place = self.hosts.get_mut(host).expect("a host");
        let domain = place.domains.entry(name.into()).or_insert_with(|| {
            let mut d = Domain::new(c.domain(), uuid);
            d.state = DomainState::Running;
            d
        });
        edit(domain);
        let change = Box::new(DomainChange::Is { domain: domain.clone() });
        self.say(host, Body::Domain(change));
    }

    pub(super) fn gone(&mut self, host: &str, name: &str) {
        self.hosts.get_mut(host).expect("a host").domains.remove(name);
        let change = Box::new(DomainChange::Gone { name: config(name).domain() });
        self.say(host, Body::Domain(change));
    }

    pub(super) fn order(&mut self, name: &str, command: ConfigCommand) -> Option<Answer> {
        self.number += 1;
        let id: Box<str> = format!("c.1.{}", self.number).into();
        let command = Command {
            id: id.clone(),
            client: ClientName::parse("c").expect("a name"),
            boot: Boot(self.life),
            deadline: Wall(self.now.wall.0 + 5_000),
            order: Order::Config { name: config(name), command },
        };
        self.input(Input::Command(Box::new(command)));
        self.answer(&id)
    }

    /// The last answer to an order.
    pub(super) fn answer(&self, id: &str) -> Option<Answer> {
        self.replies.iter().rev().find(|r| *r.id == *id).map(|r| r.answer.clone())
    }

    pub(super) fn last_reply(&self) -> &Reply {
        self.replies.last().expect("an answer")
    }

    pub(super) fn refused(answer: Option<Answer>) -> (Code, String) {
        match answer {
            Some(Answer::Failed { failure }) => (failure.code, failure.text),
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(super) fn record(&self, name: &str) -> ConfigRecord {
        self.keeper.record(&config(name)).expect("a config")
    }

    /// What `wait` would print.
    pub(super) fn outcome(&self, name: &str) -> Result<Box<str>, Failure> {
        self.record(name).last.expect("an outcome").result
    }

    /// The names that are to be exported now, by the last wish.
    pub(super) fn exports(&self, name: &str) -> Vec<String> {
        let leases = self.record(name).leases;
        leases.iter().flat_map(|l| l.grant.disks.iter().map(|d| d.export.to_string())).collect()
    }

    pub(super) fn take_order(&mut self) -> Option<(String, Tag, Order)> {
        let at = self.open.iter().position(|e| matches!(e, Effect::Order { .. }))?;
        self.taken = self.now.mono.since(self.given.remove(at));
        match self.open.remove(at) {
            Effect::Order { tag, to, order, .. } => Some((to.to_string(), tag, *order)),
            _ => None,
        }
    }

    /// How old the order was that was taken last, in milliseconds: an agent carries none out after 5 s.
    pub(super) fn age(&self) -> u64 {
        self.taken
    }

    /// A config with an image, made.
    pub(super) fn made(&mut self, name: &str) {
        let answer =
            self.order(name, ConfigCommand::Create { settings: Box::default(), rights: Default::default() });
        assert_eq!(answer, Some(Answer::Accepted));
        assert_eq!(self.outcome(name), Ok(format!("{name} is ready").into()));
    }

    /// Starts it on a host, whose agent makes it. Gives the epoch.
    pub(super) fn runs(&mut self, name: &str, host: &str) -> u64 {
        let answer = self.order(name, ConfigCommand::Start { on: Some(server(host)) });
        assert_eq!(answer, Some(Answer::Accepted));
        let (to, tag, order) = self.take_order().expect("an order to the agent");
        assert_eq!(to, host);
        let Order::Domain { command: DomainCommand::Create { spec }, .. } = order else {
            panic!("{order:?}")
        };
        spec.check().expect("what an agent takes");
        self.reply(name, tag, Ok("j"));
        self.domain(host, name, |d| {
            d.state = DomainState::Running;
            d.settings = spec.settings.clone();
        });
        assert_eq!(self.outcome(name), Ok(format!("{name} runs on {host}").into()));
        spec.grant.epoch
    }

    /// The answer of an agent: accepted as job `id`, or refused.
    pub(super) fn reply(&mut self, name: &str, tag: Tag, result: Result<&str, Failure>) {
        let result = result.map(|id| Reply { id: id.into(), answer: Answer::Accepted, news: None });
        self.input(Input::Answered { name: config(name), tag, result });
    }

    pub(super) fn work(&mut self) -> (Box<str>, Task) {
        let at = self.open.iter().position(|e| matches!(e, Effect::Work { .. })).expect("a work");
        self.given.remove(at);
        match self.open.remove(at) {
            Effect::Work { build, task, .. } => (build, task),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn work_ends(&mut self, build: Box<str>, result: Result<Made, Undone>) {
        self.input(Input::Worked { build, result, log: 99 });
    }

    /// An outcome of a job of a domain.
    pub(super) fn ended(id: &str, result: Result<&str, Failure>) -> Option<Box<Outcome>> {
        let kind = xvm_model::JobKind::Migrate;
        Some(Box::new(Outcome { id: id.into(), kind, at: Wall(1), result: result.map(Into::into) }))
    }
}

/// The record in the news of a reply.
pub(super) fn news(reply: &Reply) -> Option<&ConfigRecord> {
    match reply.news.as_ref()? {
        News::Config { change } => match &**change {
            xvm_model::ConfigChange::Is { record } => Some(record),
            xvm_model::ConfigChange::Gone { .. } => None,
        },
        _ => None,
    }
}

fn keeper(life: u64, kept: Kept, now: Now, tls: bool) -> Keeper {
    let site = Site {
        name: server("kerby"),
        boot: Boot(life),
        host: "10.0.0.9".into(),
        ports: 10810..=10819,
        boot_port: 10809,
        interval_ms: 2_000,
        guestd: None,
        tls,
        systems: vec!["tiny".into(), "debian/bookworm".into()],
        keep_ms: KEEP_MS,
    };
    Keeper::new(site, Config::new(Uuid::from_u128(1)), kept, Receipts::new(Boot(life)), now)
}
