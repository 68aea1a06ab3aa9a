//! The beginning of the network block device protocol: whether a server has an export, and a connection to it that the kernel can go on
//! with. (doc/proto.md of <https://github.com/NetworkBlockDevice/nbd>, "Fixed newstyle negotiation".)

use std::io;
use std::net::TcpStream as Socket;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a server may take to answer for one export.
const BOUND: Duration = Duration::from_secs(3);
/// How much of an answer is read; servers say little.
const ANSWER: u32 = 64 << 10;

/// `NBDMAGIC`, then `IHAVEOPT`: how a server begins, and an option of the client.
const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
/// How an answer to an option begins.
const REPLY: u64 = 0x0003_e889_0455_65a9;
/// Fixed newstyle, and no zeroes to fill up.
const FLAGS: u32 = 3;
/// Options: ask for an export without using it; use it; end the conversation.
const INFO: u32 = 6;
const GO: u32 = 7;
const ABORT: u32 = 2;
/// Answers: the last one; a piece of information, of which only an export's size and flags are of interest; errors have the highest bit.
const ACK: u32 = 1;
const PIECE: u32 = 3;
const EXPORT: u16 = 0;
const ERROR: u32 = 1 << 31;

/// A connection that was negotiated to its end: requests may follow.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub socket: Socket,
    /// The export's bytes.
    pub size: u64,
    /// What the server can do with it: `NBD_FLAG_*`.
    pub flags: u16,
}

/// Asks the server at `host`, `port` for an export. It takes [`BOUND`] at most; the error says what is wrong with it.
pub async fn answers(host: &str, port: u16, export: &str) -> Result<(), String> {
    bounded(host, port, async {
        let mut server = greet(host, port).await?;
        let found = option(&mut server, INFO, export).await?;
        let mut bye = OPTION.to_be_bytes().to_vec();
        bye.extend_from_slice(&ABORT.to_be_bytes());
        bye.extend_from_slice(&0u32.to_be_bytes());
        // what was asked is answered
        drop(server.write_all(&bye).await);
        found.map(drop).ok_or_else(|| none(export))
    })
    .await
}

/// Opens an export at `host`, `port`, as [`answers`].
pub async fn open(host: &str, port: u16, export: &str) -> Result<Opened, String> {
    bounded(host, port, async {
        let mut server = greet(host, port).await?;
        let found = option(&mut server, GO, export).await?.ok_or_else(|| none(export))?;
        let (size, flags) = found.ok_or_else(strange)?;
        server.set_nodelay(true)?;
        let socket = server.into_std()?;
        // the kernel waits for it
        socket.set_nonblocking(false)?;
        Ok(Opened { socket, size, flags })
    })
    .await
}

async fn bounded<T>(host: &str, port: u16, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(BOUND, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(format!("{host}:{port}: {e}")),
        Err(_) => Err(format!("{host}:{port} has not answered for {} s", BOUND.as_secs())),
    }
}

fn strange() -> io::Error {
    io::Error::other("it does not speak NBD as it should")
}

fn none(export: &str) -> io::Error {
    io::Error::other(format!("it exports no {export}"))
}

async fn greet(host: &str, port: u16) -> io::Result<TcpStream> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut server = TcpStream::connect((host, port)).await?;
    if server.read_u64().await? != MAGIC || server.read_u64().await? != OPTION {
        return Err(strange());
    }
    let flags = server.read_u16().await?;
    server.write_u32(FLAGS & u32::from(flags)).await?;
    Ok(server)
}

/// Says [`INFO`] or [`GO`]; none when the server does not have the export, else its size and flags, if the server told them.
async fn option(server: &mut TcpStream, what: u32, export: &str) -> io::Result<Option<Option<(u64, u16)>>> {
    let name = export.as_bytes();
    let length = u32::try_from(name.len()).map_err(|_| strange())?;
    let mut option = Vec::new();
    for part in [&OPTION.to_be_bytes()[..], &what.to_be_bytes(), &(length + 6).to_be_bytes()] {
        option.extend_from_slice(part);
    }
    option.extend_from_slice(&length.to_be_bytes());
    option.extend_from_slice(name);
    // no particular information
    option.extend_from_slice(&[0, 0]);
    server.write_all(&option).await?;
    let mut found = None;
    loop {
        if server.read_u64().await? != REPLY || server.read_u32().await? != what {
            return Err(strange());
        }
        let (kind, length) = (server.read_u32().await?, server.read_u32().await?);
        if length > ANSWER {
            return Err(strange());
        }
        let mut rest = (&mut *server).take(u64::from(length));
        if kind == PIECE {
            found = piece(&mut rest).await?.or(found);
        }
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        if kind == ACK || kind & ERROR != 0 {
            return Ok((kind == ACK).then_some(found));
        }
    }
}

/// The size and flags of a piece of information, if it is about those.
async fn piece(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u64, u16)>> {
    if from.read_u16().await? != EXPORT {
        return Ok(None);
    }
    Ok(Some((from.read_u64().await?, from.read_u16().await?)))
}
