//! Wishes for exports, the last one of a config last: tasks have no order, and an older wish that came after a newer one would bring
//! a name back that was taken away.

use crate::export::{ExportError, Exports, Wanted};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Who makes wishes true.
pub(super) struct Exporter {
    exports: Arc<Exports>,
    /// By config.
    wishes: HashMap<String, Arc<Wish>>,
}

struct Wish {
    /// The last one. A plain mutex: held for one clone.
    wanted: Mutex<Wanted>,
    /// Held while one is made true.
    turn: tokio::sync::Mutex<()>,
}

impl Exporter {
    pub(super) fn new(exports: Exports) -> Self {
        Exporter { exports: Arc::new(exports), wishes: HashMap::new() }
    }

    /// Keys of daemons that died by themselves.
    pub(super) fn deaths(&self) -> mpsc::Receiver<String> {
        self.exports.deaths()
    }

    /// From now on this is what is wanted; the future makes the last wish of that moment true.
    pub(super) fn set(
        &mut self,
        key: &str,
        wanted: Wanted,
    ) -> impl Future<Output = Result<(), ExportError>> + Send + use<> {
        let new = || Arc::new(Wish { wanted: Mutex::default(), turn: tokio::sync::Mutex::default() });
        let wish = self.wishes.entry(key.to_owned()).or_insert_with(new).clone();
        *wish.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        let (exports, key) = (self.exports.clone(), key.to_owned());
        async move {
            let _turn = wish.turn.lock().await;
            let wanted = wish.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
            exports.set(&key, &wanted).await
        }
    }
}
