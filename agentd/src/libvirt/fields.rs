//! A domain's statistics where the driver has no bulk call: asked one by one, and given under the names of the bulk call, so that
//! [`super::sample`] reads one form only.

use super::raw::{self, Field, Fields, Record};
use super::xml::attribute;
use virt::{connect::Connect, domain::Domain, error::Error, sys};

/// The names of a domain's disks and interfaces, from its live definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    disks: Vec<String>,
    nics: Vec<String>,
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

/// Asks one by one for what the bulk call would give. What the driver lacks is left out; only the state must be there.
pub fn fill(record: &mut Record, devices: &Devices) -> Result<(), Error> {
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
    for stat in domain.memory_stats(0).unwrap_or_default() {
        if stat.tag == sys::VIR_DOMAIN_MEMORY_STAT_RSS {
            put("balloon.rss".into(), stat.val);
        }
    }
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    for (i, name) in devices.disks.iter().enumerate() {
        let Ok(stats) = domain.block_stats(name) else { continue };
        put(format!("block.{i}.rd.bytes"), count(stats.rd_bytes));
        put(format!("block.{i}.wr.bytes"), count(stats.wr_bytes));
        if let Ok(info) = domain.block_info(name, 0) {
            put(format!("block.{i}.capacity"), info.capacity);
        }
    }
    for (i, name) in devices.nics.iter().enumerate() {
        let Ok(stats) = domain.interface_stats(name) else { continue };
        put(format!("net.{i}.rx.bytes"), count(stats.rx_bytes));
        put(format!("net.{i}.tx.bytes"), count(stats.tx_bytes));
    }
    let named = |kind: &str, names: &[String]| -> Vec<(String, Field)> {
        let row = |(i, n): (usize, &String)| (format!("{kind}.{i}.name"), Field::Text(n.clone()));
        let count = (format!("{kind}.count"), Field::Num(names.len() as u64));
        names.iter().enumerate().map(row).chain([count]).collect()
    };
    fields.extend(named("block", &devices.disks));
    fields.extend(named("net", &devices.nics));
    Ok(())
}

/// Reads the names of disks and interfaces out of a domain's definition as libvirt writes it.
pub fn devices(domain: &Domain) -> Result<Devices, Error> {
    Ok(parse(&domain.xml_desc(0)?))
}

fn parse(xml: &str) -> Devices {
    let names = |element: &str| -> Vec<String> {
        let (open, close) = (format!("<{element} "), format!("</{element}>"));
        let parts = xml.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
        let target = |part: &str| {
            let tag = &part[part.find("<target ")?..];
            attribute(tag.split('>').next()?, "dev").map(str::to_owned)
        };
        parts.filter_map(target).collect()
    };
    Devices { disks: names("disk"), nics: names("interface") }
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
        let want = Devices { disks: vec!["xvda".into(), "vdb".into()], nics: vec!["vif1.0".into()] };
        assert_eq!(parse(xml), want);
        assert_eq!(parse(""), Devices::default());
    }
}
