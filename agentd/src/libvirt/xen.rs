//! What libvirt's Xen driver does not tell, from Xen's own tool, xl(1).

use super::state::migrating;
use super::{fault, raw, xml::attribute};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use virt::{domain::Domain, error::Error, sys};

/// How long xl may take.
const LIMIT: Duration = Duration::from_secs(5);
/// What it said of this host's Xen; it does not change while the host runs.
static CAPS: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Why a domain with this definition cannot be moved while it runs. A PV guest keeps its own page tables: Xen can follow what it writes
/// by shadows of them alone, for which Debian's Xen is not built. PVH and HVM guests have nested paging.
pub fn fixed(xml: &str) -> Option<&'static str> {
    let pv = element(xml, "<type ").and_then(|t| attribute(t, "machine")) == Some("xenpv");
    let shadows = || caps().is_none_or(|caps| caps.iter().any(|word| word == "shadow"));
    (pv && !shadows()).then_some(
        "it is a PV guest, and the Xen of this server has no shadow paging; a PVH guest (type pvh) could",
    )
}

fn element<'a>(xml: &'a str, open: &str) -> Option<&'a str> {
    Some(&xml[xml.find(open)?..])
}

/// What this host's Xen can do, in xl's words; none when xl does not tell.
fn caps() -> Option<Vec<String>> {
    let mut known = CAPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if known.is_none() {
        *known = xl(&["info"]).map(|text| read(&text));
    }
    known.clone()
}

fn read(info: &str) -> Vec<String> {
    let line = info.lines().find_map(|l| l.strip_prefix("virt_caps")?.trim_start().strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Whether Xen has a domain of that name, whatever libvirt says of it; what xl does not tell is taken for there.
pub fn has(name: &str) -> bool {
    xl(&["list"]).is_none_or(|list| lists(&list, name))
}

fn lists(list: &str, name: &str) -> bool {
    list.lines().skip(1).any(|line| line.split_whitespace().next() == Some(name))
}

/// libvirt goes on to list a domain of which Xen has forgotten the half that it had: the job that was to receive it is held for ever, so
/// that it can neither be destroyed nor started. A definition needs no job, and can be removed again.
pub fn forget(domain: &Domain) -> Result<(), Error> {
    let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?;
    domain.connect()?.define_domain_xml(&xml)?.undefine()
}

/// libvirt says of a domain that it stands when the other server would not take it, though Xen runs it; and it cannot let it go on, since
/// Xen refuses to. It is made to stand for a moment, so that libvirt can.
pub fn mend(domain: &Domain) {
    let believed = raw::state(domain).is_ok_and(|(s, r)| migrating(s, r));
    let busy = raw::job(domain, false).is_ok_and(|(kind, _)| kind != sys::VIR_DOMAIN_JOB_NONE);
    let Ok(name) = domain.name() else { return };
    if !believed || busy || name.starts_with('-') || xl(&["list", &name]).is_none_or(|text| stands(&text)) {
        return;
    }
    let done = match xl(&["pause", &name]) {
        Some(_) => domain.resume().map_err(|e| fault::line(&e)),
        None => Err("xl cannot pause it".to_owned()),
    };
    match done {
        Ok(_) => tracing::warn!(name, "libvirt took it for paused after its migration failed: put right"),
        Err(error) => tracing::warn!(
            name,
            error,
            "libvirt takes it for paused though Xen runs it: `xl pause`, then unpause it"
        ),
    }
}

/// Whether a domain in xl's list stands, or xl does not tell.
fn stands(list: &str) -> bool {
    let state = list.lines().nth(1).and_then(|line| line.split_whitespace().rev().nth(1));
    state.is_none_or(|word| word.contains('p') || !word.contains('-'))
}

/// A process of libxl that receives a domain: what it has read, and since when that has not changed.
static RECEIVERS: Mutex<BTreeMap<i32, (u64, Instant)>> = Mutex::new(BTreeMap::new());
/// After this silence the other end of a migration has gone.
const SILENT: Duration = Duration::from_secs(60);

/// Ends receivers that nothing has come to for a minute: the server that sent has lost power, say, which nobody tells libvirt's socket.
/// While one reads, its domain does not run here yet; ended, Xen forgets the half of it, and the domain is where it was.
pub fn sweep() {
    let mut known = RECEIVERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = Instant::now();
    let there: BTreeMap<i32, u64> = processes().filter_map(|pid| Some((pid, received(pid)?))).collect();
    known.retain(|pid, _| there.contains_key(pid));
    for (pid, bytes) in there {
        let (last, since) = known.entry(pid).or_insert((bytes, now));
        if *last != bytes {
            (*last, *since) = (bytes, now);
        } else if now.duration_since(*since) >= SILENT {
            tracing::warn!(
                pid,
                bytes,
                "nothing more comes of a domain that was to move here: it is given up"
            );
            end(pid);
            *since = now;
        }
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// The bytes that a process has read, when it is one of libxl's that receive a domain.
fn received(pid: i32) -> Option<u64> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|b| *b == 0);
    let name = words.next()?.rsplit(|b| *b == b'/').next()?;
    if name != b"libxl-save-helper" || words.next()? != b"--restore-domain" {
        return None;
    }
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|l| l.strip_prefix("rchar: ")?.parse().ok())
}

/// Ends a receiver, and nobody else who has got its number meanwhile.
fn end(pid: i32) {
    let handle = rustix::process::Pid::from_raw(pid)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    if let Some(handle) = handle.filter(|_| received(pid).is_some())
        && let Err(error) = rustix::process::pidfd_send_signal(handle, rustix::process::Signal::TERM)
    {
        tracing::warn!(pid, %error, "cannot end it");
    }
}

/// What xl prints; none when it does not end well, or in time.
fn xl(args: &[&str]) -> Option<String> {
    let mut command = Command::new("xl");
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let begin = Instant::now();
    // it prints less than a pipe holds
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(None) if begin.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                drop((child.kill(), child.wait()));
                return None;
            }
        }
    }
    let out = child.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xl_says_of_itself() {
        let said = "host                   : xen1\nvirt_caps              : pv hvm hap gnttab-v1 gnttab-v2\ntotal_memory : 1535\n";
        assert_eq!(read(said), ["pv", "hvm", "hap", "gnttab-v1", "gnttab-v2"]);
        assert!(read("").is_empty() && read("virt_caps").is_empty());
    }

    #[test]
    fn who_stands_in_the_list() {
        let list = |state: &str| {
            format!(
                "Name      ID   Mem VCPUs\tState\tTime(s)\nsmall 10    3    96     1     {state}       8.1\n"
            )
        };
        assert!(stands(&list("--p---")) && stands("") && stands("Name\n"));
        assert!(!stands(&list("-b----")) && !stands(&list("r-----")) && !stands(&list("------")));
    }

    #[test]
    fn who_is_in_the_list() {
        let list = "Name      ID   Mem VCPUs\tState\tTime(s)\nDomain-0  0   900     1     r-----     33.0\nsmall-12  1    51     0     --p---       0.0\n";
        assert!(lists(list, "Domain-0") && lists(list, "small-12"));
        assert!(!lists(list, "small-1") && !lists(list, "Name") && !lists("", "small-12"));
    }

    #[test]
    fn only_pv_guests_need_shadows() {
        *CAPS.lock().expect("no panic") = Some(vec!["pv".into(), "hap".into()]);
        let xml = |machine: &str| {
            format!(
                "<domain type='xen'><os>\n<type arch='x86_64' machine='{machine}'>linux</type></os></domain>"
            )
        };
        assert!(fixed(&xml("xenpv")).is_some_and(|why| why.contains("shadow paging")));
        for other in ["xenpvh", "xenfv", ""] {
            assert_eq!(fixed(&xml(other)), None, "{other}");
        }
        *CAPS.lock().expect("no panic") = Some(vec!["pv".into(), "shadow".into()]);
        assert_eq!(fixed(&xml("xenpv")), None);
        assert_eq!(fixed(""), None);
    }
}
