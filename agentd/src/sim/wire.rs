//! One TCP connection between two simulated hypervisors; what is said is in [`super::talk`].
//!
//! A frame is its length (4 bytes, big endian) and that many bytes of JSON; after a `pages` frame come `len` bytes of memory.
//!
//! Nothing from a socket is trusted: every frame has a longest length and a latest time, every number a range.

use super::talk::{Ask, Hello, PAGES_MAX, Say, VERSION};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest frame in bytes, without the memory after it.
const FRAME_MAX: u32 = 1 << 20;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer to a question may take.
pub const ANSWER: Duration = Duration::from_secs(5);
/// How long a migration may be silent.
pub const SILENCE: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub struct Wire {
    /// The socket.
    stream: TcpStream,
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

fn bad(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl Wire {
    /// Takes a connection that came in.
    pub fn new(stream: TcpStream) -> Self {
        // small frames must not wait for each other; a socket that cannot is only slower
        stream.set_nodelay(true).ok();
        Wire { stream }
    }

    /// Connects to `host:port` and says what is wanted.
    pub async fn connect(address: &str, ask: Ask) -> io::Result<Self> {
        let stream = timeout(CONNECT, TcpStream::connect(address)).await.map_err(|_| late())??;
        let mut wire = Wire::new(stream);
        wire.send(&Hello { xvm_sim: VERSION, ask }).await?;
        Ok(wire)
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_vec(frame)?;
        let len = u32::try_from(json.len())
            .ok()
            .filter(|l| *l <= FRAME_MAX)
            .ok_or_else(|| bad("a frame is too long"))?;
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.extend(json);
        timeout(SILENCE, self.stream.write_all(&bytes)).await.map_err(|_| late())?
    }

    /// Sends a piece of memory that stands for `bytes`, with `len` bytes on the wire.
    pub async fn send_pages(&mut self, bytes: u64, len: u32) -> io::Result<()> {
        static PAGE: [u8; 1 << 16] = [0x5a; 1 << 16];
        self.send(&Say::Pages { bytes, len }).await?;
        let mut left = len as usize;
        while left > 0 {
            let part = left.min(PAGE.len());
            timeout(SILENCE, self.stream.write_all(&PAGE[..part])).await.map_err(|_| late())??;
            left -= part;
        }
        Ok(())
    }

    /// Reads one frame, which must be here `within` that time.
    pub async fn recv<T: DeserializeOwned>(&mut self, within: Duration) -> io::Result<T> {
        timeout(within, async {
            let len = self.stream.read_u32().await?;
            if len > FRAME_MAX {
                return Err(bad(format!("a frame of {len} bytes")));
            }
            let mut json = Vec::new();
            // grows with what really comes, not with what was promised
            (&mut self.stream).take(u64::from(len)).read_to_end(&mut json).await?;
            if json.len() < len as usize {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            serde_json::from_slice(&json).map_err(|e| bad(e.to_string()))
        })
        .await
        .map_err(|_| late())?
    }

    /// Reads the memory after a [`Say::Pages`] frame.
    pub async fn recv_pages(&mut self, len: u32) -> io::Result<()> {
        if len > PAGES_MAX {
            return Err(bad(format!("{len} bytes of memory in one piece")));
        }
        let mut buffer = vec![0; (len as usize).min(1 << 16)];
        let mut left = len as usize;
        timeout(SILENCE, async {
            while left > 0 {
                let part = left.min(buffer.len());
                left -= self.stream.read_exact(&mut buffer[..part]).await?;
            }
            Ok(())
        })
        .await
        .map_err(|_| late())?
    }
}
