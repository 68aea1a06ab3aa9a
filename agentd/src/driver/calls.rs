//! The calls to the hypervisor, and what else takes time: each in a task of its own, its end sent back as an input. Their number is
//! bounded by the step, see [`super::agent`].

use super::boots::Boots;
use super::lender::{Lender, Wish};
use super::step::{Effect, Id, Input, Op};
use crate::hypervisor::{HvError, HvResult, Hypervisor, Moved, Progress};
use crate::imports::{
    self,
    devices::{Imports, User, Waiting},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
};
use xvm_model::{DomainName, Grant};

/// Ends that wait to be taken; more make the calls' tasks wait, not the memory grow.
const ENDS: usize = 256;
/// A migration's progress is looked at this often.
const PROGRESS: Duration = Duration::from_millis(100);

/// The calls that are under way. Dropping it gives them up.
pub struct Calls {
    hypervisor: Arc<dyn Hypervisor>,
    boots: Arc<Boots>,
    /// Exports as devices, where the hypervisor needs them.
    imports: Option<Arc<Imports>>,
    lender: Lender,
    /// Leases that are asked for.
    lends: HashMap<Id, AbortHandle>,
    tasks: JoinSet<()>,
    ends: mpsc::Sender<Input>,
}

impl Calls {
    /// None yet; their ends come out of the receiver.
    pub fn new(
        hypervisor: Arc<dyn Hypervisor>,
        boots: Boots,
        imports: Option<Imports>,
        lender: Lender,
    ) -> (Self, mpsc::Receiver<Input>) {
        let (ends, receiver) = mpsc::channel(ENDS);
        let (boots, imports, mut tasks) = (Arc::new(boots), imports.map(Arc::new), JoinSet::new());
        if let Some(imports) = &imports {
            let (waiting, told) = watch::channel(Waiting::new());
            tasks.spawn(imports.clone().watch(waiting));
            tasks.spawn(tell_waiting(told, ends.clone()));
        }
        (Calls { hypervisor, boots, imports, lender, lends: HashMap::new(), tasks, ends }, receiver)
    }

    /// Begins the call that an effect wants; effects that are no calls are not for here.
    pub fn begin(&mut self, effect: Effect) {
        let (hv, ends) = (self.hypervisor.clone(), self.ends.clone());
        let (boots, imports, lender) = (self.boots.clone(), self.imports.clone(), self.lender.clone());
        self.lends.retain(|_, task| !task.is_finished());
        let lends = match &effect {
            Effect::Unlend { op } => {
                if let Some(task) = self.lends.remove(op) {
                    task.abort();
                }
                return;
            }
            Effect::Lend { op, .. } => Some(*op),
            _ => None,
        };
        let task = self.tasks.spawn(async move {
            let end = match effect {
                Effect::Publish(..) | Effect::Save(_) | Effect::Keep(_) | Effect::Unlend { .. } => return,
                Effect::Lend { op, name, config, to, job } => {
                    let wish = Wish { name: name.clone(), config, to, job };
                    let result = lender.lend(wish).await;
                    Input::Lent { op, name, result }
                }
                Effect::Update { here, users, grants } => {
                    let boots = hv.boots_files().then_some(&*boots);
                    Input::Updated(update((boots, imports.as_deref()), &here, &users, &grants).await)
                }
                Effect::Tidy { users } => {
                    if let Some(imports) = imports {
                        match imports.tidy(&users).await {
                            Ok(0) => {}
                            Ok(dropped) => {
                                tracing::info!(dropped, "exports that nobody uses are devices no more");
                            }
                            Err(error) => tracing::error!(%error, "an import is left"),
                        }
                    }
                    return;
                }
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
                    let quiet = matches!(what, Op::Resume(_)); // tried again and again
                    if !quiet {
                        tracing::info!(%name, ?what, "begin");
                    }
                    let result = operate((&*hv, &boots, imports.as_deref()), op, &name, what, &ends).await;
                    if let Err(error) = &result
                        && !quiet
                    {
                        tracing::info!(%name, %error, "ended");
                    }
                    Input::Finished { op, name, result }
                }
            };
            // an error means that the driver has ended
            drop(ends.send(end).await);
        });
        if let Some(op) = lends {
            self.lends.insert(op, task);
        }
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

/// Looks after all that is imported, of either kind; one that fails does not keep the other from it.
async fn update(
    (boots, imports): (Option<&Boots>, Option<&Imports>),
    here: &[DomainName],
    users: &[User],
    grants: &[Grant],
) -> Result<String, String> {
    let mut said = Vec::new();
    if let Some(imports) = imports {
        said.push(imports.update(users, grants).await.map_err(|e| e.to_string()));
    }
    if let Some(boots) = boots {
        said.push(boots.update(here).await);
    }
    if said.is_empty() {
        return Ok("this hypervisor boots from no files: nothing to do".into());
    }
    let said: Result<Vec<String>, String> = said.into_iter().collect();
    said.map(|sentences| sentences.join("; "))
}

async fn operate(
    (hv, boots, imports): (&dyn Hypervisor, &Boots, Option<&Imports>),
    op: Id,
    name: &DomainName,
    what: Op,
    ends: &mpsc::Sender<Input>,
) -> HvResult<Option<Moved>> {
    match what {
        Op::Fetch(_) if !hv.boots_files() => Ok(()),
        Op::Fetch(boot) => boots.fetch(name, &boot).await.map_err(HvError::Refused),
        Op::Import(grant) => match imports {
            Some(imports) => imports.attach(&grant).await.map_err(|e| HvError::Refused(e.to_string())),
            None => Ok(()),
        },
        Op::Create(spec) => hv.create(&spec, boots.dir()).await,
        Op::Start => hv.start(name).await,
        Op::Pause => hv.pause(name).await,
        Op::Unpause => hv.unpause(name).await,
        Op::Resume(grant) => match imports::answer(&grant).await {
            Ok(()) => hv.unpause(name).await,
            Err(why) => Err(HvError::Unreachable(why)),
        },
        Op::Shutdown => hv.shutdown(name).await,
        Op::Reboot => hv.reboot(name).await,
        Op::Destroy => hv.destroy(name).await,
        Op::CancelMigration => hv.cancel_migration(name).await,
        Op::Load { share, seconds } => hv.load(name, share, seconds).await,
        Op::Set(settings) => hv.set(name, &settings).await,
        Op::Migrate { way, grant } => {
            let (progress, watched) = watch::channel(Progress::default());
            return tokio::select! {
                moved = hv.migrate(name, &way, grant.as_deref(), progress) => moved.map(Some),
                never = tell(op, name, watched, ends) => match never {},
            };
        }
    }
    .map(|()| None)
}

/// Sends back who waits for a disk, the latest at each look.
async fn tell_waiting(mut told: watch::Receiver<Waiting>, ends: mpsc::Sender<Input>) {
    while told.changed().await.is_ok() {
        let waiting = told.borrow_and_update().clone();
        drop(ends.send(Input::Waiting(waiting)).await);
    }
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
