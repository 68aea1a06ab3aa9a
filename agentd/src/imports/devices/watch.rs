//! Devices that lose their connection get another one; who waits for it is told.

use super::netlink::Losses;
use super::{Imports, kernel};
use crate::imports::negotiate;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use xvm_model::DomainName;

/// A connection that does not come is tried this often.
const AGAIN: Duration = Duration::from_secs(1);
/// All are looked at this often: what was heard may not have been all, and there is nothing to hear before the kernel has the module.
const ALL: Duration = Duration::from_secs(60);

/// Exports whose devices want a connection, or may want one.
type Lost = BTreeMap<Box<str>, Want>;
/// The domains that wait for a disk, and why the connection to it does not come.
pub type Waiting = BTreeMap<DomainName, Box<str>>;

/// Why a connection is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    /// Perhaps it wants none.
    Look,
    /// The kernel has told its loss.
    Told,
    /// Whose disk it is, and why it has none yet.
    Waits(DomainName, String),
}

impl Imports {
    /// Connects again whatever is imported and loses its connection, for ever. What it finds lost at its start as well. `waiting` is who
    /// waits meanwhile.
    pub async fn watch(self: Arc<Self>, waiting: watch::Sender<Waiting>) {
        let mut losses = None;
        let mut lost = Lost::new();
        let mut all = Instant::now();
        loop {
            if losses.is_none() {
                losses = Losses::hear().await.ok();
            }
            if all <= Instant::now() {
                all = Instant::now() + ALL;
                for export in self.exports(|_| true).await {
                    lost.entry(export).or_insert(Want::Look);
                }
            }
            // what is told meanwhile is heard afterwards: nothing is lost between two tries
            lost = self.mend(lost).await;
            waiting.send_if_modified(|told| {
                let now = waits(&lost);
                std::mem::replace(told, now) != *told
            });
            let next = if lost.is_empty() { all } else { all.min(Instant::now() + AGAIN) };
            let deaf = losses.is_none();
            let heard = async {
                match &mut losses {
                    Some(losses) => losses.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(next) => {}
                // the kernel has the module now
                () = self.news.notified(), if deaf => all = Instant::now(),
                device = heard => match device {
                    Some(device) => {
                        for export in self.exports(|d| d == device).await {
                            lost.entry(export).or_insert(Want::Told);
                        }
                    }
                    None => losses = None,
                },
            }
        }
    }

    /// The exports whose devices are chosen.
    async fn exports(&self, which: impl Fn(u32) -> bool) -> Vec<Box<str>> {
        self.record.lock().await.names(|i| which(i.device))
    }

    /// Tries all of them at once, a few seconds at most; those that still have none.
    async fn mend(self: &Arc<Self>, lost: Lost) -> Lost {
        let mut tries = JoinSet::new();
        for (export, want) in lost {
            let own = self.clone();
            tries.spawn(async move { own.mend_one(&export, want).await.map(|want| (export, want)) });
        }
        tries.join_all().await.into_iter().flatten().collect()
    }

    /// Gives a device another connection; what it wants still, none when it has one or is a device no more.
    async fn mend_one(&self, export: &str, want: Want) -> Option<Want> {
        // not held while the server is asked
        let import = self.record.lock().await.live(export).cloned()?;
        let tried = match negotiate::open(&import.host, import.port, export).await {
            Ok(opened) => {
                // it may have been dropped meanwhile
                let record = self.record.lock().await;
                record.live(export).filter(|there| there.device == import.device)?;
                kernel::reconnect(import.device, export, &opened).await
            }
            Err(why) => Err(why),
        };
        let domain = &import.domain;
        match tried {
            Ok(()) => {
                if want != Want::Look {
                    tracing::info!(%domain, %export, "its disk has a connection again");
                }
                None
            }
            Err(why) => {
                let now = Want::Waits(domain.clone(), why.clone());
                if want != now {
                    tracing::warn!(%domain, %export, why, "waits for its disk");
                }
                Some(now)
            }
        }
    }
}

fn waits(lost: &Lost) -> Waiting {
    let one = |want: &Want| match want {
        Want::Waits(domain, why) => Some((domain.clone(), why.as_str().into())),
        Want::Look | Want::Told => None,
    };
    lost.values().filter_map(one).collect()
}
