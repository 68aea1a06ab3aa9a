//! The machine's own load and memory.
//!
//! The load of each CPU comes from the first of these that answers: a file that the user named, libvirt's node statistics, and what
//! the vCPUs of all domains used where they ran. On Xen the machine's own /proc/stat would tell of the first domain alone; that is one of
//! the domains, and counts.

use super::{
    cpus::CpuList,
    drivers::Driver,
    fault,
    raw::{self, Fields, num},
    xml,
};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use virt::{connect::Connect, error::Error};
use xvm_model::{Cpu, Domain, Ratio, ServerMemory};

const NEAR: Duration = Duration::from_millis(200);

/// A CPU's time so far, in any unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    busy: u64,
    all: u64,
}

/// What is remembered between two calls.
#[derive(Default)]
struct Seen {
    at: Option<Instant>,
    times: Vec<Times>,
    loads: Vec<Ratio>,
    /// There are no node statistics.
    none: bool,
}

/// Reads the machine.
pub struct Meter {
    /// Where CPU times come from, when not from libvirt.
    file: Option<PathBuf>,
    /// The CPUs that are shown; none for all.
    list: Option<CpuList>,
    seen: Mutex<Seen>,
    /// Which processors these are, once libvirt told.
    model: Mutex<Option<Cpu>>,
}

impl Meter {
    /// With `file`, CPU times come from there: in the form of /proc/stat, or of a cgroup's cpuacct.usage_percpu. With `list`, other
    /// CPUs are left out.
    pub fn new(file: Option<PathBuf>, list: Option<CpuList>, driver: &Driver) -> Self {
        Meter {
            file,
            list,
            seen: Mutex::new(Seen { none: !driver.node, ..Seen::default() }),
            model: Mutex::default(),
        }
    }

    /// The load of each CPU since the call before; `domains` are all of the last sample, the machine's own too.
    pub fn cpus(&self, conn: &Connect, domains: &[Domain]) -> Result<Vec<Ratio>, Error> {
        let start = Instant::now();
        let none = self.seen.lock().unwrap_or_else(PoisonError::into_inner).none;
        let count = conn.node_info()?.cpus.clamp(1, 8192);
        let times = match &self.file {
            Some(file) => read(file, start),
            None if none => None,
            None => (0..count).map(|cpu| raw::node_cpu(conn, cpu).ok().as_ref().and_then(node)).collect(),
        };
        let (count, times) = match &self.list {
            Some(list) => (list.of(0..count as usize).count(), times.map(|t| list.of(t).collect())),
            None => (count as usize, times),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = times else {
            seen.none = self.file.is_none();
            return Ok(guess(count, domains));
        };
        let near = seen.at.is_some_and(|at| start.duration_since(at) < NEAR);
        if !near || seen.loads.len() != times.len() {
            let before = std::mem::take(&mut seen.times);
            seen.loads = times.iter().enumerate().map(|(i, t)| share(before.get(i), t)).collect();
            (seen.at, seen.times) = (Some(start), times);
        }
        Ok(seen.loads.clone())
    }

    /// Asks which processors the machine has. libvirt may try out each emulator before it answers.
    pub fn learn(&self, conn: &Connect) {
        let known = conn.capabilities().map_err(|e| fault::line(&e)).and_then(|xml| processors(&xml));
        match known {
            Ok(cpu) => *self.model.lock().unwrap_or_else(PoisonError::into_inner) = Some(cpu),
            Err(why) => tracing::warn!("libvirt does not tell which processors this server has: {why}"),
        }
    }

    /// Which processors these are, where that is known.
    pub fn model(&self) -> Option<Cpu> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The machine's processors in libvirt's capabilities.
fn processors(capabilities: &str) -> Result<Cpu, String> {
    let host = capabilities.split("</host>").next().unwrap_or_default();
    let cpu = host.split_once("<cpu>").map_or("", |(_, cpu)| cpu);
    let arch = xml::text(cpu, "arch").ok_or("its capabilities name no architecture")?;
    Cpu::new(arch, xml::text(cpu, "model").unwrap_or_default())
}

/// What a new domain could take is what is free or only caches files.
pub fn memory(conn: &Connect, driver: &Driver) -> Result<ServerMemory, Error> {
    if driver.node
        && let Ok(f) = raw::node_memory(conn)
        && let Some(total) = num(&f, "total")
    {
        let get = |name| num(&f, name).unwrap_or(0);
        let free = get("free").saturating_add(get("buffers")).saturating_add(get("cached"));
        return Ok(ServerMemory { total, free: free.min(total) });
    }
    let total = conn.node_info()?.memory;
    Ok(ServerMemory { total, free: conn.free_memory().map_or(0, |bytes| bytes / 1024).min(total) })
}

fn share(before: Option<&Times>, now: &Times) -> Ratio {
    match before {
        Some(b) if now.all > b.all && now.busy >= b.busy => {
            Ratio::new((now.busy - b.busy) as f64 / (now.all - b.all) as f64)
        }
        _ => Ratio::ZERO,
    }
}

fn node(f: &Fields) -> Option<Times> {
    let get = |name| num(f, name).unwrap_or(0);
    let busy = get("kernel") + get("user") + get("intr");
    let all = busy + num(f, "idle")? + get("iowait");
    Some(Times { busy, all })
}

fn read(file: &Path, now: Instant) -> Option<Vec<Times>> {
    parse(&std::fs::read_to_string(file).ok()?, now)
}

fn parse(text: &str, now: Instant) -> Option<Vec<Times>> {
    let numbers =
        |words: &str| -> Option<Vec<u64>> { words.split_whitespace().map(|w| w.parse().ok()).collect() };
    let percpu = text.trim();
    if percpu.starts_with(|c: char| c.is_ascii_digit()) {
        // busy nanoseconds only: the clock is the other half
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let all = now.saturating_duration_since(*START.get_or_init(|| now)).as_nanos() as u64;
        return Some(numbers(percpu)?.into_iter().map(|busy| Times { busy, all }).collect());
    }
    let mut out = Vec::new();
    for line in text.lines() {
        let Some((cpu, rest)) = line.split_once(' ') else { continue };
        if cpu.len() > 3 && cpu.starts_with("cpu") {
            let n = numbers(rest)?;
            // user nice system idle iowait irq softirq steal; guest time is part of user
            let all: u64 = n.iter().take(8).sum();
            let idle = n.get(3)? + n.get(4).copied().unwrap_or(0);
            out.push(Times { busy: all.saturating_sub(idle), all });
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The loads of the domains' vCPUs, added up where they ran; those of which nobody knows where are spread evenly.
fn guess(count: usize, domains: &[Domain]) -> Vec<Ratio> {
    let mut sums = vec![0.0; count];
    for vcpu in domains.iter().flat_map(|d| &d.vcpus) {
        match vcpu.cpu.and_then(|cpu| sums.get_mut(usize::from(cpu))) {
            Some(sum) => *sum += vcpu.load.get(),
            None => sums.iter_mut().for_each(|s| *s += vcpu.load.get() / count as f64),
        }
    }
    sums.into_iter().map(Ratio::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use xvm_model::{DomainName, Vcpu};

    #[test]
    fn both_forms_of_the_file() {
        let now = Instant::now();
        let stat = "cpu  9 9 9 9\ncpu0 10 0 10 70 10 0 0 0 5 0\ncpu1 0 0 0 100 0 0 0 0\nintr 5\n";
        let want = [Times { busy: 20, all: 100 }, Times { busy: 0, all: 100 }];
        assert_eq!(parse(stat, now).as_deref(), Some(&want[..]));
        let percpu = parse("500 700 \n", now).expect("numbers");
        assert_eq!(percpu.iter().map(|t| t.busy).collect::<Vec<_>>(), [500, 700]);
        assert_eq!(parse("nonsense", now), None);
        assert_eq!(share(Some(&want[1]), &Times { busy: 50, all: 200 }), Ratio::new(0.5));
        assert_eq!(share(Some(&want[0]), &want[1]), Ratio::ZERO);
    }

    #[test]
    fn which_processors_these_are() {
        let host = |cpu: &str| {
            format!(
                "<capabilities>\n<host><uuid>1</uuid>{cpu}</host><guest><arch name='i686'/></guest></capabilities>"
            )
        };
        let read = |cpu: &str| processors(&host(cpu)).map(|cpu| cpu.to_string());
        let whole = "<cpu><arch>x86_64</arch><model>EPYC-Rome</model><vendor>AMD</vendor></cpu>";
        assert_eq!(read(whole), Ok("x86_64/EPYC-Rome".into()));
        assert_eq!(read("<cpu><arch>x86_64</arch></cpu>"), Ok("x86_64/-".into()));
        assert!(read("").is_err() && processors("").is_err());
        assert!(read("<cpu><arch>x 86</arch></cpu>").is_err());
    }

    #[test]
    fn a_guess_from_the_domains() {
        let mut d = Domain::new(DomainName::parse("a").expect("valid"), Uuid::nil());
        let v = |load, cpu| Vcpu { load: Ratio::new(load), cpu };
        d.vcpus = vec![v(0.5, Some(1)), v(0.8, Some(1)), v(0.4, None)];
        assert_eq!(guess(2, &[d]), [Ratio::new(0.2), Ratio::ONE]);
    }
}
