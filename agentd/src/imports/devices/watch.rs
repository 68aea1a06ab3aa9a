//! Devices that lose their connection get another one.

use super::netlink::Losses;
use super::{Imports, kernel};
use crate::imports::negotiate;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A connection that does not come is tried this often.
const AGAIN: Duration = Duration::from_secs(1);
/// All are looked at this often: what was heard may not have been all, and there is nothing to hear before the kernel has the module.
const ALL: Duration = Duration::from_secs(60);

impl Imports {
    /// Connects again whatever is imported and loses its connection, for ever. What it finds lost at its start as well.
    pub async fn watch(self: Arc<Self>) {
        let mut losses = None;
        let mut mending: BTreeSet<Box<str>> = BTreeSet::new();
        let mut tasks: JoinSet<Box<str>> = JoinSet::new();
        loop {
            if losses.is_none() {
                losses = Losses::hear().await.ok();
            }
            let mut lost = self.exports(|_| true).await;
            // who is looked at without a reason is not spoken of
            let mut heard_of = false;
            let all = tokio::time::sleep(ALL);
            tokio::pin!(all);
            loop {
                for export in lost.drain(..) {
                    if mending.insert(export.clone()) {
                        tasks.spawn(self.clone().mend(export, heard_of));
                    }
                }
                let deaf = losses.is_none();
                let heard = async {
                    match &mut losses {
                        Some(losses) => losses.next().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = &mut all => break,
                    // the kernel has the module now
                    () = self.news.notified(), if deaf => break,
                    Some(ended) = tasks.join_next() => {
                        if let Ok(export) = ended {
                            mending.remove(&export);
                        }
                    }
                    device = heard => match device {
                        Some(device) => {
                            lost = self.exports(|d| d == device).await;
                            heard_of = true;
                        }
                        None => losses = None,
                    },
                }
            }
        }
    }

    /// The exports whose devices are chosen.
    async fn exports(&self, which: impl Fn(u32) -> bool) -> Vec<Box<str>> {
        self.record.lock().await.names(|i| which(i.device))
    }

    /// Tries until the device of an export is connected, or is none any more; `lost` when it is known not to be.
    async fn mend(self: Arc<Self>, export: Box<str>, lost: bool) -> Box<str> {
        let mut told = None;
        loop {
            // not held while the server is asked
            let import = self.record.lock().await.live(&export).cloned();
            let Some(import) = import else { break };
            let tried = match negotiate::open(&import.host, import.port, &export).await {
                Ok(opened) => {
                    // it may have been dropped meanwhile
                    let record = self.record.lock().await;
                    match record.live(&export) {
                        Some(there) if there.device == import.device => {
                            kernel::reconnect(import.device, &export, &opened).await
                        }
                        _ => break,
                    }
                }
                Err(why) => Err(why),
            };
            let domain = &import.domain;
            match tried {
                Ok(()) => {
                    if lost || told.is_some() {
                        tracing::info!(%domain, %export, "its disk has a connection again");
                    }
                    break;
                }
                Err(why) if told.as_ref() != Some(&why) => {
                    tracing::warn!(%domain, %export, why, "waits for its disk");
                    told = Some(why);
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
        export
    }
}
