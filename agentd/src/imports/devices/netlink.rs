//! What the kernel is told of its network block devices, and what it tells: generic netlink, family `nbd` (linux/nbd-netlink.h).

use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use neli::err::RouterError;
use neli::genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder};
use neli::nl::NlPayload;
use neli::router::asynchronous::{NlRouter, NlRouterReceiverHandle};
use neli::types::{Buffer, GenlBuffer};
use neli::utils::Groups;
use neli::{Size, ToBytes};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

const FAMILY: &str = "nbd";
const VERSION: u8 = 1;
const GROUP: &str = "nbd_mc_group";
/// A device whose connection was lost.
const LINK_DEAD: u8 = 4;

/// `NBD_ATTR_*`, then `NBD_SOCK_ITEM` and `NBD_SOCK_FD`.
const INDEX: u16 = 1;
const SIZE: u16 = 2;
const BLOCK_SIZE: u16 = 3;
const TIMEOUT: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const SOCKETS: u16 = 7;
const DEAD_TIMEOUT: u16 = 8;
const IDENTIFIER: u16 = 10;
const SOCKET: u16 = 1;
const DESCRIPTOR: u16 = 1;

/// Bytes of a sector: all that is exported has whole ones.
const SECTOR: u64 = 512;

/// What the kernel can be told to do with a device: `NBD_CMD_*`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Connect = 1,
    Disconnect = 2,
    Reconfigure = 3,
}

/// A connection for a device.
pub(super) struct Link<'a> {
    /// Tells what it is connected to. One in place of another must have the other's.
    pub identifier: &'a str,
    pub socket: &'a TcpStream,
    /// What else a device that was not connected must know.
    pub new: Option<New>,
}

/// What a device that is connected for the first time must know.
pub(super) struct New {
    /// Bytes.
    pub size: u64,
    /// `NBD_FLAG_*` of the server.
    pub flags: u16,
    /// Seconds until a request that is not answered ends the connection.
    pub request_s: u64,
    /// Seconds for which requests wait for another connection.
    pub lost_s: u64,
}

type Attributes = GenlBuffer<u16, Buffer>;
type Handle = NlRouterReceiverHandle<u16, Genlmsghdr<u8, u16>>;

/// Tells the kernel to do something with a device, and waits until it is done. Errors have the kernel's number:
/// connect: EBUSY when it is connected; reconfigure: EINVAL when it is not connected, none when its connection is not lost.
pub(super) async fn order(command: Command, device: u32, link: Option<Link<'_>>) -> io::Result<()> {
    let (router, _) = socket().await?;
    let family = router.resolve_genl_family(FAMILY).await.map_err(|e| failed(&e))?;
    let attributes = attributes(device, link.as_ref())?;
    let message = GenlmsghdrBuilder::default().cmd(command as u8).version(VERSION).attrs(attributes).build();
    let payload = NlPayload::Payload(message.map_err(io::Error::other)?);
    let answers = router.send::<_, _, u16, Genlmsghdr<u8, u16>>(family, NlmF::ACK, payload).await;
    let mut answers = answers.map_err(|e| failed(&e))?;
    while let Some(answer) = answers.next::<u16, Genlmsghdr<u8, u16>>().await {
        answer.map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Devices that lose their connection, from now on. Needs the kernel's module to be loaded.
pub(super) struct Losses {
    handle: Handle,
    // ends what feeds the handle
    _router: NlRouter,
}

impl Losses {
    pub(super) async fn hear() -> io::Result<Losses> {
        let (router, handle) = socket().await?;
        let group = router.resolve_nl_mcast_group(FAMILY, GROUP).await.map_err(|e| failed(&e))?;
        router.add_mcast_membership(Groups::new_groups(&[group])).map_err(|e| failed(&e))?;
        Ok(Losses { handle, _router: router })
    }

    /// The next device; none when there is nothing more to hear. Some may be missed when very many come at once.
    pub(super) async fn next(&mut self) -> Option<u32> {
        loop {
            let message = self.handle.next::<u16, Genlmsghdr<u8, u16>>().await?.ok()?;
            let Some(payload) = message.get_payload() else { continue };
            if *payload.cmd() == LINK_DEAD
                && let Ok(device) = payload.attrs().get_attr_handle().get_attr_payload_as::<u32>(INDEX)
            {
                return Some(device);
            }
        }
    }
}

async fn socket() -> io::Result<(NlRouter, Handle)> {
    NlRouter::connect(NlFamily::Generic, None, Groups::empty()).await.map_err(|e| failed(&e))
}

fn attributes(device: u32, link: Option<&Link<'_>>) -> io::Result<Attributes> {
    let mut all = vec![attribute(INDEX, device)?];
    if let Some(link) = link {
        // it is open as long as the link is: never negative
        let descriptor = link.socket.as_raw_fd().cast_unsigned();
        let socket = nest(SOCKET, &attribute(DESCRIPTOR, descriptor)?)?;
        all.push(nest(SOCKETS, &socket)?);
        all.push(attribute(IDENTIFIER, link.identifier)?);
        if let Some(new) = &link.new {
            all.push(attribute(SIZE, new.size)?);
            all.push(attribute(BLOCK_SIZE, SECTOR)?);
            all.push(attribute(SERVER_FLAGS, u64::from(new.flags))?);
            all.push(attribute(TIMEOUT, new.request_s)?);
            all.push(attribute(DEAD_TIMEOUT, new.lost_s)?);
        }
    }
    Ok(all.into_iter().collect())
}

fn attribute<P: Size + ToBytes>(kind: u16, payload: P) -> io::Result<Nlattr<u16, Buffer>> {
    built(AttrTypeBuilder::default().nla_type(kind), payload)
}

fn nest(kind: u16, inner: &Nlattr<u16, Buffer>) -> io::Result<Nlattr<u16, Buffer>> {
    let outer = built(AttrTypeBuilder::default().nla_type(kind).nla_nested(true), Vec::<u8>::new())?;
    outer.nest(inner).map_err(io::Error::other)
}

fn built<P: Size + ToBytes>(kind: AttrTypeBuilder<u16>, payload: P) -> io::Result<Nlattr<u16, Buffer>> {
    let kind = kind.build().map_err(io::Error::other)?;
    NlattrBuilder::default().nla_type(kind).nla_payload(payload).build().map_err(io::Error::other)
}

/// The kernel's number, when it is the kernel that says no.
fn failed<T: std::fmt::Debug, P: std::fmt::Debug>(error: &RouterError<T, P>) -> io::Error {
    match error {
        RouterError::Nlmsgerr(no) => io::Error::from_raw_os_error(no.error().wrapping_abs()),
        other => io::Error::other(other.to_string()),
    }
}
