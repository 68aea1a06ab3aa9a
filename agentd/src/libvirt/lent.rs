//! The definition of a domain for the host that it moves to: its own, with the exports of the new lease in the place of the old one's,
//! in the disks and in what is kept with it.

use super::settings::{self, NAMESPACE};
use xvm_model::config::render::escape;
use xvm_model::{DomainSettings, Grant};

/// The definition `xml`, as libvirt writes it, with `new` in the place of the grant that it holds. An error says what does not fit; a
/// domain that would go on with the old exports must not move.
pub fn relet(xml: &str, new: &Grant) -> Result<String, String> {
    let (start, end) = own_element(xml).ok_or("it holds nothing of xvm")?;
    let kept = settings::parse(&xml[start..end]);
    let old = kept.grant.as_deref().ok_or("it holds no lease")?;
    if old.disks.len() != new.disks.len() {
        return Err(format!(
            "its lease is of {} volumes, the new one of {}",
            old.disks.len(),
            new.disks.len()
        ));
    }
    let settings = DomainSettings { grant: Some(Box::new(new.clone())), ..kept.clone() };
    let mut out = format!("{}{}{}", &xml[..start], settings::element(&settings), &xml[end..]);
    for (from, to) in old.disks.iter().zip(&new.disks) {
        out = source(&out, &from.export, &to.export, new)?;
    }
    Ok(out)
}

/// Where xvm's own element begins and ends.
fn own_element(xml: &str) -> Option<(usize, usize)> {
    let start = xml[..xml.find(NAMESPACE)?].rfind('<')?;
    // its values are escaped, so that this is its end
    let end = start + xml[start..].find('>')? + 1;
    xml[..end].ends_with("/>").then_some((start, end))
}

/// Replaces one export: by its name and place where QEMU opens it, by its path where the host has imported it.
fn source(xml: &str, from: &str, to: &str, new: &Grant) -> Result<String, String> {
    let wrong = || format!("not one of its disks, or more than one, uses the export {from}");
    let (opened, imported) = (format!("<source protocol='nbd' name='{from}'"), format!("/{from}'"));
    let once = |what: &str| (xml.matches(what).count() == 1).then(|| xml.find(what)).flatten();
    if let Some(at) = once(&opened) {
        let end = at + xml[at..].find("</source>").ok_or_else(wrong)?;
        let host = xml[at..end].find("<host ").map(|h| at + h).ok_or_else(wrong)?;
        let after = host + xml[host..end].find("/>").ok_or_else(wrong)? + 2;
        let tail = &xml[at + opened.len()..host];
        let (name, place) = (escape(to), escape(&new.host));
        return Ok(format!(
            "{}<source protocol='nbd' name='{name}'{tail}<host name='{place}' port='{}'/>{}",
            &xml[..at],
            new.port,
            &xml[after..]
        ));
    }
    let device = once(&imported).filter(|at| {
        let before = &xml[..*at];
        before.rfind("<source dev='").is_some_and(|s| !before[s + 13..].contains('\''))
    });
    let at = device.ok_or_else(wrong)?;
    Ok(format!("{}/{}'{}", &xml[..at], escape(to), &xml[at + imported.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xvm_model::spec::{GrantDisk, export_name};
    use xvm_model::{ConfigName, ServerName};

    fn grant(server: &str, epoch: u64, volumes: &[&str]) -> Grant {
        let config = ConfigName::parse("small-1").expect("valid");
        let server = ServerName::parse(server).expect("valid");
        let disks = volumes.iter().zip(["vda", "vdb"]).map(|(volume, target)| GrantDisk {
            target: target.into(),
            volume: (*volume).into(),
            export: export_name(&config, &server, epoch, volume),
            size: 9,
        });
        let disks = disks.collect();
        Grant { config, server, epoch, host: "10.0.0.9".into(), port: 10809, tls: false, disks }
    }

    fn xml(old: &Grant) -> String {
        let kept = settings::element(&DomainSettings {
            grant: Some(Box::new(old.clone())),
            ..DomainSettings::default()
        });
        let disk = |d: &GrantDisk| {
            format!(
                "<disk type='network' device='disk'>\n  <source protocol='nbd' name='{}' index='1'>\n    \
                 <host name='10.0.0.9' port='10809'/>\n    <reconnect delay='5'/>\n  </source>\n  \
                 <target dev='{}' bus='virtio'/>\n</disk>",
                d.export, d.target
            )
        };
        let disks: String = old.disks.iter().map(disk).collect();
        format!(
            "<domain type='qemu'><metadata><a:b xmlns:a='urn:x'/>{kept}</metadata><devices>{disks}</devices></domain>"
        )
    }

    #[test]
    fn every_export_is_another_one_and_nothing_else() {
        let (old, mut new) = (grant("ferby", 1, &["disk", "swap"]), grant("gerby", 12, &["disk", "swap"]));
        (new.host, new.port) = ("10.0.0.10".into(), 999);
        assert_eq!(
            relet(&xml(&old), &new).expect("fits"),
            xml(&new).replace("host name='10.0.0.9' port='10809'", "host name='10.0.0.10' port='999'")
        );
        // with TLS it stays with TLS
        let by_tls = |xml: String| xml.replace("' index=", "' tls='yes' index=");
        (new.tls, new.host, new.port) = (true, old.host.clone(), old.port);
        let old = Grant { tls: true, ..old };
        assert_eq!(relet(&by_tls(xml(&old)), &new).expect("fits"), by_tls(xml(&new)));
        // as libxml2 writes it
        let other = xml(&old).replace(" config=\"small-1\"", " config='small-1'");
        assert!(relet(&other, &new).expect("fits").contains("name='small-1.gerby.12.swap'"));
    }

    #[test]
    fn imported_devices_too() {
        let (old, new) = (grant("ferby", 1, &["disk"]), grant("gerby", 2, &["disk"]));
        let plain = |g: &Grant| {
            let kept = settings::element(&DomainSettings {
                grant: Some(Box::new(g.clone())),
                ..DomainSettings::default()
            });
            format!(
                "<domain><metadata>{kept}</metadata><disk><source dev='/run/xvm/imports/{}'/></disk></domain>",
                g.stem()
            )
        };
        assert_eq!(relet(&plain(&old), &new).expect("fits"), plain(&new));
    }

    #[test]
    fn what_does_not_fit_does_not_move() {
        let (old, new) = (grant("ferby", 1, &["disk"]), grant("gerby", 2, &["disk"]));
        let good = xml(&old);
        for (bad, why) in [
            (good.replace("name='small-1.ferby.1'", "name='small-1.ferby.9'"), "not one of its disks"),
            (
                good.replace("</devices>", "<source protocol='nbd' name='small-1.ferby.1'/></devices>"),
                "more than one",
            ),
            (good.replace(NAMESPACE, "urn:other"), "nothing of xvm"),
            (good.replace(" epoch=", " ep="), "holds no lease"),
        ] {
            let e = relet(&bad, &new).expect_err(why);
            assert!(e.contains(why), "{e}");
        }
        assert!(relet(&good, &grant("gerby", 2, &["disk", "swap"])).is_err());
    }
}
