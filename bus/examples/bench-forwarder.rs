//! Messages a second through `xvm-forwarder` and through libzmq's own proxy, side by side in one run; the last line is the ratio.

use std::{
    error::Error,
    time::{Duration, Instant},
};
use xvm_bus::{Forwarder, forwarder::Config};

/// Messages of one run.
const COUNT: usize = 200_000;
/// Bytes of a body.
const SIZE: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let forwarder = Forwarder::start(Config::local())?;
        let at = forwarder.endpoint();
        ours.push(run(&at.publish(), &at.subscribe())?);
        drop(forwarder);
        theirs.push(proxy()?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("xvm-forwarder  {ours:>9.0} messages/s of {SIZE} bytes");
    println!("libzmq's proxy {theirs:>9.0} messages/s");
    println!("ratio          {:>9.2}", ours / theirs);
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// libzmq's proxy with the same high-water marks.
fn proxy() -> Result<f64, Box<dyn Error>> {
    let mut context = zmq::Context::new();
    let (front, back) = (context.socket(zmq::XSUB)?, context.socket(zmq::XPUB)?);
    for socket in [&front, &back] {
        socket.set_linger(0)?;
        socket.set_sndhwm(4000)?;
        socket.set_rcvhwm(4000)?;
        socket.bind("tcp://127.0.0.1:*")?;
    }
    let address = |s: &zmq::Socket| s.get_last_endpoint()?.map_err(|_| zmq::Error::EINVAL);
    let (publish, subscribe) = (address(&front)?, address(&back)?);
    let thread = std::thread::spawn(move || zmq::proxy(&front, &back).err());
    let rate = run(&publish, &subscribe)?;
    context.destroy()?;
    thread.join().map_err(|_| "the proxy's thread panicked")?;
    Ok(rate)
}

/// Messages a second from one publisher to one subscriber. The publisher stays at most half a high-water mark ahead, so that none is
/// dropped.
fn run(publish: &str, subscribe: &str) -> Result<f64, Box<dyn Error>> {
    let context = zmq::Context::new();
    let (sub, out) = (context.socket(zmq::SUB)?, context.socket(zmq::XPUB)?);
    for socket in [&sub, &out] {
        socket.set_linger(0)?;
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.set_rcvtimeo(10_000)?;
    }
    sub.set_subscribe(b"heartbeat.")?;
    sub.connect(subscribe)?;
    out.connect(publish)?;
    while !out.recv_bytes(0)?.ends_with(b"heartbeat.") {}
    std::thread::sleep(Duration::from_millis(100));
    let body = vec![b'x'; SIZE];
    let (mut sent, mut message) = (0, zmq::Message::new());
    let begin = Instant::now();
    for received in 0..COUNT {
        while sent < COUNT && sent < received + 2000 {
            out.send_multipart([&b"heartbeat.ferby"[..], &body], 0)?;
            sent += 1;
        }
        sub.recv(&mut message, 0)?;
        sub.recv(&mut message, 0)?;
    }
    Ok(COUNT as f64 / begin.elapsed().as_secs_f64())
}
