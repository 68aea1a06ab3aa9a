//! An open `log` of a config: a file that grows, at imaged. Nothing of it is kept but the part that was read last.
//!
//! imaged gives text, so a part begins and ends between two characters; a reader may ask for any byte. So the handle remembers where
//! parts ended, and goes from the last such place before the reader's offset: what it gives are the log's own bytes at that offset.

use crate::cluster::Cluster;
use crate::row::Place;
use std::time::Duration;
use xvm_model::images::LOG_PART;
use xvm_model::{Code, ConfigCommand, ConfigName, Failure};

/// How long one read may take.
const BOUND: Duration = Duration::from_secs(5);

/// One open log.
#[derive(Debug)]
pub struct Log {
    name: ConfigName,
    /// Held while a part is fetched: two readers of one handle take turns.
    known: tokio::sync::Mutex<Known>,
}

/// What is known of the log's bytes.
#[derive(Debug, Default)]
struct Known {
    /// Its length as it was known at the last read; when it shrinks, it was begun anew.
    length: u64,
    /// Places between two characters, the least first.
    borders: Vec<u64>,
    /// The last part, and where it begins.
    part: (u64, String),
}

impl Known {
    /// The bytes at `offset` up to the end of the part, `size` at most; none when the part does not hold that place.
    fn held(&self, offset: u64, size: usize) -> Option<Vec<u8>> {
        let (from, text) = &self.part;
        let skip = usize::try_from(offset.checked_sub(*from)?).ok()?;
        let rest = text.as_bytes().get(skip..).filter(|rest| !rest.is_empty())?;
        Some(rest[..rest.len().min(size)].to_vec())
    }

    /// The last known border that is not behind `offset`. The end of the last part is one too, so that going on from here arrives.
    fn before(&self, offset: u64) -> u64 {
        let kept = self.borders[..self.borders.partition_point(|b| *b <= offset)].last();
        let end = self.part.0 + self.part.1.len() as u64;
        kept.copied().unwrap_or(0).max(if end <= offset { end } else { 0 })
    }

    fn keep(&mut self, from: u64, text: String) {
        let end = from + text.len() as u64;
        self.part = (from, text);
        if self.borders.last().is_none_or(|last| *last < end) {
            // a log that is followed grows by lines: only places a good part away from each other are worth their memory
            if let [.., one, two] = self.borders[..]
                && two - one < LOG_PART as u64 / 2
            {
                self.borders.pop();
            }
            self.borders.push(end);
        }
    }
}

impl Log {
    /// Nothing is asked before the first read.
    pub fn new(name: ConfigName) -> Self {
        Log { name, known: tokio::sync::Mutex::default() }
    }

    /// `size` bytes at `offset`; fewer only at the end of the log as it was told last (tar takes a short read for a file that shrank).
    pub async fn read(&self, cluster: &Cluster, offset: u64, size: usize) -> Result<Vec<u8>, Failure> {
        let read = tokio::time::timeout(BOUND, self.fetch(cluster, offset, size)).await;
        read.unwrap_or_else(|_| {
            let why = format!("cannot read the log of {}: imaged did not give it within 5 s", self.name);
            Err(Failure::new(Code::TimedOut, why))
        })
        .map_err(|failure| cluster.refuse(&Place::Config(self.name.clone()), failure))
    }

    async fn fetch(&self, cluster: &Cluster, offset: u64, size: usize) -> Result<Vec<u8>, Failure> {
        let mut known = self.known.lock().await;
        let length = cluster.view().config(self.name.as_str()).map(|c| c.record.log);
        let length = length.ok_or_else(|| Failure::no_entry(format!("there is no configs/{}", self.name)))?;
        if length < known.length {
            *known = Known::default();
        }
        known.length = length;
        if offset >= length {
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        while out.len() < size && offset + (out.len() as u64) < length {
            let at = offset + out.len() as u64;
            if let Some(bytes) = known.held(at, size - out.len()) {
                out.extend_from_slice(&bytes);
                continue;
            }
            let from = known.before(at);
            let text = cluster.order_config(&self.name, ConfigCommand::Log { from }).await?;
            if text.is_empty() {
                break;
            }
            known.keep(from, text);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xvm_model::images::log_part;

    /// What imaged answers, with shorter parts.
    fn part(log: &str, from: u64, most: usize) -> String {
        let rest = &log.as_bytes()[from as usize..];
        log_part(&rest[..rest.len().min(most)])
    }

    proptest! {
        /// Whatever is asked in whichever order, the bytes are those of the log.
        #[test]
        fn bytes_are_true_at_every_offset(
            log in "[a-zäß€😀\n]{0,200}",
            reads in prop::collection::vec((0u64..400, 1usize..50), 1..40),
            most in 4usize..40,
        ) {
            let mut known = Known::default();
            for (offset, size) in reads.into_iter().filter(|(o, _)| *o < log.len() as u64) {
                let bytes = loop {
                    if let Some(bytes) = known.held(offset, size) {
                        break bytes;
                    }
                    let from = known.before(offset);
                    prop_assert!(log.is_char_boundary(from as usize));
                    known.keep(from, part(&log, from, most));
                };
                let at = offset as usize;
                prop_assert!(!bytes.is_empty());
                prop_assert_eq!(&bytes[..], &log.as_bytes()[at..at + bytes.len()]);
            }
        }
    }

    #[test]
    fn a_log_that_is_followed_for_days_costs_no_memory() {
        let mut known = Known::default();
        for i in 0..100_000u64 {
            known.keep(i * 10, "123456789\n".into());
        }
        assert!(known.borders.len() < 100, "{}", known.borders.len());
        assert_eq!(known.before(1_000_000), 1_000_000);
    }
}
