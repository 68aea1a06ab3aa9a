//! Questions to other hypervisors: where a domain is, and how a migration ended.

use super::{
    core::Core,
    store::Handover,
    talk::{Answer, Ask, Say},
    wire::{ANSWER, Wire},
};
use crate::hypervisor::{HvError, HvResult};
use std::{io, sync::Arc, time::Duration};
use uuid::Uuid;
use xvm_model::{Domain, DomainName};

/// The first pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Asks for a domain.
pub async fn locate(address: &str, name: &DomainName, uuid: Uuid) -> HvResult<Option<Domain>> {
    let question = async {
        let mut wire = Wire::connect(address, Ask::Locate { name: name.clone(), uuid }).await?;
        match wire.recv(ANSWER).await? {
            Answer::Located(found) => Ok(found.map(|d| *d)),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    };
    let found = question
        .await
        .map_err(|e| HvError::Unreachable(format!("{address} does not tell where {name} is: {e}")))?;
    // an answer about another domain would be believed by name
    match found {
        Some(d) if d.name != *name || d.uuid != uuid => {
            Err(HvError::Refused(format!("{address} was asked for {name} and told of another domain")))
        }
        found => Ok(found),
    }
}

/// Asks until it is known whether a migration was committed, however long that takes.
pub async fn ask(core: &Core, address: &str, host: Uuid, session: Uuid) -> (bool, Wire) {
    let mut pause = PAUSE;
    let mut told = None;
    loop {
        let question = async {
            let mut wire = Wire::connect(address, Ask::Settle { host, session }).await?;
            match wire.recv(ANSWER).await? {
                Answer::Settled(committed) => Ok((committed, wire)),
                Answer::Stranger => Err(io::Error::other("another hypervisor answers there")),
                other => Err(io::Error::other(format!("{other:?} where a yes or no was due"))),
            }
        };
        match question.await {
            Ok(known) => return known,
            Err(e) => {
                let why = e.to_string();
                if told.as_ref() != Some(&why) {
                    tracing::warn!(
                        "{}: {address} does not tell how a migration ended: {why}",
                        core.config.name
                    );
                    told = Some(why);
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What is known of a migration becomes true here: the domain is gone, or goes on.
pub async fn settle(core: &Core, name: &DomainName, session: Uuid, committed: bool) -> HvResult<()> {
    loop {
        let done = core.change(|st| {
            let Some(r) = st.kept.domains.get_mut(name) else { return Ok(()) };
            if r.handover.as_ref().is_some_and(|h| h.session == session) {
                if committed {
                    st.kept.domains.remove(name);
                } else {
                    r.handover = None;
                    // it stood for the last round; that is over too
                    st.leaving.remove(name);
                }
            }
            Ok(())
        });
        match done {
            // a full disk: it goes on standing here, which is never wrong
            Err(HvError::NoRoom(why)) => tracing::warn!("{name}: {why}"),
            done => {
                core.changed(name);
                return done;
            }
        }
        tokio::time::sleep(PAUSE_MAX).await;
    }
}

/// After a restart: asks how the migrations ended that were under way.
pub fn resume(core: &Arc<Core>) {
    let open: Vec<(DomainName, Handover)> = {
        let st = core.state();
        st.kept.domains.iter().filter_map(|(n, r)| Some((n.clone(), r.handover.clone()?))).collect()
    };
    for (name, h) in open {
        let task = core.clone();
        core.spawn(async move {
            let (committed, mut wire) = ask(&task, &h.address, h.host, h.session).await;
            if settle(&task, &name, h.session, committed).await.is_ok() && committed {
                // when it is lost the other side only remembers the migration for ever
                wire.send(&Say::Forget { session: h.session }).await.ok();
            }
        });
    }
}
