//! Migrations: they take time, fail, hang, lie, can be cancelled, and go on or end when whoever ordered them is killed. Each is judged
//! when it begins, by what is true then; what agents believe does not count.

use super::{Fate, Inner, World};
use rand::Rng;
use std::time::Duration;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};
use xvm_agentd::hypervisor::{HvError, HvResult, Moved, Progress};
use xvm_model::{Came, Domain, DomainName, Grant, points::BUSY};

/// A move that was agreed upon so long before a change is not judged by it: help takes 5 s at most, and a mark up to 10.
const SETTLED: Duration = Duration::from_secs(18);
/// The cooldown of the engine's usual guards.
const COOLDOWN: Duration = Duration::from_secs(3600);

/// A migration that runs.
pub(super) struct Carry {
    pub(super) from: String,
    pub(super) to: String,
    /// The lease that it has there.
    grant: Option<Grant>,
    cancel: watch::Sender<bool>,
}

/// A migration that began, whether it ended well or not.
#[allow(dead_code)] // a message shows them all
#[derive(Debug, Clone)]
pub struct Move {
    pub domain: DomainName,
    pub from: String,
    pub to: String,
    pub at: Instant,
    /// What was written down with the domain before it left.
    pub came: Option<Came>,
    pub moved: bool,
}

impl Move {
    /// What it was for, when a round of help moved it.
    fn need(&self) -> Option<&str> {
        self.came.as_ref().filter(|c| c.round.is_some()).map(|c| &*c.why)
    }
}

#[allow(dead_code)] // each test uses what it needs
impl World {
    /// All migrations that began.
    pub fn moves(&self) -> Vec<Move> {
        self.lock().moves.clone()
    }

    /// How many domains have moved.
    pub fn moved(&self) -> usize {
        self.lock().moves.iter().filter(|m| m.moved).count()
    }

    /// What should never have been.
    pub fn broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    /// How many migrations run.
    pub fn carries(&self) -> usize {
        self.lock().carries.len()
    }

    /// Where a domain is.
    pub fn at(&self, name: &DomainName) -> String {
        self.lock().domains[name].0.clone()
    }

    /// The active domains of a server.
    pub fn count(&self, server: &str) -> usize {
        self.lock().domains.values().filter(|(at, d)| at == server && d.state.is_active()).count()
    }

    /// Whether more is wanted of a server's CPUs than it has, and by more than one.
    pub fn overloaded(&self, server: &str) -> bool {
        let inner = self.lock();
        inner.wants(server, None).1 > inner.machine(server).cpus
    }

    pub(super) async fn migrate(
        &self,
        from: &str,
        name: &DomainName,
        (to, grant): (&str, Option<&Grant>),
        progress: watch::Sender<Progress>,
    ) -> HvResult<Moved> {
        let (end, ended) = oneshot::channel();
        let (cancel, mut cancelled) = watch::channel(false);
        let (lasts, orphan) = {
            let mut inner = self.lock();
            let free = !inner.carries.contains_key(name);
            match inner.domains.get(name) {
                Some((at, d)) if at == from && d.state.is_active() && free => {}
                _ => return Err(HvError::WrongState("it is not active here, or moves already".into())),
            }
            inner.judge(name, from, to);
            inner.judge_lease(name, (from, to), grant);
            let grant = grant.cloned();
            inner.carries.insert(name.clone(), Carry { from: from.into(), to: to.into(), grant, cancel });
            inner.tell(to, name);
            let (low, high) = inner.lasts;
            (inner.rng.random_range(low..=high), inner.rng.random_bool(0.5))
        };
        let (world, name) = (self.clone(), name.clone());
        // a task of its own: it may outlive the agent that ordered it
        tokio::spawn(async move {
            let mut end = Some(end);
            let carry = async {
                for percent in [10, 40, 80] {
                    progress.send_replace(Progress { percent, sent: 0, remaining: 9 });
                    sleep(Duration::from_millis(lasts / 3)).await;
                }
                world.fate().await
            };
            let killed = async {
                match end.as_mut().filter(|_| !orphan) {
                    Some(end) => end.closed().await,
                    None => std::future::pending().await,
                }
            };
            let fate = tokio::select! {
                fate = carry => Some(fate),
                Ok(()) = cancelled.changed() => None,
                () = killed => None,
            };
            let result = world.lock().arrive(&name, fate);
            if let Some(end) = end.take() {
                drop(end.send(result));
            }
        });
        ended.await.unwrap_or_else(|_| Err(HvError::Unreachable("it broke off".into())))
    }

    pub(super) fn cancel(&self, server: &str, name: &DomainName) -> HvResult<()> {
        let inner = self.lock();
        match inner.carries.get(name).filter(|c| c.from == server) {
            Some(carry) => {
                carry.cancel.send_replace(true);
                Ok(())
            }
            None => Err(HvError::WrongState("it does not move".into())),
        }
    }
}

impl Inner {
    /// CPUs and busy vCPUs that are wanted on a server, with `guest` on board.
    fn wants(&self, server: &str, guest: Option<&Domain>) -> (f64, usize) {
        let all = self.on(server).chain(guest);
        let wants = all.flat_map(|d| self.demands.get(&d.name).into_iter().flatten());
        wants.fold((0.0, 0), |(cpus, busy), w| (cpus + w, busy + usize::from(*w >= BUSY)))
    }

    /// Writes down what must not be about a migration that begins now.
    fn judge(&mut self, name: &DomainName, from: &str, to: &str) {
        let domain = self.domains[name].1.clone();
        let came = domain.settings.came.as_deref().filter(|c| c.from.as_str() == from).cloned();
        let new = Move {
            domain: name.clone(),
            from: from.into(),
            to: to.into(),
            at: Instant::now(),
            came,
            moved: false,
        };
        let mut wrong = Vec::new();
        if let Some(need) = new.need() {
            let machine = self.machine(to);
            let memory = self.on(to).map(|d| d.memory.current).sum::<u64>() + domain.memory.current;
            if memory > machine.memory {
                wrong.push(format!("{memory} KiB of {} are taken", machine.memory));
            }
            let (wants, busy) = self.wants(to, Some(&domain));
            let share = wants / machine.cpus as f64;
            let settled = self.changed.is_none_or(|at| at.elapsed() > SETTLED);
            let adaptive = share < 0.92;
            if settled && !(share < 0.80 || adaptive || busy <= machine.cpus && share <= 1.06) {
                let on: Vec<_> = self.on(to).map(|d| (d.name.as_str(), &self.demands[&d.name])).collect();
                wrong.push(format!("{wants:.2} of {} CPUs are wanted by {busy}: {on:?}", machine.cpus));
            }
            let apart = self.on(to).find(|d| d.settings.apart.common(&domain.settings.apart).is_some());
            if let Some(other) = apart {
                wrong.push(format!("{} should stay apart", other.name));
            }
            if !domain.settings.pin.0.is_empty() && !domain.settings.pin.0.iter().any(|s| s.as_str() == to) {
                wrong.push("it is pinned".into());
            }
            let mate =
                |d: &&Domain| d.name != *name && d.settings.with.common(&domain.settings.with).is_some();
            if need == "overload"
                && let Some(mate) = self.on(from).find(mate)
            {
                wrong.push(format!("{} stays behind", mate.name));
            }
            if self.machine(from).kind != machine.kind {
                wrong.push("another hypervisor".into());
            }
            let round = |m: &Move| m.came.as_ref().and_then(|c| c.round.clone());
            if self.moves.iter().any(|old| round(old) == round(&new)) {
                wrong.push("its round has moved one already".into());
            }
            let last = self.moves.iter().rev().find(|m| m.domain == *name && m.moved);
            let hot = last.is_some_and(|m| m.need() == Some("overload") && m.at.elapsed() < COOLDOWN);
            if need == "overload" && hot {
                wrong.push("it moved a short time ago".into());
            }
        }
        for why in wrong {
            self.broken.push(format!("{new:?}: {why}"));
        }
        self.moves.push(new);
    }

    /// One that was made from a config leaves with a lease of its own for where it goes.
    fn judge_lease(&mut self, name: &DomainName, (from, to): (&str, &str), grant: Option<&Grant>) {
        let old = self.domains[name].1.settings.grant.clone();
        let fits = match (&old, grant) {
            (None, None) => true,
            (Some(old), Some(new)) => {
                (old.server.as_str(), new.server.as_str()) == (from, to) && new.epoch > old.epoch
            }
            _ => false,
        };
        if !fits {
            self.broken.push(format!("{name} leaves {from} for {to} with {grant:?} after {old:?}"));
        }
    }

    /// A migration has ended; none: it was cancelled.
    fn arrive(&mut self, name: &DomainName, fate: Option<Fate>) -> HvResult<Moved> {
        let Some(carry) = self.carries.remove(name) else { return Err(HvError::Cancelled) };
        let result = match (&fate, self.domains.get_mut(name)) {
            (None, _) => Err(HvError::Cancelled),
            (Some(Fate::Fails), _) => Err(HvError::Refused("the other side said no".into())),
            (_, Some((at, d))) if d.state.is_active() => {
                *at = carry.to.clone();
                if let Some(grant) = carry.grant {
                    d.settings.grant = Some(Box::new(grant));
                }
                if let Some(m) = self.moves.iter_mut().rev().find(|m| m.domain == *name) {
                    m.moved = true;
                }
                self.done.push((Instant::now(), "migrate".into()));
                Ok(Moved { total_ms: 5, down_ms: None })
            }
            _ => Err(HvError::WrongState("it is not active any more".into())),
        };
        self.tell(&carry.to, name);
        self.tell(&carry.from, name);
        match fate {
            Some(Fate::Lies) => Err(HvError::Unreachable("connection broke".into())),
            _ => result,
        }
    }
}
