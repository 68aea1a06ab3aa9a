//! A thousand simulated servers with a hundred domains each, as light as they can be for who is not measured: each server's heartbeat
//! is rendered once from the real types, and for each beat its number, its time and all loads are written over.
//!
//! Each server has the two connections of a real agent: it publishes, and subscribes to its orders, to roll-calls and to beacons.

use anyhow::Context as _;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};
use xvm_bus::{Clock, Endpoint};
use xvm_model::{
    Body, Boot, Disk, Domain, DomainMemory, DomainName, DomainState, Envelope, Heartbeat, HypervisorKind,
    Nic, Ratio, Sender, ServerMemory, ServerName, ServerSettings, Vcpu, message::VERSION,
};
use zmq::{Context, DONTWAIT, PUB, SNDMORE, SUB, Socket};

/// Servers.
pub const SERVERS: usize = 1000;
/// Domains of each.
pub const DOMAINS: usize = 100;
/// Between two heartbeats of a server.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The first number of a message; all have as many digits.
const FIRST: u64 = 1_000_000_000;
/// Servers whose sockets share a context: libzmq allows 1023 sockets in one.
const SHARE: usize = 250;

/// A server's name.
pub fn server(i: usize) -> String {
    format!("server-{i:04}")
}

/// A domain's name.
pub fn domain(server: usize, i: usize) -> String {
    format!("domain-{server:04}-{i:02}")
}

/// The crowd, a process of its own; it ends when dropped. The servers that it stands for are not on the machine that is measured, so
/// it has a processor only while nobody else wants it (SCHED_IDLE).
pub struct Crowd {
    child: Child,
    /// Bytes of one heartbeat.
    pub bytes: usize,
}

impl Crowd {
    /// Connects all and lets them beat, evenly spread over the interval.
    pub fn start(endpoint: &str) -> anyhow::Result<Self> {
        let mut child = Command::new("chrt")
            .args(["--idle", "0"])
            .arg(std::env::current_exe()?)
            .args(["--crowd", endpoint])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the simulated servers")?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut first)?;
        let bytes = first.trim().parse().context("the simulated servers did not start")?;
        Ok(Crowd { child, bytes })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(e) = self.child.wait() {
            println!("the simulated servers: {e}");
        }
    }
}

/// Is the crowd until standard input ends; says how many bytes a heartbeat has.
pub fn serve(forwarder: &str) -> anyhow::Result<()> {
    let endpoint: Endpoint = forwarder.parse()?;
    let mut members = Vec::new();
    let mut context = Context::new();
    for i in 0..SERVERS {
        if i % SHARE == 0 {
            context = Context::new();
        }
        members.push(Member::new(i, &context, &endpoint).with_context(|| server(i))?);
    }
    println!("{}", members.first().map_or(0, |m| m.text.len()));
    let stop = Arc::<AtomicBool>::default();
    let stopped = stop.clone();
    thread::Builder::new().name("stdin".into()).spawn(move || {
        // an error is an end too
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        stopped.store(true, SeqCst);
    })?;
    beat(members, &stop)
}

/// One server.
struct Member {
    publisher: Socket,
    /// Never read: it is there as a real agent's is.
    _subscriber: Socket,
    topic: String,
    /// Its heartbeat.
    text: Vec<u8>,
    /// Where the number, the time and the loads' digits stand in it.
    seq: usize,
    at: usize,
    loads: Vec<usize>,
}

impl Member {
    fn new(i: usize, context: &Context, endpoint: &Endpoint) -> anyhow::Result<Self> {
        let name = ServerName::parse(&server(i))?;
        let publisher = context.socket(PUB)?;
        let subscriber = context.socket(SUB)?;
        for socket in [&publisher, &subscriber] {
            socket.set_linger(0)?;
        }
        publisher.connect(&endpoint.publish())?;
        subscriber.connect(&endpoint.subscribe())?;
        for topic in [&format!("control.{name}"), "roll-call", "forwarder."] {
            subscriber.set_subscribe(topic.as_bytes())?;
        }
        let now = Clock::system().now().wall;
        let envelope = Envelope {
            v: VERSION,
            from: Sender::Agent(name.clone()),
            boot: Boot(now.0),
            seq: FIRST,
            at: now,
            body: Body::Heartbeat(Box::new(heartbeat(i)?)),
        };
        let text = serde_json::to_vec(&envelope)?;
        let find = |mark: &str| {
            let at = text.windows(mark.len()).position(|w| w == mark.as_bytes());
            at.map(|at| at + mark.len()).with_context(|| format!("no {mark} in a heartbeat"))
        };
        let (seq, at) = (find("\"seq\":")?, find("\"at\":")?);
        let mark = b"\"load\":0.";
        let loads = text.windows(mark.len()).enumerate().filter(|(_, w)| w == mark);
        let loads = loads.map(|(at, _)| at + mark.len()).collect();
        Ok(Member {
            publisher,
            _subscriber: subscriber,
            topic: format!("heartbeat.{name}"),
            seq,
            at,
            loads,
            text,
        })
    }

    /// Says the heartbeat number `n`, with other loads than the last.
    fn say(&mut self, n: u64, random: &mut u64) -> anyhow::Result<()> {
        let number = (FIRST + n).to_string();
        self.text[self.seq..][..number.len()].copy_from_slice(number.as_bytes());
        let now = Clock::system().now().wall.0.to_string();
        self.text[self.at..][..now.len()].copy_from_slice(now.as_bytes());
        for at in &self.loads {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // two digits, the second one not 0: as many as are there
            self.text[*at] = b'0' + (*random >> 40) as u8 % 10;
            self.text[*at + 1] = b'1' + (*random >> 50) as u8 % 9;
        }
        // a forwarder that does not take it loses it, as a real agent's
        if self.publisher.send(&self.topic, SNDMORE | DONTWAIT).is_ok() {
            self.publisher.send(&self.text, DONTWAIT).ok();
        }
        Ok(())
    }
}

/// What a hypervisor would have made up.
fn identity(server: usize, i: usize) -> uuid::Uuid {
    uuid::Uuid::from_u128(0x4242_4242_0000_4000_8000_0000_0000_0000 | (server as u128) << 16 | i as u128)
}

fn heartbeat(server: usize) -> anyhow::Result<Heartbeat> {
    let load = Ratio::new(0.55);
    let domains = (0..DOMAINS).map(|i| {
        let mut d = Domain::new(DomainName::parse(&domain(server, i))?, identity(server, i));
        d.state = DomainState::Running;
        d.load = load;
        d.vcpus = vec![Vcpu { load, cpu: Some(i as u16 % 16) }; 2];
        d.memory = DomainMemory { max: 2_097_152, current: 2_097_152, resident: Some(1_234_567) };
        d.disks = vec![Disk {
            name: "vda".into(),
            read: 123_456_789,
            written: 987_654_321,
            capacity: Some(10 << 30),
        }];
        d.nics = vec![Nic { name: format!("vnet{i}").into(), received: 123_456_789, sent: 987_654_321 }];
        Ok::<_, anyhow::Error>(d)
    });
    Ok(Heartbeat {
        settings: ServerSettings::default(),
        points: 0,
        hypervisor: HypervisorKind::Sim,
        cpu: None,
        address: "127.0.0.1:16509".into(),
        stale: None,
        cpus: vec![load; 16],
        memory: ServerMemory { total: 268_435_456, free: 67_108_864 },
        domains: domains.collect::<Result<_, _>>()?,
        job: None,
        last: None,
        departed: Vec::new(),
    })
}

/// Lets all beat until they are stopped: member after member, each in its moment of the interval.
fn beat(mut members: Vec<Member>, stop: &AtomicBool) -> anyhow::Result<()> {
    let (start, step) = (Instant::now(), HEARTBEAT / SERVERS as u32);
    let mut random = 1;
    let mut count = 0u32;
    while !stop.load(SeqCst) {
        let wait = (step * count).saturating_sub(start.elapsed());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        let (round, i) = (count as usize / SERVERS, count as usize % SERVERS);
        members[i].say(round as u64, &mut random)?;
        count += 1;
    }
    Ok(())
}
