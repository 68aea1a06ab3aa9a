//! Open `events` files. Each is a file that grows: its first line tells that it listens, each event adds a line.
//!
//! ```text
//!   offset 0        35             high            end
//!      |  listening  |  lines read  |  lines to read |
//!      ^ base: what is before it is forgotten; lines that nobody has read are dropped when there are too many, and
//!        `TIME lost N events` stands where they stood
//! ```
//!
//! Offsets are honoured, since programs seek: bash reads a block and seeks back to the end of the first line, `tail -n0` begins at
//! the end. A reader that falls behind keeps its offset; what it reads there is what is left.

use crate::handle::Bell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use xvm_model::{About, Event, Wall};

/// The length of the first line of every stream, `TIME listening` with its end.
pub const HEAD_LEN: usize = 35;
/// Lines that one stream keeps.
const LINES: usize = 1024;
/// Bytes that one stream keeps.
const BYTES: usize = 256 << 10;

/// All open streams of a mount.
#[derive(Debug, Default)]
pub struct Streams {
    /// Weak: the handle owns its stream. A plain mutex: held for formatting and copying lines, never across an await.
    open: Mutex<Vec<Weak<Stream>>>,
}

impl Streams {
    /// A stream of what is heard at `scope` from now on.
    pub fn open(&self, scope: About, now: Wall) -> Arc<Stream> {
        let stream = Arc::new(Stream::new(scope, now));
        let mut open = self.lock();
        open.retain(|s| s.strong_count() > 0);
        open.push(Arc::downgrade(&stream));
        stream
    }

    /// Gives each event to the streams that hear it.
    pub fn tell(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let streams: Vec<Arc<Stream>> = self.lock().iter().filter_map(Weak::upgrade).collect();
        if streams.is_empty() {
            return;
        }
        let lines: Vec<(&Event, Arc<str>)> = events.iter().map(|e| (e, format!("{e}\n").into())).collect();
        for stream in streams {
            let heard = lines.iter().filter(|(e, _)| e.heard_at(&stream.scope));
            stream.push(heard.map(|(e, line)| (e.at, line.clone())));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Stream>>> {
        // one retain or one push at a time: a panic leaves a whole list
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open `events` file.
#[derive(Debug)]
pub struct Stream {
    /// Which events it hears.
    scope: About,
    state: Mutex<State>,
    /// Rings when there is more to read.
    pub bell: Bell,
}

#[derive(Debug)]
struct State {
    /// What is kept; the first byte of the first line is at the offset `base`.
    lines: VecDeque<Arc<str>>,
    base: u64,
    /// The bytes of `lines`.
    len: usize,
    /// All before this offset was read once.
    high: u64,
    /// What is added to the reader's offset: it asked for what was forgotten and got what is left.
    shift: u64,
    /// Events dropped unread since the last `lost` line, and when the last of them was.
    lost: (u64, Wall),
    /// The greatest size told: a size that shrinks looks like a file that was cut.
    told: u64,
}

impl Stream {
    fn new(scope: About, now: Wall) -> Self {
        let head: Arc<str> = format!("{} listening\n", now.rfc3339()).into();
        let len = head.len();
        let state =
            State { lines: [head].into(), base: 0, len, high: 0, shift: 0, lost: (0, now), told: len as u64 };
        Stream { scope, state: Mutex::new(state), bell: Bell::default() }
    }

    fn push(&self, lines: impl Iterator<Item = (Wall, Arc<str>)>) {
        let mut any = false;
        {
            let mut state = self.lock();
            for (at, line) in lines {
                any = true;
                state.len += line.len();
                state.lines.push_back(line);
                while state.lines.len() > LINES || state.len > BYTES {
                    state.drop_one(at);
                }
            }
        }
        if any {
            self.bell.ring();
        }
    }

    /// What is there at `offset`, `size` bytes at most; `None` when nothing is there yet.
    pub fn read(&self, offset: u64, size: usize) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.tell_lost();
        if offset + state.shift < state.base {
            state.shift = state.base - offset;
        }
        let at = offset + state.shift;
        let mut skip = usize::try_from(at - state.base).unwrap_or(usize::MAX);
        if skip >= state.len {
            return None;
        }
        let mut out = Vec::with_capacity(size.min(state.len - skip));
        for line in &state.lines {
            if skip >= line.len() {
                skip -= line.len();
                continue;
            }
            let part = &line.as_bytes()[skip..];
            out.extend_from_slice(&part[..part.len().min(size - out.len())]);
            skip = 0;
            if out.len() == size {
                break;
            }
        }
        state.high = state.high.max(at + out.len() as u64);
        Some(out)
    }

    /// Whether there is something that was never read.
    pub fn is_readable(&self) -> bool {
        let state = self.lock();
        state.end() > state.high || state.lost.0 > 0
    }

    /// The file's size as its reader sees it.
    pub fn size(&self) -> u64 {
        let mut state = self.lock();
        state.tell_lost();
        state.told = state.told.max(state.end() - state.shift);
        state.told
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // the statements that change it cannot panic
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&self) -> u64 {
        self.base + self.len as u64
    }

    /// The first line of which no byte was read; only the one before it can be read in part.
    fn unread(&self) -> usize {
        let (mut at, mut i) = (self.base, 0);
        while at < self.high && i < self.lines.len() {
            at += self.lines[i].len() as u64;
            i += 1;
        }
        i
    }

    /// Forgets one line: the oldest, when it was read; else the oldest that is unread, which is then lost.
    fn drop_one(&mut self, at: Wall) {
        let first = self.lines.front().map_or(0, |l| l.len());
        if self.base + first as u64 <= self.high {
            self.lines.pop_front();
            self.base += first as u64;
            self.len -= first;
            return;
        }
        let i = self.unread();
        if let Some(line) = self.lines.remove(i) {
            self.len -= line.len();
            self.lost = (self.lost.0 + 1, at);
        }
    }

    fn tell_lost(&mut self) {
        let (n, at) = self.lost;
        if n > 0 {
            let line: Arc<str> = format!("{} lost {n} events\n", at.rfc3339()).into();
            self.len += line.len();
            let i = self.unread();
            self.lines.insert(i, line);
            self.lost.0 = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xvm_model::DomainName;

    fn event(i: usize) -> Event {
        Event {
            at: Wall(1_000),
            about: About::Domain(DomainName::parse("d").expect("ok")),
            server: None,
            text: format!("state {i}"),
        }
    }

    fn text(stream: &Stream, offset: u64, size: usize) -> String {
        String::from_utf8(stream.read(offset, size).unwrap_or_default()).expect("whole characters")
    }

    #[test]
    fn the_first_line_is_there_at_once_and_has_its_length() {
        let streams = Streams::default();
        let s = streams.open(About::Cluster, Wall(0));
        assert!(s.is_readable());
        assert_eq!(text(&s, 0, 1000), "1970-01-01T00:00:00.000Z listening\n");
        assert_eq!((s.size(), s.is_readable()), (HEAD_LEN as u64, false));
        assert_eq!(s.read(35, 1000), None);
        assert_eq!(text(&s, 25, 9), "listening", "a reader may seek back");
        streams.tell(&[event(1), event(2)]);
        assert_eq!(text(&s, 35, 1000).lines().count(), 2);
        assert_eq!(s.size(), 35 + 2 * "1970-01-01T00:00:01.000Z domain d state 1\n".len() as u64);
    }

    #[test]
    fn bash_reads_a_block_and_seeks_back_to_the_second_line() {
        let streams = Streams::default();
        let s = streams.open(About::Cluster, Wall(0));
        streams.tell(&[event(1), event(2)]);
        let block = text(&s, 0, 128);
        let second = block.find('\n').expect("a line") as u64 + 1;
        assert!(text(&s, second, 128).ends_with("state 2\n"));
    }

    #[test]
    fn what_is_too_much_is_dropped_and_told() {
        let streams = Streams::default();
        let s = streams.open(About::Cluster, Wall(0));
        let mut offset = text(&s, 0, 20).len() as u64; // half of the first line
        for i in 0..5000 {
            streams.tell(&[event(i)]);
        }
        let size = s.size();
        let mut all = String::new();
        while let Some(part) = s.read(offset, 777) {
            offset += part.len() as u64;
            all.push_str(std::str::from_utf8(&part).expect("ascii"));
        }
        assert!(size <= offset && s.size() == offset, "{size} {offset}");
        let lines: Vec<&str> = all.lines().collect();
        assert!(lines[0].ends_with("listening"), "{}", lines[0]);
        assert!(lines[1].contains(" lost ") && lines[1].ends_with(" events"), "{}", lines[1]);
        assert!(lines.last().expect("some").ends_with("state 4999"));
        let lost: usize = lines[1].split(' ').nth(2).expect("number").parse().expect("number");
        assert_eq!(lines.len() - 2 + lost, 5000);
        streams.tell(&[event(7)]);
        assert!(text(&s, offset, 100).ends_with("state 7\n"));
    }

    #[test]
    fn a_closed_stream_is_forgotten() {
        let streams = Streams::default();
        drop(streams.open(About::Cluster, Wall(0)));
        streams.tell(&[event(1)]);
        let _s = streams.open(About::Cluster, Wall(0));
        assert_eq!(streams.lock().len(), 1);
    }
}
