//! The processes of the guest, the busiest first.
//!
//! Each sample reads one small file of each process; names and command lines only of those that are told.

use crate::machine;
use crate::machine::cpu::CpuTimes;
use crate::machine::process::{Stat, command, parse_passwd, parse_stat, parse_uid};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;
use xvm_model::guest::{PROCESSES_MAX, Process};
use xvm_model::{Ratio, Top, Wall};

/// Looks at the processes from time to time, and remembers how much CPU time each had used.
#[derive(Debug)]
pub struct Sampler {
    proc: PathBuf,
    passwd: PathBuf,
    /// When the last sample was taken, and what it saw.
    last: Option<(Instant, Seen)>,
}

/// What one sample saw.
#[derive(Debug, Default)]
struct Seen {
    /// The CPUs' time.
    cpus: CpuTimes,
    /// CPU time by a process's number and beginning, in clock ticks.
    ticks: HashMap<(u32, u64), u64>,
}

impl Sampler {
    /// For the machine whose `/proc` and `/etc/passwd` these are.
    pub fn new(proc: impl Into<PathBuf>, passwd: impl Into<PathBuf>) -> Self {
        Sampler { proc: proc.into(), passwd: passwd.into(), last: None }
    }

    /// The processes now, with the CPU time that they used since the last sample, none in the first; it may take milliseconds.
    pub fn sample(&mut self, at: Wall) -> Top {
        let now = Instant::now();
        let (seen, stats, cpus) = self.look();
        let (past, before) = match self.last.take() {
            Some((then, before)) => (now.duration_since(then).as_secs_f64(), before),
            None => (0.0, Seen { cpus: seen.cpus, ticks: seen.ticks.clone() }),
        };
        let top = Top {
            at,
            cpus,
            load: if past > 0.0 { seen.cpus.load_since(before.cpus) } else { Ratio::ZERO },
            total: u32::try_from(stats.len()).unwrap_or(u32::MAX),
            processes: self.rows(stats, &before, past),
        };
        self.last = Some((now, seen));
        top
    }

    /// All processes. One that ends meanwhile is left out.
    fn look(&self) -> (Seen, Vec<(u32, Stat)>, u16) {
        let mut stats = Vec::new();
        for entry in std::fs::read_dir(&self.proc).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let stat = std::fs::read(entry.path().join("stat")).ok().and_then(|b| parse_stat(&b));
            stats.extend(stat.map(|s| (pid, s)));
        }
        let (times, cpus) = machine::cpus(&self.proc).unwrap_or((CpuTimes::default(), 1));
        let ticks = stats.iter().map(|(pid, s)| ((*pid, s.began), s.ticks)).collect();
        (Seen { cpus: times, ticks }, stats, cpus)
    }

    fn rows(&self, stats: Vec<(u32, Stat)>, before: &Seen, past: f64) -> Vec<Process> {
        let hertz = rustix::param::clock_ticks_per_second().max(1);
        let users = parse_passwd(&std::fs::read_to_string(&self.passwd).unwrap_or_default());
        let mut rows: Vec<(u32, u32, Stat)> = stats
            .into_iter()
            .map(|(pid, stat)| {
                // what began since the last look has used all of its time since then
                let used =
                    stat.ticks.saturating_sub(before.ticks.get(&(pid, stat.began)).copied().unwrap_or(0));
                (hundredths(used, hertz, past), pid, stat)
            })
            .collect();
        rows.sort_by(|a, b| (b.0, b.2.pages, a.1).cmp(&(a.0, a.2.pages, b.1)));
        let rows = rows.into_iter().filter_map(|(cpu, pid, stat)| {
            let of = |file: &str| std::fs::read(self.proc.join(pid.to_string()).join(file)).ok();
            let uid = parse_uid(&String::from_utf8_lossy(&of("status")?))?;
            let line = if stat.kernel { Vec::new() } else { of("cmdline")? };
            Some(Process {
                pid,
                user: users.get(&uid).cloned().unwrap_or_else(|| uid.to_string().into()),
                cpu,
                memory: stat.pages.saturating_mul(rustix::param::page_size() as u64 / 1024),
                time_ms: stat.ticks.saturating_mul(1000) / hertz,
                command: command(&line, &stat.name),
            })
        });
        rows.take(PROCESSES_MAX).collect()
    }
}

/// So many ticks in so many seconds, as hundredths of one CPU.
fn hundredths(ticks: u64, hertz: u64, past: f64) -> u32 {
    if past <= 0.0 { 0 } else { (ticks as f64 / hertz as f64 / past * 100.0).round() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn process(proc: &Path, pid: u32, name: &str, ticks: u64, pages: u64) {
        let dir = proc.join(pid.to_string());
        std::fs::create_dir_all(&dir).expect("a folder");
        let stat =
            format!("{pid} ({name}) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 77 1000 {pages} 0 0 0\n");
        std::fs::write(dir.join("stat"), stat).expect("written");
        std::fs::write(dir.join("status"), "Uid:\t0\t0\t0\t0\n").expect("written");
        std::fs::write(dir.join("cmdline"), format!("/bin/{name}\0-x\0")).expect("written");
    }

    #[test]
    fn the_busiest_come_first_then_the_largest() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let passwd = dir.path().join("passwd");
        std::fs::write(&passwd, "root:x:0:0::/:\n").expect("written");
        (1..100).for_each(|pid| process(dir.path(), pid, "idle", 500, u64::from(pid)));
        let mut sampler = Sampler::new(dir.path(), passwd);
        sampler.sample(Wall(8));
        process(dir.path(), 7, "busy", 90_000, 1);
        process(dir.path(), 200, "new", 30_000, 1);
        // one that has no more files than its number ends just now
        std::fs::create_dir(dir.path().join("300")).expect("a folder");
        let top = sampler.sample(Wall(9));
        assert_eq!((top.total, top.processes.len(), top.at), (100, PROCESSES_MAX, Wall(9)));
        let first: Vec<(u32, &str)> = top.processes.iter().map(|p| (p.pid, &*p.command)).take(3).collect();
        assert_eq!(first, [(7, "/bin/busy -x"), (200, "/bin/new -x"), (99, "/bin/idle -x")]);
        assert_eq!(&*top.processes[0].user, "root");
        assert!(top.check().is_ok());
    }

    #[test]
    fn hundredths_are_of_one_cpu() {
        assert_eq!(hundredths(150, 100, 1.0), 150);
        assert_eq!(hundredths(10, 100, 0.2), 50);
        assert_eq!(hundredths(10, 100, 0.0), 0);
    }

    #[test]
    fn this_machine_has_this_process() {
        let mut sampler = Sampler::new("/proc", "/etc/passwd");
        let top = sampler.sample(Wall(1));
        assert!(top.total >= 1 && top.check().is_ok());
    }
}
