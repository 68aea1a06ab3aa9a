//! The source of a migration. The talk is drawn in [`super::talk`].
//!
//! ```text
//!   here ── prepared ──▶ copying ──▶ stopped ── noted on disk, commit ──▶ asking ── committed ──▶ (gone)
//!    ▲                      │           │                                   │ ▲
//!    └── cancelled, lost ───┴───────────┘                                   │ └── no answer: asked again, also after a restart
//!    └──────────────────────────────────────── never committed ◀────────────┘
//! ```
//!
//! Until the hand-over is noted this side decides alone, and the other one holds nothing that lasts. From then on the other side
//! decides alone, and this side stands and asks until it knows. So there is no moment at which both run it.

use super::{
    ask::{ask, settle},
    core::{Core, gone},
    faults::Fault,
    precopy::{Precopy, Step},
    state::Leaving,
    store::Handover,
    talk::{Answer, Ask, Commit, PAGES_MAX, Prepare, Say},
    wire::{ANSWER, SILENCE, Wire},
};
use crate::hypervisor::{HvError, HvResult, Moved, Progress};
use std::{io, sync::Arc, time::Duration};
use tokio::{sync::Notify, sync::watch, time::Instant};
use uuid::Uuid;
use xvm_model::{DomainName, DomainState, Grant};

/// One migration.
pub struct Out {
    /// This side.
    core: Arc<Core>,
    /// What moves.
    name: DomainName,
    /// Where it goes, `host:port`.
    address: String,
    /// The lease that it has there.
    grant: Option<Grant>,
    /// The migration's own name, also for questions about it.
    session: Uuid,
    /// Woken when a user cancels.
    cancel: Arc<Notify>,
    /// Who watches.
    progress: watch::Sender<Progress>,
}

fn ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

impl Drop for Out {
    /// However it ended, the domain is free again, and runs when it is still here.
    fn drop(&mut self) {
        let mut st = self.core.state();
        if st.leaving.get(&self.name).is_some_and(|l| l.session == self.session) {
            st.leaving.remove(&self.name);
            drop(st);
            self.core.changed(&self.name);
        }
    }
}

impl Out {
    /// Takes the domain for a migration.
    pub fn begin(
        core: &Arc<Core>,
        name: &DomainName,
        address: &str,
        grant: Option<&Grant>,
        progress: watch::Sender<Progress>,
    ) -> HvResult<Out> {
        let (session, cancel) = (Uuid::new_v4(), Arc::new(Notify::new()));
        let mut st = core.state();
        let r = st.free_record(name)?;
        if !r.state.is_active() {
            return Err(HvError::WrongState(format!("{name} is {}; it must be running or paused", r.state)));
        }
        if r.off_at.is_some() {
            return Err(HvError::WrongState(format!("{name} is about to power off")));
        }
        let leaving = Leaving { session, stopped: false, cancelled: false, cancel: cancel.clone() };
        st.leaving.insert(name.clone(), leaving);
        let (core, name, address) = (core.clone(), name.clone(), address.to_owned());
        drop(st);
        Ok(Out { core, name, address, grant: grant.cloned(), session, cancel, progress })
    }

    /// Moves the domain; returns when it is known where it is.
    pub async fn run(self) -> HvResult<Moved> {
        let begin = Instant::now();
        if self.core.faults.take(Fault::Prepare) {
            return Err(HvError::Refused("told to fail before the other side is asked".into()));
        }
        let (mut wire, host) = self.unless_cancelled(self.prepare()).await??;
        self.core.step(Fault::DieBegin)?;
        let mut copy = self.unless_cancelled(self.copy(&mut wire)).await??;
        let stopped = Instant::now();
        self.stop();
        self.core.step(Fault::DieStopped)?;
        self.unless_cancelled(self.last_round(&mut wire, &mut copy)).await??;
        let commit = self.note(host, copy.total())?;
        // a full bar only when nothing can go back any more
        self.progress.send_replace(Progress { percent: 100, sent: copy.total(), remaining: 0 });
        self.core.step(Fault::DieNoted)?;
        let answer = self.hand_over(wire, commit).await;
        self.core.step(Fault::DieAnswered)?;
        let (committed, mut wire) = match answer {
            Ok(known) => known,
            Err(e) => {
                tracing::info!("the hand-over of {} to {} broke ({e}); asking", self.name, self.address);
                ask(&self.core, &self.address, host, self.session).await
            }
        };
        settle(&self.core, &self.name, self.session, committed).await?;
        if !committed {
            let (name, to) = (&self.name, &self.address);
            return Err(HvError::Refused(format!("{to} did not take {name} over; it goes on where it was")));
        }
        let moved = Moved { total_ms: ms(begin), down_ms: Some(ms(stopped)) };
        self.core.step(Fault::DieForgot)?;
        // when it is lost the other side only remembers the migration for ever
        wire.send(&Say::Forget { session: self.session }).await.ok();
        Ok(moved)
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> HvResult<T> {
        tokio::select! {
            biased;
            () = self.cancel.notified() => Err(HvError::Cancelled),
            done = work => Ok(done),
        }
    }

    fn lost(&self, e: &io::Error) -> HvError {
        HvError::Refused(format!(
            "the connection to {} was lost: {e}; {} stays here",
            self.address, self.name
        ))
    }

    /// Asks the destination to take the domain; gives its identity.
    async fn prepare(&self) -> HvResult<(Wire, Uuid)> {
        let prepare = {
            let st = self.core.state();
            let mut prepare = Prepare::new(self.session, st.kept.host, &self.name, st.record(&self.name)?);
            if let Some(grant) = &self.grant {
                prepare.settings.grant = Some(Box::new(grant.clone()));
            }
            prepare
        };
        let unreachable =
            |e: io::Error| HvError::Unreachable(format!("{} cannot be reached: {e}", self.address));
        let mut wire =
            Wire::connect(&self.address, Ask::Prepare(Box::new(prepare))).await.map_err(unreachable)?;
        match wire.recv(ANSWER).await.map_err(unreachable)? {
            Answer::Prepared { host } => Ok((wire, host)),
            Answer::Refused(refusal) => Err(refusal.into()),
            _ => Err(HvError::Refused(format!("{} is no simulated hypervisor of this kind", self.address))),
        }
    }

    /// Copies round by round while the domain runs.
    async fn copy(&self, wire: &mut Wire) -> HvResult<Precopy> {
        let mut copy = {
            let st = self.core.state();
            let r = st.record(&self.name)?;
            let dirty = if r.state == DomainState::Running { r.dirty } else { 0 };
            Precopy::new(r.memory << 10, dirty, self.core.config.bandwidth)
        };
        let begin = (Instant::now(), 0);
        let middle = || {
            if self.core.faults.take(Fault::Copy) {
                return Err(self.lost(&io::ErrorKind::ConnectionReset.into()));
            }
            self.core.step(Fault::DieCopy)
        };
        let mut passed = false;
        while copy.step() == Step::Round {
            let round = Instant::now();
            while self.piece(wire, &mut copy, begin).await? {
                if !passed && copy.progress().percent >= 50 {
                    passed = true;
                    middle()?;
                }
            }
            copy.round(ms(round));
        }
        if passed { Ok(copy) } else { middle().map(|()| copy) }
    }

    /// Sends one piece, not faster than the bandwidth since `begin` (when, and what was due then); `false` when the round is over.
    async fn piece(&self, wire: &mut Wire, copy: &mut Precopy, begin: (Instant, u64)) -> HvResult<bool> {
        let scale = u64::from(self.core.config.scale.max(1));
        let bytes = copy.piece(scale * u64::from(PAGES_MAX));
        if bytes == 0 {
            return Ok(false);
        }
        // at most PAGES_MAX, by the line above
        let len = u32::try_from(bytes.div_ceil(scale)).unwrap_or(PAGES_MAX);
        wire.send_pages(bytes, len).await.map_err(|e| self.lost(&e))?;
        copy.sent(bytes);
        let due = Duration::from_millis(copy.due_ms().saturating_sub(begin.1));
        // a bandwidth of some bytes a second could make a piece last for ever, and silence ends the connection
        tokio::time::sleep_until(begin.0 + due.min(begin.0.elapsed() + Duration::from_secs(5))).await;
        let progress = copy.progress();
        self.progress.send_replace(Progress { percent: progress.percent.min(99), ..progress });
        Ok(true)
    }

    /// The vCPUs stand from now on, unless this migration fails.
    fn stop(&self) {
        if let Some(l) = self.core.state().leaving.get_mut(&self.name) {
            l.stopped = true;
        }
        self.core.changed(&self.name);
    }

    async fn last_round(&self, wire: &mut Wire, copy: &mut Precopy) -> HvResult<()> {
        let begin = (Instant::now(), copy.due_ms());
        while self.piece(wire, copy, begin).await? {}
        if self.core.faults.take(Fault::SlowStop) {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    }

    /// Notes the hand-over on disk: the point of return.
    fn note(&self, host: Uuid, sent: u64) -> HvResult<Commit> {
        let wall = self.core.wall();
        let commit = self.core.change(|st| {
            let leaving =
                st.leaving.get(&self.name).filter(|l| l.session == self.session).ok_or_else(gone)?;
            if leaving.cancelled {
                return Err(HvError::Cancelled);
            }
            let r = st.kept.domains.get_mut(&self.name).ok_or_else(gone)?;
            r.handover = Some(Handover { session: self.session, host, address: self.address.clone() });
            Ok(Commit {
                sent,
                paused: r.state == DomainState::Paused,
                age_ms: wall.saturating_sub(r.booted),
                busy: r.busy.filter(|b| b.until > wall).map(|b| (b.share, b.until - wall)),
            })
        })?;
        self.core.changed(&self.name);
        Ok(commit)
    }

    /// Asks the destination to take over, and hears whether it did; an error is an unknown outcome.
    async fn hand_over(&self, mut wire: Wire, commit: Commit) -> io::Result<(bool, Wire)> {
        if self.core.faults.take(Fault::CommitLost) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        wire.send(&Say::Commit(commit)).await?;
        self.core.step(Fault::DieAsked).map_err(io::Error::other)?;
        match wire.recv(SILENCE).await? {
            Answer::Committed => Ok((true, wire)),
            Answer::Refused(_) => Ok((false, wire)),
            other => Err(io::Error::other(format!("{other:?} where a commit was due"))),
        }
    }
}
