//! Guests whose processes are read: each is asked while a file `top` of it is open that was read, and its latest snapshot is kept for
//! those who read.
//!
//! ```text
//!   first read of a handle ──▶ watch ──▶ ask for 5 s, again every 2 s ──▶ last handle closed: nobody asks, the guest stops by itself
//! ```

use crate::cluster::Cluster;
use crate::handle::Bell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use xvm_model::{DomainName, Failure, GuestCommand, Top, Wall};

/// For how long a guest is asked at once, in seconds.
const ASK: u32 = 5;
/// How long after an answer it is asked again: one lost order must not make a gap.
const RENEW: Duration = Duration::from_secs(2);

/// All guests whose processes are read.
#[derive(Debug, Default)]
pub struct Tops {
    /// Weak: the open files own their watch. A plain mutex: held for one look-up, never across an await.
    open: Mutex<HashMap<DomainName, Weak<Watch>>>,
}

/// One guest whose processes are read.
#[derive(Debug)]
pub struct Watch {
    said: Mutex<Said>,
    /// Rings when there is more.
    pub bell: Bell,
    /// Dropped with the watch, which ends its asking.
    _gone: watch::Sender<()>,
}

/// What a guest was asked and said.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Counts its snapshots.
    pub number: u64,
    /// The last one, and when it was heard.
    pub latest: Option<(Arc<Top>, Wall)>,
    /// Counts the refusals.
    pub refused: u64,
    /// The last one.
    pub refusal: Option<Failure>,
}

impl Tops {
    /// The watch over a guest; when it is a new one, also what ends with it.
    fn watch(&self, name: &DomainName) -> (Arc<Watch>, Option<watch::Receiver<()>>) {
        let mut open = self.lock();
        if let Some(watch) = open.get(name).and_then(Weak::upgrade) {
            return (watch, None);
        }
        open.retain(|_, watch| watch.strong_count() > 0);
        let (gone, ends) = watch::channel(());
        let watch = Arc::new(Watch { said: Mutex::default(), bell: Bell::default(), _gone: gone });
        open.insert(name.clone(), Arc::downgrade(&watch));
        (watch, Some(ends))
    }

    /// A snapshot came; without readers it is dropped.
    pub fn put(&self, name: &DomainName, top: Top, at: Wall) {
        self.change(name, |said| {
            said.number += 1;
            said.latest = Some((Arc::new(top), at));
        });
    }

    fn refused(&self, name: &DomainName, failure: Failure) {
        self.change(name, |said| {
            said.refused += 1;
            said.refusal = Some(failure);
        });
    }

    fn change(&self, name: &DomainName, f: impl FnOnce(&mut Said)) {
        let watch = self.lock().get(name).and_then(Weak::upgrade);
        if let Some(watch) = watch {
            f(&mut watch.lock());
            watch.bell.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DomainName, Weak<Watch>>> {
        // one insert or one retain at a time: a panic leaves a whole map
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// The watch over the guest of a domain, which is asked from now on until all who hold the watch have dropped it; and what it said
    /// before.
    pub fn over(
        cluster: &Arc<Cluster>,
        rt: &tokio::runtime::Handle,
        name: &DomainName,
    ) -> (Said, Arc<Watch>) {
        let (watch, ends) = cluster.tops().watch(name);
        let said = watch.said();
        if let Some(mut ends) = ends {
            let (cluster, name) = (cluster.clone(), name.clone());
            rt.spawn(async move {
                tokio::select! {
                    () = ask(&cluster, &name) => {}
                    // nothing is sent: it is dropped
                    _ = ends.changed() => {}
                }
            });
        }
        (said, watch)
    }

    /// What the guest said so far.
    pub fn said(&self) -> Said {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks again and again.
async fn ask(cluster: &Cluster, name: &DomainName) {
    loop {
        if let Err(failure) = cluster.order_guest(name, GuestCommand::Top { seconds: ASK }).await {
            cluster.tops().refused(name, failure);
        }
        tokio::time::sleep(RENEW).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xvm_model::Ratio;

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let (tops, name) = (Tops::default(), DomainName::parse("small-1").expect("valid"));
        let top = || Top { at: Wall(0), cpus: 1, load: Ratio::ZERO, total: 0, processes: vec![] };
        tops.put(&name, top(), Wall(1));
        let (watch, ends) = tops.watch(&name);
        assert_eq!(watch.said().number, 0);
        tops.put(&name, top(), Wall(2));
        let (same, other) = tops.watch(&name);
        assert!(other.is_none() && same.said().number == 1);
        drop((watch, same));
        let ends = ends.expect("it was the first");
        assert!(ends.has_changed().is_err(), "nobody asks any more");
        for i in 0..100 {
            drop(tops.watch(&DomainName::parse(&format!("d{i}")).expect("valid")));
        }
        assert!(tops.lock().len() <= 1, "memory is bounded");
    }
}
