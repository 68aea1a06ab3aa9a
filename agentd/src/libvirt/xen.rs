//! What libvirt's Xen driver does not tell or do, by Xen's own tool ([`xl`]) and processes ([`receivers`]).

mod receivers;
mod xl;

pub use receivers::sweep;

use super::state::migrating;
use super::{fault, raw, xml::attribute};
use crate::hypervisor::{HvError, HvResult};
use std::sync::Mutex;
use virt::{domain::Domain, error::Error, sys};

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
        *known = xl::read(&["info"]).map(|text| words(&text));
    }
    known.clone()
}

fn words(info: &str) -> Vec<String> {
    let line = info.lines().find_map(|l| l.strip_prefix("virt_caps")?.trim_start().strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Whether Xen has a domain of that name, whatever libvirt says of it; what xl does not tell is taken for there.
pub fn has(name: &str) -> bool {
    xl::read(&["list"]).is_none_or(|list| lists(&list, name))
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
    // a name of digits alone would be an id
    let (Ok(name), Some(id)) = (domain.name(), domain.id().map(|id| id.to_string())) else { return };
    if !believed || busy || xl::read(&["list", &id]).is_none_or(|text| stands(&text)) {
        return;
    }
    let done = match xl::read(&["pause", &id]) {
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
    column(list).is_none_or(|word| word.contains('p') || !word.contains('-'))
}

/// Asks a guest to power off, or to start anew: by its own driver, else by ACPI. libvirt would wait for the guest's word for a minute, and
/// answer no question for the domain meanwhile.
pub fn shutdown(domain: &Domain) -> HvResult<()> {
    // it may go off at this very moment; then it is shown as running for a little longer, and a refusal would be taken for its answer
    power("shutdown", domain).or_else(|why| if is_off(domain) { Ok(()) } else { Err(why) })
}

/// See [`shutdown`].
pub fn reboot(domain: &Domain) -> HvResult<()> {
    power("reboot", domain)
}

fn power(verb: &str, domain: &Domain) -> HvResult<()> {
    match domain.id() {
        Some(id) => xl::ask(&[verb, "-F", &id.to_string()]),
        None => Err(HvError::WrongState("it is off".into())),
    }
}

/// Whether it is off for libvirt or for Xen; what is not told is taken for off.
fn is_off(domain: &Domain) -> bool {
    let listed = || xl::read(&["list", &domain.id()?.to_string()]);
    !domain.is_active().unwrap_or(false) || listed().is_none_or(|list| ends(&list))
}

/// Whether a domain in xl's list has powered off, or is taken apart.
fn ends(list: &str) -> bool {
    column(list).is_none_or(|word| word.contains(['s', 'd']))
}

/// The state of the first domain in xl's list: a letter or `-` for each of running, blocked, paused, shut down, crashed, dying.
fn column(list: &str) -> Option<&str> {
    list.lines().nth(1)?.split_whitespace().rev().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xl_says_of_itself() {
        let said = "host                   : xen1\nvirt_caps              : pv hvm hap gnttab-v1 gnttab-v2\ntotal_memory : 1535\n";
        assert_eq!(words(said), ["pv", "hvm", "hap", "gnttab-v1", "gnttab-v2"]);
        assert!(words("").is_empty() && words("virt_caps").is_empty());
    }

    #[test]
    fn who_stands_or_ends_in_the_list() {
        let list = |state: &str| {
            format!(
                "Name      ID   Mem VCPUs\tState\tTime(s)\nsmall 10    3    96     1     {state}       8.1\n"
            )
        };
        assert!(stands(&list("--p---")) && stands("") && stands("Name\n"));
        assert!(!stands(&list("-b----")) && !stands(&list("r-----")) && !stands(&list("------")));
        assert!(ends(&list("---s--")) && ends(&list("-----d")) && ends("Name\n"));
        assert!(!ends(&list("-b----")) && !ends(&list("--p---")) && !ends(&list("------")));
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
