//! An open `wait` file: no text while a job runs, then the text of that moment, until it is closed.

use crate::cluster::Cluster;
use crate::handle::Bell;
use crate::row::Place;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the task behind poll(2) waits before it looks whether the file is still open.
const LOOK: Duration = Duration::from_secs(1);

/// One open `wait` file.
#[derive(Debug)]
pub struct Wait {
    place: Place,
    text: OnceLock<String>,
    /// Rings when the text is there.
    pub bell: Bell,
    /// Whether a task watches the jobs on behalf of poll(2).
    watched: AtomicBool,
}

impl Wait {
    /// Nothing is waited for before the first read or poll.
    pub fn new(place: Place) -> Self {
        Wait { place, text: OnceLock::new(), bell: Bell::default(), watched: AtomicBool::new(false) }
    }

    /// The text, when no job runs or none has run since the first look.
    pub fn text(&self, cluster: &Cluster) -> Option<&str> {
        if self.text.get().is_none()
            && let Some(text) = cluster.idle_text(&self.place)
        {
            self.set(text);
        }
        self.text.get().map(String::as_str)
    }

    /// The length of the text, once it is there.
    pub fn size(&self) -> u64 {
        self.text.get().map_or(0, |t| t.len() as u64)
    }

    /// Waits for the text.
    pub async fn hold(&self, cluster: &Cluster) {
        while self.text.get().is_none() {
            if let Some(text) = cluster.wait(&self.place, LOOK).await {
                self.end(text);
            }
        }
    }

    /// Whether this call must start the task that rings the bell.
    pub fn claim_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::Relaxed)
    }

    /// That task: ends with the job, or soon after the file was closed.
    pub async fn watch(wait: Arc<Self>, cluster: Arc<Cluster>) {
        while Arc::strong_count(&wait) > 1 {
            if let Some(text) = cluster.wait(&wait.place, LOOK).await {
                wait.end(text);
                return;
            }
        }
    }

    /// The text of what was waited for. A guest that was started anew meanwhile knows of no test.
    fn end(&self, text: String) {
        self.set(match &self.place {
            Place::Guest(name) if text.is_empty() => crate::tables::guest::lost(name),
            _ => text,
        });
    }

    fn set(&self, text: String) {
        if self.text.set(text).is_ok() {
            self.bell.ring();
        }
    }
}
