//! Whether an export is there: the beginning of the network block device protocol, as far as the server says that it has it.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
/// Asks for an export without using it.
const INFO: u32 = 6;
/// Ends the conversation.
const ABORT: u32 = 2;
/// An answer that is the last; those with the highest bit are errors.
const ACK: u32 = 1;
const ERROR: u32 = 1 << 31;

/// Asks the server at `host`, `port` for an export. It takes [`BOUND`] at most; the error says what is wrong with it.
pub async fn answers(host: &str, port: u16, export: &str) -> Result<(), String> {
    match tokio::time::timeout(BOUND, ask(host, port, export)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(format!("{host}:{port} exports no {export}")),
        Ok(Err(e)) => Err(format!("{host}:{port}: {e}")),
        Err(_) => Err(format!("{host}:{port} has not answered for {} s", BOUND.as_secs())),
    }
}

async fn ask(host: &str, port: u16, export: &str) -> std::io::Result<bool> {
    let strange = || std::io::Error::other("it does not speak NBD as it should");
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut server = TcpStream::connect((host, port)).await?;
    if server.read_u64().await? != MAGIC || server.read_u64().await? != OPTION {
        return Err(strange());
    }
    let flags = server.read_u16().await?;
    server.write_u32(FLAGS & u32::from(flags)).await?;
    let name = export.as_bytes();
    let length = u32::try_from(name.len()).map_err(|_| strange())?;
    let mut option = Vec::new();
    for part in [&OPTION.to_be_bytes()[..], &INFO.to_be_bytes(), &(length + 6).to_be_bytes()] {
        option.extend_from_slice(part);
    }
    option.extend_from_slice(&length.to_be_bytes());
    option.extend_from_slice(name);
    // no particular information
    option.extend_from_slice(&[0, 0]);
    server.write_all(&option).await?;
    loop {
        if server.read_u64().await? != REPLY || server.read_u32().await? != INFO {
            return Err(strange());
        }
        let (kind, length) = (server.read_u32().await?, server.read_u32().await?);
        if length > ANSWER {
            return Err(strange());
        }
        tokio::io::copy(&mut (&mut server).take(u64::from(length)), &mut tokio::io::sink()).await?;
        if kind == ACK || kind & ERROR != 0 {
            let mut bye = OPTION.to_be_bytes().to_vec();
            bye.extend_from_slice(&ABORT.to_be_bytes());
            bye.extend_from_slice(&0u32.to_be_bytes());
            // what was asked is answered
            drop(server.write_all(&bye).await);
            return Ok(kind == ACK);
        }
    }
}
