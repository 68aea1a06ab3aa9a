//! A live migration: peer to peer, so that it goes on when this agent dies, watched from a second connection.
//!
//! ```text
//!   begin ─▶ copy ──(libvirt says so)──▶ moved, refused, cancelled
//!             │ every 200 ms: progress; cancel when asked, and again until libvirt takes it
//!             │ 10 s without end: the allowed pause is doubled, and again every 5 s
//!             │ no sign of life for the driver's patience: cancelled by itself
//!             └ 15 s after a cancel that did not help: given up, outcome unknown
//! ```
//!
//! A domain that writes faster than the network carries would never end. Of the ways out (throttling the guest, post-copy, a longer
//! pause) xvm takes the longer pause: post-copy loses the domain when either host dies, and throttling costs the guest for the whole
//! time of the copy. The pause begins at the hypervisor's own limit (300 ms) and doubles, so that a migration ends at the latest as
//! one of a paused domain would; who does not want that cancels.

use super::{drivers::Driver, fault, lent, pool::Pool, raw::Fields, raw::num};
use crate::hypervisor::{HvError, HvResult, Moved, Progress, Way};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;
use virt::{
    connect::Connect,
    domain::{Domain, MigrateParameters},
    error::Error,
    sys,
};
use xvm_model::{DomainName, Grant};

/// Between two looks at the job.
const LOOK: Duration = Duration::from_millis(200);
/// How long a look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// When the allowed pause is raised first, and then again.
const RAISE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// The hypervisor's own limit, and the greatest that QEMU takes, in milliseconds.
const PAUSE_MS: (u64, u64) = (300, 2_000_000);
/// How long a cancelled migration may take to end.
const CANCELLED: Duration = Duration::from_secs(15);
/// How long the statistics of an ended job are waited for.
const DONE: Duration = Duration::from_millis(300);

/// The migrations of this agent that run.
#[derive(Default)]
pub struct Moves {
    running: Mutex<HashMap<DomainName, Arc<AtomicBool>>>,
    /// The last statistics of jobs that ended, for who waits for them.
    done: Mutex<HashMap<Uuid, oneshot::Sender<Fields>>>,
}

impl Moves {
    /// A job ended: libvirt's callback says so.
    pub fn job_done(&self, uuid: Uuid, job: Fields) {
        let waits = self.done.lock().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
        if let Some(waits) = waits {
            drop(waits.send(job));
        }
    }

    /// Marks a migration as cancelled; false when none of ours runs.
    pub fn cancel(&self, name: &DomainName) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(name).map(|c| c.store(true, Ordering::Release)).is_some()
    }

    fn begin(self: &Arc<Self>, name: &DomainName) -> HvResult<Move> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(name) {
            return Err(HvError::WrongState(format!("a migration of {name} runs already")));
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        running.insert(name.clone(), cancelled.clone());
        Ok(Move { moves: self.clone(), name: name.clone(), cancelled })
    }
}

/// One that runs; leaves the list when dropped.
struct Move {
    moves: Arc<Moves>,
    name: DomainName,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Move {
    fn drop(&mut self) {
        self.moves.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Finds a domain by name.
pub fn find(conn: &Connect, name: &DomainName) -> HvResult<Domain> {
    conn.lookup_domain_by_name(name.as_str()).map_err(|e| fault::of(&e, name))
}

/// Moves a domain; see above. `long` runs the migration itself, `short` the looks.
pub async fn run(
    driver: &'static Driver,
    (long, short): (&Pool, &Pool),
    moves: &Arc<Moves>,
    name: &DomainName,
    (way, grant): (&Way, Option<&Grant>),
    progress: &watch::Sender<Progress>,
) -> HvResult<Moved> {
    let this = moves.begin(name)?;
    let (start, late) = (Instant::now(), format!("outcome unknown, `virsh domstate {name}` tells"));
    let (tell, told) = oneshot::channel();
    let (way, grant) = (way.clone(), grant.cloned());
    let job = Job { name: name.clone(), way, grant, moves: moves.clone(), driver };
    // its own bound is below, by signs of life
    let what = format!("migrate {name}");
    let moving = long.call(&what, Duration::MAX, &late, move |seat| job.run(seat.conn()?, tell));
    tokio::pin!(moving);
    let mut watched = Watched { start, alive: start, ended: None, raised: 0, last: Progress::default() };
    let end = loop {
        tokio::select! {
            end = &mut moving => break end,
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::select! {
            end = &mut moving => break end,
            () = look(driver, short, &this, &mut watched, progress) => {}
        }
        if watched.ended.is_some_and(|at| at.elapsed() > CANCELLED) {
            return Err(HvError::Unreachable(format!(
                "the migration neither went on nor let itself be cancelled; {late}"
            )));
        }
    };
    let total_ms = start.elapsed().as_millis() as u64;
    match end {
        Ok(()) => {
            let all = progress.borrow().sent;
            progress.send_replace(Progress { percent: 100, sent: all, remaining: 0 });
            let wait = if driver.progress { DONE } else { Duration::ZERO };
            let done = tokio::time::timeout(wait, async { told.await.ok()?.await.ok() }).await.ok().flatten();
            let down_ms = done.as_ref().and_then(|f| num(f, "downtime"));
            Ok(Moved { total_ms, down_ms })
        }
        Err(HvError::Refused(_) | HvError::WrongState(_)) if watched.ended.is_some() && driver.abort => {
            // told in other words by some versions
            Err(if this.cancelled.load(Ordering::Acquire) { HvError::Cancelled } else { hung(driver) })
        }
        Err(HvError::Cancelled) if !this.cancelled.load(Ordering::Acquire) && watched.ended.is_some() => {
            Err(hung(driver))
        }
        Err(e) => Err(e),
    }
}

fn hung(driver: &Driver) -> HvError {
    HvError::Refused(format!(
        "no sign of life from the migration for {} s, so it was cancelled",
        driver.patience.as_secs()
    ))
}

/// What is known of a migration that runs.
struct Watched {
    /// When it began.
    start: Instant,
    /// When it last went on.
    alive: Instant,
    /// When libvirt was first asked to end it.
    ended: Option<Instant>,
    /// How often the allowed pause was doubled.
    raised: u32,
    /// What was last seen.
    last: Progress,
}

/// One look at the job, and what follows from it.
async fn look(
    driver: &Driver,
    short: &Pool,
    this: &Move,
    watched: &mut Watched,
    progress: &watch::Sender<Progress>,
) {
    let name = this.name.clone();
    let hung = watched.alive.elapsed() > driver.patience;
    if this.cancelled.load(Ordering::Acquire) || hung {
        watched.ended.get_or_insert_with(Instant::now);
        if driver.abort {
            // refused while the job is not begun yet, or is past the point of return: tried again at the next look
            let abort = move |conn: &Connect| self::abort(conn, &name);
            drop(
                short.call(&format!("cancel {}", this.name), LOOK_LIMIT, "", move |s| abort(s.conn()?)).await,
            );
        }
        return;
    }
    if !driver.progress {
        return;
    }
    let due =
        watched.start.elapsed().checked_sub(RAISE.0).map(|d| 1 + (d.as_secs() / RAISE.1.as_secs()) as u32);
    let pause = due.filter(|d| *d > watched.raised).map(|d| {
        watched.raised = d;
        PAUSE_MS.0.checked_shl(d.min(20)).unwrap_or(PAUSE_MS.1).min(PAUSE_MS.1)
    });
    let what = format!("progress of {name}");
    let seen = short.call(&what, LOOK_LIMIT, "", move |seat| {
        let domain = find(seat.conn()?, &name)?;
        if let Some(ms) = pause {
            tracing::info!("{name} writes faster than it moves: it may stand for {ms} ms now");
            let raised = domain.migrate_set_max_downtime(ms, 0);
            raised.map_err(|e| fault::of(&e, &name))?;
        }
        let (kind, job) = super::raw::job(&domain, false).map_err(|e| fault::of(&e, &name))?;
        Ok((kind != sys::VIR_DOMAIN_JOB_NONE).then(|| read(&job)).flatten())
    });
    if let Ok(Some(seen)) = seen.await
        && seen != watched.last
    {
        (watched.alive, watched.last) = (Instant::now(), seen);
        progress.send_replace(seen);
    }
}

/// The share of memory that is over. Memory that is written again counts again, so the share may fall.
fn read(job: &Fields) -> Option<Progress> {
    let total = num(job, "memory_total").filter(|t| *t > 0)?;
    let remaining = num(job, "memory_remaining")?;
    let over = total.saturating_sub(remaining);
    // 100 is for when it has ended
    let percent = (u128::from(over) * 100 / u128::from(total)).min(99) as u8;
    Some(Progress { percent, sent: num(job, "memory_processed").unwrap_or(over), remaining })
}

/// Ends the migration of a domain.
pub fn abort(conn: &Connect, name: &DomainName) -> HvResult<()> {
    super::raw::abort(&find(conn, name)?).map_err(|e| fault::of(&e, name))
}

/// What the long call needs.
struct Job {
    name: DomainName,
    way: Way,
    /// The lease that it has there.
    grant: Option<Grant>,
    moves: Arc<Moves>,
    driver: &'static Driver,
}

impl Job {
    fn run(self, conn: &Connect, tell: oneshot::Sender<oneshot::Receiver<Fields>>) -> HvResult<()> {
        let wrong = |e: Error| self.wrong(&e);
        let domain = find(conn, &self.name)?;
        let uuid = domain.uuid().map_err(wrong)?;
        let mut parameters = MigrateParameters::default();
        let (done, waits) = oneshot::channel();
        {
            let mut waiting = self.moves.done.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.retain(|_, who| !who.is_closed()); // those whose word never came
            waiting.insert(uuid, done);
        }
        drop(tell.send(waits));
        let live = if self.way.paused { 0 } else { sys::VIR_MIGRATE_LIVE };
        let mut flags = live | sys::VIR_MIGRATE_PEER2PEER;
        if self.driver.progress {
            // an I/O error in mid-migration must not end on a host that cannot read the disk
            flags |= sys::VIR_MIGRATE_ABORT_ON_ERROR;
        }
        if domain.is_persistent().map_err(wrong)? {
            flags |= sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
            parameters.persist_xml = self.relet(&domain, sys::VIR_DOMAIN_XML_INACTIVE)?;
        }
        parameters.dest_xml = self.relet(&domain, 0)?;
        let moved = domain.migrate_to_uri3(Some(&self.way.address), parameters, flags);
        if moved.is_err() {
            self.moves.done.lock().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
            (self.driver.mend)(&domain);
        }
        moved.map_err(wrong)
    }

    /// The domain's definition with the lease that it has there.
    fn relet(&self, domain: &Domain, which: sys::virDomainXMLFlags) -> HvResult<Option<String>> {
        let Some(grant) = &self.grant else { return Ok(None) };
        let flags = which | sys::VIR_DOMAIN_XML_MIGRATABLE | sys::VIR_DOMAIN_XML_SECURE;
        let xml = domain.xml_desc(flags).map_err(|e| self.wrong(&e))?;
        lent::relet(&xml, grant).map(Some).map_err(|why| HvError::Refused(format!("its definition: {why}")))
    }

    /// Trouble with the other host is told as such. Whether the outcome is known is another matter: when the connection between the
    /// hosts broke, both must be asked.
    fn wrong(&self, e: &Error) -> HvError {
        match fault::of(e, &self.name) {
            HvError::Unreachable(_) if e.message().starts_with("unable to connect") => {
                HvError::Refused(format!("cannot reach {}: {}", self.way.address, fault::line(e)))
            }
            HvError::NotSupported(text) | HvError::NoRoom(text) => HvError::Refused(text),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::raw::Field;

    #[test]
    fn progress_of_a_job() {
        let job = |pairs: &[(&str, u64)]| -> Fields {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), Field::Num(*v))).collect()
        };
        let half = job(&[("memory_total", 200), ("memory_remaining", 50), ("memory_processed", 400)]);
        assert_eq!(read(&half), Some(Progress { percent: 75, sent: 400, remaining: 50 }));
        let end = job(&[("memory_total", 200), ("memory_remaining", 0)]);
        assert_eq!(read(&end).map(|p| p.percent), Some(99));
        assert_eq!(read(&job(&[])), None);
    }
}
