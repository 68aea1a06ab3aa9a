//! Talking to a daemon: QMP, a line of JSON each way. A connection is made for each piece of work, so that none can be stale.

use serde_json::{Value, json};
use std::{io, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::Instant,
};

/// The longest answer that is read, in bytes: about 30,000 volumes.
const ANSWER: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// None came in time, or the connection ended: whether the order was carried out is not known.
    #[error("{0}")]
    Silent(String),
    /// The daemon said no, in its own words.
    #[error("{0}")]
    Refused(String),
}

/// A connection. After [`QmpError::Silent`] it must be dropped: the late answer would be taken for the next one.
#[derive(Debug)]
pub(super) struct Qmp {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    /// No answer is waited for longer than this.
    deadline: Instant,
    /// Its length, for errors.
    bound: Duration,
}

impl Qmp {
    /// Connects; everything that is asked over it must be answered within `bound` from now, see [`Qmp::until`].
    pub(super) async fn connect(path: &Path, bound: Duration) -> Result<Qmp, QmpError> {
        let deadline = Instant::now() + bound;
        let stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                // its queue of callers is full: somebody was here a moment ago
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(e) => return Err(QmpError::Silent(format!("{}: {e}", path.display()))),
            }
        };
        let (from, to) = stream.into_split();
        let mut qmp = Qmp { from: BufReader::new(from), to, deadline, bound };
        let greeting = qmp.bounded("connect").await?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Silent(format!("{} is not QMP", path.display())));
        }
        qmp.ask("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Gives the questions that follow another `bound`.
    pub(super) fn until(&mut self, bound: Duration) {
        (self.deadline, self.bound) = (Instant::now() + bound, bound);
    }

    /// Whether the time is over.
    pub(super) fn over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Gives an order and waits for its answer.
    pub(super) async fn ask(&mut self, order: &str, arguments: Value) -> Result<Value, QmpError> {
        let mut line = json!({ "execute": order, "arguments": arguments }).to_string();
        line.push('\n');
        let sent = tokio::time::timeout_at(self.deadline, self.to.write_all(line.as_bytes())).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(QmpError::Silent(format!("{order}: {e}"))),
            Err(_) => return Err(self.late(order)),
        }
        loop {
            let mut answer = self.bounded(order).await?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                let why = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(QmpError::Refused(why.into()));
            }
            // an event
        }
    }

    async fn bounded(&mut self, order: &str) -> Result<Value, QmpError> {
        match tokio::time::timeout_at(self.deadline, self.line()).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(QmpError::Silent(format!("{order}: {e}"))),
            Err(_) => Err(self.late(order)),
        }
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        (&mut self.from).take(ANSWER).read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    }

    fn late(&self, order: &str) -> QmpError {
        QmpError::Silent(format!("no answer to {order} within {} s", self.bound.as_secs_f32()))
    }
}
