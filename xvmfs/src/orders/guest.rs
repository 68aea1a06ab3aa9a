//! Orders to guestd. Which tests there are, the guest knows; here only whether it is heard.

use super::answered;
use crate::cluster::Cluster;
use crate::row::{Scene, seconds};
use std::sync::Arc;
use xvm_model::guest::TEXT_MAX;
use xvm_model::outbox::Addressee;
use xvm_model::{Code, DomainCommand, DomainName, Failure, Guest, GuestCommand, Order, Reach};

impl Cluster {
    /// Sends a command to the guestd of a domain, and waits for its answer within the bound of every order.
    pub(crate) async fn order_guest(
        &self,
        name: &DomainName,
        command: GuestCommand,
    ) -> Result<String, Failure> {
        let order = Order::Guest { name: name.clone(), command };
        let guest = self.heard_guest(name, &order.what())?;
        let (to, heard) = (Addressee::Guest(name.clone()), (guest.at, guest.heard.mono));
        let reply = self.client().order(to, guest.stamp.boot, heard, order).await;
        reply.and_then(answered).map(|text| said(&text)).map_err(|f| Failure::new(f.code, said(&f.text)))
    }

    /// Orders a test; the answer is its id among the tests of the guest.
    pub(crate) async fn run_in_guest(&self, name: &DomainName, line: &str) -> Result<Box<str>, Failure> {
        let command = GuestCommand::Run { line: line.into() };
        let order = Order::Guest { name: name.clone(), command };
        let guest = self.heard_guest(name, &order.what())?;
        let (to, heard) = (Addressee::Guest(name.clone()), (guest.at, guest.heard.mono));
        let reply = self.client().order(to, guest.stamp.boot, heard, order).await;
        let reply = reply.map_err(|f| Failure::new(f.code, said(&f.text)))?;
        let id = reply.id.clone();
        answered(reply).map(|_| id).map_err(|f| Failure::new(f.code, said(&f.text)))
    }

    /// The guestd of a domain of which `what` is wanted. EHOSTDOWN when three of its heartbeats are missing: a paused domain answers
    /// nobody.
    pub(crate) fn heard_guest(&self, name: &DomainName, what: &str) -> Result<Arc<Guest>, Failure> {
        self.linked()?;
        let (view, now) = (self.view(), self.now());
        let down = |more: &str| {
            Failure::new(Code::HostDown, format!("cannot {what}: its guestd is not heard{more}"))
        };
        let Some(guest) = view.guest(name.as_str(), now.mono) else { return Err(down("")) };
        if view.guest_reach(guest, now.mono) != Reach::Up {
            let age = seconds(now.mono.since(guest.heard.mono));
            return Err(down(&format!(", last {age} s ago")));
        }
        Ok(guest.clone())
    }
}

/// A guest's sentence, as one line of bounded length.
fn said(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What a command to a domain is for its guest, when that can carry it out and is heard; else it is its server's.
pub(super) fn instead(scene: &Scene, command: &DomainCommand) -> Option<GuestCommand> {
    let DomainCommand::Load { share, seconds } = *command else { return None };
    let guest = scene.view.guest(scene.domain()?.domain.name.as_str(), scene.now.mono)?;
    let up = scene.view.guest_reach(guest, scene.now.mono) == Reach::Up;
    up.then_some(GuestCommand::Load { share, seconds })
}
