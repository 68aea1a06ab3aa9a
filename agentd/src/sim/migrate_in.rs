//! The destination of a migration, and the answers to questions. The talk is drawn in [`super::talk`].
//!
//! ```text
//!   (nothing) ── prepare ──▶ coming ── commit: kept on disk ──▶ here
//!                              │
//!                              └── connection lost, silent, settled ──▶ (nothing)
//! ```
//!
//! A migration is committed or given up under one lock: once a source was told that it was not committed, its commit is refused,
//! should it still arrive.

use super::{
    core::Core,
    faults::Fault,
    state::Coming,
    store::{Busy, Record},
    talk::{Answer, Ask, Commit, Hello, Prepare, Refusal, Say, VERSION},
    wire::{ANSWER, SILENCE, Wire},
};
use crate::hypervisor::{HvError, HvResult};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use uuid::Uuid;
use xvm_model::{DomainName, DomainState};

/// Most connections at once; more wait in the kernel.
const CONNECTIONS: usize = 64;
/// Most migrations whose source has not said that it knows. Forgetting one of them could make a domain run twice.
const TAKEN_MAX: usize = 10_000;

/// Takes connections as long as the hypervisor lives.
pub async fn listen(core: Arc<Core>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // the semaphore is never closed
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let task = core.clone();
                core.spawn(async move {
                    if let Err(e) = serve(&task, stream).await {
                        tracing::debug!("the talk with {peer} ended: {e}");
                    }
                    drop(place);
                });
            }
            Err(e) => {
                tracing::warn!("cannot take a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(core: &Arc<Core>, stream: TcpStream) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    let hello: Hello = wire.recv(ANSWER).await?;
    if hello.xvm_sim != VERSION {
        let text = format!("it speaks version {VERSION}, not {}", hello.xvm_sim);
        return wire.send(&Answer::Refused(Refusal::Other(text))).await;
    }
    match hello.ask {
        Ask::Locate { name, uuid } => {
            if core.ready().await.is_err() {
                return Ok(());
            }
            let found = core.domain(&name).filter(|d| d.uuid == uuid);
            wire.send(&Answer::Located(found.map(Box::new))).await
        }
        Ask::Settle { host, session } => {
            if core.state().kept.host != host {
                return wire.send(&Answer::Stranger).await;
            }
            let Ok(committed) = settle(core, session) else { return Ok(()) };
            wire.send(&Answer::Settled(committed)).await?;
            if committed { forget(core, &mut wire, session).await } else { Ok(()) }
        }
        Ask::Prepare(prepare) => {
            if core.ready().await.is_err() {
                return Ok(());
            }
            receive(core, &mut wire, *prepare).await
        }
    }
}

/// Whether a migration was committed; when not, it is given up.
fn settle(core: &Core, session: Uuid) -> HvResult<bool> {
    let (committed, gone) = core.change(|st| {
        let name = st.coming.iter().find(|(_, c)| c.session == session).map(|(n, _)| n.clone());
        if let Some(name) = &name {
            st.coming.remove(name);
        }
        Ok((st.kept.taken.contains_key(&session), name))
    })?;
    if let Some(name) = gone {
        core.changed(&name);
    }
    Ok(committed)
}

/// Waits for the source to say that nobody will ask again.
async fn forget(core: &Core, wire: &mut Wire, session: Uuid) -> io::Result<()> {
    match wire.recv(ANSWER).await? {
        Say::Forget { session: s } if s == session => {
            core.change(|st| Ok(st.kept.taken.remove(&session))).map_err(io::Error::other)?;
            Ok(())
        }
        other => Err(io::Error::other(format!("{other:?} where a forget was due"))),
    }
}

/// A promise to take a domain; what was not committed vanishes with it.
struct Seat<'a> {
    /// This side.
    core: &'a Core,
    /// What comes.
    name: DomainName,
    /// The migration that brings it.
    session: Uuid,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut st = self.core.state();
        if st.coming.get(&self.name).is_some_and(|c| c.session == self.session) {
            st.coming.remove(&self.name);
            drop(st);
            self.core.changed(&self.name);
        }
    }
}

impl Seat<'_> {
    /// Promises, or says why not.
    fn take<'a>(core: &'a Core, p: &Prepare) -> Result<Seat<'a>, Refusal> {
        let (name, session) = (&p.name, p.session);
        if core.faults.take(Fault::Refuse) {
            return Err(Refusal::Other("it was told to refuse".into()));
        }
        if !p.is_valid() {
            return Err(Refusal::Other(format!("{name} has a number out of its range")));
        }
        core.change(|st| {
            if p.host == st.kept.host {
                return Err(HvError::WrongState(format!("{name} is there already: it is the same server")));
            }
            // the same source begins anew only when it has ended the old one, which then just has not been noticed here
            if st.coming.get(name).is_some_and(|c| (c.from, c.record.uuid) != (p.host, p.uuid)) {
                return Err(HvError::WrongState(format!("another migration brings a {name} there")));
            }
            match st.kept.domains.get(name) {
                Some(r) if r.uuid != p.uuid => {
                    return Err(HvError::WrongState(format!("there is another domain {name}")));
                }
                Some(r) if r.state.is_active() || r.handover.is_some() => {
                    return Err(HvError::WrongState(format!("{name} is {} there", r.shown().0)));
                }
                _ => {}
            }
            if st.kept.taken.len() >= TAKEN_MAX {
                return Err(HvError::NoRoom(format!("{TAKEN_MAX} migrations are not known to have ended")));
            }
            st.coming.remove(name);
            st.admit(name, p.memory, core.config.memory)?;
            st.coming.insert(name.clone(), Coming { session, from: p.host, record: arriving(p) });
            Ok(())
        })
        .map_err(|e| match e {
            HvError::NoRoom(t) => Refusal::NoRoom(t),
            HvError::WrongState(t) => Refusal::Exists(t),
            other => Refusal::Other(other.to_string()),
        })?;
        core.changed(name);
        Ok(Seat { core, name: name.clone(), session })
    }

    /// Makes the domain ours, on disk. It was not given up meanwhile, or it is refused.
    fn commit(&self, received: u64, c: &Commit) -> Result<(), Refusal> {
        let wall = self.core.wall();
        let done = self
            .core
            .change(|st| {
                // when the rest fails it is given up, so the answer is a no for good
                if st.coming.get(&self.name).is_none_or(|c| c.session != self.session) {
                    return Err(HvError::Refused("the migration was given up".into()));
                }
                let mut record = st.coming.remove(&self.name).ok_or(HvError::Cancelled)?.record;
                if received != c.sent || received < record.memory << 10 {
                    return Err(HvError::Refused(format!("{received} of {} bytes arrived", c.sent)));
                }
                if !c.paused {
                    (record.state, record.reason) = (DomainState::Running, None);
                }
                record.booted = wall.saturating_sub(c.age_ms);
                record.busy = c.busy.map(|(share, ms)| Busy { share, until: wall.saturating_add(ms) });
                st.sample.forget(&self.name);
                st.kept.domains.insert(self.name.clone(), record);
                st.kept.taken.insert(self.session, self.name.clone());
                Ok(())
            })
            .map_err(|e| Refusal::Other(e.to_string()));
        self.core.changed(&self.name);
        done
    }
}

/// The domain as it will be, if it stays paused.
fn arriving(p: &Prepare) -> Record {
    Record {
        uuid: p.uuid,
        vcpus: p.vcpus,
        memory: p.memory,
        demand: p.demand.clone(),
        key: p.key,
        dirty: p.dirty,
        boot_ms: p.boot_ms,
        shutdown_ms: p.shutdown_ms,
        state: DomainState::Paused,
        reason: Some("by user".into()),
        settings: p.settings.clone(),
        booted: 0,
        busy: None,
        off_at: None,
        handover: None,
        transient: p.transient,
    }
}

async fn receive(core: &Arc<Core>, wire: &mut Wire, prepare: Prepare) -> io::Result<()> {
    let seat = match Seat::take(core, &prepare) {
        Ok(seat) => seat,
        Err(refusal) => return wire.send(&Answer::Refused(refusal)).await,
    };
    let host = core.state().kept.host;
    wire.send(&Answer::Prepared { host }).await?;
    core.step(Fault::DieAgreed).map_err(io::Error::other)?;
    let mut received = 0u64;
    loop {
        match wire.recv(SILENCE).await? {
            Say::Pages { bytes, len } => {
                wire.recv_pages(len).await?;
                received = received.saturating_add(bytes);
            }
            Say::Commit(commit) => {
                core.step(Fault::DieCommit).map_err(io::Error::other)?;
                if let Err(refusal) = seat.commit(received, &commit) {
                    return wire.send(&Answer::Refused(refusal)).await;
                }
                core.step(Fault::DieTaken).map_err(io::Error::other)?;
                if core.faults.take(Fault::AckLost) {
                    return Ok(());
                }
                wire.send(&Answer::Committed).await?;
                core.step(Fault::DieSaid).map_err(io::Error::other)?;
                return forget(core, wire, prepare.session).await;
            }
            Say::Forget { .. } => return Err(io::Error::other("a forget before the commit")),
        }
    }
}
