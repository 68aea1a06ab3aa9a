//! libvirt's statistics as xvm's [`Domain`] records, with loads from two samples.

use super::{
    between::Between,
    cpus::CpuList,
    drivers::Driver,
    fault,
    fields::{self, Devices},
    raw::{self, Record, num, text},
    settings, state,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;
use virt::{
    connect::Connect,
    domain::Domain as Handle,
    error::{Error, ErrorNumber},
    sys,
};
use xvm_model::{Disk, Domain, DomainMemory, DomainName, DomainSettings, DomainState, Nic, Ratio, Vcpu};

/// Two samples nearer than this give no load of their own: the one before stands.
const NEAR: Duration = Duration::from_millis(200);

/// What is remembered of one domain.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// When `times` was read.
    at: Option<Instant>,
    /// Nanoseconds that each vCPU had run.
    times: Vec<u64>,
    /// The load of each vCPU between the last two samples.
    loads: Vec<Ratio>,
    /// What users set; none when it must be read again.
    settings: Option<DomainSettings>,
    /// Disks and interfaces, where they must be asked one by one; none when they must be read again.
    devices: Option<Devices>,
    /// What is kept for the moments in which a busy domain tells less.
    last: Option<Domain>,
    /// It is off though it should not be.
    between: Between,
    /// Counts the news of the domain: what was read before the last of them is not kept.
    news: u64,
}

/// Reads domains; remembers what a load needs, and what need not be asked each second.
pub struct Sampler {
    driver: &'static Driver,
    /// The CPUs that are shown; none for all.
    list: Option<CpuList>,
    /// Never locked during a call to libvirt: libvirt's callbacks come here.
    seen: Mutex<HashMap<Uuid, Seen>>,
    /// Names that were refused and warned of.
    warned: Mutex<HashSet<String>>,
}

impl Sampler {
    /// Nothing is remembered yet.
    pub fn new(driver: &'static Driver, list: Option<CpuList>) -> Self {
        Sampler { driver, list, seen: Mutex::default(), warned: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A domain changed: its settings and devices are read again.
    pub fn forget(&self, uuid: Uuid) {
        if let Some(seen) = self.lock().get_mut(&uuid) {
            (seen.settings, seen.devices) = (None, None);
            seen.news += 1;
        }
    }

    /// Nobody listened for a while: everything is read again.
    pub fn forget_all(&self) {
        for seen in self.lock().values_mut() {
            (seen.settings, seen.devices) = (None, None);
            seen.news += 1;
        }
    }

    /// All domains, with the loads since the call before; and those that are the machine itself.
    pub fn all(&self, conn: &Connect) -> Result<(Vec<Domain>, Vec<Domain>), Error> {
        (self.driver.sweep)();
        let records = if self.driver.bulk { fields::bulk(conn, None) } else { fields::bare(conn, None) }?;
        let there: HashSet<Uuid> = records.iter().map(|r| r.uuid).collect();
        self.lock().retain(|uuid, _| there.contains(uuid));
        let (mut out, mut own) = (Vec::with_capacity(records.len()), Vec::new());
        for record in records {
            let list = if self.is_own(&record.name) { &mut own } else { &mut out };
            match self.read(record, true) {
                Ok(Some(domain)) => list.push(domain),
                Ok(None) => {}
                Err(e) if gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((out, own))
    }

    /// One domain by its handle, with the numbers of the last [`Sampler::all`] where it runs on: its state alone is one short call,
    /// all of it asks the hypervisor's own process, which may take its time.
    pub fn one(&self, conn: &Connect, handle: &Handle) -> Result<Option<Domain>, Error> {
        if handle.name().is_ok_and(|name| self.is_own(&name)) {
            return Ok(None);
        }
        match self.quick(handle) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(e) if gone(&e) => return Ok(None),
            Err(e) => return Err(e),
        }
        let records = if self.driver.bulk {
            fields::bulk(conn, Some(handle))
        } else {
            fields::bare(conn, Some(handle))
        };
        match records.map(|r| r.into_iter().next()) {
            Ok(Some(record)) => {
                self.read(record, false).or_else(|e| if gone(&e) { Ok(None) } else { Err(e) })
            }
            Ok(None) => Ok(None),
            Err(e) if gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn quick(&self, handle: &Handle) -> Result<Option<Domain>, Error> {
        let known = |s: &Seen| s.last.clone().filter(|_| s.settings.is_some());
        let Some(mut domain) = self.lock().get(&handle.uuid()?).and_then(known) else { return Ok(None) };
        let (raw_state, reason) = raw::state(handle)?;
        let (word, why) = state::word(raw_state, reason);
        if !word.is_active() || state::migrating(raw_state, reason) {
            return Ok(None);
        }
        (domain.state, domain.reason) = (word, why.map(Into::into));
        if word != DomainState::Running {
            domain.vcpus.iter_mut().for_each(|v| v.cpu = None);
        }
        Ok(Some(domain))
    }

    fn read(&self, mut record: Record, loads: bool) -> Result<Option<Domain>, Error> {
        let Some(name) = self.name(&record.name) else { return Ok(None) };
        let mut seen = self.lock().get(&record.uuid).cloned().unwrap_or_default();
        let (before, mut fixed) = (seen.news, None);
        if !self.driver.bulk {
            let devices = match seen.devices.take() {
                Some(devices) => devices,
                None => fields::devices(&record.domain, self.driver)?,
            };
            fields::fill(&mut record, &devices, self.driver)?;
            fixed = devices.fixed;
            seen.devices = Some(devices);
        }
        let at = Instant::now();
        let mut domain = Domain::new(name, record.uuid);
        domain.fixed = fixed.map(Into::into);
        let f = &record.fields;
        let (raw_state, reason) = match (num(f, "state.state"), num(f, "state.reason")) {
            (Some(s), r) => (s as u32, r.unwrap_or(0) as u32),
            (None, _) => raw::state(&record.domain)?,
        };
        let (word, why) = state::word(raw_state, reason);
        (domain.state, domain.reason) = (word, why.map(Into::into));
        if state::migrating(raw_state, reason) && arrives(&record.domain) {
            (domain.state, domain.reason) = (DomainState::Incoming, None);
        }
        match self.driver.between {
            Some(has) if !domain.state.is_active() && !record.domain.is_persistent()? => {
                if self.between(has, &record.domain, &mut domain, &mut seen, at) {
                    return Ok(None);
                }
            }
            _ => seen.between = Between::default(),
        }
        domain.settings = match seen.settings.take() {
            Some(settings) => settings,
            None => match settings::read(&record.domain)?.or_else(|| kept(&domain, &seen)) {
                Some(settings) => settings,
                None => {
                    self.lock().entry(record.uuid).or_default().between = seen.between;
                    return Ok(None);
                }
            },
        };
        seen.settings = Some(domain.settings.clone());
        let last = seen.last.take();
        domain.memory = memory(&record, last.as_ref());
        (domain.disks, domain.nics) = (disks(&record, last.as_ref()), nics(&record, last.as_ref()));
        let on = domain.state.is_active();
        vcpus(&record, &mut domain, &mut seen, on, loads.then_some(at));
        if let Some(list) = &self.list {
            domain.vcpus.iter_mut().for_each(|v| v.cpu = v.cpu.and_then(|cpu| list.place(cpu)));
        }
        domain.load = Ratio::mean(domain.vcpus.iter().map(|v| v.load));
        seen.last = if seen.between.is() { last } else { on.then(|| domain.clone()) };
        let mut all = self.lock();
        let place = all.entry(record.uuid).or_default();
        if place.news != before {
            (seen.settings, seen.devices, seen.news) = (None, None, place.news);
        }
        *place = seen;
        Ok(Some(domain))
    }

    /// A domain that is off, and would be gone if it were over; true when libvirt has forgotten it now.
    fn between(
        &self,
        has: fn(&str) -> bool,
        handle: &Handle,
        domain: &mut Domain,
        seen: &mut Seen,
        now: Instant,
    ) -> bool {
        let (state, why) = seen.between.look(seen.last.is_some(), || has(domain.name.as_str()), now);
        (domain.state, domain.reason) = (state, why.map(Into::into));
        if state != DomainState::Shutoff || !seen.between.is_over(now) {
            return false;
        }
        let (name, forgotten) = (&domain.name, (self.driver.forget)(handle));
        match &forgotten {
            Ok(()) => tracing::warn!(%name, "libvirt has forgotten what a migration that broke off has left"),
            Err(error) => {
                let error = fault::line(error);
                tracing::warn!(%name, error, "libvirt does not forget what a migration that broke off has left");
                seen.between.stays();
            }
        }
        forgotten.is_ok()
    }

    /// Whether it is the machine itself.
    fn is_own(&self, name: &str) -> bool {
        self.driver.own.contains(&name)
    }

    /// The name, unless it is one that the model refuses.
    fn name(&self, text: &str) -> Option<DomainName> {
        match DomainName::parse(text) {
            Ok(name) => Some(name),
            Err(e) => {
                let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
                if warned.len() < 1000 && warned.insert(text.to_owned()) {
                    tracing::warn!("a domain is left out: {e}");
                }
                None
            }
        }
    }
}

/// The settings of a domain that is off and does not tell them: it starts anew, or is what is left of one.
fn kept(domain: &Domain, seen: &Seen) -> Option<DomainSettings> {
    let left = || (domain.state == DomainState::Shutoff).then(DomainSettings::default);
    seen.between.is().then_some(())?;
    seen.last.as_ref().map(|d| d.settings.clone()).or_else(left)
}

/// Whether the domain went away between two calls.
fn gone(e: &Error) -> bool {
    e.code().is_known_and(|c| c == ErrorNumber::NoDomain)
}

/// Whether a domain that stands for a migration comes here. Of one that leaves libvirt tells the job; of one that comes it refuses to
/// ("migration statistics are available only on the source host", OPERATION_UNSUPPORTED since libvirt 8, OPERATION_INVALID before).
fn arrives(handle: &Handle) -> bool {
    match raw::job(handle, false) {
        Ok((sys::VIR_DOMAIN_JOB_NONE, _)) => false,
        Ok((_, job)) => num(&job, "operation") == Some(u64::from(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN)),
        Err(e) => e
            .code()
            .is_known_and(|c| matches!(c, ErrorNumber::OperationInvalid | ErrorNumber::OperationUnsupported)),
    }
}

fn memory(record: &Record, last: Option<&Domain>) -> DomainMemory {
    let f = &record.fields;
    let old = last.map(|d| d.memory).unwrap_or_default();
    let max = num(f, "balloon.maximum").unwrap_or(old.max);
    DomainMemory {
        max,
        current: num(f, "balloon.current").filter(|&n| n > 0).unwrap_or(if old.current > 0 {
            old.current
        } else {
            max
        }),
        resident: num(f, "balloon.rss").filter(|&n| n > 0),
    }
}

fn disks(record: &Record, last: Option<&Domain>) -> Vec<Disk> {
    let f = &record.fields;
    let Some(count) = num(f, "block.count") else {
        return last.map(|d| d.disks.clone()).unwrap_or_default();
    };
    let mut out: Vec<Disk> = Vec::new();
    for i in 0..count.min(1000) {
        let Some(name) = text(f, &format!("block.{i}.name")) else { continue };
        let old = last.and_then(|d| d.disks.iter().find(|o| &*o.name == name));
        let get = |key: &str| num(f, &format!("block.{i}.{key}"));
        if out.iter().any(|d| &*d.name == name) {
            continue; // a backing file of the same disk
        }
        out.push(Disk {
            name: name.into(),
            read: get("rd.bytes").or(old.map(|o| o.read)).unwrap_or(0),
            written: get("wr.bytes").or(old.map(|o| o.written)).unwrap_or(0),
            capacity: get("capacity").or(old.and_then(|o| o.capacity)),
        });
    }
    out
}

fn nics(record: &Record, last: Option<&Domain>) -> Vec<Nic> {
    let f = &record.fields;
    let Some(count) = num(f, "net.count") else {
        return last.map(|d| d.nics.clone()).unwrap_or_default();
    };
    let nic = |i: u64| {
        let name = text(f, &format!("net.{i}.name"))?;
        let get = |key: &str| num(f, &format!("net.{i}.{key}")).unwrap_or(0);
        Some(Nic { name: name.into(), received: get("rx.bytes"), sent: get("tx.bytes") })
    };
    (0..count.min(1000)).filter_map(nic).collect()
}

/// Fills in the vCPUs: their loads since the sample before when `at` is given, and where they ran.
fn vcpus(record: &Record, domain: &mut Domain, seen: &mut Seen, on: bool, at: Option<Instant>) {
    let f = &record.fields;
    let count = num(f, "vcpu.current").unwrap_or(domain.vcpus.len() as u64).clamp(1, 4096) as usize;
    domain.vcpus = vec![Vcpu { load: Ratio::ZERO, cpu: None }; count];
    if !on {
        (seen.at, seen.times, seen.loads) = (None, Vec::new(), Vec::new());
        return;
    }
    let info = raw::vcpus(&record.domain, count as u32).unwrap_or_default();
    for v in &info {
        if let Some(vcpu) = domain.vcpus.get_mut(v.number as usize) {
            vcpu.cpu = v.cpu.filter(|_| domain.state == DomainState::Running);
        }
    }
    let share = num(f, "cpu.time").unwrap_or(0) / count as u64;
    let time = |i: usize| {
        let told = num(f, &format!("vcpu.{i}.time"));
        told.or(info.iter().find(|v| v.number as usize == i).map(|v| v.time)).unwrap_or(share)
    };
    if let Some(at) = at
        && seen.at.is_none_or(|before| at.duration_since(before) >= NEAR)
    {
        let times: Vec<u64> = (0..count).map(time).collect();
        seen.loads = match seen.at {
            Some(before) => shares(&seen.times, &times, at.duration_since(before)),
            None => vec![Ratio::ZERO; count],
        };
        (seen.at, seen.times) = (Some(at), times);
    }
    for (vcpu, load) in domain.vcpus.iter_mut().zip(&seen.loads) {
        vcpu.load = *load;
    }
}

/// The shares of `time` between two readings; a counter that went back (a new start) or has no reading before gives 0.
fn shares(before: &[u64], after: &[u64], time: Duration) -> Vec<Ratio> {
    let share = |(i, now): (usize, &u64)| match before.get(i) {
        Some(then) if now >= then && !time.is_zero() => {
            Ratio::new((now - then) as f64 / time.as_nanos() as f64)
        }
        _ => Ratio::ZERO,
    };
    after.iter().enumerate().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_survive_a_counter_that_goes_back() {
        let second = Duration::from_secs(1);
        let got = shares(&[1_000_000_000, 9, 0], &[1_500_000_000, 3, 5_000_000_000, 7], second);
        assert_eq!(got, [Ratio::new(0.5), Ratio::ZERO, Ratio::ONE, Ratio::ZERO]);
        assert_eq!(shares(&[1], &[2], Duration::ZERO), [Ratio::ZERO]);
    }
}
