//! Why a domain is not as it should be, and what to do about it, in sentences.

use crate::row::{Scene, seconds};
use std::fmt::Display;
use xvm_model::config::Restart;
use xvm_model::view::{Reach, Shown};
use xvm_model::{DomainView, Now, ServerName};

/// What is wrong with a domain; none when all is well.
pub fn of(scene: &Scene<'_>, d: &DomainView) -> Option<String> {
    match d.shown {
        Shown::Conflict => Some(conflict(d)),
        Shown::Unknown => unknown(scene, d),
        Shown::Known(_) => d.domain.reason.as_deref().map(str::to_owned),
    }
}

/// More than one server says that it runs a domain.
pub fn conflict(d: &DomainView) -> String {
    let servers: Vec<&str> = d.claimed_by.iter().map(ServerName::as_str).collect();
    format!(
        "{} all say that it runs there; stop it by hand where it should not (virsh destroy)",
        servers.join(" and ")
    )
}

/// A daemon is down.
pub fn down(who: impl Display, heard: Now, now: Now) -> String {
    format!("{who} is down, last heard {} s ago", seconds(now.mono.since(heard.mono)))
}

/// A domain's server is down: nobody can tell whether it runs.
fn unknown(scene: &Scene<'_>, d: &DomainView) -> Option<String> {
    let server = scene.view.server(d.server.as_str())?;
    let mut text = down(&server.name, server.heard, scene.now);
    if let Some(to) = d.domain.job.as_ref().and_then(|job| job.to.as_ref()) {
        // were it seen there, it would be shown there
        let there =
            scene.view.server(to.as_str()).is_some_and(|s| scene.view.reach(s, scene.now.mono) == Reach::Up);
        let which = if there { "which does not run it" } else { "which is not heard either" };
        text += &format!("; it was on its way to {to}, {which}");
    }
    // imaged takes the disk of one made from a config away first, and may do so when it is told to
    let name = &d.domain.name;
    text += &match scene.view.config(name.as_str()).map(|c| c.record.config.restart) {
        Some(Restart::Always) => "; it is started elsewhere when it has no disk there any more".into(),
        Some(Restart::Never) => format!("; to have it run elsewhere: echo always > configs/{name}/restart"),
        None => format!("; before it is run elsewhere, {} must be without power for certain", d.server),
    };
    Some(text)
}
