//! Threads for libvirt's calls, each with a connection of its own. A call may block for ever; what is bounded is the caller's wait,
//! and the number of threads.
//!
//! ```text
//!   call ─▶ queue ─▶ a thread runs it ─▶ answer in time
//!                         │ limit over
//!                         ▼
//!                      overdue: the caller has its error; the same call again, or any call when all threads are overdue,
//!                         │     is refused at once
//!                         ▼ libvirt answers after all: the thread is free again
//! ```
//!
//! A call whose caller has gone before a thread took it up never runs: no order comes true late.

use super::{fault, news::News};
use crate::hypervisor::{HvError, HvResult};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use virt::connect::Connect;

/// Seconds between two signs of life on a connection, and how many may lack before it counts as broken: 8 s in all. A hung libvirt
/// thus gives the threads that wait for it back.
const KEEPALIVE: (i32, u32) = (2, 3);

/// Opens a connection with keepalive.
pub fn open(uri: &str) -> HvResult<Connect> {
    let unreachable = |why: String| HvError::Unreachable(format!("cannot reach libvirt at {uri}: {why}"));
    if uri.contains('\0') {
        return Err(unreachable("the URI holds a NUL".into()));
    }
    let conn = Connect::open(Some(uri)).map_err(|e| unreachable(fault::line(&e)))?;
    // drivers that live in this process (test) have no keepalive and need none
    drop(conn.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1));
    Ok(conn)
}

/// A thread's place: its connection, opened when first needed and again when it broke.
pub struct Seat {
    uri: Arc<str>,
    conn: Option<Connect>,
}

impl Seat {
    /// The connection.
    pub fn conn(&mut self) -> HvResult<&Connect> {
        if self.conn.as_ref().is_some_and(|c| !c.is_alive().unwrap_or(false)) {
            self.conn = None;
        }
        match self.conn {
            Some(ref conn) => Ok(conn),
            None => Ok(self.conn.insert(open(&self.uri)?)),
        }
    }
}

/// How many calls with the same words run at once; so a host that hangs cannot take all threads that ask hosts.
const SAME: usize = 2;

type Run = Box<dyn FnOnce(&mut Seat) + Send>;

struct Task {
    what: String,
    limit: Duration,
    run: Run,
}

struct Running {
    id: u64,
    what: String,
    since: Instant,
    limit: Duration,
}

impl Running {
    fn overdue(&self) -> bool {
        self.since.elapsed() > self.limit
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Task>,
    running: Vec<Running>,
    threads: usize,
    next: u64,
    closed: bool,
}

impl State {
    /// The first task that may run now. One that may not is taken by the thread that ends the call it waits for.
    fn take(&mut self) -> Option<Task> {
        let free = |t: &Task| self.running.iter().filter(|r| r.what == t.what).count() < SAME;
        let at = self.queue.iter().position(free)?;
        self.queue.remove(at)
    }
}

struct Core {
    name: &'static str,
    uri: Arc<str>,
    most: usize,
    state: Mutex<State>,
    wake: Condvar,
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn work(&self) {
        let mut seat = Seat { uri: self.uri.clone(), conn: None };
        let mut state = self.lock();
        while !state.closed {
            let Some(task) = state.take() else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.next += 1;
            let id = state.next;
            state.running.push(Running { id, what: task.what, since: Instant::now(), limit: task.limit });
            drop(state);
            (task.run)(&mut seat);
            state = self.lock();
            state.running.retain(|r| r.id != id);
        }
    }
}

/// Some threads for one class of calls, so that one class cannot block another.
pub struct Pool {
    core: Arc<Core>,
    news: Option<Arc<News>>,
}

impl Pool {
    /// At most `most` threads, made when needed. With `news`, calls are refused at once while libvirt is known to be down.
    pub fn new(name: &'static str, uri: &str, most: usize, news: Option<Arc<News>>) -> Self {
        let (state, wake) = (Mutex::default(), Condvar::new());
        Pool { core: Arc::new(Core { name, uri: uri.into(), most, state, wake }), news }
    }

    /// The call that is overdue the longest.
    pub fn overdue(&self) -> Option<String> {
        let state = self.core.lock();
        let worst = state.running.iter().filter(|r| r.overdue()).min_by_key(|r| r.since)?;
        Some(format!("libvirt did not answer `{}` in {} s", worst.what, worst.limit.as_secs_f32()))
    }

    /// Runs `call` on a thread and waits at most `limit` for it. `what` is the call in words; `late` tells, after a time-out, how to
    /// find out what became of it.
    pub async fn call<T, F>(&self, what: &str, limit: Duration, late: &str, call: F) -> HvResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Seat) -> HvResult<T> + Send + 'static,
    {
        if let Some(why) = self.news.as_ref().and_then(|n| n.down()) {
            return Err(HvError::Unreachable(why));
        }
        let (answer, answered) = oneshot::channel();
        let run = move |seat: &mut Seat| {
            if answer.is_closed() {
                return; // nobody waits any more: it must not happen late
            }
            let done = catch_unwind(AssertUnwindSafe(|| call(seat)));
            let done = done.unwrap_or_else(|_| Err(HvError::Refused("a call to libvirt broke off".into())));
            drop(answer.send(done));
        };
        self.push(Task { what: what.to_owned(), limit, run: Box::new(run) })?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(HvError::Unreachable("the agent ends".into())),
            Err(_) => Err(HvError::Unreachable(format!(
                "libvirt did not answer in {} s{}{late}",
                limit.as_secs_f32(),
                if late.is_empty() { "" } else { "; " }
            ))),
        }
    }

    fn push(&self, task: Task) -> HvResult<()> {
        let mut state = self.core.lock();
        let still =
            |r: &Running| format!("libvirt works on `{}` since {} s", r.what, r.since.elapsed().as_secs());
        if let Some(same) = state.running.iter().find(|r| r.what == task.what && r.overdue()) {
            return Err(HvError::Unreachable(still(same)));
        }
        if state.running.len() >= self.core.most && state.running.iter().all(Running::overdue) {
            let first = state.running.first().map(still).unwrap_or_default();
            return Err(HvError::Unreachable(format!("all {} calls hang: {first}", self.core.most)));
        }
        state.queue.push_back(task);
        if state.queue.len() + state.running.len() > state.threads && state.threads < self.core.most {
            let core = self.core.clone();
            let spawned =
                thread::Builder::new().name(format!("libvirt-{}", self.core.name)).spawn(move || core.work());
            match spawned {
                Ok(_) => state.threads += 1,
                Err(e) if state.threads == 0 => {
                    state.queue.clear();
                    return Err(HvError::Unreachable(format!("cannot make a thread for libvirt: {e}")));
                }
                Err(_) => {} // a thread that is there takes it up
            }
        }
        drop(state);
        self.core.wake.notify_one();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.core.lock();
        state.closed = true;
        state.queue.clear();
        drop(state);
        self.core.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    const SOON: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    fn unreachable<T>(got: HvResult<T>) -> String {
        match got {
            Err(HvError::Unreachable(text)) => text,
            _ => panic!("must be unreachable"),
        }
    }

    #[tokio::test]
    async fn a_hung_call_bounds_its_caller_and_frees_its_thread_at_last() {
        let pool = Pool::new("test", "", 2, None);
        let (free, freed) = mpsc::channel::<()>();
        let (began, freed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(freed)));
        // on a busy machine the thread may come too late for its caller, and then rightly does nothing
        while began.load(Ordering::SeqCst) == 0 {
            let (began, freed) = (began.clone(), freed.clone());
            let hang = move |_: &mut Seat| {
                began.store(1, Ordering::SeqCst);
                let _freed = freed.lock().expect("no panic").recv();
                Ok(())
            };
            assert!(unreachable(pool.call("a", SOON, "ask it", hang).await).contains("ask it"));
        }
        while pool.overdue().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(pool.overdue().expect("overdue").contains("`a`"));
        assert!(unreachable(pool.call("a", LONG, "", |_| Ok(())).await).contains("works on `a`"));
        assert_eq!(pool.call("b", LONG, "", |_| Ok(7)).await, Ok(7));
        free.send(()).expect("the thread waits");
        while pool.overdue().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.call("a", LONG, "", |_| Ok(7)).await, Ok(7));
    }

    #[tokio::test]
    async fn a_call_that_waited_too_long_in_the_queue_never_runs() {
        let pool = Pool::new("test", "", 1, None);
        let ran = Arc::new(AtomicUsize::new(0));
        let (free, freed) = mpsc::channel::<()>();
        let first = pool.call("first", LONG, "", move |_| {
            let _ = freed.recv();
            Ok(())
        });
        let counter = ran.clone();
        let second = pool.call("second", SOON, "", move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let ((), ()) = tokio::join!(async { first.await.expect("freed") }, async {
            unreachable(second.await);
            free.send(()).expect("the thread waits");
        });
        pool.call("third", LONG, "", |_| Ok(())).await.expect("free");
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_panic_in_a_call_is_an_error_and_the_thread_lives() {
        let pool = Pool::new("test", "", 1, None);
        let broke = pool.call::<(), _>("x", LONG, "", |_| panic!("on purpose")).await;
        assert!(matches!(broke, Err(HvError::Refused(_))));
        assert_eq!(pool.call("y", LONG, "", |_| Ok(1)).await, Ok(1));
    }
}
