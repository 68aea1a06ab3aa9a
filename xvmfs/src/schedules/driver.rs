//! The task that carries schedules out: orders tests when they are due, and looks what guests say of them.

use crate::cluster::Cluster;
use std::sync::Arc;
use std::time::Duration;
use xvm_model::event::{About, Event};
use xvm_model::schedule::play::{Effect, Guests, Play, TaskState};
use xvm_model::{Boot, DomainName, GuestCommand, GuestRuns, Mono, ServerName, TestName, View, Wall};

/// Between two steps: what guests say a hundred times a second is looked at twenty times.
const STEP: Duration = Duration::from_millis(50);
/// How often it is looked for guests that fell silent.
const TICK: Duration = Duration::from_secs(1);

/// Guests as a view shows them.
pub struct Seen {
    view: Arc<View>,
    now: Mono,
    moves: u64,
}

impl Seen {
    /// At this moment.
    pub fn of(cluster: &Cluster) -> Seen {
        Seen { view: cluster.view(), now: cluster.now().mono, moves: cluster.moves().iter().sum() }
    }
}

impl Guests for Seen {
    fn heard(&self) -> Vec<DomainName> {
        self.view.guests(self.now).cloned().collect()
    }

    fn server(&self, domain: &str) -> Option<ServerName> {
        self.view.domain(domain, self.now).map(|d| d.server)
    }

    fn runs(&self, domain: &str) -> Option<(Boot, Arc<GuestRuns>)> {
        self.view.guest(domain, self.now).map(|g| (g.stamp.boot, g.runs.clone()))
    }

    fn moves(&self) -> u64 {
        self.moves
    }
}

/// Carries out whatever is started, for ever.
pub async fn drive(cluster: Arc<Cluster>) {
    let mut changes = cluster.changes();
    let schedules = cluster.schedules();
    loop {
        // what changes from here on is looked at in the next step
        changes.mark_unchanged();
        for (entry, effects) in schedules.step(&Seen::of(&cluster), cluster.now()) {
            let Some(play) = &entry.play else { continue };
            for effect in effects {
                tokio::spawn(carry_out(cluster.clone(), entry.name.clone(), play.started, effect));
            }
            if !play.is_running() {
                tell_end(&cluster, &entry.name, play);
            }
            let disk = schedules.disk.clone();
            let kept = tokio::task::spawn_blocking(move || disk.save(&entry)).await;
            if let Ok(Err(why)) = kept {
                tracing::warn!("results of tests are not kept: {why}");
            }
            // whoever waits for its end looks
            cluster.touch();
        }
        match schedules.next(cluster.now()) {
            None => schedules.bell.notified().await,
            Some(ms) => {
                let due = Duration::from_millis(ms).min(TICK);
                tokio::select! {
                    () = schedules.bell.notified() => {}
                    () = tokio::time::sleep(due) => {}
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        tokio::time::sleep(STEP).await;
                    }
                }
            }
        }
    }
}

async fn carry_out(cluster: Arc<Cluster>, name: TestName, started: Wall, effect: Effect) {
    match effect {
        Effect::Run { task, domain, test } => {
            let answer = cluster.run_in_guest(&domain, &test).await;
            let (seen, now) = (Seen::of(&cluster), cluster.now());
            cluster.schedules().answered(&name, started, |play| play.answered(task, answer, &seen, now));
        }
        Effect::Cancel { domain } => {
            // when it is not taken the test ends by itself
            drop(cluster.order_guest(&domain, GuestCommand::Cancel).await);
        }
    }
}

fn tell_end(cluster: &Cluster, name: &TestName, play: &Play) {
    let text = format!("tests {name} {}", outcome(play));
    let event = Event { at: cluster.now().wall, about: About::Cluster, server: None, text };
    cluster.streams().tell(&[event]);
}

/// `done: 15 of 16 tests in 63.250 s`
pub fn outcome(play: &Play) -> String {
    let done = play.tasks.iter().filter(|t| t.state == TaskState::Done).count();
    let (all, ms) = (play.tasks.len(), play.took_ms);
    format!("{}: {done} of {all} tests done in {}.{:03} s", play.state, ms / 1000, ms % 1000)
}
