//! A `ctl` file or a setting that is open for writing: lines in, answers out.
//!
//! Writes of one handle run one after the other, and two handles know nothing of each other. What the handle reads is the text of
//! its open until the first line was run, and from then on the answers, a line each: the daemon's text, or `ERRNO SENTENCE`.

use crate::cluster::Cluster;
use crate::handle::lines::{Lines, Piece};
use crate::handle::value::{Step, VALUE_MAX, Value};
use crate::rights::Who;
use crate::row::{Kind, Place, Row};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xvm_model::Failure;
use xvm_model::command::LINE_MAX;

/// How long a further part of a value waits for the job that the part before it began; with the order itself it stays within what the
/// tree promises.
const TURN: Duration = Duration::from_secs(2);
/// Answers that nobody reads are forgotten beyond this many bytes.
const UNREAD: usize = 64 << 10;

/// One open file that can be written.
#[derive(Debug)]
pub struct Writer {
    place: Place,
    /// Who opened it: what its commands make is theirs.
    who: Who,
    /// The setting; none for `ctl`.
    setting: Option<Setting>,
    /// Whether it is open for reading too, so that each line can be answered.
    dialogue: bool,
    /// Held while lines run, so that writes of this handle keep their order.
    lines: tokio::sync::Mutex<Pending>,
    /// A plain mutex: held for copying text.
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Lines,
    /// The value of a setting of several lines.
    value: Value,
    /// Why the line that is thrown away was refused: the answer to each further part of it.
    why: Option<Failure>,
    /// The first refusal of a file that is open for writing alone. One script of lines may come as several writes (bash's printf
    /// makes one of each line), so nothing after it runs.
    stopped: Option<Failure>,
}

/// The row of a setting.
struct Setting(&'static Row);

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

#[derive(Debug)]
struct Answers {
    text: String,
    /// Read so far.
    at: usize,
    /// Whether `text` is that of the open still.
    first: bool,
}

impl Writer {
    /// Over a file that `who` has just opened with `text`.
    pub fn new(place: Place, setting: Option<&'static Row>, text: String, dialogue: bool, who: Who) -> Self {
        let answers = Mutex::new(Answers { text, at: 0, first: true });
        Writer {
            place,
            who,
            setting: setting.map(Setting),
            dialogue,
            lines: tokio::sync::Mutex::default(),
            answers,
        }
    }

    /// The file's path below the mount.
    pub fn path(&self) -> String {
        let name = self.setting.as_ref().map_or("ctl", |s| s.0.name);
        format!("{}/{name}", self.place.path()).trim_start_matches('/').to_owned()
    }

    /// Runs the lines that end in `data`, in order, up to the first that fails; nothing after it runs, in a dialogue nothing of
    /// this write.
    pub async fn write(&self, cluster: &Cluster, data: &[u8]) -> Result<(), Failure> {
        let mut pending = self.lines.lock().await;
        if let Some(failure) = &pending.stopped {
            return Err(failure.clone());
        }
        if self.is_value() {
            let step = pending.value.take(data);
            let result = self.step(cluster, step).await;
            if self.dialogue && !pending.value.is_part() {
                pending.value = Value::default();
            }
            pending.stopped = result.as_ref().err().filter(|_| !self.dialogue).cloned();
            return result;
        }
        let mut rest = data;
        while !rest.is_empty() {
            let result = match pending.lines.take(&mut rest) {
                Piece::Part => Ok(()),
                Piece::Line(line) => self.run(cluster, &line).await,
                Piece::TooLong => {
                    let why = format!(
                        "cannot run a line of more than {LINE_MAX} bytes: that is the most; nothing of it was run"
                    );
                    Err(self.failed(cluster.refuse(&self.place, Failure::invalid(why))))
                }
                // told already
                Piece::Skipped => {
                    Err(pending.why.clone().unwrap_or_else(|| Failure::invalid("the line was refused")))
                }
            };
            if let Err(failure) = result {
                pending.lines.stop(rest);
                pending.why = Some(failure.clone());
                pending.stopped = (!self.dialogue).then(|| failure.clone());
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Runs a last line that has no end.
    pub async fn close(&self, cluster: &Cluster) -> Result<(), Failure> {
        let line = {
            let mut pending = self.lines.lock().await;
            if let Some(step) = pending.value.last() {
                return self.step(cluster, step).await;
            }
            pending.lines.last()
        };
        match line {
            Some(line) => self.run(cluster, &line).await,
            None => Ok(()),
        }
    }

    /// Whether a line waits for its end; also true while lines run.
    pub fn is_open_line(&self) -> bool {
        self.lines.try_lock().map_or(true, |pending| pending.lines.is_part() || pending.value.is_part())
    }

    /// Whether it is a setting whose value is several lines.
    fn is_value(&self) -> bool {
        let many = |s: &Setting| {
            let many = &crate::tables::config::MANY_LINES;
            matches!(s.0.kind, Kind::Schedule(_))
                || matches!(s.0.kind, Kind::Key(_)) && many.contains(&s.0.name)
        };
        self.setting.as_ref().is_some_and(many)
    }

    /// Sets what has come of a value, when a line has ended.
    async fn step(&self, cluster: &Cluster, step: Step) -> Result<(), Failure> {
        match step {
            Step::Part => Ok(()),
            Step::Set { text, again } => {
                if again {
                    // what we have set before may be going into the image: then imaged says whether it is still busy
                    cluster.wait(&self.place, TURN).await;
                }
                self.run(cluster, &text).await
            }
            Step::TooLong => {
                let path = self.path();
                let why = format!("cannot set {path} to more than {VALUE_MAX} bytes: that is the most");
                Err(self.failed(cluster.refuse(&self.place, Failure::invalid(why))))
            }
        }
    }

    async fn run(&self, cluster: &Cluster, line: &[u8]) -> Result<(), Failure> {
        let result = match &self.setting {
            None | Some(Setting(Row { kind: Kind::Lines(..), .. })) if is_silent(line) => return Ok(()),
            Some(Setting(row)) => cluster.set(&self.place, row, line).await,
            None => cluster.command(&self.place, line, self.who).await,
        };
        match result {
            Ok(text) => {
                self.answer(&text);
                Ok(())
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    fn failed(&self, failure: Failure) -> Failure {
        self.answer(&format!("{} {failure}", failure.code));
        failure
    }

    fn answer(&self, line: &str) {
        let mut answers = self.answers();
        let a = &mut *answers;
        if a.first || a.at == a.text.len() || a.text.len() > UNREAD {
            *a = Answers { text: String::new(), at: 0, first: false };
        }
        a.text.push_str(line);
        a.text.push('\n');
    }

    /// The next `size` bytes at most; nothing when all was read.
    pub fn read(&self, size: usize) -> Vec<u8> {
        let mut answers = self.answers();
        let rest = &answers.text.as_bytes()[answers.at..];
        let part = rest[..rest.len().min(size)].to_vec();
        answers.at += part.len();
        part
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        // `at` never passes the text's end between two statements
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Empty lines and comments say nothing to `ctl` and the like; what reading it gives can so be written back in part.
fn is_silent(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.is_empty() || line.starts_with(b"#")
}
