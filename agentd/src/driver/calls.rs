//! The calls to the hypervisor: each in a task of its own, its end sent back as an input. Their number is bounded by the step, see
//! [`super::agent`].

use super::step::{Effect, Id, Input, Op};
use crate::hypervisor::{HvResult, Hypervisor, Moved, Progress};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};
use xvm_model::DomainName;

/// Ends that wait to be taken; more make the calls' tasks wait, not the memory grow.
const ENDS: usize = 256;
/// A migration's progress is looked at this often.
const PROGRESS: Duration = Duration::from_millis(100);

/// The calls that are under way. Dropping it gives them up.
pub struct Calls {
    hypervisor: Arc<dyn Hypervisor>,
    tasks: JoinSet<()>,
    ends: mpsc::Sender<Input>,
}

impl Calls {
    /// None yet; their ends come out of the receiver.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> (Self, mpsc::Receiver<Input>) {
        let (ends, receiver) = mpsc::channel(ENDS);
        (Calls { hypervisor, tasks: JoinSet::new(), ends }, receiver)
    }

    /// Begins the call that an effect wants; effects that are no calls are not for here.
    pub fn begin(&mut self, effect: Effect) {
        let (hv, ends) = (self.hypervisor.clone(), self.ends.clone());
        self.tasks.spawn(async move {
            let end = match effect {
                Effect::Publish(..) | Effect::Save(_) | Effect::Keep(_) => return,
                Effect::Sample { query } => {
                    let (host, domains) = tokio::join!(hv.host(), hv.domains());
                    Input::Sampled { query, host, domains }
                }
                Effect::Ask { query, name } => {
                    let result = hv.domain(&name).await;
                    Input::Asked { query, name, result }
                }
                Effect::Locate { query, address, name, uuid } => {
                    let result = hv.locate(&address, &name, uuid).await;
                    Input::Located { query, name, result }
                }
                Effect::Begin { op, name, what } => {
                    tracing::info!(%name, ?what, "begin");
                    let result = operate(&*hv, op, &name, what, &ends).await;
                    if let Err(error) = &result {
                        tracing::info!(%name, %error, "ended");
                    }
                    Input::Finished { op, name, result }
                }
            };
            // an error means that the driver has ended
            drop(ends.send(end).await);
        });
    }

    /// Forgets the calls that have ended; the error is a call that panicked.
    pub fn reap(&mut self) -> Result<(), String> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.or_else(panicked)?;
        }
        Ok(())
    }

    /// Waits for a call to panic; none at the end of each other call.
    pub async fn panicked(&mut self) -> Option<String> {
        match self.tasks.join_next().await {
            Some(ended) => ended.or_else(panicked).err(),
            None => std::future::pending().await,
        }
    }
}

fn panicked(error: JoinError) -> Result<(), String> {
    if error.is_panic() { Err(error.to_string()) } else { Ok(()) }
}

async fn operate(
    hv: &dyn Hypervisor,
    op: Id,
    name: &DomainName,
    what: Op,
    ends: &mpsc::Sender<Input>,
) -> HvResult<Option<Moved>> {
    match what {
        Op::Start => hv.start(name).await,
        Op::Pause => hv.pause(name).await,
        Op::Unpause => hv.unpause(name).await,
        Op::Shutdown => hv.shutdown(name).await,
        Op::Reboot => hv.reboot(name).await,
        Op::Destroy => hv.destroy(name).await,
        Op::CancelMigration => hv.cancel_migration(name).await,
        Op::Load { share, seconds } => hv.load(name, share, seconds).await,
        Op::Set(settings) => hv.set(name, &settings).await,
        Op::Migrate { address } => {
            let (progress, watched) = watch::channel(Progress::default());
            return tokio::select! {
                moved = hv.migrate(name, &address, progress) => moved.map(Some),
                never = tell(op, name, watched, ends) => match never {},
            };
        }
    }
    .map(|()| None)
}

/// Sends a migration's progress back, the latest at each look.
async fn tell(
    op: Id,
    name: &DomainName,
    mut watched: watch::Receiver<Progress>,
    ends: &mpsc::Sender<Input>,
) -> std::convert::Infallible {
    while watched.changed().await.is_ok() {
        let progress = *watched.borrow_and_update();
        drop(ends.send(Input::Progress { op, name: name.clone(), progress }).await);
        tokio::time::sleep(PROGRESS).await;
    }
    std::future::pending().await
}
