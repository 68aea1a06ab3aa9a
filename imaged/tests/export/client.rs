//! A client that can be in the middle of writing: NBD, newstyle, without structured replies.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const GO: u32 = 7;
const ACK: u32 = 1;
const INFO: u32 = 3;

/// A connection to one export.
pub struct Client {
    stream: TcpStream,
    next: u64,
}

impl Client {
    /// Connects; an export that is not there is an error.
    pub fn open(port: u16, export: &str) -> io::Result<Client> {
        let mut s = TcpStream::connect(("127.0.0.1", port))?;
        s.set_read_timeout(Some(Duration::from_secs(10)))?;
        s.set_write_timeout(Some(Duration::from_secs(10)))?;
        s.set_nodelay(true)?;
        let _magic: [u8; 18] = get(&mut s)?;
        s.write_all(&3u32.to_be_bytes())?; // fixed newstyle, no zeroes
        let name = export.as_bytes();
        let mut ask = OPTION_MAGIC.to_be_bytes().to_vec();
        ask.extend(GO.to_be_bytes());
        ask.extend((name.len() as u32 + 6).to_be_bytes());
        ask.extend((name.len() as u32).to_be_bytes());
        ask.extend(name);
        ask.extend([0, 0]);
        s.write_all(&ask)?;
        loop {
            let magic = u64::from_be_bytes(get(&mut s)?);
            let _option: [u8; 4] = get(&mut s)?;
            let kind = u32::from_be_bytes(get(&mut s)?);
            let length = u32::from_be_bytes(get(&mut s)?);
            let mut body = vec![0; length as usize];
            s.read_exact(&mut body)?;
            match kind {
                _ if magic != OPTION_REPLY => return Err(io::Error::other("not NBD")),
                ACK => return Ok(Client { stream: s, next: 0 }),
                INFO => {}
                _ => return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
            }
        }
    }

    /// Sends a write, and waits for nothing.
    pub fn send_write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.send(1, offset, data.len())?;
        self.stream.write_all(data)
    }

    /// Writes, and waits until it is done.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.send_write(offset, data)?;
        self.answer()
    }

    /// Flushes to the disk.
    pub fn flush(&mut self) -> io::Result<()> {
        self.send(3, 0, 0)?;
        self.answer()
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.send(0, offset, length)?;
        self.answer()?;
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    /// Waits for the answer to the oldest request.
    pub fn answer(&mut self) -> io::Result<()> {
        let magic = u32::from_be_bytes(get(&mut self.stream)?);
        let error = u32::from_be_bytes(get(&mut self.stream)?);
        let _cookie: [u8; 8] = get(&mut self.stream)?;
        match (magic, error) {
            (REPLY, 0) => Ok(()),
            (REPLY, e) => Err(io::Error::from_raw_os_error(e as i32)),
            _ => Err(io::Error::other("not an NBD reply")),
        }
    }

    fn send(&mut self, command: u16, offset: u64, length: usize) -> io::Result<()> {
        self.next += 1;
        let mut ask = REQUEST.to_be_bytes().to_vec();
        ask.extend(0u16.to_be_bytes());
        ask.extend(command.to_be_bytes());
        ask.extend(self.next.to_be_bytes());
        ask.extend(offset.to_be_bytes());
        ask.extend((length as u32).to_be_bytes());
        self.stream.write_all(&ask)
    }
}

fn get<const N: usize>(s: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    s.read_exact(&mut bytes)?;
    Ok(bytes)
}
