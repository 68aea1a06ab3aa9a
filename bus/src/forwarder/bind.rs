//! Where a forwarder listens.
//!
//! libzmq's bind has coarse errors and takes over an ipc path that another process listens on, so each address is tried with the
//! standard library first.

use super::Config;
use crate::{Endpoint, sockets::set_common};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    io::{Error, ErrorKind},
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};
use zmq::{Context, Socket};

/// Pairs of ports that are tried when any will do.
const TRIES: usize = 50;
/// They are taken from below those that the kernel gives to outgoing connections: one who tries to connect again and again to such a
/// port of a forwarder that is away may be given that very port, and then keeps it.
const FREE_PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Why a forwarder cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {listen}: {why}")]
pub struct BindError {
    listen: String,
    why: String,
    /// What the system said.
    pub kind: ErrorKind,
}

impl BindError {
    pub(super) fn new(listen: &Endpoint, e: Error) -> Self {
        let why = match e.kind() {
            ErrorKind::AddrInUse => {
                "something listens there already; end it, or choose another address".to_owned()
            }
            ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
            _ => e.to_string(),
        };
        BindError { listen: listen.to_string(), why, kind: e.kind() }
    }
}

/// The sockets of a forwarder.
pub(super) struct Bound {
    /// Towards publishers.
    pub(super) front: Socket,
    /// Towards subscribers.
    pub(super) back: Socket,
    /// Where they listen, with the ports that were chosen.
    pub(super) endpoint: Endpoint,
    /// Their files: dropped after the sockets.
    pub(super) _files: Files,
}

/// Files that go away with the forwarder.
pub(super) struct Files(Vec<PathBuf>);

impl Drop for Files {
    fn drop(&mut self) {
        for file in &self.0 {
            // libzmq was there first, perhaps
            std::fs::remove_file(file).ok();
        }
    }
}

/// Listens where the configuration says: for all, and for guests if they have sockets of their own.
pub(super) fn bind_all(context: &Context, config: &Config) -> Result<(Bound, Option<Bound>), BindError> {
    let all = bind(context, &config.listen, config.insecure)?;
    // little passes there, so other machines may reach it: guests are such
    let guests = config.guests.as_ref().map(|guests| bind(context, guests, true)).transpose()?;
    Ok((all, guests))
}

/// Listens on both sides.
fn bind(context: &Context, listen: &Endpoint, open: bool) -> Result<Bound, BindError> {
    if !open && !listen.is_local() {
        return Err(BindError {
            listen: listen.to_string(),
            why: "other machines could reach it, and the bus is not protected; --insecure allows it, loopback and ipc:// need nothing"
                .into(),
            kind: ErrorKind::PermissionDenied,
        });
    }
    let failed = |e| BindError::new(listen, e);
    match listen {
        Endpoint::Ipc { path } => {
            let files = [format!("{path}.in"), format!("{path}.out")].map(PathBuf::from);
            for file in &files {
                free(file).map_err(failed)?;
            }
            let (front, back) = sockets(context, &listen.publish(), &listen.subscribe()).map_err(failed)?;
            Ok(Bound { front, back, endpoint: listen.clone(), _files: Files(files.into()) })
        }
        Endpoint::Tcp { host, port } => {
            let host = if host == "localhost" { "127.0.0.1" } else { host };
            let address = (host, *port).to_socket_addrs().map_err(failed)?.next();
            let mut address = address.ok_or_else(|| failed(ErrorKind::AddrNotAvailable.into()))?;
            let mut result = Err(ErrorKind::AddrInUse.into());
            for _ in 0..if *port == 0 { TRIES } else { 1 } {
                if *port == 0 {
                    address.set_port(StdRng::from_os_rng().random_range(FREE_PORTS));
                }
                result = tcp(context, address);
                if !matches!(&result, Err(e) if e.kind() == ErrorKind::AddrInUse) {
                    break;
                }
            }
            let (front, back) = result.map_err(failed)?;
            let endpoint = Endpoint::Tcp { host: host.to_owned(), port: address.port() };
            Ok(Bound { front, back, endpoint, _files: Files(Vec::new()) })
        }
    }
}

/// Both sockets, at `address` and the port after it.
fn tcp(context: &Context, address: SocketAddr) -> Result<(Socket, Socket), Error> {
    let mut next = address;
    next.set_port(address.port().checked_add(1).ok_or(ErrorKind::AddrInUse)?);
    // the standard library's errors are the better ones; both are closed again before libzmq's turn
    drop((TcpListener::bind(address)?, TcpListener::bind(next)?));
    sockets(context, &format!("tcp://{address}"), &format!("tcp://{next}"))
}

fn sockets(context: &Context, publish: &str, subscribe: &str) -> Result<(Socket, Socket), Error> {
    let front = context.socket(zmq::XSUB)?;
    let back = context.socket(zmq::XPUB)?;
    for socket in [&front, &back] {
        set_common(socket)?;
        socket.set_ipv6(publish.starts_with("tcp://["))?;
    }
    // each subscription is shown, also when another one has it already: a new one is answered with a beacon
    back.set_xpub_verbose(true)?;
    front.bind(publish)?;
    back.bind(subscribe)?;
    Ok((front, back))
}

/// Makes sure that a socket can be made at `file`: removes what a killed forwarder left, and nothing else.
fn free(file: &PathBuf) -> Result<(), Error> {
    match std::fs::symlink_metadata(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{} is not a socket", file.display())));
        }
        Ok(_) => match UnixStream::connect(file) {
            Ok(_) => return Err(ErrorKind::AddrInUse.into()),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(file)?,
            Err(e) => return Err(e),
        },
    }
    // can one be made? the error says why not
    drop(UnixListener::bind(file)?);
    std::fs::remove_file(file)
}
