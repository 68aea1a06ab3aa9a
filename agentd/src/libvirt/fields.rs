//! A domain's statistics where the driver has no bulk call: asked one by one, and given under the names of the bulk call, so that
//! [`super::sample`] reads one form only.

use super::drivers::Driver;
use super::raw::{self, Field, Fields, Record};
use super::xml::{attribute, unescape};
use std::io::{Seek, SeekFrom};
use virt::{connect::Connect, domain::Domain, error::Error, sys};

/// A domain's disks and interfaces, from its live definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// Their names, and the machine's devices or files that they are, where they are any.
    disks: Vec<(String, Option<String>)>,
    nics: Vec<String>,
    /// Why the domain cannot be moved while it runs.
    pub fixed: Option<&'static str>,
}

/// All groups that xvm shows.
const GROUPS: u32 = sys::VIR_DOMAIN_STATS_STATE
    | sys::VIR_DOMAIN_STATS_CPU_TOTAL
    | sys::VIR_DOMAIN_STATS_BALLOON
    | sys::VIR_DOMAIN_STATS_VCPU
    | sys::VIR_DOMAIN_STATS_INTERFACE
    | sys::VIR_DOMAIN_STATS_BLOCK;

/// The statistics of all domains, or of one, by the bulk call.
pub fn bulk(conn: &Connect, one: Option<&Domain>) -> Result<Vec<Record>, Error> {
    raw::stats(conn, one, GROUPS)
}

/// All domains, or the one, without statistics; [`fill`] adds them.
pub fn bare(conn: &Connect, one: Option<&Domain>) -> Result<Vec<Record>, Error> {
    let list = match one {
        Some(domain) => vec![domain.clone()],
        None => conn.list_all_domains(0)?,
    };
    let mut out = Vec::with_capacity(list.len());
    for domain in list {
        // a domain that vanishes between two calls is left out
        if let (Ok(name), Ok(uuid)) = (domain.name(), domain.uuid()) {
            out.push(Record { name, uuid, domain, fields: Fields::new() });
        }
    }
    Ok(out)
}

/// Asks one by one for what the bulk call would give. What the driver lacks, or does not tell now, is left out; only the state must be
/// there.
pub fn fill(record: &mut Record, devices: &Devices, driver: &Driver) -> Result<(), Error> {
    let (domain, fields) = (&record.domain, &mut record.fields);
    let mut put = |name: String, n: u64| fields.insert(name, Field::Num(n));
    let (state, reason) = raw::state(domain)?;
    put("state.state".into(), u64::from(state));
    put("state.reason".into(), u64::from(reason));
    let info = domain.info()?;
    put("cpu.time".into(), info.cpu_time);
    put("vcpu.current".into(), u64::from(info.nr_virt_cpu));
    put("balloon.maximum".into(), info.max_mem);
    if matches!(state, sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED) {
        return Ok(());
    }
    put("balloon.current".into(), info.memory);
    if driver.waits && raw::job(domain, false).is_ok_and(|(kind, _)| kind != sys::VIR_DOMAIN_JOB_NONE) {
        return Ok(());
    }
    for stat in domain.memory_stats(0).unwrap_or_default() {
        if stat.tag == sys::VIR_DOMAIN_MEMORY_STAT_RSS {
            put("balloon.rss".into(), stat.val);
        }
    }
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    for (i, (name, source)) in devices.disks.iter().enumerate() {
        let Ok(stats) = domain.block_stats(name) else { continue };
        put(format!("block.{i}.rd.bytes"), count(stats.rd_bytes));
        put(format!("block.{i}.wr.bytes"), count(stats.wr_bytes));
        let told = driver.sizes.then(|| domain.block_info(name, 0).ok().map(|info| info.capacity)).flatten();
        if let Some(bytes) = told.or_else(|| size(source.as_deref()?)) {
            put(format!("block.{i}.capacity"), bytes);
        }
    }
    for (i, name) in devices.nics.iter().enumerate() {
        let Ok(stats) = domain.interface_stats(name) else { continue };
        put(format!("net.{i}.rx.bytes"), count(stats.rx_bytes));
        put(format!("net.{i}.tx.bytes"), count(stats.tx_bytes));
    }
    let named = |kind: &str, names: Vec<&String>| -> Vec<(String, Field)> {
        let row = |(i, n): (usize, &&String)| (format!("{kind}.{i}.name"), Field::Text((*n).clone()));
        let count = (format!("{kind}.count"), Field::Num(names.len() as u64));
        names.iter().enumerate().map(row).chain([count]).collect()
    };
    fields.extend(named("block", devices.disks.iter().map(|(name, _)| name).collect()));
    fields.extend(named("net", devices.nics.iter().collect()));
    Ok(())
}

/// The bytes of a block device or file of this machine.
fn size(path: &str) -> Option<u64> {
    std::fs::File::open(path).ok()?.seek(SeekFrom::End(0)).ok()
}

/// Reads a domain's definition as libvirt writes it.
pub fn devices(domain: &Domain, driver: &Driver) -> Result<Devices, Error> {
    let xml = domain.xml_desc(0)?;
    Ok(Devices { fixed: (driver.fixed)(&xml), ..parse(&xml) })
}

fn parse(xml: &str) -> Devices {
    let elements = |element: &str| -> Vec<String> {
        let (open, close) = (format!("<{element} "), format!("</{element}>"));
        xml.split(&open).skip(1).filter_map(|rest| Some(rest.split(&close).next()?.to_owned())).collect()
    };
    let of = |part: &str, element: &str, name: &str| {
        let tag = &part[part.find(&format!("<{element} "))?..];
        attribute(tag.split('>').next()?, name).map(unescape)
    };
    let disk = |part: &String| {
        let source = of(part, "source", "dev").or_else(|| of(part, "source", "file"));
        Some((of(part, "target", "dev")?, source))
    };
    Devices {
        disks: elements("disk").iter().filter_map(disk).collect(),
        nics: elements("interface").iter().filter_map(|part| of(part, "target", "dev")).collect(),
        fixed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_disks_and_interfaces_only() {
        let xml = "<domain type='xen'><devices>
          <disk type='block' device='disk'><source dev='/dev/x'/><target dev='xvda' bus='xen'/></disk>
          <disk type='network' device='disk'><target bus='virtio' dev='vdb'/></disk>
          <interface type='bridge'><source bridge='br0'/><target dev='vif1.0'/></interface>
          <interface type='bridge'><source bridge='br0'/></interface>
          <console type='pty'><target type='serial' port='0'/></console></devices></domain>";
        let disks = vec![("xvda".into(), Some("/dev/x".into())), ("vdb".into(), None)];
        let want = Devices { disks, nics: vec!["vif1.0".into()], fixed: None };
        assert_eq!(parse(xml), want);
        assert_eq!(parse(""), Devices::default());
    }
}
