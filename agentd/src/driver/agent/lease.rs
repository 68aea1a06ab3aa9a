//! A second lease for a migration. A domain that was made from a config uses its volumes by exports that only its server may use, so
//! before it leaves, imaged lends them to the destination under other names.
//!
//! ```text
//!   begin ─▶ lease ── lent ─▶ begin (where it comes from is written down) ─▶ copy ...
//!              ├── refused, imaged is away, no answer in time: failed, nothing has changed
//!              └── cancel: ended, nothing has changed
//! ```
//!
//! imaged takes a lease back that was lent for nothing: it hears how the job ended.

use super::{Agent, jobs::Stage};
use crate::driver::step::{Effect, Id, Op};
use xvm_model::{Code, Domain, DomainName, DomainSettings, Failure, Grant, ServerName};

impl Agent {
    /// Asks for it. The job's id is `job`.
    pub(super) fn ask_lease(&mut self, domain: &Domain, grant: &Grant, to: &ServerName, job: &str) -> Id {
        let (op, name, config) = (self.next_id(), domain.name.clone(), grant.config.clone());
        self.out.push(Effect::Lend { op, name, config, to: to.clone(), job: job.into() });
        op
    }

    /// imaged has answered, or has not.
    pub(super) fn lent(&mut self, op: Id, name: &DomainName, result: Result<Box<Grant>, Failure>) {
        let active = self.records.get(name).is_some_and(|d| d.state.is_active());
        let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) else { return };
        let Stage::Leasing { op: own, way, came, must } = &mut run.stage else { return };
        if *own != op {
            return;
        }
        let to = run.job.to.clone().unwrap_or_else(|| self.me.name.clone());
        let what = format!("cannot migrate {name} to {to}: ");
        // imaged may have said so already
        let cannot =
            |code, why: &str| Failure::new(code, format!("{what}{}", why.strip_prefix(&what).unwrap_or(why)));
        let settings = &run.held.settings;
        let grant = result.map_err(|f| cannot(f.code, &f.text)).and_then(|grant| {
            if !active {
                return Err(cannot(Code::Busy, "it does not run any more"));
            }
            fits(settings.grant.as_deref(), &grant, &to).map_err(|why| cannot(Code::Io, why)).map(|()| grant)
        });
        let grant = match grant {
            Ok(grant) => Some(grant),
            Err(failure) => return self.end_job(name, Err(failure)),
        };
        let settings = DomainSettings { came: Some(came.clone()), ..settings.clone() };
        let (way, must) = (way.clone(), *must);
        let op = self.begin(name, Op::Set(settings));
        if let Some(run) = self.works.get_mut(name).and_then(|w| w.job.as_mut()) {
            run.stage = Stage::Marking { op, way, grant, must, cancelled: false };
            run.job.phase = "begin".into();
        }
        self.publish_domain(name);
    }
}

/// Whether a new lease is one of the same volumes, and for the destination.
fn fits(old: Option<&Grant>, new: &Grant, to: &ServerName) -> Result<(), &'static str> {
    new.check().map_err(|_| "imaged lent exports with wrong names")?;
    let old = old.ok_or("it has lost its own lease")?;
    let volumes =
        |g: &Grant| g.disks.iter().map(|d| (d.target.clone(), d.volume.clone())).collect::<Vec<_>>();
    if new.config != old.config || new.server != *to || new.epoch <= old.epoch || volumes(new) != volumes(old)
    {
        return Err("imaged lent another lease than the one that was asked for");
    }
    Ok(())
}
