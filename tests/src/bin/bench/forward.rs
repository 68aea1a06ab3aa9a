//! Messages a second through xvm-forwarder against libzmq's own proxy: the same sockets, publishers, subscribers and messages, each
//! forwarder in a process of its own, batches in turn.
//!
//! A publisher sends no more than [`WINDOW`] messages ahead of the slowest subscriber, so nothing is dropped and every message that
//! is counted came through to all.

use crate::{
    Effort,
    cluster::{Cluster, SOON, free_port},
    process::Process,
    stats::compare,
    table::{Line, Table, micros, none, times, unit},
};
use anyhow::{Context as _, ensure};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use zmq::{Context, DONTWAIT, Message, PUB, SNDMORE, SUB, Socket, XPUB, XSUB};

/// Publishers and subscribers of each forwarder.
const PUBLISHERS: usize = 2;
const SUBSCRIBERS: usize = 3;
/// Messages under way.
const WINDOW: u64 = 500;
/// The high-water mark of all sockets; more than what is under way.
const HIGH_WATER: i32 = 4000;
/// Bytes of the bodies: a command or reply, and a heartbeat with 100 domains.
const SIZES: [(usize, &str); 2] = [(200, "200 B"), (25_000, "25 KB")];
/// The topic frame.
const TOPIC: &[u8] = b"heartbeat.ferby";

/// libzmq's proxy, for as long as this process lives.
pub fn proxy(front: &str, back: &str) -> anyhow::Result<()> {
    let context = Context::new();
    let (xsub, xpub) = (context.socket(XSUB)?, context.socket(XPUB)?);
    for socket in [&xsub, &xpub] {
        socket.set_sndhwm(HIGH_WATER)?;
        socket.set_rcvhwm(HIGH_WATER)?;
        socket.set_linger(0)?;
    }
    xsub.bind(front)?;
    xpub.bind(back)?;
    zmq::proxy(&xsub, &xpub)?;
    Ok(())
}

/// Measures.
pub fn rows(effort: Effort, table: &mut Table) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let port = free_port()?;
    let [front, back] = [port, port + 1].map(|p| format!("tcp://127.0.0.1:{p}"));
    let proxy = Process::start(&std::env::current_exe()?, ["--proxy", &front, &back], cluster.dir.path())?;
    let ours = cluster.endpoint.parse::<xvm_bus::Endpoint>()?;
    let ours = Through::open(&ours.publish(), &ours.subscribe()).context("xvm-forwarder")?;
    let theirs = Through::open(&front, &back).context("libzmq's proxy")?;

    for (size, name) in SIZES {
        let body = vec![b'x'; size];
        let batch = Duration::from_millis(250);
        let (mut cpu, mut passed) = ([0.0; 2], [0u64; 2]);
        let mut rate = |through: &Through, process: &Process, i: usize| {
            let before = process.cpu()?;
            let (n, seconds) = through.pass(&body, batch)?;
            cpu[i] += process.cpu()? - before;
            passed[i] += n;
            Ok(n as f64 / seconds)
        };
        let rate = std::cell::RefCell::new(&mut rate);
        let c = compare(
            effort.pairs,
            || (rate.borrow_mut())(&ours, &cluster.forwarder, 0),
            || (rate.borrow_mut())(&theirs, &proxy, 1),
        )?;
        table.row(Line {
            what: &format!("messages/s of {name}: forwarder : zmq::proxy"),
            ours: unit(c.ours.round(), "/s"),
            beside: unit(c.theirs.round(), "/s"),
            ratio: times(c.ratio),
            goal: "at least 0.9",
        });
        let each = [0, 1].map(|i| cpu[i] / passed[i].max(1) as f64);
        table.row(Line {
            what: &format!("  CPU a message of {name}"),
            ours: micros(each[0]),
            beside: micros(each[1]),
            ratio: if each[1] > 0.0 { times(each[0] / each[1]) } else { none() },
            goal: "",
        });
    }
    Ok(())
}

/// Publishers and subscribers at one forwarder.
struct Through {
    publishers: Vec<Socket>,
    /// Who is used by the thread that receives; a mutex because sockets are not Sync.
    subscribers: std::sync::Mutex<Vec<Socket>>,
}

impl Through {
    /// Connects all, and waits until each hears each.
    fn open(publish: &str, subscribe: &str) -> anyhow::Result<Self> {
        let context = Context::new();
        let mut sockets = [(PUB, publish, PUBLISHERS), (SUB, subscribe, SUBSCRIBERS)].map(|(kind, to, n)| {
            (0..n)
                .map(|_| {
                    let socket = context.socket(kind)?;
                    socket.set_sndhwm(HIGH_WATER)?;
                    socket.set_rcvhwm(HIGH_WATER)?;
                    socket.set_linger(0)?;
                    socket.connect(to)?;
                    if kind == SUB {
                        socket.set_subscribe(b"heartbeat.")?;
                    }
                    Ok::<_, zmq::Error>(socket)
                })
                .collect::<Result<Vec<_>, _>>()
        });
        let subscribers = std::mem::replace(&mut sockets[1], Ok(Vec::new()))?;
        let publishers = std::mem::replace(&mut sockets[0], Ok(Vec::new()))?;
        for publisher in &publishers {
            let start = Instant::now();
            let mut heard = [false; SUBSCRIBERS];
            while heard.contains(&false) {
                ensure!(start.elapsed() < SOON, "no message came through");
                publisher.send(TOPIC, SNDMORE)?;
                publisher.send("probe", 0)?;
                thread::sleep(Duration::from_millis(20));
                for (heard, socket) in heard.iter_mut().zip(&subscribers) {
                    *heard |= take(socket) > 0;
                }
            }
        }
        let silent = |t: u64| (t == 0).then_some(());
        crate::stats::wait_for("the end of the probes", SOON, || {
            thread::sleep(Duration::from_millis(100));
            silent(subscribers.iter().map(take).sum())
        })?;
        Ok(Through { publishers, subscribers: subscribers.into() })
    }

    /// Sends for `long` as fast as it goes: how many messages came through to all, and in how many seconds.
    fn pass(&self, body: &[u8], long: Duration) -> anyhow::Result<(u64, f64)> {
        let slowest = AtomicU64::new(0);
        let (sent, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let mut subscribers = self.subscribers.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        let subscribers = &mut *subscribers;
        let (slowest, sent, over) = (&slowest, &sent, &over);
        thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                let mut counts = [0; SUBSCRIBERS];
                let mut last = Instant::now();
                loop {
                    let mut items: Vec<_> = subscribers.iter().map(|s| s.as_poll_item(zmq::POLLIN)).collect();
                    zmq::poll(&mut items, 10)?;
                    drop(items);
                    let before = counts;
                    for (count, socket) in counts.iter_mut().zip(subscribers.iter()) {
                        *count += take(socket);
                    }
                    let least = counts.iter().copied().min().unwrap_or(0);
                    slowest.store(least, SeqCst);
                    if over.load(SeqCst) && least == sent.load(SeqCst) {
                        return Ok(Instant::now());
                    }
                    if counts != before {
                        last = Instant::now();
                    } else if last.elapsed() > Duration::from_secs(5) {
                        over.store(true, SeqCst);
                        anyhow::bail!("messages were lost: {counts:?} of {}", sent.load(SeqCst));
                    }
                }
            });
            let start = Instant::now();
            while start.elapsed() < long && !over.load(SeqCst) {
                let n = sent.load(SeqCst);
                if n - slowest.load(SeqCst) >= WINDOW {
                    thread::yield_now();
                    continue;
                }
                for publisher in &self.publishers {
                    publisher.send(TOPIC, SNDMORE)?;
                    publisher.send(body, 0)?;
                }
                sent.store(n + PUBLISHERS as u64, SeqCst);
            }
            over.store(true, SeqCst);
            let end = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
            Ok((sent.load(SeqCst), (end - start).as_secs_f64()))
        })
    }
}

/// Takes all messages that wait; how many.
fn take(socket: &Socket) -> u64 {
    let (mut n, mut frame) = (0, Message::new());
    while socket.recv(&mut frame, DONTWAIT).is_ok() {
        n += u64::from(!frame.get_more());
    }
    n
}
