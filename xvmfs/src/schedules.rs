//! Schedules of tests: `tests/NAME`. They are this mount's own; other mounts have others.
//!
//! | file | what |
//! |---|---|
//! | here | which there are, and what is done with them |
//! | [`disk`] | one file each in a directory, if the mount was given one |
//! | [`driver`] | the task that carries them out |
//!
//! What a schedule says and what becomes of its tests is `xvm_model::schedule`.

pub mod disk;
pub mod driver;

use disk::Disk;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use xvm_model::schedule::Schedule;
use xvm_model::schedule::play::{Effect, Guests, Play};
use xvm_model::view::thing_id;
use xvm_model::{Code, Failure, Now, TestName, Thing, Wall};

/// The most schedules of a mount.
pub const SCHEDULES_MAX: usize = 256;

/// One schedule as it is now.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: TestName,
    /// Its text, as it was written.
    pub text: Arc<str>,
    /// The last time that it was carried out, or is.
    pub play: Option<Arc<Play>>,
    /// When something of it changed.
    pub changed: Wall,
}

impl Entry {
    /// Whether its tests run.
    pub fn is_running(&self) -> bool {
        self.play.as_ref().is_some_and(|p| p.is_running())
    }
}

/// All schedules of a mount.
#[derive(Debug, Default)]
pub struct Schedules {
    /// A plain mutex: held for a few lines, never across an await.
    all: Mutex<BTreeMap<TestName, Entry>>,
    /// Wakes the driver.
    bell: Notify,
    disk: Disk,
}

impl Schedules {
    /// Those of a directory, which is kept up to date from now on; without one they go with the mount.
    pub fn load(disk: Disk) -> Schedules {
        let all = disk.load().into_iter().map(|e| (e.name.clone(), e)).collect();
        Schedules { all: Mutex::new(all), bell: Notify::new(), disk }
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.all().get(name).cloned()
    }

    /// Their names.
    pub fn names(&self) -> Vec<TestName> {
        self.all().keys().cloned().collect()
    }

    /// The one of an inode's number.
    pub fn numbered(&self, thing: u64) -> Option<TestName> {
        self.all().keys().find(|n| thing_id(&Thing::Test((*n).clone())) == thing).cloned()
    }

    /// `mkdir tests/NAME`
    pub fn make(&self, name: &str, wall: Wall) -> Result<TestName, Failure> {
        let name =
            TestName::parse(name).map_err(|e| Failure::invalid(format!("cannot make tests/{name}: {e}")))?;
        let mut all = self.all();
        if all.contains_key(&name) {
            return Err(Failure::new(
                Code::Exists,
                format!("cannot make tests/{name}: there is one already"),
            ));
        }
        if all.len() >= SCHEDULES_MAX {
            let why = format!("cannot make tests/{name}: there are {SCHEDULES_MAX}, which is the most");
            return Err(Failure::new(Code::NoSpace, why));
        }
        let entry = Entry { name: name.clone(), text: "".into(), play: None, changed: wall };
        self.disk
            .save(&entry)
            .map_err(|why| Failure::new(Code::Io, format!("cannot make tests/{name}: {why}")))?;
        all.insert(name.clone(), entry);
        Ok(name)
    }

    /// `rmdir tests/NAME`
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        let mut all = self.all();
        let entry = all.get(name).ok_or_else(|| absent(name))?;
        if entry.is_running() {
            return Err(Failure::busy(format!(
                "cannot remove tests/{name}: its tests run; cancel them first"
            )));
        }
        self.disk
            .remove(&entry.name)
            .map_err(|why| Failure::new(Code::Io, format!("cannot remove tests/{name}: {why}")))?;
        all.remove(name);
        Ok(())
    }

    /// Writes a schedule.
    pub fn set(&self, name: &TestName, text: &str, wall: Wall) -> Result<String, Failure> {
        let what = format!("set tests/{name}/schedule");
        let schedule =
            Schedule::parse(text).map_err(|why| Failure::invalid(format!("cannot {what}: {why}")))?;
        self.change(name, &what, wall, |entry| {
            if entry.is_running() {
                return Err(Failure::busy(format!("cannot {what}: its tests run; cancel them first")));
            }
            entry.text = text.into();
            Ok(format!("{} lines", schedule.lines.len()))
        })
    }

    /// Carries a schedule out from its beginning.
    pub fn start(
        &self,
        name: &TestName,
        balance: &str,
        guests: &dyn Guests,
        now: Now,
    ) -> Result<String, Failure> {
        let what = format!("start tests/{name}");
        let done = self.change(name, &what, now.wall, |entry| {
            if entry.is_running() {
                return Err(Failure::busy(format!("cannot {what}: its tests run already")));
            }
            let schedule = Schedule::parse(&entry.text)
                .map_err(|why| Failure::invalid(format!("cannot {what}: {why}")))?;
            if schedule.lines.is_empty() {
                return Err(Failure::invalid(format!("cannot {what}: its file schedule says nothing yet")));
            }
            let lines = schedule.lines.len();
            entry.play = Some(Arc::new(Play::start(schedule, balance, guests, now)));
            Ok(format!("started, {lines} lines"))
        });
        self.bell.notify_one();
        done
    }

    /// Orders nothing more of a schedule, and ends the tests that run.
    pub fn cancel(&self, name: &TestName, wall: Wall) -> Result<String, Failure> {
        let done = self.change(name, &format!("cancel tests/{name}"), wall, |entry| {
            match entry.play.as_mut().is_some_and(|play| Arc::make_mut(play).cancel()) {
                true => Ok("cancelled".into()),
                false => Err(Failure::busy(format!("cannot cancel tests/{name}: nothing of it runs"))),
            }
        });
        self.bell.notify_one();
        done
    }

    /// Changes one, and keeps it.
    fn change(
        &self,
        name: &TestName,
        what: &str,
        wall: Wall,
        f: impl FnOnce(&mut Entry) -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        let mut all = self.all();
        let old = all.get_mut(name).ok_or_else(|| absent(name.as_str()))?;
        let mut new = old.clone();
        let said = f(&mut new)?;
        new.changed = wall;
        self.disk.save(&new).map_err(|why| Failure::new(Code::Io, format!("cannot {what}: {why}")))?;
        *old = new;
        Ok(said)
    }

    /// One step of all that run: what is to be done, and those that have changed.
    fn step(&self, guests: &dyn Guests, now: Now) -> Vec<(Entry, Vec<Effect>)> {
        let mut changed = Vec::new();
        for entry in self.all().values_mut() {
            let Some(play) = entry.play.as_mut().filter(|p| p.is_running()) else { continue };
            let before = play.clone();
            let effects = Arc::make_mut(play).step(guests, now);
            if play.state != before.state || play.tasks != before.tasks {
                entry.changed = now.wall;
                changed.push((entry.clone(), effects));
            }
        }
        changed
    }

    /// Milliseconds until the next line of any is due; none when nothing runs.
    fn next(&self, now: Now) -> Option<u64> {
        let all = self.all();
        let running = all.values().filter_map(|e| e.play.as_ref()).filter(|p| p.is_running());
        running.map(|p| p.next(now).unwrap_or(u64::MAX)).min()
    }

    /// What a guest said to an order.
    fn answered(&self, name: &TestName, started: Wall, f: impl FnOnce(&mut Play)) {
        if let Some(play) = self.all().get_mut(name).and_then(|e| e.play.as_mut())
            // a schedule that was started anew meanwhile has other orders
            && play.started == started
        {
            f(Arc::make_mut(play));
        }
        self.bell.notify_one();
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<TestName, Entry>> {
        // each change is one insert or remove: a panic leaves nothing half-made
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn absent(name: &str) -> Failure {
    Failure::no_entry(format!("there is no tests/{name}"))
}
