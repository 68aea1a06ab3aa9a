//! How far a build is and how long it still takes, from how long the stages of earlier ones of its kind took.

use super::Stage;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The stages of a build in their order, and how long they take in proportion, where no earlier build tells.
pub const PHASES: &[(&str, f64)] = &[
    ("volumes", 0.2),
    ("base", 60.0),
    ("packages", 15.0),
    ("customise", 1.0),
    ("pack", 5.0),
    ("check", 1.0),
];

/// Seconds of each stage.
type Past = BTreeMap<Box<str>, f64>;

/// All kinds' last durations.
#[derive(Default, Serialize, Deserialize)]
struct Book(BTreeMap<Box<str>, Past>);

/// One reader or writer of the book at a time in this process; two processes at worst lose an entry.
static BOOK: Mutex<()> = Mutex::new(());

fn path(cache: &Path) -> PathBuf {
    cache.join("durations.json")
}

fn load(cache: &Path) -> Book {
    let text = fs::read_to_string(path(cache)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// What a build knows about time.
#[derive(Debug, Default, PartialEq)]
pub struct Estimate {
    kind: Box<str>,
    past: Option<Past>,
    now: Past,
    percent: u8,
}

impl Estimate {
    /// Of a kind: builds whose stages take the same time.
    pub fn of(cache: &Path, kind: &str) -> Estimate {
        let _one = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
        let past = load(cache).0.remove(kind);
        Estimate { kind: kind.into(), past, ..Estimate::default() }
    }

    /// It turns out to be of another kind, as its base is in the cache.
    pub fn is(&mut self, cache: &Path, kind: &str) {
        let other = Estimate::of(cache, kind);
        *self = Estimate { now: std::mem::take(&mut self.now), percent: self.percent, ..other };
    }

    fn expected(&self, phase: &str) -> f64 {
        let usual = PHASES.iter().find(|p| p.0 == phase).map_or(1.0, |p| p.1);
        match &self.past {
            Some(past) => past.get(phase).copied().unwrap_or(0.0),
            None => usual,
        }
    }

    /// Where a build is that is in `phase` since `elapsed`.
    pub fn at(&mut self, phase: &'static str, elapsed: Duration) -> Stage {
        let total: f64 = PHASES.iter().map(|p| self.expected(p.0)).sum();
        let before: f64 = PHASES.iter().take_while(|p| p.0 != phase).map(|p| self.expected(p.0)).sum();
        let (own, elapsed) = (self.expected(phase), elapsed.as_secs_f64());
        // a stage that takes longer than expected comes ever nearer to its end without reaching it
        let part = if elapsed < 0.8 * own { elapsed } else { own * (1.0 - 0.16 * own / elapsed.max(0.001)) };
        let percent = (100.0 * (before + part.clamp(0.0, own)) / total.max(0.001)).clamp(0.0, 99.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 99
        let percent = percent as u8;
        self.percent = self.percent.max(percent);
        let rest = total - before - own + (own - elapsed).max(0.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, and saturates
        let remaining = self.past.is_some().then_some(rest.max(0.0).ceil() as u32);
        Stage { phase, percent: self.percent, remaining }
    }

    /// A stage has ended.
    pub fn took(&mut self, phase: &'static str, elapsed: Duration) {
        self.now.insert(phase.into(), elapsed.as_secs_f64());
    }

    /// The build ended well: the next of its kind knows how long it took.
    pub fn keep(&self, cache: &Path) -> io::Result<()> {
        let _one = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
        let mut book = load(cache);
        book.0.insert(self.kind.clone(), self.now.clone());
        let file = tempfile::Builder::new().prefix(super::sweep::TEMPORARY).tempfile_in(cache)?;
        serde_json::to_writer(&file, &book).map_err(io::Error::other)?;
        file.persist(path(cache)).map_err(|e| e.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_second_build_knows_what_the_first_took() {
        let dir = tempfile::tempdir().expect("dir");
        let mut first = Estimate::of(dir.path(), "tiny");
        assert_eq!(first.at("base", Duration::ZERO).remaining, None);
        first.took("base", Duration::from_secs(8));
        first.took("pack", Duration::from_secs(2));
        first.keep(dir.path()).expect("kept");
        let mut second = Estimate::of(dir.path(), "tiny");
        assert_eq!(
            second.at("base", Duration::from_secs(4)),
            Stage { phase: "base", percent: 40, remaining: Some(6) }
        );
        assert_eq!(second.at("pack", Duration::ZERO).remaining, Some(2));
        assert_eq!(Estimate::of(dir.path(), "other").at("base", Duration::ZERO).remaining, None);
        fs::write(path(dir.path()), "{ broken").expect("write");
        assert_eq!(Estimate::of(dir.path(), "tiny").past, None, "a broken book is an empty one");
    }

    proptest! {
        #[test]
        fn percent_never_falls(mut steps in prop::collection::vec((0..PHASES.len(), 0.0..1e6f64), 1..50)) {
            steps.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
            let mut e = Estimate::default();
            let mut last = 0;
            for (phase, elapsed) in steps {
                let at = e.at(PHASES[phase].0, Duration::from_secs_f64(elapsed));
                prop_assert!(at.percent >= last && at.percent < 100);
                last = at.percent;
            }
        }
    }
}
