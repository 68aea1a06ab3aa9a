//! From a line in a file to an order, and to the answer of the daemon that carries it out.
//!
//! Whether a domain's state allows a command is decided by its agent, which knows; here is decided what only the whole cluster
//! knows: whether there is such a server, whether it is heard, and where a migration may go.

mod balance;
mod configs;
mod guest;
mod test;

use crate::cluster::Cluster;
use crate::handle::value::VALUE_MAX;
use crate::rights::Who;
use crate::row::{Kind, Place, Row, Scene, Subject};
use crate::trouble;
use std::time::Duration;
use xvm_model::command::{CLUSTER_VERBS, DOMAIN_VERBS, LINE_MAX, SERVER_VERBS, parse_line, quote};
use xvm_model::guest::command::GUEST_VERBS;
use xvm_model::images::CONFIG_VERBS;
use xvm_model::placement::{best_destination, check_destination, check_way};
use xvm_model::schedule::SCHEDULE_VERBS;
use xvm_model::{
    Answer, ClusterCommand, Code, DomainCommand, DomainName, Failure, Order, Reach, Reply, Server,
    ServerName, Shown,
};

/// How long the migration of a domain that stays apart waits for that of another to be answered: with the order itself it stays
/// within what the tree promises.
const TURN: Duration = Duration::from_secs(2);

impl Cluster {
    /// Runs one line of a `ctl` file that `who` has opened. What is given back is one line: what is true now, or which job goes on.
    pub async fn command(&self, place: &Place, line: &[u8], who: Who) -> Result<String, Failure> {
        let result = match checked(line, LINE_MAX) {
            Ok(line) => self.run_line(place, line, who).await,
            Err(failure) => Err(failure),
        };
        result.map_err(|failure| self.refuse(place, failure))
    }

    /// Writes a setting.
    pub async fn set(&self, place: &Place, row: &Row, text: &[u8]) -> Result<String, Failure> {
        let result = match checked(text, VALUE_MAX) {
            Ok(text) => self.run_setting(place, row, text.trim_end_matches(['\n', ' '])).await,
            Err(failure) => Err(failure),
        };
        result.map_err(|failure| self.refuse(place, failure))
    }

    /// `mv servers/A/domains/D servers/B/domains/`
    pub async fn move_domain(&self, name: &DomainName, to: &ServerName) -> Result<String, Failure> {
        let place = Place::Domain(name.clone());
        let command = DomainCommand::Migrate { to: Some(to.clone()), address: "".into(), paused: false };
        let result = self.order_domain(&place, command).await;
        result.map_err(|failure| self.refuse(&place, failure))
    }

    async fn run_line(&self, place: &Place, line: &str, who: Who) -> Result<String, Failure> {
        match place {
            Place::Cluster => match parse_line(CLUSTER_VERBS, line)? {
                ClusterCommand::RollCall => {
                    self.linked()?;
                    self.roll_call();
                    Ok("asked".into())
                }
                ClusterCommand::Balance { mode } => self.balance(mode).await,
                ClusterCommand::Config { name, command } => {
                    self.order_config(&name, configs::owned(command, who)).await
                }
            },
            Place::Config(name) => {
                let command = parse_line(CONFIG_VERBS, line)?;
                self.order_config(name, configs::owned(command, who)).await
            }
            Place::Round(_) => Err(Failure::new(Code::Permission, "a round of help takes no commands")),
            Place::Server(_) => {
                let command = parse_line(SERVER_VERBS, line)?;
                let scene = self.scene(place).ok_or_else(|| gone(place))?;
                let Subject::Server(server) = &scene.thing else { return Err(gone(place)) };
                self.reachable(&scene, server, line)?;
                self.send(server, Order::Server { command }).await
            }
            Place::Domain(_) => self.order_domain(place, parse_line(DOMAIN_VERBS, line)?).await,
            Place::Guest(name) => self.order_guest(name, parse_line(GUEST_VERBS, line)?).await,
            Place::Test(name) => self.order_test(name, parse_line(SCHEDULE_VERBS, line)?),
        }
    }

    /// Sends a command to a domain. Migrations of domains that stay apart from others are sent one after the other: the next one is
    /// checked when it is known where the one before goes, or two of a group would be sent to one server at once.
    async fn order_domain(&self, place: &Place, command: DomainCommand) -> Result<String, Failure> {
        let parted = matches!(command, DomainCommand::Migrate { .. })
            && self.scene(place).and_then(|s| s.domain().map(|d| !d.domain.settings.apart.0.is_empty()))
                == Some(true);
        let turn = tokio::time::timeout(TURN, self.parting.lock());
        let turn = match parted {
            true => Some(turn.await.map_err(|_| {
                let path = place.path();
                Failure::busy(format!(
                    "cannot migrate {path} now: another domain that stays apart is being sent away, and its server has not answered"
                ))
            })?),
            false => None,
        };
        let (server, order) = {
            let scene = self.scene(place).ok_or_else(|| gone(place))?;
            if let (Place::Domain(name), Some(command)) = (place, guest::instead(&scene, &command)) {
                drop(scene);
                return self.order_guest(name, command).await;
            }
            self.domain_order(&scene, command)?
        };
        let result = self.send(&server, order).await;
        drop(turn);
        result
    }

    async fn run_setting(&self, place: &Place, row: &Row, text: &str) -> Result<String, Failure> {
        if let (Place::Guest(name), Kind::Lines(_, parse)) = (place, &row.kind) {
            let command = parse(text);
            let command = command
                .map_err(|why| Failure::invalid(format!("cannot run {} in {name}: {why}", quote(text))))?;
            return self.order_guest(name, command).await;
        }
        if let (Place::Test(name), Kind::Schedule(_)) = (place, &row.kind) {
            return self.schedules().set(name, text, self.now().wall);
        }
        let (server, order) = {
            let scene = self.scene(place).ok_or_else(|| gone(place))?;
            let path = format!("{}/{}", place.path(), row.name);
            let order = match &row.kind {
                Kind::Setting(_, write) => write(&scene, text),
                Kind::Key(setting) => configs::set(&scene, setting, text),
                _ => {
                    let why = format!("cannot write {}: it is read-only", row.name);
                    return Err(Failure::new(Code::Permission, why));
                }
            };
            let order = order
                .map_err(|why| Failure::invalid(format!("cannot set {path} to {}: {why}", quote(text))))?;
            match (order, &scene.thing) {
                (Order::Config { name, command }, _) => {
                    drop(scene);
                    return self.order_config(&name, command).await;
                }
                (Order::Domain { command, .. }, Subject::Domain(_)) => self.domain_order(&scene, command)?,
                (order, Subject::Server(server)) => {
                    self.reachable(&scene, server, row.name)?;
                    (server.clone(), order)
                }
                _ => return Err(gone(place)),
            }
        };
        self.send(&server, order).await
    }

    /// Completes a command to a domain, and finds the server that it goes to.
    fn domain_order(
        &self,
        scene: &Scene<'_>,
        mut command: DomainCommand,
    ) -> Result<(std::sync::Arc<Server>, Order), Failure> {
        let Subject::Domain(d) = &scene.thing else {
            return Err(Failure::no_entry("there is no such domain"));
        };
        let (name, word) = (&d.domain.name, command.word());
        if d.shown == Shown::Conflict {
            return Err(Failure::busy(format!("cannot {word} {name}: {}", trouble::conflict(d))));
        }
        let Some(server) = scene.view.server(d.server.as_str()).cloned() else {
            return Err(Failure::new(
                Code::HostDown,
                format!("cannot {word} {name}: {} is not heard", d.server),
            ));
        };
        self.reachable(scene, &server, &format!("{word} {name}"))?;
        if let DomainCommand::Migrate { to, address, paused } = &mut command {
            check_way(&d.domain, *paused)?;
            let destination = match &to {
                Some(to) => check_destination(&scene.view, d, to, scene.now.mono)?,
                None => best_destination(&scene.view, d, scene.now.mono)?,
            };
            *to = Some(destination.name.clone());
            *address = destination.beat.address.clone();
        }
        Ok((server, Order::Domain { name: name.clone(), command }))
    }

    fn linked(&self) -> Result<(), Failure> {
        match self.publisher().link() {
            xvm_bus::Link::Up => Ok(()),
            xvm_bus::Link::Down(why) => {
                Err(Failure::new(Code::HostUnreachable, format!("cannot send: {why}")))
            }
        }
    }

    fn reachable(&self, scene: &Scene<'_>, server: &Server, what: &str) -> Result<(), Failure> {
        self.linked()?;
        if scene.view.reach(server, scene.now.mono) == Reach::Down {
            let why = trouble::down(&server.name, server.heard, scene.now);
            return Err(Failure::new(Code::HostDown, format!("cannot {what}: {why}")));
        }
        Ok(())
    }

    async fn send(&self, server: &Server, order: Order) -> Result<String, Failure> {
        let heard = (server.at, server.heard.mono);
        let reply = self.client().order(&server.name, server.stamp.boot, heard, order).await?;
        answered(reply)
    }

    /// Waits until no job runs at `place` or `bound` is over; `None` when a job runs still.
    pub async fn wait(&self, place: &Place, bound: Duration) -> Option<String> {
        let mut changes = self.changes();
        let deadline = tokio::time::Instant::now() + bound;
        loop {
            changes.mark_unchanged();
            if let Some(text) = self.idle_text(place) {
                return Some(text);
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return None;
            }
        }
    }

    /// What `wait` prints when no job runs; `None` while one does. A thing that is gone has no job.
    pub fn idle_text(&self, place: &Place) -> Option<String> {
        let Some(scene) = self.scene(place) else {
            // one that nobody has any more has ended; how, is known for a while
            let view = self.view();
            return Some(match place {
                Place::Domain(name) => crate::tables::domain::outcome_line(view.ended(name)),
                Place::Guest(name) => crate::tables::guest::lost(name),
                _ => String::new(),
            });
        };
        match &scene.thing {
            Subject::Cluster | Subject::Round(_) => Some(String::new()),
            Subject::Guest(name, guest) => crate::tables::guest::result(&scene, name, guest),
            Subject::Test(entry) => crate::tables::test::outcome(entry),
            Subject::Server(s) if crate::tables::server::is_idle(&scene, s) => {
                Some(crate::tables::server::outcomes(&scene, s))
            }
            Subject::Config(c) if c.record.job.is_none() => Some(crate::tables::config::outcome(c)),
            Subject::Domain(d) if d.domain.job.is_none() => Some(crate::tables::domain::outcome(d)),
            _ => None,
        }
    }
}

/// One line of a reply: what is true now, or which job goes on.
fn answered(reply: Reply) -> Result<String, Failure> {
    match reply.answer {
        Answer::Done { text } => Ok(text.into()),
        Answer::Accepted => Ok(format!("accepted as job {}", reply.id)),
        Answer::Failed { failure } => Err(failure),
        Answer::Working => Err(Failure::new(Code::TimedOut, "the agent works on it still".to_owned())),
    }
}

fn checked(line: &[u8], most: usize) -> Result<&str, Failure> {
    if line.len() > most {
        let n = line.len();
        return Err(Failure::invalid(format!("cannot run a line of {n} bytes: at most {most} are taken")));
    }
    let text = std::str::from_utf8(line).map_err(|e| {
        let shown = quote(&String::from_utf8_lossy(line));
        Failure::invalid(format!("cannot run {shown}: byte {} is not UTF-8", e.valid_up_to()))
    })?;
    if text.contains('\0') {
        return Err(Failure::invalid(format!("cannot run {}: it holds a NUL byte", quote(text))));
    }
    Ok(text)
}

fn gone(place: &Place) -> Failure {
    Failure::no_entry(format!("{} is not there any more", place.path()))
}
